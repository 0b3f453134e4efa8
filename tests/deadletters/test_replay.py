"""Replay: confirmed first, acked after; what no queue takes stays; nothing is lost."""

import asyncio
import os
import signal
import time
from collections import Counter
from pathlib import Path

import pytest

from amqflow import AmqFlow
from amqflow.abc import DeadReason
from amqflow.clock import to_datetime
from amqflow.deadletters import Filters, Target
from amqflow.errors import ChannelLost
from amqflow.protocol import Envelope, decode, headers
from tests.deadletters.conftest import Corner, parked
from tests.servers.command import Command
from tests.servers.wait import until

ROOT = Path(__file__).parents[2]


async def test_a_failed_task_runs_again_after_the_fix(corner):
    """The whole round: FAILURE in the store, a fix, a replay, SUCCESS under the same id."""
    broken = True

    @corner.app.task(name="t.flaky", autoretry_for=(ValueError,), max_retries=1, retry_backoff=0.01)
    def flaky(x):
        if broken:
            raise ValueError("not yet")
        return x * 2

    async with corner.bench.working():
        result = await flaky.adelay(21)
        with pytest.raises(ValueError, match="not yet"):
            await result.aget(timeout=30)
        await corner.holds("default.dead", 1)
        broken = False
        report = await (await corner.desk()).replay()
        assert (report.done, report.refused) == (1, 0)

        async def again():
            outcome = await corner.app.fetch_outcome(result.id)
            return outcome if outcome is not None and outcome.state == "SUCCESS" else None

        outcome = await until(again)
    assert outcome.result == 42
    assert outcome.epoch == 1
    assert await corner.bench.count("default.dead") == 0


async def test_a_task_that_fails_again_is_parked_again_in_a_later_epoch(corner):
    @corner.app.task(name="t.fail")
    def fail():
        raise ValueError("never")

    desk = await corner.desk()
    async with corner.bench.working():
        result = await fail.adelay()
        for epoch in range(3):
            await corner.holds("default.dead", 1)
            letter = await desk.find(result.id)
            assert letter.epoch == epoch
            assert letter.letter.attempts == 1
            assert (await desk.replay()).done == 1


async def test_a_letter_that_cannot_be_sent_is_refused_and_the_rest_replayed(corner):
    """Its queue's name is longer than AMQP takes: whoever wrote that header."""
    await corner.declare()
    broken = parked(1, **{headers.QUEUE: "q" * 300})
    await corner.publish("default.dead", broken, parked(2))
    report = await (await corner.desk()).replay()
    assert (report.done, report.refused) == (1, 1)
    assert "at most 255" in report.refusals[0].error
    await corner.holds("default.dead", 1)


async def test_a_replay_leaves_no_trace_of_the_death(corner):
    await corner.declare()
    death = [
        {
            "queue": "default",
            "reason": "rejected",
            "count": 1,
            "exchange": "in",
            "routing-keys": ["k"],
        }
    ]
    letter = parked(
        priority=3,
        CC=["default"],
        **{
            "x-death": death,
            "x-first-death-queue": "default",
            "eta": "2020-01-01T00:00:00+00:00",
            "mine": "stays",
        },
    )
    letter.expiration = None
    letter.priority = 4
    await corner.transport.publish(letter, "", "default.dead", timeout=10)
    await corner.holds("default.dead", 1)
    await corner.bench.count("default")
    await corner.transport.purge_queue("default")  # what CC took there
    assert (await (await corner.desk()).replay()).done == 1
    (again,) = await corner.bench.look("default", 1)
    message = decode(again)
    assert (message.retries, message.eta, message.epoch) == (0, None, 1)
    assert (again.body, again.priority, again.message_id) == (letter.body, 4, letter.message_id)
    gone = {name for name in again.headers if name.startswith(("x-", "amqflow-"))}
    assert gone <= {headers.EPOCH, headers.EXCHANGE, headers.ROUTING_KEY, "x-delivery-count"}
    assert "CC" not in again.headers
    assert again.headers["mine"] == "stays"
    assert again.headers[headers.ROUTING_KEY] == "default"


