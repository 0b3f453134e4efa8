"""Time limits: how late a task sees its soft one, and its slot is free after the hard one."""

from __future__ import annotations

import time
from dataclasses import replace
from typing import TYPE_CHECKING

from benchmarks.contestants import AMQFLOW
from benchmarks.process import LOOK, BenchmarkError, python

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from benchmarks.contestants import Contestant
    from benchmarks.job import Job
    from benchmarks.session import Session

OVERRUNS = "overruns"

#: Slots of each worker.
SLOTS = 2
#: The limits, in seconds.
LIMIT = 2.0


def _processes(job: Job) -> list[str]:
    return _worker(job, "processes")


def _asyncio(job: Job) -> list[str]:
    return _worker(job, "asyncio")


def _worker(job: Job, pool: str) -> list[str]:
    return python(
        "amqflow", "-A", "benchmarks.apps.amqflow_app", "worker",
        "-P", pool, "-c", str(SLOTS), "-Q", job.queue, "-l", "critical",
    )  # fmt: skip


CONTESTANTS = (
    replace(AMQFLOW, key="limits-processes", title="`processes`, `def`", worker=_processes),
    replace(
        AMQFLOW,
        key="limits-asyncio",
        title="`asyncio`, `async def`",
        worker=_asyncio,
        is_async=True,
    ),
)


def run(session: Session) -> None:
    """Let tasks run into their limits, one after the other in each slot."""
    for _ in range(session.scale.rounds):
        for contestant in CONTESTANTS:
            soft = _late(session, contestant, "soft_time_limit")
            hard = _late(session, contestant, "time_limit")
            session.say(
                f"  {contestant.key:<26}soft {max(soft) * 1000:6.1f} ms late, "
                f"slot free {max(hard) * 1000:6.1f} ms after the hard limit, at worst"
            )
            session.results.add(OVERRUNS, contestant.key, soft=max(soft), hard=max(hard))


def _late(session: Session, contestant: Contestant, limit: str) -> list[float]:
    """Return how late each of a row of limits took effect, in seconds."""
    count = session.scale.overruns
    notes = session.file("notes")
    notes.touch()
    job = session.job(
        contestant,
        "limits",
        count,
        threads=SLOTS,
        prefetch=SLOTS * 4,
        extra={"notes": str(notes), "limit": limit, "seconds": LIMIT},
    )
    kind = "seen" if limit == "soft_time_limit" else "began"
    try:
        with session.start(contestant, contestant.worker(job), job, role="worker") as worker:
            with session.start(
                contestant, python(contestant.app, "publish-limits"), job, role="publisher"
            ) as publisher:
                publisher.finish(session.scale.deadline)
            end = time.monotonic() + session.scale.deadline
            while len(moments(notes, kind)) < count:
                if time.monotonic() > end:
                    message = f"{worker.name} did not run into all limits:\n{worker.tail()}"
                    raise BenchmarkError(message)
                time.sleep(LOOK)
    finally:
        session.clean(contestant, job)
    began = moments(notes, "began")
    if kind == "seen":
        seen = moments(notes, "seen")
        return [seen[number] - began[number] - LIMIT for number in began]
    return gaps(sorted(began.values()))


def moments(notes: Path, kind: str) -> dict[str, float]:
    """Return when each task wrote a note of some kind."""
    entries = [line.split() for line in notes.read_text().splitlines()]
    return {number: float(moment) for what, number, moment in entries if what == kind}


def gaps(starts: Sequence[float]) -> list[float]:
    """Return how long after a task's limit the next one began in its slot.

    Every task runs into its limit, so the slots are freed in the order they were taken.
    """
    return [
        following - before - LIMIT
        for before, following in zip(starts, starts[SLOTS:], strict=False)
    ]
