"""A Redis that is restarted, killed, paused, read-only, full or flushed: hold, never lie."""

from __future__ import annotations

import asyncio
import time
import uuid

import pytest

from amqflow.abc import SUCCESS, Attempt, Finish, Outcome, Verdict
from amqflow.errors import StoreError, StoreUnavailable
from amqflow.results.redis import RedisStore
from tests.servers.process import free_port
from tests.servers.wait import until

pytestmark = pytest.mark.faults

DEADLINE = 1.0


@pytest.fixture
def server(private_redis):
    return private_redis()


@pytest.fixture
async def store(server):
    made = RedisStore(server.db_url(0), deadline=DEADLINE)
    await made.open()
    yield made
    await made.close()


def new_id():
    return str(uuid.uuid4())


async def write(store, task_id, fence=0):
    (done,) = await store.finish([Finish(Outcome(task_id, SUCCESS, "done"), fence)])
    return done


async def subscribed(server, channels=1):
    """Wait until somebody listens: what ends after this must be pushed."""
    await until(lambda: len(server.cli("PUBSUB", "CHANNELS")) == channels)


async def each_verb_holds(store):
    """Every verb says "unavailable", within its deadline."""
    attempt = Attempt(new_id())
    for verb in (
        lambda: store.begin([attempt]),
        lambda: store.renew([(attempt, 1)]),
        lambda: write(store, attempt.id),
        lambda: store.set_state(Outcome(attempt.id, "PROGRESS")),
    ):
        begun = time.monotonic()
        with pytest.raises(StoreUnavailable):
            await verb()
        assert time.monotonic() - begun < 10 + DEADLINE


async def recovered(store):
    """Wait until a whole life of a task works again."""

    async def works():
        try:
            await store.open()
            (claim,) = await store.begin([Attempt(new_id())])
        except StoreUnavailable:
            return False
        return claim.verdict is Verdict.RUN

    await until(works, deadline=40)


async def test_nobody_there():
    store = RedisStore(f"redis://127.0.0.1:{free_port()}/0", deadline=DEADLINE)
    with pytest.raises(StoreUnavailable, match="cannot be used now"):
        await store.open()
    await each_verb_holds(store)
    with pytest.raises(StoreUnavailable):
        await store.get("x")
    with pytest.raises(TimeoutError):
        await store.wait("x", 0.3)
    await store.close()


async def test_restarted_between_begin_and_finish(server, store):
    task_id = new_id()
    (claim,) = await store.begin([Attempt(task_id)])
    server.restart()  # forgets the scripts, keeps the data
    await recovered(store)
    assert not (await write(store, task_id, claim.fence)).refused
    (again,) = await store.begin([Attempt(task_id)])
    assert again.verdict is Verdict.SETTLED


async def test_killed_and_back(server, store):
    task_id = new_id()
    (claim,) = await store.begin([Attempt(task_id)])
    server.kill9()
    await each_verb_holds(store)
    server.start()
    await recovered(store)
    assert not (await write(store, task_id, claim.fence)).refused


async def test_an_end_stored_while_the_waiters_were_cut_off_is_found(server, store):
    ids = [new_id() for _ in range(50)]
    waiting = [asyncio.create_task(store.wait(task_id, 30)) for task_id in ids]
    await subscribed(server, 50)
    server.kill9()
    server.start()
    other = RedisStore(server.db_url(0))
    await asyncio.gather(*(write(other, task_id) for task_id in ids))
    await other.close()
    assert {seen.result for seen in await asyncio.gather(*waiting)} == {"done"}


async def test_waiters_whose_connection_is_closed_are_subscribed_again(server, store):
    task_id = new_id()
    waiting = asyncio.create_task(store.wait(task_id, 30))
    for _ in range(3):
        await subscribed(server)
        server.cli("CLIENT", "KILL", "TYPE", "pubsub")
    await subscribed(server)
    await write(store, task_id)
    assert (await waiting).result == "done"


async def test_paused(server, store):
    task_id = new_id()
    waiting = asyncio.create_task(store.wait(task_id, 30))
    await subscribed(server)
    server.pause(2 * DEADLINE)
    with pytest.raises(StoreUnavailable):
        await store.begin([Attempt(task_id)])
    await recovered(store)
    # The begin that timed out may have run after the pause: ours comes under a later fence.
    (claim,) = await store.begin([Attempt(task_id)])
    assert claim.verdict is Verdict.RUN
    assert not (await write(store, task_id, claim.fence)).refused
    assert (await waiting).result == "done"


async def test_read_only(server, private_redis, store):
    task_id = new_id()
    (claim,) = await store.begin([Attempt(task_id)])
    server.cli("REPLICAOF", "127.0.0.1", str(free_port()))
    await each_verb_holds(store)
    server.cli("REPLICAOF", "NO", "ONE")
    await recovered(store)
    assert not (await write(store, task_id, claim.fence)).refused


async def test_out_of_memory(server, store):
    task_id = new_id()
    (claim,) = await store.begin([Attempt(task_id)])
    server.cli("CONFIG", "SET", "maxmemory", "1")
    await each_verb_holds(store)
    assert await store.get(task_id) is None  # reading goes on
    server.cli("CONFIG", "SET", "maxmemory", "0")
    assert not (await write(store, task_id, claim.fence)).refused


async def test_flushed_between_begin_and_finish(server, store):
    task_id = new_id()
    waiting = asyncio.create_task(store.wait(task_id, 30))
    await subscribed(server)
    (claim,) = await store.begin([Attempt(task_id)])
    server.cli("FLUSHALL")
    server.cli("SCRIPT", "FLUSH")
    assert not (await write(store, task_id, claim.fence)).refused
    assert (await waiting).result == "done"
    assert (await store.begin([Attempt(task_id)]))[0].verdict is Verdict.SETTLED


async def test_a_lost_answer_costs_a_fence_and_nothing_else(server, store):
    """The connection dies after Redis ran the script: the caller tries again."""
    attempt = Attempt(new_id(), once=True, owner="me")
    await store.begin([attempt])  # as if this answer had been lost
    (claim,) = await store.begin([attempt])
    assert (claim.verdict, claim.fence) == (Verdict.RUN, 2)
    await write(store, attempt.id, claim.fence)  # and this one
    done = await write(store, attempt.id, claim.fence)
    assert (done.refused, done.stored.result) == (False, "done")


async def test_a_cancelled_call_leaves_no_answer_for_the_next(server, store):
    server.pause(0.5)
    call = asyncio.create_task(store.begin([Attempt("cancelled")]))
    await asyncio.sleep(0.1)
    call.cancel()
    with pytest.raises(asyncio.CancelledError):
        await call
    await recovered(store)
    assert await store.get("cancelled") is None
    (claim,) = await store.begin([Attempt(new_id())])
    assert claim.fence == 1


async def test_a_wrong_password_is_said_without_showing_it(server):
    server.cli("CONFIG", "SET", "requirepass", "right")
    store = RedisStore(server.db_url(0).replace("redis://", "redis://:wr0ng@"))
    with pytest.raises(StoreError) as raised:
        await store.open()
    assert "wr0ng" not in str(raised.value)
    await store.close()
