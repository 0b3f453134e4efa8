"""Random compositions whose worker dies at a settle or coordinator step, told by a seed.

On the embedded broker, some on RabbitMQ too, in one process: each worker has a thread, and dies by
its loop being stopped for ever in the middle of a step, its connections cut, nothing more of it
running. What it had claimed is let go at once, because the clock of the stores is stepped past its
leases.

A seed names the composition and the steps at which workers die, so that a failing seed replays
those; how the threads of client and broker take turns within a step is the machine's.
"""

import asyncio
import itertools
import os
import random
import threading
import time
from collections import Counter
from contextlib import contextmanager
from types import SimpleNamespace

import pytest

from amqflow import AmqFlow
from amqflow.canvas import chain, chord, group
from amqflow.errors import AmqflowError
from amqflow.handles import GroupResult
from amqflow.producer import Producer
from amqflow.results import memory as results
from amqflow.results.memory import MemoryStore
from amqflow.transport.seam import Delivery
from amqflow.worker import Worker, WorkerOptions, chords, intake, settle
from amqflow.workflow.records import State
from amqflow.workflow.stores import memory as stores
from amqflow.workflow.stores.memory import MemoryChords
from tests.servers.embedded import EmbeddedBroker
from tests.servers.wait import until

#: Seconds for what takes a second on an idle machine, and two dozen lives on a loaded one.
GET = 120
LEASE = 600.0
#: One seed alone, to look at it: ``AMQFLOW_SIMULATION_SEED=17``.
ONLY = os.environ.get("AMQFLOW_SIMULATION_SEED")
SEEDS = [int(ONLY)] if ONLY else range(6)
MORE = [int(ONLY)] if ONLY else range(100, 250)
ON_RABBITMQ = [int(ONLY)] if ONLY else range(100, 120)


class SteppedClock:
    """The stores' time: the machine's, and what was stepped over."""

    def __init__(self):
        self.ahead = 0.0

    def monotonic(self):
        return time.monotonic() + self.ahead

    def time(self):
        return time.time() + self.ahead


class Life:
    """A worker in a thread of its own, which dies at its ``death``-th step; None: never."""

    def __init__(self, world, death):
        self.world, self.death = world, death
        self.steps = 0
        self.at = ""
        self.dead = False
        self.over = threading.Event()
        self.up = threading.Event()
        self.loop = asyncio.SelectorEventLoop()
        self.thread = threading.Thread(target=self._live, daemon=True)
        self.thread.start()

    def _live(self):
        asyncio.set_event_loop(self.loop)
        self.task = self.loop.create_task(self._work())
        self.task.add_done_callback(lambda _: self.loop.stop())
        self.loop.run_forever()
        if self.dead:
            # Nothing runs here any more; the kernel tells the broker.
            for transport in list(self.loop._transports.values()):
                transport._sock.close()
        self.over.set()
        self.up.set()

    async def _work(self):
        app = application(self.world)
        self.worker = Worker(app, WorkerOptions(concurrency=4, hostname="simulated"))
        running = asyncio.ensure_future(self.worker.run())
        await self.worker.ready.wait()
        self.up.set()
        await running
        await app.aclose()

    def passing(self, name):
        """Return whether the worker is dead from this step on."""
        if not self.dead:
            self.steps += 1
            if self.steps == self.death:
                self.dead, self.at = True, name
                self.loop.stop()
        return self.dead

    def stop(self):
        if not self.over.is_set():
            self.loop.call_soon_threadsafe(self.worker.stop)
        assert self.over.wait(GET), "the worker did not stop"


NUMBERS = itertools.count()


class World:
    """What tasks have done, which worker lives, and what of it has died."""

    def __init__(self, broker_url, clock):
        self.broker_url, self.clock = broker_url, clock
        #: Of its own: a store in memory is shared by name, and the dead of other worlds keep it.
        self.name = f"simulated-{next(NUMBERS)}"
        self.ran = Counter()
        #: Runs whose end is not stored yet, and how many of a task died so.
        self.running = {}
        self.cut = Counter()
        self.life = None
        self.graves = []

    def begin(self, death):
        self.life = Life(self, death)
        assert self.life.up.wait(GET), "the worker did not start"

    def bury(self):
        """Note what died with the worker, and step past its leases."""
        assert self.life.over.wait(GET)
        self.cut.update(self.running.values())
        self.running.clear()
        self.clock.ahead += LEASE + 1
        self.graves.append(self.life)  # what is collected may still run a `finally`

    def of_this_thread(self):
        life = self.life
        return life if life is not None and life.thread is threading.current_thread() else None


