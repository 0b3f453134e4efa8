"""A worker holds more of a quorum queue while its tasks are short, and what is its own else."""

import asyncio
from dataclasses import dataclass
from types import SimpleNamespace

import pytest

from amqflow.topology.model import Queue, QueueType
from amqflow.worker.lanes import Lane
from amqflow.worker.ready import ReadyHeap
from amqflow.worker.window import ENOUGH, LONGEST_CALM, PERIOD, SHORT, WIDEST, Window, extras, wide
from tests.servers.wait import until

LANE = Lane("work", "work", 8)
MORE = 24


class Subscription:
    def __init__(self):
        self.active = True

    async def pause(self):
        self.active = False

    async def resume(self):
        self.active = True


@dataclass(frozen=True, eq=False)
class Waiting:
    priority: int
    lane: Lane
    attempt: object


class Slots:
    """An executor whose past and queue the test says."""

    def __init__(self):
        self.past = (0, 0.0)
        self.waiting = []

    def lap(self):
        return self.past

    def surplus(self, lane, keep):
        gone, self.waiting = self.waiting[keep:], self.waiting[:keep]
        return gone


@pytest.fixture
def worker():
    seen = SimpleNamespace(slots=Slots(), subscribed=[], returned=[], stuck=False)

    def subscribe(lane, prefetch):
        seen.subscribed.append((lane, prefetch))
        return Subscription()

    seen.window = Window(
        {LANE: MORE},
        slots=seen.slots,
        subscribe=subscribe,
        give_back=seen.returned.append,
        stuck=lambda: seen.stuck,
    )
    return seen


SHORT_TASKS = (200, 200 * SHORT / 2)
LONG_TASKS = (1, PERIOD * 2)
QUIET = (ENOUGH - 1, 0.0)


async def test_short_tasks_widen_and_long_ones_end_it_at_once(worker):
    worker.slots.past = SHORT_TASKS
    await worker.window.look()
    assert worker.subscribed == [(LANE, MORE)]
    worker.slots.waiting = list(range(20))
    worker.slots.past = LONG_TASKS
    await worker.window.look()
    assert [each.active for each in worker.window.consumers] == [False]
    assert worker.returned == list(range(8, 20)), "what is beyond the budget goes back"


async def test_what_is_still_on_its_way_when_it_ends_goes_back_at_the_next_look(worker):
    worker.slots.past = SHORT_TASKS
    await worker.window.look()
    worker.slots.past = LONG_TASKS
    await worker.window.look()
    worker.slots.waiting = list(range(10))
    await worker.window.look()
    assert worker.returned == [8, 9]


async def test_an_empty_queue_ends_it_and_nothing_goes_back(worker):
    worker.slots.past = SHORT_TASKS
    await worker.window.look()
    worker.slots.waiting = list(range(20))
    worker.slots.past = QUIET
    await worker.window.look()
    assert not worker.window.wide
    assert worker.returned == []
    worker.slots.past = SHORT_TASKS
    await worker.window.look()
    assert worker.window.wide
    assert len(worker.subscribed) == 1, "the same subscription is resumed"


async def test_where_short_and_long_tasks_take_turns_it_is_tried_ever_less_often(worker):
    tries = []
    for _ in range(12):
        looks = 0
        worker.slots.past = SHORT_TASKS
        while not worker.window.wide:
            await worker.window.look()
            looks += 1
        tries.append(looks)
        worker.slots.past = LONG_TASKS
        await worker.window.look()
    assert tries == [min(2**n, LONGEST_CALM) for n in range(12)]


async def test_it_does_not_widen_where_a_message_is_stuck_or_the_worker_stops(worker):
    worker.slots.past = SHORT_TASKS
    worker.stuck = True
    await worker.window.look()
    worker.stuck = False
    worker.window.stop()
    await worker.window.look()
    assert worker.subscribed == []


def queue(**fields):
    return Queue("work", **fields)


def test_more_slots_hold_more_up_to_a_bound():
    assert [wide(slots) for slots in (1, 2, 4, 8, 64)] == [32, 32, 64, 128, 128]
    eight = Lane("work", "work", 32)
    assert extras([eight], {"work": queue()}, slots=8, multiplier=4) == {eight: 96}


def test_only_small_budgets_of_quorum_queues_get_more():
    declared = {"work": queue(), "other": Queue("other")}
    assert extras([LANE], declared, slots=2, multiplier=4) == {LANE: 24}
    other = Lane("other", "other", 4)
    assert extras([LANE, other], declared, slots=2, multiplier=4) == {LANE: 13, other: 6}
    assert extras([Lane("work", "work", WIDEST)], declared, slots=2, multiplier=4) == {}
    assert extras([LANE], declared, slots=2, multiplier=1) == {}, "told to hold nothing ahead"
    assert extras([LANE], {}, slots=2, multiplier=4) == {}


@pytest.mark.parametrize(
    "fields",
    [{"type": QueueType.CLASSIC}, {"prefetch": 10}, {"single_active_consumer": True}],
)
def test_other_queues_keep_to_their_own(fields):
    assert extras([LANE], {"work": queue(**fields)}, slots=2, multiplier=4) == {}


def test_what_goes_back_is_the_last_in_line_and_never_what_holds_a_lease():
    heap = ReadyHeap()
    jobs = [Waiting(n % 2, LANE, SimpleNamespace(once=n == 0)) for n in range(6)]
    elsewhere = Waiting(0, Lane("other", "other", 1), None)
    for job in (*jobs, elsewhere):
        heap.push(job)
    # In line: 1, 3, 5 (priority 1), then 0, 2, 4.
    gone = heap.beyond(LANE, 2)
    assert [job for job in jobs if job in gone] == [jobs[2], jobs[4], jobs[5]]
    assert heap.drain() == [jobs[1], jobs[3], jobs[0], elsewhere]


async def test_what_was_held_beyond_the_budget_runs_once_all_the_same(bench):
    go, runs = asyncio.Event(), []

    @bench.app.task(name="long")
    async def long(number):
        runs.append(number)
        await go.wait()

    async with bench.working(slots=2) as worker:
        window = worker._window
        window.wide = True  # as if tasks had been short so far
        await window._widen()
        calls = (long.aapply_async((number,)) for number in range(30))
        results = await asyncio.gather(*calls)
        await until(lambda: not window.wide, deadline=30)
        await until(lambda: worker._executor.waiting <= 8, deadline=30)
        go.set()
        await asyncio.gather(*(result.aget(timeout=60) for result in results))
    assert sorted(runs) == list(range(30))
