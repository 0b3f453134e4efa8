"""The scheduler on a real broker and store: each slot once, whoever dies."""

import asyncio
import time
from datetime import datetime

import pytest

from amqflow import AmqFlow, signals
from amqflow.abc import SUCCESS
from amqflow.errors import ScheduleError
from amqflow.middleware import Middleware
from amqflow.scheduler import Scheduler, task_id_of
from amqflow.scheduler.memory import MemoryScheduleStore
from amqflow.scheduler.scheduler import LEASE, PULSE
from amqflow.scheduler.words import OVERDUE, Adoption, Claim, What
from tests.applications import Bench
from tests.scheduler.conftest import SetClock
from tests.servers.wait import until

#: Seconds a machine that does much else may add.
LOADED = 7
EVERY = {"task": "tick", "schedule": 0.5, "relative": True}


def working(stage, slots=10):
    return Bench(stage.app).working(slots=slots)


def ms(instant):
    return round(instant * 1000)


async def test_two_schedulers_run_each_slot_once(stage):
    names = [f"e{number}" for number in range(20)]
    stage.app.conf.beat_schedule = dict.fromkeys(names, EVERY)
    async with working(stage), stage.scheduling(name="a"), stage.scheduling(name="b"):

        async def three_each():
            return all([len(await stage.ran(name)) >= 3 for name in names])

        await until(three_each, deadline=40)
    slots = {(name, slot) for name in names for slot in await stage.ran(name)}
    await until(lambda: len(stage.runs) >= 60)
    assert set(stage.runs.values()) == {1}
    for name in names:
        ran = await stage.ran(name)
        assert ran == list(range(ran[0], ran[-1] + 1, 500)), "no slot is left out"
        assert await stage.history(name, What.MISSED) == []
    assert len(slots) == len({slot for _, slot in slots}) * len(names)


async def test_a_slot_s_task_has_its_id_and_says_where_it_comes_from(stage):
    stage.app.conf.beat_schedule = {
        "one": {**EVERY, "options": {"priority": 3, "headers": {"mine": 1}}, "expires": 100}
    }
    seen = []
    signals.beat_published.connect(lambda **named: seen.append(named), weak=False)
    bench = Bench(stage.app)
    async with bench.working():
        pass  # declares the queue
    async with stage.scheduling():
        await until(lambda: seen, deadline=60)
    (envelope, *_) = await bench.look("default", 1)
    slot = seen[0]["slot"]
    assert seen[0]["sender"] == "one"
    assert seen[0]["task_id"] == envelope.headers["id"] == task_id_of("beats", "one", ms(slot))
    assert 0 <= seen[0]["lateness"] < 30
    headers = envelope.headers
    assert (headers["amqflow-once"], headers["amqflow-schedule"], headers["mine"]) == (
        *(True, "one", 1),
    )
    assert headers["amqflow-slot"].startswith(time.strftime("%Y-%m-%dT%H:", time.gmtime(slot)))
    # From its slot on, though it was made before.
    assert datetime.fromisoformat(headers["expires"]).timestamp() >= slot + 100
    assert envelope.priority == 3


async def test_what_a_dead_scheduler_has_claimed_is_taken_over_within_three_seconds(stage):
    stage.app.conf.beat_schedule = {"e": {"task": "tick", "schedule": 3600}}
    now = ms(time.time())
    async with working(stage), stage.scheduling():
        (standing,) = await stage.store.standings(["e"])
        slot = now + 5
        claim = Claim("e", standing.cursor, standing.cursor + 5, (slot,), "id")
        (answer,) = await stage.store.claim([claim], "dead", 2000)
        assert answer.won
        died = time.monotonic()
        await until(lambda: stage.runs, deadline=60)
        took = time.monotonic() - died
    assert await stage.ran("e") == [slot]
    # 2.0 to 2.8 s on a machine with seven times the work it has cores for.
    assert LEASE / 1000 + PULSE == 2.5
    assert took < 3 + LOADED


async def test_slots_of_entries_that_only_others_know_are_left_to_them(stage):
    stage.app.conf.beat_schedule = {"known": {"task": "tick", "schedule": 3600}}
    await stage.store.adopt([Adoption("unknown", "f")], 1000)
    await stage.store.claim([Claim("unknown", 1000, 2000, (2000,), "id")], "dead", 1)
    async with stage.scheduling():
        await until(lambda: stage.store.beat("x", 1), deadline=30)
        await asyncio.sleep(1)
    assert [lease.name for lease in (await stage.store.beat("x", 1)).overdue] == ["unknown"]