async def test_an_expiry_that_has_passed_goes_and_one_to_come_stays(corner):
    await corner.declare()
    soon = to_datetime(time.time() + 3600).isoformat()
    passed = to_datetime(time.time() - 1).isoformat()
    await corner.publish("default.dead", parked(expires=passed, reason=DeadReason.EXPIRED))
    await corner.publish("default.dead", parked(expires=soon))
    await (await corner.desk()).replay()
    first, second = await corner.bench.look("default", 2)
    assert "expires" not in first.headers
    assert second.headers["expires"] == soon


async def test_filters_limit_and_order(corner):
    await corner.declare()
    mine = await corner.park(6, task="mine")
    theirs = await corner.park(3, task="theirs")
    more = await corner.park(2, task="mine")
    desk = await corner.desk()
    assert (await desk.replay(Filters(tasks=("mine",)), limit=4)).done == 4
    assert await corner.ids("default") == mine[:4]
    assert await corner.ids("default.dead") == [*mine[4:], *theirs, *more]
    assert (await desk.replay(Filters(tasks=("mine",)))).done == 4
    assert await corner.ids("default.dead") == theirs


async def test_a_filter_that_leaves_thousands_lying_keeps_their_order(corner):
    await corner.declare()
    ids = [parked(number, task="odd" if number % 2 else "even") for number in range(3000)]
    await corner.publish("default.dead", *ids)
    report = await (await corner.desk()).replay(Filters(tasks=("odd",)))
    assert report.done == 1500
    kept = [one.headers["id"] for one in ids if one.headers["task"] == "even"]
    assert await corner.ids("default.dead") == kept
    assert await corner.bench.count("default") == 1500


async def test_another_queue_or_exchange_can_be_named(corner):
    await corner.declare()
    transport = corner.transport
    await transport.declare_queue("other")
    await transport.declare_exchange("news", "topic")
    await transport.bind_queue("other", "news", "a.*")
    await corner.park(1)
    desk = await corner.desk()
    assert (await desk.replay(to=Target("", "other"))).done == 1
    await corner.park(1)
    assert (await desk.replay(to=Target("news", "a.b"))).done == 1
    for one in await corner.bench.look("other", 2):
        assert headers.EXCHANGE not in one.headers
        assert one.headers[headers.EPOCH] == 1


# -- what cannot be sent -----------------------------------------------------------------------


async def test_what_no_queue_takes_stays_and_is_reported(corner):
    await corner.declare("default", "gone")
    ids = await corner.park(50, queue="gone")
    good = await corner.park(3)
    await corner.transport.delete_queue("gone")
    told = []
    report = await (await corner.desk()).replay(
        Filters(queues=("gone", "default")), on_refused=told.append
    )
    assert (report.done, report.refused) == (3, 50)
    assert {one.id for one in told} == set(ids)
    assert "'gone'" in report.refusals[0].error
    assert await corner.ids("gone.dead") == ids
    assert sorted(await corner.ids("default")) == sorted(good)


async def test_an_exchange_that_does_not_exist_is_reported(corner):
    await corner.declare()
    await corner.park(2)
    report = await (await corner.desk()).replay(to=Target("nowhere", "x"))
    assert (report.done, report.refused) == (0, 2)
    assert "'nowhere'" in report.refusals[0].error
    await corner.holds("default.dead", 2)


async def test_a_full_queue_refuses_and_nothing_is_lost(corner):
    await corner.declare()
    await corner.transport.declare_queue(
        "small", arguments={"x-max-length": 3, "x-overflow": "reject-publish"}
    )
    await corner.park(10)
    report = await (await corner.desk()).replay(to=Target("", "small"))
    assert report.done == await corner.bench.count("small")
    assert report.done + report.refused == 10
    await corner.holds("default.dead", report.refused)


