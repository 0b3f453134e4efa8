"""Times a contestant's publishes; the same loops for every contestant."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any, Protocol

from benchmarks.job import Job, cpu_seconds, fail, now, write_report

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

#: Publishes that an asyncio contestant has under way at once.
PIPELINE = 1000


def blocking(job: Job, send: Callable[[int], object]) -> None:
    """Publish one after another from one thread, each confirmed before the next."""
    for number in range(job.warm_up):
        send(number)
    cpu, start = cpu_seconds(), now()
    for number in range(job.warm_up, job.count):
        send(number)
    _report(job, start, cpu)


async def pipelined(job: Job, send: Callable[[int], Awaitable[object]]) -> None:
    """Publish with `PIPELINE` calls gathered at a time, each awaited to its confirm."""
    await _gathered(range(job.warm_up), send)
    cpu, start = cpu_seconds(), now()
    await _gathered(range(job.warm_up, job.count), send)
    _report(job, start, cpu)


async def _gathered(numbers: range, send: Callable[[int], Awaitable[object]]) -> None:
    for first in range(numbers.start, numbers.stop, PIPELINE):
        await asyncio.gather(*map(send, range(first, min(first + PIPELINE, numbers.stop))))


def _report(job: Job, start: float, cpu: float) -> None:
    seconds = now() - start
    numbers: dict[str, Any] = {
        "published": job.count - job.warm_up,
        "seconds": seconds,
        "cpu": cpu_seconds() - cpu,
    }
    write_report(job.report, numbers)


def round_trips(job: Job, call: Callable[[int], object]) -> None:
    """Call and wait for the result, one after another; report each one's seconds."""
    for number in range(job.warm_up):
        call(number)
    took = []
    for number in range(job.count):
        start = now()
        call(number)
        took.append(now() - start)
    write_report(job.report, {"seconds": took})


async def round_trips_async(job: Job, call: Callable[[int], Awaitable[object]]) -> None:
    """`round_trips` for an asyncio caller."""
    for number in range(job.warm_up):
        await call(number)
    took = []
    for number in range(job.count):
        start = now()
        await call(number)
        took.append(now() - start)
    write_report(job.report, {"seconds": took})


class Handle(Protocol):
    """The result of a chord's body, ours or Celery's."""

    @property
    def get(self) -> Callable[..., int]:
        """Wait for it."""
        ...


def timed_chord(job: Job, start: Callable[[int], Handle]) -> None:
    """Run a small chord, then one of ``count`` members; report its seconds, sending included."""
    _completed(start(job.warm_up), job.warm_up)
    began = now()
    handle = start(job.count)
    sent = now() - began
    _completed(handle, job.count)
    write_report(job.report, {"seconds": now() - began, "sent": sent})


def _completed(handle: Handle, count: int) -> None:
    if handle.get(timeout=200) != count:
        fail("the body did not get every result")
