"""Which children a process pool keeps warm, and what becomes of jobs whose child is not there."""

import asyncio
from types import SimpleNamespace
from typing import ClassVar

import pytest

from amqflow.errors import ShutdownInProgress, TimeLimitExceeded
from amqflow.worker.pools import Hooks, processes, wire
from amqflow.worker.pools.processes import ProcessPool
from tests.servers.wait import until


class Child:
    """A pool child that does as the test says: it is warm at once, or when it is told."""

    born: ClassVar[list] = []
    warm_at_once = True

    def __init__(self, recipe, on_frame, on_death):
        self.tell, self._on_death = on_frame, on_death
        self.pid = len(Child.born) + 1
        self.code = 0
        self.exited = asyncio.Event()
        self.said: list = []
        self.board = SimpleNamespace(started=0, withdraw=lambda _: 0)
        Child.born.append(self)

    async def listen(self):
        if Child.warm_at_once:
            asyncio.get_running_loop().call_soon(self.warm)

    def warm(self):
        self.tell(self, wire.READY, [])

    def say(self, frame):
        self.said.append(frame)
        if frame == wire.frame(wire.QUIT):
            self.die(0)

    def read_outbox(self):
        pass

    async def where(self, timeout):
        return ""

    def kill(self):
        self.die(-9)

    def die(self, code):
        if not self.exited.is_set():
            self.code = code
            self.exited.set()
            asyncio.get_running_loop().call_soon(self._on_death, self, code)

    def done(self, number):
        end = {"n": number, "took": 1.0, "outcome": {"state": "SUCCESS"}}
        self.tell(self, wire.DONE, end)


@pytest.fixture
async def pool(monkeypatch):
    """Return what starts a pool of such children; what it told is kept beside it."""
    monkeypatch.setattr(processes, "ChildProcess", Child)
    monkeypatch.setattr(wire, "job_body", lambda job, number: {"n": number})
    monkeypatch.setattr(wire, "outcome_of", lambda body, job: body)
    monkeypatch.setattr(Child, "born", [])
    monkeypatch.setattr(Child, "warm_at_once", True)
    pools = []

    async def start(size, **recipe):
        ended, slots = [], []
        hooks = Hooks(
            ended=lambda jobs, freed: (ended.extend(jobs), slots.append(freed)),
            take=lambda _: None,
            again=lambda job: None,
            admit=lambda job: None,
            **dict.fromkeys(("began", "concluded", "around")),
        )
        bounds = {"max_tasks": None, "max_memory": None, **recipe}
        made = ProcessPool(hooks, size, SimpleNamespace(**bounds))
        made.ended, made.slots = ended, slots
        pools.append(made)
        await made.start()
        return made

    yield start
    for each in pools:
        await each.close()


class Job(SimpleNamespace):
    __hash__ = object.__hash__
    __eq__ = object.__eq__


def made(limit=None, *, acked=False):
    return Job(
        time_limit=limit,
        soft_time_limit=None,
        priority=0,
        acked=acked,
        task=SimpleNamespace(is_async=False),
        message=SimpleNamespace(id="id", task="t"),
    )


async def test_without_hard_limits_nothing_waits_warm(pool):
    running = await pool(2)
    running.submit(made())
    assert len(Child.born) == 2
    assert running.describe()["children_spare"] == 0


async def test_a_first_hard_limit_brings_up_one_child_that_waits(pool):
    running = await pool(2)
    running.submit(made(3600))
    await until(lambda: running.describe()["children_spare"] == 1)
    assert len(Child.born) == 3


async def test_every_task_near_its_limit_has_a_child_of_its_own_waiting(pool):
    running = await pool(3)
    for _ in range(3):
        running.submit(made(3600))
    near = list(running._busy.items())[:2]
    for child, _ in near:
        running._comes_near(child)
    await until(lambda: running.describe()["children_spare"] == 2)
    Child.warm_at_once = False  # what comes up now takes its time
    for child, busy in near:
        running._hard(child, busy)
    await until(lambda: len(running.ended) == 2)
    assert all(isinstance(why, TimeLimitExceeded) for _, _, why in running.ended)
    await until(lambda: sum(running.slots) == 2, message="both slots, without a new child")


async def test_while_limits_are_hit_each_slot_has_a_spare_child(pool):
    running = await pool(3)
    running.submit(made(0.05))
    await until(lambda: len(running.ended) == 1)
    await until(lambda: running.describe()["children_spare"] == 3)


async def test_spare_children_that_nobody_needs_leave(pool, monkeypatch):
    monkeypatch.setattr(processes, "SPARE_LIFE", 0.05)
    running = await pool(3)
    running.submit(made(0.05))
    await until(lambda: len(running.ended) == 1)
    await until(lambda: running.describe()["children_spare"] == 1, message="the one that stays")
    await until(lambda: len(running.describe()["children"]) == 4)


async def test_a_spare_child_that_dies_is_replaced(pool):
    running = await pool(1, max_tasks=5)
    await until(lambda: running.describe()["children_spare"] == 1)
    Child.born[-1].die(-9)
    await until(lambda: len(Child.born) == 3)
    await until(lambda: running.describe()["children_spare"] == 1)


async def test_a_stop_gives_back_what_waits_for_a_child_and_runs_what_was_acked(pool):
    """A job acked before its run would be lost: a child comes up for it, even now."""
    running = await pool(2)
    Child.warm_at_once = False
    for child in Child.born:
        child.die(-9)
    await until(lambda: running.slots == [-1, -1])
    acked, waits = made(acked=True), made()
    running.submit(acked)
    running.submit(waits)
    running.halt()
    ((back, _, why),) = running.ended
    assert back is waits
    assert isinstance(why, ShutdownInProgress)
    *_, coming = Child.born
    coming.warm()
    await until(lambda: coming.said)
    coming.done(1)
    await until(lambda: [each[0] for each in running.ended] == [waits, acked])
    assert sum(running.slots) == 2, "every slot is free: the worker can leave"