async def test_leases_that_only_others_know_do_not_stand_before_ours(stage):
    stage.app.conf.beat_schedule = {"known": {"task": "tick", "schedule": 3600}}
    await stage.store.adopt([Adoption("unknown", "f")], 1000)
    slots = tuple(range(2000, 2000 + 2 * OVERDUE))
    await stage.store.claim([Claim("unknown", 1000, slots[-1], slots, "id")], "dead", 1)
    async with working(stage), stage.scheduling():
        (standing,) = await stage.store.standings(["known"])
        slot = standing.cursor + 1
        await stage.store.claim([Claim("known", standing.cursor, slot, (slot,), "id")], "dead", 1)
        await until(lambda: stage.runs, deadline=20)
    assert await stage.ran("known") == [slot]


class Failing:
    """A schedule of the user's own making: every half second, until it fails."""

    def __init__(self, slots, failure):
        self.slots, self.failure, self.asked = slots, failure, 0

    def next_after(self, instant, *, start=0.0):
        self.asked += 1
        if self.asked > self.slots:
            return self.failure(instant)
        return instant + 0.5

    def latest(self, after, until, *, start=0.0):
        raise ZeroDivisionError

    def in_zone(self, zone):
        return self


async def test_a_schedule_that_fails_stops_its_own_entry_and_no_other(stage, caplog):
    def raises(instant):
        raise ZeroDivisionError("mine")

    stage.app.conf.beat_schedule = {
        "at once": {"task": "tick", "schedule": Failing(0, raises)},
        "later": {"task": "tick", "schedule": Failing(8, raises)},
        "backwards": {"task": "tick", "schedule": Failing(8, lambda instant: instant - 1)},
        "no number": {"task": "tick", "schedule": Failing(8, str)},
        "good": EVERY,
    }
    async with working(stage), stage.scheduling():

        async def told_and_going_on():
            return caplog.text.count("an entry's schedule failed") >= 4 and await stage.ran("good")

        await until(told_and_going_on, deadline=40, message=caplog.text[-2000:])
        count = len(await stage.ran("good"))

        async def still():
            return len(await stage.ran("good")) > count

        await until(still, deadline=20)
    for name in ("at once", "later", "backwards", "no number"):
        assert f"entry='{name}'" in caplog.text or f"entry={name}" in caplog.text
    assert "ZeroDivisionError: mine" in caplog.text
    assert "which is not after it" in caplog.text


async def test_a_schedule_that_failed_is_asked_again(stage, monkeypatch):
    monkeypatch.setattr("amqflow.scheduler.scheduler.ASK_AGAIN", 0.3)

    def failing_twice(instant):
        if schedule.asked <= 2:
            raise ZeroDivisionError
        return instant + 0.5

    schedule = Failing(0, failing_twice)
    stage.app.conf.beat_schedule = {"e": {"task": "tick", "schedule": schedule}}
    async with working(stage), stage.scheduling():
        await until(lambda: stage.runs, deadline=20)


async def test_a_scheduler_that_stops_leaves_nothing_behind(stage):
    stage.app.conf.beat_schedule = {f"e{n}": EVERY for n in range(50)}
    async with working(stage):
        async with stage.scheduling():
            await until(lambda: stage.runs, deadline=60)
        assert (await stage.store.beat("x", 1)).overdue == ()
        counts = [len(await stage.ran(f"e{n}")) for n in range(50)]
        await until(lambda: sum(stage.runs.values()) == sum(counts), deadline=60)


async def test_a_restart_goes_on_where_the_last_scheduler_stopped(stage):
    stage.app.conf.beat_schedule = {"e": {**EVERY, "catch_up": "all"}}
    async with working(stage):
        async with stage.scheduling():
            await until(lambda: stage.runs, deadline=60)
        before = await stage.ran("e")
        await asyncio.sleep(1.2)
        async with stage.scheduling():

            async def goes_on():
                return len(await stage.ran("e")) >= len(before) + 4

            await until(goes_on, deadline=60)
    ran = await stage.ran("e")
    assert ran == list(range(ran[0], ran[-1] + 1, 500))


async def test_entries_added_paused_resumed_and_removed_at_run_time_are_served(stage):
    async with working(stage), stage.scheduling():
        await stage.store.add("late", {"task": "tick", "every": 0.3}, replace=False)
        await until(lambda: stage.runs, deadline=60)
        await stage.store.pause("late", ms(time.time()))
        (paused,) = await stage.store.standings(["late"])
        await asyncio.sleep(1)
        (still,) = await stage.store.standings(["late"])
        assert still.cursor == paused.cursor
        resumed = ms(time.time())
        await stage.store.resume("late", resumed)

        async def runs_again():
            return [slot for slot in await stage.ran("late") if slot > resumed]

        await until(runs_again, deadline=60)
        ran = await stage.ran("late")
        assert not [slot for slot in ran if still.cursor < slot <= resumed]
        assert await stage.history("late", What.MISSED) == []
        await stage.store.remove("late")
        version = (await stage.store.beat("x", 1)).version
        assert version
        await asyncio.sleep(1.2)
        assert await stage.store.standings(["late"]) == [None]