def application(world):
    app = AmqFlow(world.name, broker=world.broker_url, backend="memory://", once_lease=LEASE)

    def ran(request, name):
        world.ran[name] += 1
        world.running[request.id] = name

    @app.task(name="sim.good", bind=True, throws=(LookupError,))
    async def good(self, *args, name, fails):
        ran(self.request, name)
        if fails:
            raise LookupError(name)
        return name

    @app.task(name="sim.errback", bind=True)
    async def errback(self, request, exc, traceback, *, name):
        ran(self.request, name)

    return app


class Composer:
    """Draws compositions, with what must have run in the end, and what must not."""

    def __init__(self, app, chance):
        self.app, self.chance = app, chance
        self.names = itertools.count()
        self.expected = Counter()
        self.size = 0

    def task(self, kind, *, reached, fails=False, args=()):
        name = f"{kind}{next(self.names)}"
        self.size += 1
        if reached:
            self.expected[name] = 1
        options = {"name": name} if kind == "errback" else {"name": name, "fails": fails}
        return self.app.tasks[f"sim.{'errback' if kind == 'errback' else 'good'}"].s(
            *args, **options
        )

    def step(self, kind, reached):
        fails = self.chance.random() < 0.08
        return self.task(kind, reached=reached, fails=fails), not fails

    def draw(self, depth, *, reached=True, last=True):
        """Return a node, and whether it succeeds if it is reached.

        A group that is not ``last`` is followed by a task: the errback of a chord right behind
        it would speak for the group, too.
        """
        kind = self.chance.choice(("task", "chain", "chord", "group")) if depth else "task"
        if kind == "task":
            return self.step("task", reached)
        if kind == "chain":
            steps, good = [], True
            size = self.chance.randint(2, 3)
            for place in range(size):
                step, well = self.draw(
                    depth - 1, reached=reached and good, last=last and place == size - 1
                )
                steps.append(step)
                good = good and well
            return chain(*steps), good
        members, good = self.members(depth, reached)
        if kind == "group":
            # As one of a chain, so that somebody waits for it where it is the last.
            steps = [self.task("task", reached=reached), group(members)]
            if not last:
                step, well = self.step("task", reached and good)
                steps.append(step)
                good = good and well
            return chain(*steps), good
        body, well = self.step("body", reached and good)
        good = good and well
        errback = self.task("errback", reached=reached and not good)
        return chord(members, body).on_error(errback), good

    def members(self, depth, reached):
        drawn = [self.draw(depth - 1, reached=reached) for _ in range(self.chance.randint(1, 3))]
        return [node for node, _ in drawn], all(well for _, well in drawn)


def hook(monkeypatch, world, kind, name):
    """Let a worker die before or after a coroutine method."""
    real = getattr(kind, name)

    async def hooked(self, *args, **kwargs):
        life = world.of_this_thread()
        if life is not None and life.passing(f"before {kind.__name__}.{name}"):
            await asyncio.get_running_loop().create_future()
        answer = await real(self, *args, **kwargs)
        if life is not None:
            if name == "finish":
                for finish in args[0]:
                    world.running.pop(finish.outcome.id, None)
            if life.passing(f"after {kind.__name__}.{name}"):
                await asyncio.get_running_loop().create_future()
        return answer

    monkeypatch.setattr(kind, name, hooked)


@contextmanager
def simulated(monkeypatch, broker_url):
    """A world on a broker, whose workers may die at every step of STEPS and at an ack."""
    clock = SteppedClock()
    monkeypatch.setattr(results, "time", SimpleNamespace(monotonic=clock.monotonic))
    monkeypatch.setattr(stores, "time", SimpleNamespace(monotonic=clock.monotonic, time=clock.time))
    for module in (chords, intake):
        monkeypatch.setattr(module, "BUSY_DELAY", 0.1)
    monkeypatch.setattr(settle, "CONTESTED_DELAY", 0.1)
    world = World(broker_url, clock)
    for kind, names in STEPS.items():
        for name in names:
            hook(monkeypatch, world, kind, name)
    real = Delivery.ack

    def ack(self):
        life = world.of_this_thread()
        if life is None or not life.passing("before Delivery.ack"):
            real(self)

    monkeypatch.setattr(Delivery, "ack", ack)
    yield world
    if world.life is not None:
        world.life.death = None
        world.life.stop()
    for grave in world.graves:
        for task in asyncio.all_tasks(grave.loop):
            task._log_destroy_pending = False
    KEPT.extend(world.graves)


