"""What gets lost is found: dropped by the broker, flushed from the store, sent by the dead."""

import asyncio
import time

import pytest

from amqflow import AmqFlow, TaskRevoked
from amqflow.canvas import chain, chord
from amqflow.deadletters import DeadLetterDesk, Filters
from amqflow.deadletters.replay import replayed
from amqflow.errors import ChordLost, MessageDropped
from amqflow.protocol import headers as h
from amqflow.workflow.records import State
from amqflow.workflow.stores.redis import keys_of
from tests.applications import Bench
from tests.servers.wait import until
from tests.workflow.conftest import Shop, memory_on_rabbitmq, redis, redis_on_embedded

GET = 30

#: Where a store is lost to a worker that lives; memory is lost with its process, see the docs.
PLACES = [
    redis,
    pytest.param(redis_on_embedded, marks=pytest.mark.cross),
    pytest.param(memory_on_rabbitmq, marks=pytest.mark.cross),
]


class Stage(Shop):
    """A shop with a worker started when the test says so."""

    def __init__(self, app):
        super().__init__(app)
        self.bench = Bench(app)

    @property
    def chords(self):
        return self.app.runtime().chords

    async def state(self, chord_id):
        known = await self.chords.load(chord_id, endings=False)
        return None if known is None else known.state

    async def flush(self):
        """Make the store forget everything."""
        if self.chords.kind == "memory":
            self.chords._chords.chords.clear()
        else:
            await self.chords._client.command("FLUSHDB")

    async def lose(self, chord_id):
        """Make the store forget one chord's record."""
        if self.chords.kind == "memory":
            del self.chords._chords.chords[chord_id]
        else:
            await self.chords._client.command("DEL", keys_of(chord_id)[0])

    async def lose_endings(self, chord_id):
        """Make the store forget which members of a chord have ended."""
        if self.chords.kind == "memory":
            self.chords._chords.chords[chord_id].endings.clear()
        else:
            await self.chords._client.command("DEL", keys_of(chord_id)[1])


@pytest.fixture(params=PLACES, ids=lambda place: place.__name__)
async def stage(request, tmp_path):
    """A chord is looked at after two seconds."""
    async with request.param(request, tmp_path) as (broker, backend):
        app = AmqFlow("lost", broker=broker, backend=backend, workflow_deadline=2, once_lease=2)
        yield Stage(app)
        await app.aclose()


# -- dropped by the broker -------------------------------------------------------------------


async def test_20_a_member_the_broker_expires_fails_its_chord_and_its_task(stage):
    transport = stage.app.runtime().transport
    async with stage.bench.working(slots=1):
        await transport.declare_queue(
            "idle",
            arguments={
                "x-queue-type": "quorum",
                "x-message-ttl": 300,
                "x-dead-letter-exchange": "amqflow.lost.dead",
                "x-dead-letter-routing-key": "default",
            },
        )
        member = stage.echo.s(2).set(queue="idle")
        result = await chord([stage.echo.s(1), member], stage.collect.s()).aapply_async()
        with pytest.raises(TaskRevoked, match="expired"):
            await result.aget(timeout=GET)
        outcome = await stage.app.fetch_outcome(result.parent.results[1].id)
        assert outcome.state == "REVOKED"


async def test_20_a_member_over_a_length_limit_fails_its_chord(stage):
    transport = stage.app.runtime().transport
    async with stage.bench.working(slots=1):
        await transport.declare_queue(
            "short",
            arguments={
                "x-queue-type": "classic",
                "x-max-length": 1,
                "x-overflow": "drop-head",
                "x-dead-letter-exchange": "amqflow.lost.dead",
                "x-dead-letter-routing-key": "default",
            },
        )
        members = [stage.echo.s(i).set(queue="short") for i in range(2)]
        result = await chord(members, stage.collect.s()).aapply_async()
        with pytest.raises(MessageDropped, match="queue short: maxlen"):
            await result.aget(timeout=GET)


async def test_a_letter_a_worker_parked_is_no_news(stage):
    async with stage.bench.working(slots=1):
        with pytest.raises(KeyError):
            await stage.run(stage.fail.s())
        await stage.bench.dead()
        assert await stage.count("amqflow.lost.dropped") == 0


# -- epochs ----------------------------------------------------------------------------------


