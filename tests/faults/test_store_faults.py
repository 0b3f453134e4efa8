"""What the result store may do while tasks flow: nothing is acked before it is stored (fault 20).

Eight tasks run when the store goes, twenty wait for a slot, four for their retry. What ends
meanwhile goes to the completions queue under confirm; nothing begins that could not be fenced;
when the store is back every outcome is in it, and no task has run or come back a second time.
"""

import asyncio
import signal
from urllib.parse import quote, urlsplit

import pytest

from tests.faults.conftest import staged
from tests.faults.ledger import consumed
from tests.faults.test_stop_faults import AT_ONCE
from tests.servers.process import free_port
from tests.servers.wait import until

pytestmark = pytest.mark.faults
long = pytest.mark.faults_long

COMPLETIONS = "amqflow.hit.completions"
RUNNING = 8


@pytest.fixture
async def flowing(rabbitmq, amqp_url, private_redis, tmp_path, monkeypatch):
    """Two workers whose eight slots are taken, and a Redis of their own."""
    store = private_redis()
    url = f"{store.url}/0?socket_timeout=1"
    async with staged(amqp_url, url, tmp_path, monkeypatch, watch=False) as stage:
        flow = Flow(stage, store, rabbitmq, urlsplit(amqp_url).path.strip("/"))
        await flow.begin()
        yield flow


class Flow:
    """Work under way, its store, and the broker's view of it."""

    def __init__(self, stage, store, broker, vhost):
        self.stage, self.store = stage, store
        self.account, self.workers = stage.account, stage.workers
        self._broker, self._vhost = broker, quote(vhost, safe="")
        self.processes = []

    async def begin(self):
        self.processes = [self._start() for _ in range(2)]
        await consumed(self.stage.app, by=2)
        retrying = await self.account.send("hit.again", count=4)
        await until(lambda: all(self.account.runs_of(known) for known in retrying))
        half = RUNNING // 2
        await self.account.send("hit.always", count=half)
        await self.account.send("hit.aalways", count=half)
        await until(lambda: self.account.runs().total() >= len(retrying) + RUNNING, deadline=60)
        await self.account.send("hit.plain", count=10)
        await self.account.send("hit.aplain", count=10)

    def _start(self):
        # A slot holds one message: what waits, waits in the queue, not claimed yet.
        return self.workers.start("-Q", "default", "--prefetch-multiplier", "1")

    async def queues(self):
        """Return the queues as the management API sees them, by name; a second old at most."""
        path = f"/api/queues/{self._vhost}"
        found = await asyncio.to_thread(self._broker.management, "GET", path)
        return {queue["name"]: queue for queue in found}

    async def held(self, queue):
        """Return how many messages of a queue are ready or unacked."""
        return (await self.queues()).get(queue, {}).get("messages", 0)

    async def conserved(self):
        """Say whether every confirmed id is in the store or in a queue."""
        stored = len(await self.account.states())
        queued = sum(queue.get("messages", 0) for queue in (await self.queues()).values())
        return stored + queued >= len(self.account.confirmed)

    async def end(self, *, lost=0):
        """All is stored; nothing ran twice, nothing came back, nothing is parked."""
        balance = await self.account.balance(deadline=40)
        assert set(balance.states.values()) == {"SUCCESS"}
        assert balance.repeated == lost
        assert await self.account.ready("default.dead") == 0
        if not lost:
            stats = [queue.get("message_stats", {}) for queue in (await self.queues()).values()]
            assert sum(stat.get("redeliver", 0) for stat in stats) == 0


async def stopped(store):
    await asyncio.to_thread(store.stop)
    return store.start


async def read_only(store):
    store.cli("REPLICAOF", "127.0.0.1", free_port())
    return lambda: store.cli("REPLICAOF", "NO", "ONE")


async def out_of_memory(store):
    store.cli("CONFIG", "SET", "maxmemory", 1)
    return lambda: store.cli("CONFIG", "SET", "maxmemory", 0)


async def paused(store):
    store.pause(60)
    # Redis answers nobody else meanwhile, and unpausing is no exception: a signal of its own.
    return store.restart