async def test_an_entry_of_the_store_that_cannot_be_read_keeps_no_other_from_running(stage):
    await stage.store.add("broken", {"task": "tick", "every": "sometimes"}, replace=False)
    await stage.store.add("whole", {"task": "tick", "every": 0.3}, replace=False)
    async with working(stage), stage.scheduling() as scheduler:
        await until(lambda: stage.runs, deadline=60)
        assert set(scheduler.entries) == {"whole"}


async def test_a_store_that_is_emptied_is_filled_again(stage):
    stage.app.conf.beat_schedule = {"e": EVERY}
    async with working(stage), stage.scheduling():
        await until(lambda: stage.runs, deadline=60)
        await stage.store._client.command("FLUSHDB")
        count = len(stage.runs)
        await until(lambda: len(stage.runs) > count + 1, deadline=60)


async def test_skip_leaves_out_slots_while_the_run_before_goes_on(stage):
    stage.app.conf.beat_schedule = {"e": {**EVERY, "args": (1.3,), "overlap": "skip"}}
    async with working(stage), stage.scheduling():

        async def twice():
            return len(await stage.ran("e")) >= 2 and await stage.history("e", What.SKIPPED)

        await until(twice, deadline=30)
    first, second, *_ = await stage.ran("e")
    assert second - first >= 1300
    (skipped, *_) = await stage.history("e", What.SKIPPED)
    assert skipped.why == "the run before it has not ended"


async def test_queue_runs_one_after_the_other(stage):
    stage.app.conf.beat_schedule = {
        "e": {**EVERY, "args": (0.8,), "overlap": "queue", "catch_up": "all"}
    }
    running, most = [], []

    @stage.app.task(bind=True, name="slow")
    async def slow(self):
        running.append(self.request.id)
        most.append(len(running))
        await asyncio.sleep(0.8)
        running.remove(self.request.id)

    stage.app.conf.beat_schedule = {
        "e": {**EVERY, "task": "slow", "overlap": "queue", "catch_up": "all"}
    }
    async with working(stage), stage.scheduling(name="a"), stage.scheduling(name="b"):
        await until(lambda: len(most) >= 4, deadline=40)
    ran = await stage.ran("e")
    assert ran == list(range(ran[0], ran[-1] + 1, 500)), "each waits its turn, none is left out"
    assert set(most) == {1}


async def test_a_task_that_cannot_be_published_is_failed_and_the_next_slot_tries_again(stage):
    failed = []
    signals.beat_failed.connect(lambda **named: failed.append(named), weak=False, sender="e")
    stage.app.conf.beat_schedule = {
        "e": {**EVERY, "kwargs": {"hold": 0.0}, "headers": {"id": "the protocol's own name"}}
    }
    async with stage.scheduling():
        await until(lambda: len(failed) >= 2, deadline=60)
    (record, *_) = await stage.history("e", What.FAILED)
    assert "EncodeError" in record.why


async def test_a_middleware_that_refuses_a_slot_fails_that_slot_and_no_other(stage):
    class Refusing(Middleware):
        def before_publish(self, message):
            if message.extra["amqflow-schedule"] == "bad":
                raise RuntimeError("not this one")

    app = AmqFlow(
        "beats",
        broker=stage.app.broker_url,
        backend=stage.url,
        middleware=[Refusing()],
        beat_schedule={"bad": {**EVERY, "foreign": True}, "good": {**EVERY, "foreign": True}},
    )
    try:
        async with working(stage), stage.scheduling(app=app):
            await until(lambda: stage.history("bad", What.FAILED), deadline=60)
            await until(lambda: stage.ran("good"), deadline=60)
    finally:
        await app.aclose()
    (record, *_) = await stage.history("bad", What.FAILED)
    assert "not this one" in record.why


async def test_a_queue_that_is_not_there_yet_is_waited_for(stage):
    stage.app.conf.beat_schedule = {"e": {**EVERY, "schedule": 1}}
    async with stage.scheduling() as scheduler:
        await until(lambda: len(scheduler._publisher), deadline=60)
        async with working(stage):
            await until(lambda: stage.runs, deadline=30)


