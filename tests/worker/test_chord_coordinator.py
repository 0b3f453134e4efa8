"""The coordinator alone, over a store in memory: what it does with a delivery in odd cases."""

import asyncio
from types import SimpleNamespace

import pytest

from amqflow.abc import DeadReason
from amqflow.errors import StoreError
from amqflow.worker.chords import ChordCoordinator
from amqflow.workflow.records import Counting, End, Ending, Fate, Record, Spec, State, Verdict
from amqflow.workflow.stores import Lifetimes
from amqflow.workflow.stores.memory import MemoryChords
from amqflow.workflow.wire import Completions, Watch
from tests.servers.wait import until

SPEC = Spec(Fate((End("result"),)))


class Delivery:
    live = True

    def __init__(self, message):
        self.envelope = message.to_envelope()
        self.acked = False

    def ack(self):
        self.acked = True


class Settler:
    def __init__(self):
        self.tasks, self.parked = [], []

    def start(self, work):
        self.tasks.append(asyncio.ensure_future(work))

    def park(self, delivery, _lane, why, text):
        self.parked.append((delivery, why, text))

    async def over(self):
        while self.tasks:
            await self.tasks.pop()


class Launcher:
    def __init__(self, chords):
        self.chords, self.watched = chords, []

    def store(self):
        return self.chords

    async def watch(self, watch):
        self.watched.append(watch)


@pytest.fixture
async def desk():
    chords, settler = MemoryChords(Lifetimes(60, 60)), Settler()
    launcher = Launcher(chords)
    coordinator = ChordCoordinator(
        settler=settler,
        launcher=launcher,
        unfolder=SimpleNamespace(store="memory"),
        results=None,
        lane=None,
        now=lambda: 0.0,
    )
    return SimpleNamespace(
        chords=chords, settler=settler, launcher=launcher, coordinator=coordinator
    )


async def failed_chord(chords):
    await chords.create([Record("c", 2, SPEC)])
    ending = Ending(0, succeeded=False, value=b"{}")
    (counted,) = await chords.count([Counting("c", [ending])])
    assert counted.verdict is Verdict.FAILED
    assert await chords.end("c", counted.fence, State.FAILED, SPEC)


async def look(desk, watch):
    delivery = Delivery(watch)
    desk.coordinator.watch(delivery)
    await desk.settler.over()
    assert delivery.acked
    return desk.launcher.watched


async def test_a_failed_chord_is_watched_on_as_a_replay_may_open_it_again(desk):
    await failed_chord(desk.chords)
    watch = Watch("c", SPEC.fate, 0)
    (again,) = await look(desk, watch)
    assert again.ended
    assert Watch.of(again.to_envelope()) == again
    # The member that had failed succeeds in its next epoch; the other one still runs.
    mended = Ending(0, succeeded=True, value=b"1", epoch=1)
    (counted,) = await desk.chords.count([Counting("c", [mended])])
    assert counted.verdict is Verdict.WAITING
    _, opened = await look(desk, again)
    assert not opened.ended


async def test_the_watch_of_a_failed_chord_ends_with_its_record(desk):
    assert await look(desk, Watch("gone", SPEC.fate, 0, ended=True)) == []


async def test_a_fired_chord_is_not_watched_on(desk):
    await desk.chords.create([Record("c", 0, SPEC)])
    (counted,) = await desk.chords.count([Counting("c")])
    await desk.chords.end("c", counted.fence, State.FIRED, SPEC)
    assert await look(desk, Watch("c", SPEC.fate, 0)) == []


@pytest.mark.parametrize("error", [StoreError("WRONGTYPE"), ValueError("our own")])
async def test_what_cannot_be_counted_holds_up_no_other(desk, monkeypatch, error):
    """Completions of one turn share a call to the store; one of them breaks it."""
    await desk.chords.create([Record("good", 2, SPEC), Record("bad", 2, SPEC)])
    real, tried = desk.chords.count, []

    async def count(batch):
        tried.append([one.chord for one in batch])
        if any(one.chord == "bad" for one in batch):
            if len(tried) > 3:
                await asyncio.Event().wait()  # insisted on, in a task of its own
            raise error
        return await real(batch)

    monkeypatch.setattr(desk.chords, "count", count)
    good, bad = (
        Delivery(Completions(name, "app", "memory", [Ending(0, succeeded=True, value=b"1")]))
        for name in ("good", "bad")
    )
    desk.coordinator.complete(bad)
    desk.coordinator.complete(good)
    broken = isinstance(error, ValueError)
    await until(lambda: good.acked and bool(desk.settler.parked) is broken, deadline=30)
    assert tried[:1] == [["bad", "good"]]
    assert (await desk.chords.load("good", endings=False)).ended == 1
    assert not bad.acked
    if broken:
        ((parked, why, text),) = desk.settler.parked
        assert (parked, why) == (bad, DeadReason.WORKFLOW)
        assert "our own" in text
    else:
        assert desk.settler.parked == []
    for task in desk.settler.tasks:
        task.cancel()
