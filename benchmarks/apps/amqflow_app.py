"""amqflow: the tasks and their callers. Its worker is `amqflow -A benchmarks.apps.amqflow_app`."""

from __future__ import annotations

import asyncio
import random
import sys
import time
from dataclasses import replace
from typing import TYPE_CHECKING

import uvloop

from amqflow import AmqFlow, SoftTimeLimitExceeded, chord, signals
from amqflow.provision import apply
from amqflow.topology import BrokerFacts, QueueNeeds, Topology, derive
from amqflow.topology.model import QueueType
from benchmarks.job import Job, fail, now, write_report
from benchmarks.publishing import (
    blocking,
    pipelined,
    round_trips,
    round_trips_async,
    timed_chord,
)
from benchmarks.tally import tally_of

if TYPE_CHECKING:
    from amqflow.handles import AsyncResult

JOB = Job.from_environment()
TALLY = tally_of(JOB)
EXTRA = dict(JOB.extra)


def classic(topology: Topology, queue: str) -> Topology:
    """Return the topology with its work queue as the peers have it: classic, durable."""
    work = topology.queue(queue)
    letter = work.dead_letter
    plain = replace(
        work,
        type=QueueType.CLASSIC,
        dead_letter=letter and replace(letter, at_least_once=False),
        overflow=None,
        delivery_limit=None,
    )
    others = tuple(part for part in topology.queues if part.name != queue)
    return replace(topology, queues=(plain, *others))


def _topology() -> Topology | None:
    """Return None for the default, which the worker derives: a quorum queue."""
    if not JOB.classic:
        return None
    facts = BrokerFacts(tuple(EXTRA["broker_version"]))
    return classic(derive(JOB.queue, {JOB.queue: QueueNeeds()}, facts), JOB.queue)


app = AmqFlow(
    JOB.queue,
    broker=JOB.broker,
    backend=JOB.backend or None,
    topology=_topology(),
    task_default_queue=JOB.queue,
    worker_prefetch_multiplier=JOB.prefetch // JOB.threads,
)

if JOB.is_async:

    @app.task(name="noop")
    async def noop(number: int) -> None:
        TALLY.ran(number)

elif "priorities" in EXTRA:

    @app.task(name="noop", priority=0)
    def noop(number: int) -> None:
        TALLY.ran(number)
        time.sleep(JOB.pause)

elif "spread" in EXTRA:

    @app.task(name="noop")
    def noop(number: int, due: float) -> None:
        # How late it runs; below zero is early.
        TALLY.note(number, time.time() - due)

else:

    @app.task(name="noop")
    def noop(number: int) -> None:
        TALLY.ran(number)


@app.task(name="add")
def add(x: int, y: int) -> int:
    return x + y


@app.task(name="zero")
def zero(number: int) -> int:
    return number


@app.task(name="size")
def size(values: list[int]) -> int:
    return len(values)


def _note(kind: str, number: int) -> None:
    with open(EXTRA["notes"], "ab", buffering=0) as file:  # noqa: PTH123 - in one write
        file.write(f"{kind} {number} {now()}\n".encode())


@app.task(name="overruns")
def overruns(number: int) -> None:
    _note("began", number)
    try:
        while True:
            time.sleep(60)
    except SoftTimeLimitExceeded:
        _note("seen", number)


@app.task(name="aoverruns")
async def aoverruns(number: int) -> None:
    _note("began", number)
    try:
        await asyncio.sleep(3600)
    except SoftTimeLimitExceeded:
        _note("seen", number)


@signals.worker_ready.connect
def _ready(**_: object) -> None:
    if "report_ready" in EXTRA:
        write_report(JOB.report, {"ready": now()})


async def _prepare() -> None:
    """Bring the topology about, as a worker does at its start."""
    transport = app.runtime().transport
    facts = BrokerFacts((await transport.server()).version)
    await apply(app.derived_topology(facts), transport)


async def _publish_adelay() -> None:
    await _prepare()
    await pipelined(JOB, noop.adelay)
    await app.aclose()


async def _publish_apply_async() -> None:
    await _prepare()
    await pipelined(JOB, lambda number: noop.aapply_async((number,)))
    await app.aclose()


def _publish_delay() -> None:
    app.run(_prepare(), twin="prepare")
    blocking(JOB, noop.delay)
    app.close()


async def _publish_delayed() -> None:
    """Publish with due moments spread evenly over `spread` seconds, starting in `lead`."""
    await _prepare()
    first = time.time() + EXTRA["lead"]
    step = EXTRA["spread"] / JOB.count

    async def send(number: int) -> None:
        due = first + number * step
        await noop.aapply_async((number, due), countdown=due - time.time())

    await pipelined(JOB, send)
    await app.aclose()


async def _publish_limits() -> None:
    """Publish tasks that run into the limit named in the job."""
    await _prepare()
    task = aoverruns if JOB.is_async else overruns
    for number in range(JOB.count):
        await task.aapply_async((number,), **{EXTRA["limit"]: EXTRA["seconds"]})
    await app.aclose()


async def _publish_priorities() -> None:
    """Publish numbers in order with priorities from a fixed shuffle; the number tells which."""
    await _prepare()
    priorities = EXTRA["priorities"]

    async def send(number: int) -> None:
        await noop.aapply_async((number,), priority=priorities[number])

    await pipelined(JOB, send)
    await app.aclose()


async def _inject() -> None:
    """While a worker is at it, publish `inject` messages one by one, of high priority."""
    rng = random.Random(7)
    confirmed = {}
    for number in range(EXTRA["from"], EXTRA["from"] + EXTRA["inject"]):
        await asyncio.sleep(rng.uniform(0.0, 2 * EXTRA["every"]))
        await noop.aapply_async((number,), priority=EXTRA["urgent"])
        confirmed[number] = now()
    write_report(EXTRA["confirmed"], {str(number): moment for number, moment in confirmed.items()})
    await app.aclose()


def _call(number: int) -> None:
    if add.delay(number, 1).get(timeout=30) != number + 1:
        fail("a wrong result came back")


def _chord() -> None:
    def start(count: int) -> AsyncResult[int]:
        return chord([zero.s(number) for number in range(count)])(size.s())

    timed_chord(JOB, start)
    app.close()


def _blocking_calls() -> None:
    round_trips(JOB, _call)
    app.close()


async def _async_calls() -> None:
    async def call(number: int) -> None:
        result = await add.adelay(number, 1)
        if await result.aget(timeout=30) != number + 1:
            fail("a wrong result came back")

    await round_trips_async(JOB, call)
    await app.aclose()


ASYNC_VERBS = {
    "prepare": _prepare,
    "publish": _publish_adelay,
    "publish-apply-async": _publish_apply_async,
    "publish-delayed": _publish_delayed,
    "publish-limits": _publish_limits,
    "publish-priorities": _publish_priorities,
    "inject": _inject,
    "acall": _async_calls,
}
BLOCKING_VERBS = {"publish-delay": _publish_delay, "call": _blocking_calls, "chord": _chord}

if __name__ == "__main__":
    verb = sys.argv[1]
    if verb in ASYNC_VERBS:
        uvloop.run(ASYNC_VERBS[verb]())
    elif verb in BLOCKING_VERBS:
        BLOCKING_VERBS[verb]()
    else:
        fail(f"no verb {verb!r}")