async def test_a_clock_set_forward_is_caught_up_and_one_set_back_repeats_nothing(stage):
    stage.app.clock = clock = SetClock()
    stage.app.conf.beat_schedule = {
        "all": {"task": "tick", "schedule": 600, "relative": True, "catch_up": "all"},
        "last": {"task": "tick", "schedule": 600, "relative": True},
        "none": {"task": "tick", "schedule": 600, "relative": True, "catch_up": "none"},
    }
    # In the middle between two slots, so that no slot comes by itself.
    clock.ahead = 300 - clock.now() % 600
    async with working(stage), stage.scheduling():
        clock.ahead += 3600

        async def decided():
            (standing,) = await stage.store.standings(["none"])
            return dict(standing.counts).get(What.MISSED) == 6

        await until(decided, deadline=60)
        await until(lambda: len(stage.runs) == 7, deadline=60)
        clock.ahead -= 3600
        await asyncio.sleep(1.5)
        assert len(stage.runs) == 7
    assert [len(await stage.ran(name)) for name in ("all", "last", "none")] == [6, 1, 0]
    ((gap,),) = [await stage.history("last", What.MISSED)]
    assert gap.count == 5


async def test_a_clock_set_back_by_hours_is_a_correction(stage):
    stage.app.clock = clock = SetClock()
    clock.ahead = 5 * 86400.0
    stage.app.conf.beat_schedule = {"e": EVERY}
    async with working(stage), stage.scheduling():
        await until(lambda: stage.runs, deadline=60)
        clock.ahead = 0.0
        corrected = time.time()

        async def runs_now():
            return [slot for slot in await stage.ran("e") if corrected * 1000 - 1000 < slot < (
                corrected + 3600) * 1000]  # fmt: skip

        await until(runs_now, deadline=60)


async def test_without_a_shared_store_it_is_single_instance_and_says_so(amqp_url, caplog):
    app = AmqFlow("alone", broker=amqp_url, backend="memory://")
    ran = []

    @app.task(name="tick")
    async def tick():
        ran.append(1)

    app.conf.beat_schedule = {"e": {"task": "tick", "schedule": 0.2}}
    async with Bench(app).working():
        scheduler = Scheduler(app, embedded=True)
        assert isinstance(scheduler.store, MemoryScheduleStore)
        running = asyncio.create_task(scheduler.run())
        await until(lambda: len(ran) >= 3, deadline=60)
        scheduler.stop()
        await running
    assert "single instance: the backend is no store that schedulers share" in caplog.text
    await app.aclose()


async def test_an_entry_that_cannot_work_stops_the_start(stage):
    stage.app.conf.beat_schedule = {"e": {"task": "tikc", "schedule": 5}}
    scheduler = Scheduler(stage.app, embedded=True)
    with pytest.raises(ScheduleError, match="did you mean 'tick'"):
        await scheduler.run()


@pytest.mark.faults
async def test_a_store_that_is_away_at_the_start_is_waited_for(amqp_url, private_redis, caplog):
    server = private_redis()
    server.kill9()
    app = AmqFlow("early", broker=amqp_url, backend=server.url)
    app.conf.beat_schedule = {"e": {"task": "tick", "schedule": 0.2}}
    scheduler = Scheduler(app)
    running = asyncio.create_task(scheduler.run())
    await until(lambda: "waiting for the store" in caplog.text, deadline=60)
    assert not scheduler.ready.is_set()
    await asyncio.to_thread(server.start)
    await until(scheduler.ready.is_set, deadline=60)
    scheduler.stop()
    await running


@pytest.mark.faults
async def test_a_scheduler_may_be_stopped_while_it_waits_for_the_store(amqp_url, private_redis):
    server = private_redis()
    server.kill9()
    app = AmqFlow("early", broker=amqp_url, backend=server.url)
    scheduler = Scheduler(app)
    running = asyncio.create_task(scheduler.run())
    await asyncio.sleep(0.3)
    scheduler.stop()
    async with asyncio.timeout(10):
        await running


async def test_a_slot_that_is_published_twice_runs_once(stage):
    stage.app.conf.beat_schedule = {"e": {"task": "tick", "schedule": 3600}}
    slot = ms(time.time())
    async with working(stage):
        for scheduler in ("first", "second"):
            async with stage.scheduling(name=scheduler) as running:
                running._publisher.start(running.entries["e"], slot)
                await until(lambda running=running: running._publisher.published, deadline=60)
        outcome = await until(
            lambda: stage.app.fetch_outcome(task_id_of("beats", "e", slot)), deadline=60
        )
        assert outcome.state == SUCCESS
        await asyncio.sleep(0.5)
    assert sum(stage.runs.values()) == 1