async def test_a_message_without_an_id_is_not_lost_when_no_queue_takes_it(corner):
    """Returns are matched by message id: such a message gets one before it is sent."""
    await corner.transport.declare_queue("odd.dead")
    death = {
        "x-death": [
            {
                "queue": "vanished",
                "reason": "rejected",
                "exchange": "",
                "routing-keys": ["vanished"],
            }
        ]
    }
    await corner.publish("odd.dead", Envelope(b"a", dict(death)), Envelope(b"b", dict(death)))
    desk = await corner.desk()
    report = await desk.replay(Filters(homes=("odd.dead",)))
    assert (report.done, report.refused) == (0, 2)
    await corner.holds("odd.dead", 2)
    await corner.transport.declare_queue("vanished")
    assert (await desk.replay(Filters(homes=("odd.dead",)))).done == 2
    assert sorted(await corner.bodies("vanished")) == [b"a", b"b"]


async def test_a_message_that_tells_no_origin_needs_a_target(corner):
    await corner.transport.declare_queue("odd.dead")
    await corner.publish("odd.dead", Envelope(b"\xff", {}, content_type=None))
    desk = await corner.desk()
    report = await desk.replay(Filters(homes=("odd.dead",)))
    assert (report.done, report.refused) == (0, 1)
    assert "which queue" in report.refusals[0].error
    await corner.transport.declare_queue("here")
    assert (await desk.replay(Filters(homes=("odd.dead",)), to=Target("", "here"))).done == 1
    assert await corner.bodies("here") == [b"\xff"]


# -- at once, slowly, and cut off --------------------------------------------------------------


async def test_a_task_that_fails_at_once_again_is_not_chased(corner):
    runs = Counter()

    @corner.app.task(name="t.fail")
    def fail(number, pad):
        runs[number] += 1
        raise ValueError("always")

    async with corner.bench.working():
        await corner.park(200)
        report = await (await corner.desk()).replay()
        assert report.done == 200
        await corner.holds("default.dead", 200)
    assert set(runs.values()) == {1}


async def test_two_desks_at_once_lose_and_double_nothing(corner, amqp_url, redis_url):
    await corner.declare()
    ids = await corner.park(2000)
    other = AmqFlow("spine", broker=amqp_url, backend=redis_url)
    second = Corner(type(corner.bench)(other))
    desks = [await corner.desk(), await second.desk()]
    looks = [desk.groups() for desk in desks]
    reports = [desk.replay() for desk in desks]
    await asyncio.gather(*looks, *reports)
    await (await corner.desk()).replay()  # what the looks held meanwhile
    await other.aclose()
    await corner.holds("default", 2000)
    assert sorted(await corner.ids("default")) == sorted(ids)
    assert await corner.bench.count("default.dead") == 0


async def test_a_rate_is_kept(corner):
    await corner.declare()
    await corner.park(30)
    start = time.monotonic()
    report = await (await corner.desk()).replay(rate=50.0)
    took = time.monotonic() - start
    assert report.done == 30
    assert took >= 30 / 50 - 0.15  # a tenth of a second may be made up for


async def test_a_slow_replay_gives_back_what_it_holds_from_time_to_time(corner, monkeypatch):
    """Or the broker would, by closing the channel after its consumer_timeout."""
    monkeypatch.setattr("amqflow.deadletters.desk.ROUND", 0.2)
    await corner.declare("default")
    kept = await corner.park(5, task="other")
    mine = await corner.park(30)
    lost = await corner.park(1, queue="default", **{headers.QUEUE: "nowhere"})
    report = await (await corner.desk()).replay(Filters(tasks=("t.fail",)), rate=40.0)
    assert (report.done, report.refused) == (30, 1)
    assert await corner.ids("default") == mine
    assert await corner.ids("default.dead") == kept + lost