async def test_a_replayed_member_resumes_its_failed_workflow(stage):
    """A dead letter's replay opens task, member, chord and all that had failed with them."""
    broken = True

    @stage.app.task(name="shop.mended")
    async def mended(value):
        if broken:
            raise ValueError("not yet")
        return value

    inner = chord([mended.s(1), stage.echo.s(2)], stage.total.s())
    outer = chord([inner, stage.echo.s(10)], stage.total.s())
    node = chain(outer, stage.double.s())
    async with stage.bench.working(slots=4):
        result = await node.aapply_async()
        with pytest.raises(ValueError, match="not yet"):
            await result.aget(timeout=GET)
        broken = False
        desk = await DeadLetterDesk.of(stage.app)
        await stage.bench.dead()
        report = await desk.replay(Filters())
        assert report.done == 1

        async def succeeded():
            found = await stage.app.fetch_outcome(result.id)
            return found if found is not None and found.state == "SUCCESS" else None

        outcome = await until(succeeded, deadline=GET)
    assert outcome.result == 26
    assert outcome.epoch >= 1
    assert stage.ran["double"] == 1


async def a_failed_chord(stage, *, broken):
    """Let a chord fail by its first member, and return its handle and the dead letter."""

    @stage.app.task(name="shop.mended")
    async def mended(value):
        stage.ran["mended"] += 1
        if broken:
            raise ValueError("not yet")
        return value

    result = await chord([mended.s(1), stage.echo.s(2)], stage.total.s()).aapply_async()
    with pytest.raises(ValueError, match="not yet"):
        await result.aget(timeout=GET)
    desk = await DeadLetterDesk.of(stage.app)
    await stage.bench.dead()
    (letter,) = [one async for one in desk.letters()]
    return result, letter


async def replay_as_it_was(stage, letter):
    await stage.app.runtime().transport.publish(
        replayed(letter, now=time.time()), "", letter.letter.queue, timeout=10
    )


async def test_a_member_replayed_twice_fires_the_body_once(stage):
    """Two desks at one letter, or one that died between confirm and ack."""
    broken = [True]
    async with stage.bench.working(slots=4):
        result, letter = await a_failed_chord(stage, broken=broken)
        broken.clear()
        await replay_as_it_was(stage, letter)
        await replay_as_it_was(stage, letter)

        async def succeeded():
            found = await stage.app.fetch_outcome(result.id)
            return found is not None and found.state == "SUCCESS" and found.result == 3

        await until(succeeded, deadline=GET)
        ran = stage.ran["mended"]
        # Once more, when all is over: what the store has is settled again, and nothing runs.
        await replay_as_it_was(stage, letter)
        await until(lambda: taken(stage, letter.letter.queue), deadline=GET)
    # The worker has stopped: nothing is unacked. What it has sent on, the next one takes.
    assert await taken(stage, letter.letter.queue)
    async with stage.bench.working(slots=4):
        await until(lambda: idle(stage), deadline=GET)
    assert await stage.state(result.parent.id) is State.FIRED
    assert await succeeded()
    assert stage.ran["mended"] == ran
    assert stage.ran["total"] == 1


async def taken(stage, queue):
    return await stage.count(queue) == 0


async def test_a_member_replayed_when_its_chord_has_expired_runs_alone_and_says_so(stage, caplog):
    broken = [True]
    async with stage.bench.working(slots=4):
        result, letter = await a_failed_chord(stage, broken=broken)
        chord_id = result.parent.id
        await stage.lose_endings(chord_id)
        await stage.lose(chord_id)
        broken.clear()
        desk = await DeadLetterDesk.of(stage.app)
        report = await desk.replay(Filters())
        assert report.done == 1

        async def ran():
            found = await stage.app.fetch_outcome(letter.id)
            return found is not None and (found.state, found.result) == ("SUCCESS", 1)

        await until(ran, deadline=GET)
        await until(lambda: chord_id in caplog.text, deadline=GET)
        await until(lambda: idle(stage), deadline=GET)
        outcome = await stage.app.fetch_outcome(result.id)
    assert outcome.state == "FAILURE", (
        "what had failed stays so: its members are not known any more"
    )
    assert stage.ran["total"] == 0
    assert "a member of a chord nobody knows has ended" in caplog.text


# -- the watch -------------------------------------------------------------------------------


async def test_34_a_store_flushed_in_mid_chord_fails_it_with_chord_lost_by_its_deadline(
    stage,
):
    async with stage.bench.working(slots=4):
        node = chord([stage.held.s("gate"), stage.echo.s(1)], stage.collect.s())
        node.link_error(stage.sorry.s())
        result = await chain(node, stage.double.s()).aapply_async()
        await until(lambda: stage.ran["held gate"], deadline=GET)
        await stage.flush()
        stage.gates["gate"].set()
        with pytest.raises(ChordLost, match="no longer in the store"):
            await result.aget(timeout=GET)
        await until(lambda: stage.told, deadline=GET)
    assert stage.told[0][2] == "ChordLost"
    assert stage.ran["collect"] == 0


