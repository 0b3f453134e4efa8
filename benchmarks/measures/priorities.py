"""Priorities: is a queue of mixed priorities worked off in order, with a slow consumer?"""

from __future__ import annotations

import random
from typing import TYPE_CHECKING, Any

from benchmarks.contestants import AMQFLOW
from benchmarks.process import BenchmarkError, python

if TYPE_CHECKING:
    from collections.abc import Sequence

    from benchmarks.session import Session

PRIORITIES = "priorities"

#: Two tasks at once and eight messages held: the window within which order may differ.
THREADS, PREFETCH = 2, 8
#: The highest priority, which the urgent messages have.
URGENT = 9


def run(session: Session) -> None:
    """Publish mixed priorities beforehand, work them off slowly, send urgent ones meanwhile."""
    scale = session.scale
    priorities = [number % 10 for number in range(scale.prioritised)]
    random.Random(1).shuffle(priorities)
    job = session.job(
        AMQFLOW,
        "priorities",
        scale.prioritised,
        threads=THREADS,
        prefetch=PREFETCH,
        records=True,
        pause=scale.pause,
        extra={
            "priorities": priorities,
            "from": scale.prioritised,
            "inject": scale.injected,
            "urgent": URGENT,
            # Over about half of the time the worker takes at its very fastest.
            "every": scale.prioritised * scale.pause / THREADS / 2 / scale.injected,
        },
    )
    confirmed, tally = session.path(job, "injected.json"), session.path(job, "worker.json")
    job = job.but(extra=(*job.extra, ("confirmed", str(confirmed))))
    try:
        session.run(AMQFLOW, python(AMQFLOW.app, "publish-priorities"), job, role="publisher")
        session.broker.expect([job.queue], scale.prioritised)
        total = scale.prioritised + scale.injected
        working = job.but(count=total, report=str(tally))
        with session.start(AMQFLOW, AMQFLOW.worker(job), working, role="worker") as worker:
            with session.start(
                AMQFLOW, python(AMQFLOW.app, "inject"), job, role="injector"
            ) as injector:
                moments = injector.report(confirmed, scale.deadline)
                injector.finish(scale.deadline)
            report = worker.report(tally, scale.deadline)
        session.broker.expect([job.queue], 0)
    finally:
        session.clean(AMQFLOW, job)
    _judge(session, report, priorities, moments)


def _judge(
    session: Session, report: dict[str, Any], priorities: Sequence[int], moments: dict[str, float]
) -> None:
    numbers = [number for number, _ in sorted(report["runs"], key=lambda run: run[1])]
    expected = len(priorities) + len(moments)
    if len(numbers) != expected or len(set(numbers)) != expected:
        message = f"{expected} messages of mixed priority, {len(numbers)} runs"
        raise BenchmarkError(message)
    beforehand = [priorities[number] for number in numbers if number < len(priorities)]
    violations = out_of_order(beforehand, PREFETCH)
    waits = overtaken(report["runs"], moments, priorities)
    session.say(
        f"  {len(beforehand):,} in mixed priorities: {violations} out of order beyond the window "
        f"of {PREFETCH}; {len(moments)} urgent ones waited for {max(waits)} lower ones at most"
    )
    session.results.add(
        PRIORITIES,
        "amqflow",
        count=len(beforehand),
        violations=violations,
        injected=len(moments),
        waited=max(waits),
    )


def out_of_order(executed: Sequence[int], window: int) -> int:
    """Count the tasks that ran more than ``window`` runs before one of higher priority.

    All were in the queue before the first ran, so the exact order is from high to low.
    """
    count, highest = 0, -1
    for position in range(len(executed) - 1, -1, -1):
        if position + window + 1 < len(executed):
            highest = max(highest, executed[position + window + 1])
        count += executed[position] < highest
    return count


def overtaken(
    runs: Sequence[tuple[int, float]], confirmed: dict[str, float], priorities: Sequence[int]
) -> list[int]:
    """Return how many of lower priority started between each urgent one's confirm and its start.

    Those of the same priority were there first, and go first.
    """
    started = dict(runs)
    lower = [
        moment for number, moment in runs if number < len(priorities) if priorities[number] < URGENT
    ]
    return [
        sum(since < moment < started[int(number)] for moment in lower)
        for number, since in confirmed.items()
    ]