async def test_a_connection_lost_meanwhile_loses_nothing(corner, rabbitmq, vhost):
    await corner.declare()
    ids = await corner.park(3000)
    desk = await corner.desk()
    done = 0

    def cut():
        nonlocal done
        done += 1
        if done == 500:
            cutting.set()

    cutting = asyncio.Event()

    async def cut_off():
        await cutting.wait()

        async def cut_consumers():
            found = await asyncio.to_thread(_connections, rabbitmq, vhost, "(consume)")
            for name in found:
                await asyncio.to_thread(_close, rabbitmq, name)
            return found

        await until(cut_consumers, deadline=60)

    cutter = asyncio.create_task(cut_off())
    with pytest.raises(ChannelLost, match="run it again"):
        await desk.replay(on_done=cut, rate=400.0)
    await cutter

    async def all_replayed():
        await desk.replay()  # what the lost connection held may not be back at the first time
        return await _both(corner, 3000)

    await until(all_replayed, deadline=60)
    found = Counter(await corner.ids("default"))
    assert set(found) == set(ids)


async def _both(corner, least):
    return (
        await corner.bench.count("default") >= least
        and await corner.bench.count("default.dead") == 0
    )


def _connections(rabbitmq, vhost, kind):
    found = rabbitmq.management("GET", f"/api/vhosts/{vhost}/connections")
    return [
        one["name"]
        for one in found
        if kind in one.get("client_properties", {}).get("connection_name", "")
    ]


def _close(rabbitmq, name):
    from urllib.parse import quote

    rabbitmq.management("DELETE", f"/api/connections/{quote(name, safe='')}")


APP = 'from amqflow import AmqFlow\napp = AmqFlow("spine")\n'


@pytest.mark.faults
@pytest.mark.parametrize(
    ("count", "killed"), [(1000, 2), pytest.param(10_000, 20, marks=pytest.mark.faults_long)]
)
async def test_a_replay_killed_in_the_middle_loses_nothing(
    corner, amqp_url, tmp_path, count, killed
):
    await corner.declare()
    ids = await corner.park(count)
    (tmp_path / "killed_app.py").write_text(APP)
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "AMQFLOW_BROKER": amqp_url}
    lives, dead, kills = set(), set(ids), 0
    while dead:
        before = await corner.bench.count("default")
        process = Command(
            *("-m", "amqflow", "-A", "killed_app", "dlq", "replay"), cwd=tmp_path, env=environment
        )

        async def some(before=before, process=process):
            return process.poll() is not None or await corner.bench.count("default") > before + 100

        await until(some, deadline=60, every=0.005)
        if kills < killed and process.poll() is None:
            process.kill()
            kills += 1
        assert await asyncio.to_thread(process.wait, 60) in {0, -signal.SIGKILL}
        lives, dead = await _taken_back(corner, set(ids))
    assert kills
    assert {epoch for _, epoch in lives} == {1}  # a duplicate is the same life twice


async def _taken_back(corner, ids):
    """Wait until the broker has taken back what a dead process held; return who lies where."""
    lives, dead = set(), set()

    async def all_there():
        nonlocal lives, dead
        lives, dead = await _lying(corner, "default"), await _lying(corner, "default.dead")
        lives = {(one["id"], one[headers.EPOCH]) for one in lives}
        dead = {one["id"] for one in dead}
        return {task_id for task_id, _ in lives} | dead == ids

    await until(all_there, deadline=60)
    return lives, dead


async def _lying(corner, queue):
    """Return the headers of what lies in a queue, and wait until it lies there again."""
    count = await corner.bench.count(queue)
    found = await corner.bench.look(queue, count) if count else []

    async def back():
        return await corner.bench.count(queue) >= count

    await until(back, deadline=60)
    return [one.headers for one in found]


# -- purge -------------------------------------------------------------------------------------


async def test_a_purge_deletes_what_is_meant_and_nothing_else(corner):
    await corner.declare()
    kept = await corner.park(300, task="keep")
    await corner.park(300, task="drop")
    more = await corner.park(1, task="keep")
    report = await (await corner.desk()).purge(Filters(tasks=("drop",)))
    assert report.done == 300
    assert await corner.ids("default.dead") == kept + more


async def test_a_purge_spares_what_died_after_it_was_counted(corner):
    await corner.declare()
    await corner.park(10)
    desk = await corner.desk()
    counted = {tally.home: tally.total for tally in await desk.tally()}
    late = await corner.park(4)
    assert (await desk.purge(within=counted)).done == 10
    assert await corner.ids("default.dead") == late