async def test_34_a_record_lost_after_the_body_ran_is_no_failure(stage):
    async with stage.bench.working(slots=4):
        result = await chord([stage.echo.s(1)], stage.collect.s()).aapply_async()
        assert await result.aget(timeout=GET) == [1]
        await until_fired(stage, result.parent.id)
        await stage.lose(result.parent.id)
        await asyncio.sleep(3)  # its watch comes by
        await until(lambda: idle(stage), deadline=GET)
    assert (await stage.app.fetch_outcome(result.id)).state == "SUCCESS"


async def until_fired(stage, chord_id):
    async def fired():
        return await stage.state(chord_id) is State.FIRED

    await until(fired, deadline=GET)


async def idle(stage):
    return await stage.count("amqflow.lost.completions") == 0


async def test_34_endings_the_store_forgot_are_added_by_the_watch(stage):
    """A failover may lose acknowledged writes: the outcomes are looked up one by one."""
    async with stage.bench.working(slots=4):
        node = chord([stage.held.s("gate"), stage.echo.s(1), stage.echo.s(2)], stage.collect.s())
        result = await node.aapply_async()
        header = result.parent
        await header.results[1].aget(timeout=GET)
        await header.results[2].aget(timeout=GET)

        async def counted():
            return (await stage.chords.load(header.id, endings=False)).ended == 2

        await until(counted, deadline=GET)
        await stage.lose_endings(header.id)
        stage.gates["gate"].set()
        assert await result.aget(timeout=GET) == ["gate", 1, 2]
    assert stage.ran["collect"] == 1


async def test_a_chord_whose_members_live_is_watched_again(stage):
    async with stage.bench.working(slots=4):
        node = chord([stage.late.s("late", 5), stage.echo.s(1)], stage.collect.s())
        result = await node.aapply_async()
        assert await result.aget(timeout=GET) == ["late", 1]
    assert stage.ran["collect"] == 1


async def test_a_chord_whose_sender_died_fails_with_chord_lost(stage, monkeypatch):
    """Its members' publishes stopped half way, as a kill of the caller stops them."""
    runtime = stage.app.runtime()
    launcher = type(runtime.launcher)
    node = chord([stage.echo.s(i) for i in range(4)], stage.collect.s())
    node.set(task_id="orphan")

    async with stage.bench.working(slots=4):

        async def died(*_):
            raise asyncio.CancelledError

        async def silent(*_):
            """Nobody is left to say that it failed."""

        monkeypatch.setattr(launcher, "_seal", died)
        monkeypatch.setattr(launcher, "_abandon", silent)
        with pytest.raises(asyncio.CancelledError):
            await node.aapply_async()
        outcome = await stage.app.wait_outcome("orphan", GET)
    assert outcome.exception.type == "ChordLost"
    assert "4 of them have ended" in outcome.exception.text


async def test_a_chord_kept_in_another_kind_of_store_is_refused_with_the_reason(stage):
    transport = stage.app.runtime().transport
    async with stage.bench.working(slots=1):
        from amqflow.workflow.wire import Completions

        envelope = Completions("c", "lost", "sql", ()).to_envelope()
        await transport.publish(envelope, "", "amqflow.lost.completions", timeout=10)
        (kept,) = await stage.bench.look("amqflow.undelivered", 1)
    assert "same backend" in kept.headers[h.EXCEPTION_MESSAGE]


@pytest.mark.parametrize("backend", [None, "rpc://"])
async def test_a_backend_that_counts_nothing_refuses_chords_and_runs_chains(amqp_url, backend):
    from amqflow.canvas import group
    from amqflow.errors import ConfigurationError

    app = AmqFlow("lost", broker=amqp_url, backend=backend)
    shop = Stage(app)
    try:
        for node in (
            chord([shop.echo.s(1)], shop.collect.s()),
            chord((shop.echo.s(i) for i in range(2)), shop.collect.s()),
            chain(shop.echo.s(1), group(shop.add.s(1), shop.add.s(2))),
        ):
            with pytest.raises(ConfigurationError, match="redis://"):
                await node.aapply_async()
        async with shop.bench.working(slots=2):
            await chain(shop.echo.s(1), shop.note.s()).aapply_async()
            await until(lambda: shop.told == [("note", 1)], deadline=GET)
    finally:
        await app.aclose()