@pytest.fixture
def world(monkeypatch):
    broker = EmbeddedBroker()
    broker.start()
    with simulated(monkeypatch, broker.url) as world:
        yield world
    broker.close()


@pytest.fixture
def rabbitmq_world(monkeypatch, amqp_url):
    with simulated(monkeypatch, amqp_url) as world:
        yield world


#: The dead are kept until the process ends: collected, their coroutines would end their way.
KEPT = []
STEPS = {
    MemoryStore: ("begin", "finish"),
    MemoryChords: ("create", "count", "load", "end"),
    Producer: ("publish", "send"),
}


def ids_of(handle):
    """Yield every id of tasks that a handle names, its parents' too."""
    while handle is not None:
        if isinstance(handle, GroupResult):
            for one in handle.results:
                yield from ids_of(one)
        else:
            yield handle.id
        handle = handle.parent


async def simulate(world, seed, deaths):
    """Run a seed's composition, workers dying at the steps; return the steps of the last one."""
    app = application(world)
    try:
        composer = Composer(app, random.Random(seed))
        node, good = composer.draw(3)
        while composer.size < 4:
            composer.expected.clear()
            node, good = composer.draw(3)
        deaths = iter(deaths)
        world.begin(next(deaths, None))
        told = [f"seed {seed}"]
        handle = await node.aapply_async()
        ending = asyncio.ensure_future(ended(app, world, handle, composer))
        while not ending.done():
            if world.life.over.is_set():
                told.append(f"died at step {world.life.death}, {world.life.at}")
                world.bury()
                await asyncio.to_thread(world.begin, next(deaths, None))
            await asyncio.wait([ending], timeout=0.01)
        story = "; ".join(told)
        if isinstance(ending.exception(), AmqflowError | TimeoutError | AssertionError):
            pytest.fail(
                f"{story}: {ending.exception()!r}; ran {dict(world.ran)}, "
                f"expected {dict(composer.expected)}, running {world.running}"
            )
        outcomes = ending.result()
        world.life.death = None
        await asyncio.to_thread(world.life.stop)
        assert all(outcome.terminal for outcome in outcomes), story
        assert (outcomes[0].state == "SUCCESS") is good, story
        allowed = composer.expected + world.cut
        wrong = {
            name: count
            for name, count in world.ran.items()
            if not composer.expected[name] <= count <= allowed[name]
        }
        assert not wrong, f"{story}: ran {wrong}"
        assert set(composer.expected) == set(world.ran), story
        return world.life.steps
    finally:
        await app.aclose()


async def ended(app, world, handle, composer):
    # A group's own id first: somebody waits for each as a whole.
    ids = [handle.id, *ids_of(handle)]
    outcomes = [await app.wait_outcome(one, GET) for one in ids]

    async def over():
        known = await app.runtime().chords.kept(1000, fired=False)
        return (
            all(one.state is not State.OPEN for one in known)
            and composer.expected.keys() <= world.ran.keys()
            and not world.running
            and await empty(app)
        )

    await until(over, deadline=GET)
    return outcomes


async def empty(app):
    transport = app.runtime().transport
    names = ("default", f"amqflow.{app.name}.completions")
    found = [await transport.declare_queue(name, passive=True) for name in names]
    return not any(one.messages for one in found)


@pytest.mark.parametrize("seed", SEEDS)
async def test_a_seeds_composition_survives_deaths_at_the_steps_it_names(world, seed):
    chance = random.Random(f"deaths {seed}")
    await simulate(world, seed, [chance.randint(1, 25) for _ in range(5)])


@pytest.mark.slow
@pytest.mark.parametrize("seed", MORE)
async def test_many_seeds_compositions_survive_deaths_at_the_steps_they_name(world, seed):
    chance = random.Random(f"deaths {seed}")
    await simulate(world, seed, [chance.randint(1, 40) for _ in range(8)])


@pytest.mark.cross
@pytest.mark.parametrize("seed", ON_RABBITMQ)
async def test_seeds_compositions_survive_deaths_on_rabbitmq(rabbitmq_world, seed):
    chance = random.Random(f"deaths {seed}")
    await simulate(rabbitmq_world, seed, [chance.randint(1, 40) for _ in range(8)])


@pytest.mark.slow
@pytest.mark.parametrize("seed", SEEDS[:3])
async def test_a_death_at_every_single_step_of_a_composition(world, seed):
    """Each life is one step longer than the one before."""
    for death in itertools.count(1):
        world.ran.clear()
        world.cut.clear()
        steps = await simulate(world, seed, [death])
        if not world.graves or world.graves[-1].death != death:
            assert steps < death
            return
