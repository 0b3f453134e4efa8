"""Which slots run, which are given up: catch_up, max_lateness, jitter, overlap."""

import pytest

from amqflow.scheduler.due import GRACE, MOST, due, fires_at
from amqflow.scheduler.entry import Entry
from amqflow.schedules import zone_named

T0 = 1_800_000_000
UTC = zone_named("UTC")


def entry(**given):
    if not given.keys() & {"every", "crontab", "at"}:
        given["every"] = 1
    return Entry.read("e", {"task": "t", **given}, UTC, "here")


def decide(known, since, now, start=T0):
    """Decide with the cursor `since` seconds after T0, `now` seconds after it."""
    found = due(known, (T0 + since) * 1000, start * 1000, T0 + now)
    if found is None:
        return None
    gap = found.missed
    return (
        [slot / 1000 - T0 for slot in found.run],
        None if gap is None else (gap.first / 1000 - T0, gap.last / 1000 - T0, gap.count, gap.why),
        found.cursor / 1000 - T0,
    )


def test_nothing_is_due_before_its_instant():
    assert decide(entry(), 0, 0.999) is None
    assert decide(entry(), 0, 1) == ([1], None, 1)


@pytest.mark.parametrize("catch_up", ["none", "last", "all"])
def test_in_normal_operation_every_slot_runs_whatever_catch_up_says(catch_up):
    known = entry(catch_up=catch_up)
    assert decide(known, 10, 10 + GRACE) == ([11, 12, 13, 14, 15], None, 15)


def test_none_gives_up_what_passed_and_goes_on():
    run, missed, cursor = decide(entry(catch_up="none"), 0, 20)
    assert (run, cursor) == ([15, 16, 17, 18, 19, 20], 20)
    assert missed == (1, 14, 14, "passed while no scheduler could run it (catch_up: none)")


def test_last_runs_the_last_one_that_passed_where_none_is_fresh():
    daily = entry(every="1d", catch_up="last")
    day = 86400
    run, missed, cursor = decide(daily, 0, 3 * day + 7200)
    assert (run, cursor) == ([3 * day], 3 * day)
    assert missed == (day, 2 * day, 2, "a later slot runs in its place (catch_up: last)")


def test_last_does_not_run_an_old_one_beside_fresh_ones():
    run, missed, _ = decide(entry(every=3, catch_up="last"), 0, 20)
    assert run == [15, 18]
    assert missed[:3] == (3, 12, 4)


def test_all_runs_every_slot_that_passed():
    run, missed, _ = decide(entry(every=60, catch_up="all"), 0, 600)
    assert run == [60 * number for number in range(1, 11)]
    assert missed is None


def test_what_is_later_than_max_lateness_is_missed_and_says_so():
    run, missed, cursor = decide(entry(every=60, catch_up="all", max_lateness=150), 0, 600)
    assert (run, cursor) == ([480, 540, 600], 600)
    assert missed == (60, 420, 7, "later than max_lateness (150 s)")
    assert decide(entry(every=60, catch_up="last", max_lateness=10), 0, 75)[0] == []
    assert decide(entry(max_lateness=2, catch_up="all"), 0, 5)[0] == [3, 4, 5]
    assert decide(entry(max_lateness=0, catch_up="all"), 0, 5)[0] == [5]


def walk(known, now, since=0):
    """Decide until nothing is due; return what ran and how many steps it took."""
    ran, steps = [], 0
    while (found := decide(known, since, now)) is not None:
        run, _, cursor = found
        assert cursor > since
        ran, since, steps = ran + run, cursor, steps + 1
        assert steps < 100
    return ran, since, steps


@pytest.mark.parametrize("catch_up", ["none", "last"])
def test_a_long_absence_takes_a_few_steps(catch_up):
    year = 366 * 86400
    ran, since, steps = walk(entry(catch_up=catch_up), year)
    assert (ran, since) == ([year - n for n in range(int(GRACE), -1, -1)], year)
    assert steps <= 3


def test_last_after_a_long_absence_runs_one():
    year = 366 * 86400
    ran, _, steps = walk(entry(crontab="*/7 * * * *", catch_up="last"), year + 100)
    assert len(ran) == 1
    assert year + 100 - ran[0] < 420
    assert steps == 1


def test_all_after_a_long_absence_comes_in_parts_and_respects_max_lateness():
    ran, since, steps = walk(entry(catch_up="all"), 5 * MOST - 3)
    assert ran == list(range(1, 5 * MOST - 2))
    assert steps == 5
    day = 86400
    ran, since, steps = walk(entry(catch_up="all", max_lateness=10), day)
    assert ran == list(range(day - 10, day + 1))
    assert since == day
    assert steps <= 3


def test_jitter_delays_each_slot_by_its_own_share_and_keeps_the_order():
    known = entry(every=10, jitter=4)
    fires = [fires_at(known, (T0 + 10 * n) * 1000) - T0 - 10 * n for n in range(1, 200)]
    assert all(0 <= delay < 4 for delay in fires)
    assert max(fires) - min(fires) > 3
    assert fires == [fires_at(known, (T0 + 10 * n) * 1000) - T0 - 10 * n for n in range(1, 200)]
    first = 10 + fires[0]
    assert decide(known, 0, first - 0.01) is None
    assert decide(known, 0, first + 0.01)[0] == [10]


def test_a_slot_never_overtakes_an_earlier_one_that_jitter_holds_back():
    known = entry(every=0.1, jitter=5)
    since, seen = 0, []
    for tenth in range(200):
        found = decide(known, since, tenth / 10)
        if found is not None:
            run, _, since = found
            assert all(
                fires_at(known, round((T0 + slot) * 1000)) <= T0 + tenth / 10 for slot in run
            )
            seen += run
    assert seen == sorted(seen)


def test_queue_hands_out_one_slot_at_a_time():
    known = entry(overlap="queue", catch_up="all")
    assert decide(known, 0, 3) == ([1], None, 1)
    run, missed, cursor = decide(entry(overlap="queue"), 0, 3)
    assert (run, cursor) == ([3], 3)
    assert missed[:3] == (1, 2, 2)


def test_an_interval_counts_from_its_start():
    assert decide(entry(every=10), 0, 9, start=T0 - 5) == ([5], None, 5)


def test_a_single_moment_is_due_once():
    known = entry(at="2027-01-15T08:00:10+00:00")
    assert known.schedule.instant == T0 + 10
    assert decide(known, 0, 12) == ([10], None, 10)
    assert decide(known, 10, 12) is None
