"""How late `amqflow beat` publishes what is due in bursts, and what it costs when nothing is due.

One scheduler, no worker: a slot's lateness is from its instant to the broker's confirm, as the
scheduler saw it.
"""

from __future__ import annotations

import asyncio
import json
import os
import time
from pathlib import Path
from typing import TYPE_CHECKING

from amqflow import AmqFlow
from amqflow.provision import apply
from amqflow.topology import BrokerFacts
from benchmarks.contestants import AMQFLOW
from benchmarks.process import BenchmarkError, Child, python
from benchmarks.results import percentile

if TYPE_CHECKING:
    from collections.abc import Callable

    from benchmarks.job import Job
    from benchmarks.session import Session

SCHEDULING = "scheduling"
#: 1,000 slots of one instant each second, the same number spread over each second, none.
TOGETHER, SPREAD, IDLE = "together", "spread", "idle"

#: Seconds left out at the start: connections are made, caches warm.
SETTLE = 3.0


def run(session: Session) -> None:
    """Measure both bursts in each round, and the idle one once."""
    scale = session.scale
    for _ in range(scale.rounds):
        for shape in (TOGETHER, SPREAD):
            _late(session, shape)
    cpu, _ = _scheduled(session, IDLE, scale.idle_entries)
    session.say(f"  idle with {scale.idle_entries:,} entries: {cpu:.2%} of a core")
    session.results.add(SCHEDULING, IDLE, count=scale.idle_entries, cpu=cpu)


def _late(session: Session, shape: str) -> None:
    count = session.scale.entries
    cpu, slots = _scheduled(session, shape, count)
    late = [lateness for _, lateness in slots]
    if not late:
        raise BenchmarkError(f"scheduling, {shape}: nothing was published")
    p50, p99 = percentile(late, 0.5), percentile(late, 0.99)
    session.say(
        f"  {shape:<10}{len(late):>8,} slots {p50 * 1000:>7.1f} ms p50 {p99 * 1000:>7.1f} ms p99 "
        f"{max(late) * 1000:>7.1f} ms max late; {cpu:.0%} of a core"
    )
    session.results.add(
        SCHEDULING, shape, count=count, earliest=min(late), p50=p50, p99=p99, max=max(late), cpu=cpu
    )


def _scheduled(session: Session, shape: str, count: int) -> tuple[float, list[tuple[float, float]]]:
    """Let a scheduler run; return its share of a core, and what it published when, how late."""
    job = session.job(AMQFLOW, shape, count, backend=session.backend, extra={"shape": shape})
    report = session.path(job, "beat.json")
    asyncio.run(_declared(job))
    try:
        child = session.start(
            AMQFLOW,
            python("amqflow", "-A", "benchmarks.apps.beat_app", "beat"),
            job.but(report=str(report)),
            role="beat",
        )
        with child:
            _until(lambda: "scheduling" in child.printed(), child, session.scale.deadline)
            time.sleep(SETTLE)
            began, cpu = time.time(), _cpu(child)
            time.sleep(session.scale.scheduled)
            share = (_cpu(child) - cpu) / (time.time() - began)
    finally:
        session.clean(AMQFLOW, job)
    slots = [(slot, late) for slot, late in json.loads(report.read_text()) if slot >= began]
    return share, slots


async def _declared(job: Job) -> None:
    app = AmqFlow(job.queue, broker=job.broker, task_default_queue=job.queue)
    transport = app.runtime().transport
    facts = BrokerFacts((await transport.server()).version)
    await apply(app.derived_topology(facts), transport)
    await app.aclose()


def _until(condition: Callable[[], bool], child: Child, deadline: float) -> None:
    end = time.monotonic() + deadline
    while not condition():
        if time.monotonic() > end:
            raise BenchmarkError(f"{child.name} is not ready:\n{child.tail()}")
        time.sleep(0.05)


def _cpu(child: Child) -> float:
    """Return the CPU seconds a child has used (Linux: proc(5), utime and stime)."""
    stat = Path(f"/proc/{child.pid}/stat").read_text()
    fields = stat.rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")