@pytest.mark.parametrize(
    "fault",
    [stopped, *(pytest.param(one, marks=long) for one in (paused, read_only, out_of_memory))],
)
async def test_what_ends_while_the_store_is_away_is_stored_when_it_is_back(flowing, fault):
    mend = await fault(flowing.store)
    flowing.stage.go()
    await until(lambda: _is(flowing.held(COMPLETIONS), RUNNING), deadline=60)
    if fault in {read_only, out_of_memory}:  # these can be read
        assert await flowing.conserved()
    assert len(flowing.account.runs()) == RUNNING + 4, "something began without a fence"
    await asyncio.to_thread(mend)
    await flowing.end()


@long
async def test_a_flushed_store_has_every_outcome_that_came_after(flowing):
    flowing.store.cli("FLUSHALL")
    flowing.stage.go()
    await flowing.end()


@long
async def test_nothing_waits_at_a_stop_for_a_store_that_is_away(flowing):
    """The settlements are safe in the completions queue; the next worker finishes them."""
    mend = await stopped(flowing.store)
    flowing.stage.go()
    await until(lambda: _is(flowing.held(COMPLETIONS), RUNNING), deadline=60)
    for process in flowing.processes:
        process.send_signal(signal.SIGTERM)
    for process in flowing.processes:
        assert await asyncio.to_thread(process.wait, AT_ONCE) == 0, flowing.workers.logs()
    flowing.workers.ended()
    assert await flowing.account.ready(COMPLETIONS) == RUNNING
    mend()
    flowing.workers.start("-Q", "default")
    balance = await flowing.account.balance(deadline=40)
    assert set(balance.states.values()) == {"SUCCESS"}
    assert balance.repeated == 0


@long
@pytest.mark.parametrize("back", ["the store", "the queue"])
async def test_without_the_completions_queue_too_settlements_are_held_and_said(flowing, back):
    """Consuming is paused until either is back; then all goes on by itself."""
    mend = await read_only(flowing.store)
    await flowing.stage.app.runtime().transport.delete_queue(COMPLETIONS)
    flowing.stage.go()
    logs = flowing.workers.logs
    await until(lambda: logs().count("its queue is paused") == 2, deadline=60)
    assert "start a worker that does" in logs(), "it says what mends it"
    await until(lambda: _is(flowing.held("default"), len(flowing.account.confirmed)), deadline=60)
    assert len(await flowing.account.states()) == 0
    if back == "the queue":
        await flowing.stage.declared()
        await until(lambda: _is(flowing.held(COMPLETIONS), RUNNING), deadline=60)
        mend()
    else:
        mend()
        await until(lambda: _is(flowing.account.ready(), 0), deadline=60)
    await flowing.end()
    assert logs().count("consuming again") == 2
    await flowing.account.send("hit.plain", count=10)
    await flowing.end()


@long
async def test_told_twice_a_worker_leaves_without_what_it_holds(flowing):
    """Nowhere to store it, nowhere to send it: it is delivered again, and run again."""
    mend = await stopped(flowing.store)
    await flowing.stage.app.runtime().transport.delete_queue(COMPLETIONS)
    flowing.stage.go()
    await until(lambda: flowing.workers.logs().count("its queue is paused") == 2, deadline=60)
    for process in flowing.processes:
        process.send_signal(signal.SIGTERM)
    await asyncio.sleep(0.5)  # two signals, not one: the kernel merges those that wait
    for process in flowing.processes:
        process.send_signal(signal.SIGTERM)
    for process in flowing.processes:
        assert await asyncio.to_thread(process.wait, AT_ONCE) == 0, flowing.workers.logs()
    flowing.workers.ended()
    mend()
    flowing.workers.start("-Q", "default")
    await flowing.end(lost=RUNNING)


async def test_more_readers_than_connections_wait_for_their_turn(stage):
    store = await stage.app.runtime().opened_store()
    found = await asyncio.gather(*(store.get(f"nobody-{number}") for number in range(300)))
    assert found == [None] * 300


async def _is(count, expected):
    return await count == expected