@pytest.mark.cross
async def test_a_memory_that_is_another_processs_ends_a_chord_with_chord_lost(amqp_url, caplog):
    """Two names are two memories, as two processes are: the caller's, and the worker's."""
    caller, worker = (
        Stage(AmqFlow("lost", broker=amqp_url, backend=f"memory://{name}", workflow_deadline=2))
        for name in ("caller", "worker")
    )
    try:
        async with worker.bench.working(slots=4):
            node = chord([caller.echo.s(1), caller.echo.s(2)], caller.collect.s())
            result = await node.on_error(caller.sorry.s()).aapply_async()
            await until(lambda: worker.told, deadline=GET)
            await until(lambda: idle(worker), deadline=GET)
        assert [told[:3] for told in worker.told] == [("sorry", result.id, "ChordLost")]
        assert worker.ran == {"echo 1": 1, "echo 2": 1}
        assert "a member of a chord nobody knows has ended" in caplog.text
        assert await result.astate() == "PENDING", "the caller's own memory knows nothing of it"
    finally:
        await caller.app.aclose()
        await worker.app.aclose()


# -- the store in trouble --------------------------------------------------------------------


@pytest.fixture
async def troubled(broker_url, private_redis):
    """A shop whose Redis may be killed, paused and made read-only."""
    server = private_redis()
    app = AmqFlow("lost", broker=broker_url, backend=server.url, workflow_deadline=60, once_lease=2)
    stage = Stage(app)
    stage.server = server
    yield stage
    await app.aclose()


TROUBLES = {
    "restarted": lambda server: server.restart(),
    "paused": lambda server: server.pause(1.0),
    "read-only": lambda server: server.cli("REPLICAOF", "127.0.0.1", "1"),
}


async def in_trouble(stage, trouble, name):
    """Let the store be in trouble while a chord of 21 is under way, and see it through."""
    ran = stage.ran["collect"]
    node = chord(
        [stage.held.s(name), *(stage.echo.s(i) for i in range(20))],
        stage.collect.s(),
    )
    result = await chain(node, stage.collect.s()).aapply_async()
    await until(lambda: stage.ran[f"held {name}"], deadline=GET)
    await asyncio.to_thread(TROUBLES[trouble], stage.server)
    stage.gates[name].set()
    await asyncio.sleep(0.5)  # outcomes and completions meet the trouble
    if trouble == "read-only":
        stage.server.cli("REPLICAOF", "NO", "ONE")
    assert await result.aget(timeout=GET) == [name, *range(20)]
    assert stage.ran["collect"] == ran + 2


@pytest.mark.faults
@pytest.mark.parametrize("trouble", TROUBLES)
async def test_34_a_store_in_trouble_in_mid_chord_is_waited_for(troubled, trouble):
    async with troubled.bench.working(slots=8):
        await in_trouble(troubled, trouble, "gate")


@pytest.mark.slow
@pytest.mark.faults
@pytest.mark.parametrize("trouble", TROUBLES)
async def test_34_a_store_in_trouble_twenty_times(troubled, trouble):
    async with troubled.bench.working(slots=8):
        for number in range(20):
            await in_trouble(troubled, trouble, f"gate {number}")


@pytest.mark.slow
@pytest.mark.faults
async def test_34_a_store_flushed_twenty_times_fails_each_chord_by_its_deadline(stage):
    async with stage.bench.working(slots=4):
        for number in range(20):
            node = chord([stage.held.s(f"gate {number}"), stage.echo.s(1)], stage.collect.s())
            node.link_error(stage.sorry.s())
            result = await node.aapply_async()
            await until(lambda: stage.ran[f"held gate {number}"], deadline=GET)  # noqa: B023
            await stage.flush()
            stage.gates[f"gate {number}"].set()
            with pytest.raises(ChordLost, match="no longer in the store"):
                await result.aget(timeout=GET)
            await until(lambda: len(stage.told) > number, deadline=GET)  # noqa: B023
        await until(lambda: idle(stage), deadline=GET)
    assert [told[2] for told in stage.told] == ["ChordLost"] * 20
    assert stage.ran["collect"] == 0


async def test_33_completions_from_four_coordinators_at_once_fire_the_body_once(stage):
    from contextlib import AsyncExitStack

    from amqflow.workflow.records import Ending, Membership

    async with AsyncExitStack() as workers:
        for _ in range(4):
            await workers.enter_async_context(stage.bench.working(slots=2))
        runtime = stage.app.runtime()
        result = await chord(
            [stage.echo.s(1), stage.held.s("gate")], stage.collect.s()
        ).aapply_async()
        await until(lambda: stage.ran["held gate"], deadline=GET)
        stage.gates["gate"].set()

        async def completed(_):
            member = Membership(result.parent.id, 1, "lost", runtime.chords.kind)
            ending = Ending(1, succeeded=True, value=b'"gate"')
            await runtime.producer.publish(runtime.launcher.completions(member, [ending]))

        await asyncio.gather(*map(completed, range(100)))
        assert await result.aget(timeout=GET) == [1, "gate"]
        await until(lambda: idle(stage), deadline=GET)
        assert stage.ran["collect"] == 1
