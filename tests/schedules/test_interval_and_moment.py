"""Intervals, single moments, and schedules as data."""

from datetime import UTC, date, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from amqflow.errors import ScheduleError
from amqflow.schedules import (
    Schedule,
    clocked,
    crontab,
    from_form,
    schedule,
    slots_until,
    to_form,
    zone_named,
)

NOON = datetime(2026, 5, 5, 12, tzinfo=UTC).timestamp()


def test_an_interval_counts_from_the_entry_s_start():
    known = schedule(30)
    assert list(slots_until(known, NOON + 7, NOON + 100, start=NOON + 7)) == [
        *(NOON + 37, NOON + 67, NOON + 97),
    ]
    assert known.next_after(NOON - 1000, start=NOON + 7) == NOON + 37


def test_a_relative_interval_counts_from_the_epoch():
    known = schedule(timedelta(minutes=10), relative=True)
    assert known.next_after(NOON + 1, start=NOON + 1) == NOON + 600
    assert known.next_after(NOON + 599.999, start=5) == NOON + 600


def test_an_anchored_interval_goes_both_ways_from_its_anchor():
    known = schedule(3600, anchor=datetime.fromisoformat("2026-05-05T14:30:00"))
    assert known.next_after(NOON) == NOON + 1800


@given(
    st.integers(100, 10_000_000),
    st.integers(0, 2_000_000_000_000),
    st.floats(1, 2_000_000_000, allow_nan=False),
)
def test_the_next_slot_is_later_within_one_interval_and_in_whole_milliseconds(every, base, instant):
    known = schedule(every / 1000, anchor=base / 1000)
    slot = known.next_after(instant)
    assert instant < slot <= instant + every / 1000 + 0.001
    assert (round(slot * 1000) - base) % every == 0
    assert known.latest(instant, slot) == slot


@given(st.integers(100, 100_000), st.floats(1, 1e6), st.floats(0, 1e5))
def test_the_latest_slot_of_an_interval_is_the_last_of_all(every, after, length):
    known = schedule(every / 1000)
    found = None
    for count, slot in enumerate(slots_until(known, after, after + length, start=3)):
        found = slot
        if count > 2000:
            return
    assert known.latest(after, after + length, start=3) == found


@pytest.mark.parametrize("every", [0, -1, 0.01, float("nan"), float("inf"), "5", None, True, 1e11])
def test_an_impossible_interval_is_refused(every):
    with pytest.raises(ScheduleError):
        schedule(every)


def test_relative_and_an_anchor_contradict_each_other():
    with pytest.raises(ScheduleError, match="not both"):
        schedule(5, relative=True, anchor=0)


def test_a_moment_is_due_once():
    known = clocked("2026-05-05T12:00:00+00:00")
    assert known.next_after(NOON - 1) == NOON
    assert known.next_after(NOON) is None
    assert known.latest(NOON - 1, NOON) == NOON
    assert known.latest(NOON, NOON + 1) is None


def test_a_naive_moment_is_read_in_the_entry_s_zone():
    known = clocked(datetime.fromisoformat("2026-05-05T20:00:00")).in_zone(
        zone_named("Asia/Shanghai")
    )
    assert known.instant == NOON
    skipped = clocked("2026-03-29T02:30:00").in_zone(zone_named("Europe/Berlin"))
    assert skipped.moment.isoformat() == "2026-03-29T03:00:00+02:00"


@pytest.mark.parametrize("moment", ["soon", 5, None])
def test_what_is_no_moment_is_refused(moment):
    with pytest.raises(ScheduleError):
        clocked(moment)


@pytest.mark.parametrize(
    ("form", "meant"),
    [
        ({"crontab": "0 2 * * *"}, crontab(hour=2, minute=0)),
        ({"crontab": "0 2 * * *", "timezone": "Asia/Tokyo"}, crontab(0, 2, timezone="Asia/Tokyo")),
        ({"crontab": {"minute": 30, "day_of_week": "mon"}}, crontab(30, day_of_week=1)),
        ({"every": 30}, schedule(30)),
        ({"every": "5m"}, schedule(300)),
        ({"every": "1h", "anchor": "2026-01-01T00:30:00"}, schedule(3600, anchor=1767227400)),
        ({"every": 60, "anchor": 0.0}, schedule(60, relative=True)),
        ({"at": "2026-05-05T12:00:00"}, clocked("2026-05-05T12:00:00")),
        ({"at": date(2026, 5, 5)}, clocked("2026-05-05T00:00:00")),
    ],
)
def test_a_schedule_is_read_from_data_and_comes_back_from_it(form, meant):
    found = from_form(form)
    assert found == meant
    assert from_form(to_form(found)) == found
    assert isinstance(found, Schedule)


@pytest.mark.parametrize(
    ("form", "said"),
    [
        ({}, "give one of crontab, every, at; here is none of them"),
        ({"every": 5, "at": "2026-01-01"}, "here is every and at"),
        ({"every": "5 parsecs"}, "write seconds"),
        ({"every": [5]}, "write seconds"),
        ({"crontab": 5}, "a crontab is a text"),
        ({"crontab": {"minutes": 5}}, "no field 'minutes'"),
        ({"crontab": "* * * * *", "anchor": 0}, "an anchor belongs to every"),
        ({"every": 5, "anchor": [1]}, "write a moment"),
        ({"at": 17}, "write a moment"),
        ({"every": 5, "timezone": 3}, "timezone is the name of a zone"),
    ],
)
def test_data_that_is_no_schedule_is_refused(form, said):
    with pytest.raises(ScheduleError, match=said):
        from_form(form)


def test_an_unknown_kind_of_schedule_is_not_kept():
    with pytest.raises(ScheduleError, match="cannot be kept"):
        to_form(object())


@pytest.mark.parametrize(
    ("known", "said"),
    [
        (schedule(90), "every 90 s"),
        (schedule(300), "every 5 min"),
        (schedule(7200), "every 2 h"),
        (schedule(0.5), "every 0.5 s"),
        (schedule(86400, anchor=NOON), "every 1 d from 2026-05-05T12:00:00Z"),
        (clocked("2026-05-05T12:00:00+00:00"), "once at 2026-05-05T12:00:00+00:00"),
    ],
)
def test_they_say_in_words_when_they_are_due(known, said):
    assert str(known) == said
