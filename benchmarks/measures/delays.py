"""Delays: how late the due ones run, never early; how fast they go in; what waiting ones cost."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from benchmarks.contestants import AMQFLOW
from benchmarks.process import BenchmarkError, python
from benchmarks.results import percentile

if TYPE_CHECKING:
    from benchmarks.session import Session

LATENESS = "lateness"
PENDING = "pending"

#: Seconds a worker is left alone before its memory is read.
SETTLE = 2.0
#: Pending messages are due an hour from now, and over the hour after that.
PENDING_LEAD = 3600.0


def run(session: Session) -> None:
    """Measure lateness in each round, and memory once: it is no matter of speed."""
    for _ in range(session.scale.rounds):
        _lateness(session)
    _pending(session)


def _lateness(session: Session) -> None:
    scale = session.scale
    job = session.job(
        AMQFLOW,
        "delays",
        scale.delayed,
        records=True,
        extra={"lead": scale.lead, "spread": scale.spread},
    )
    tally = session.path(job, "worker.json")
    try:
        with session.start(
            AMQFLOW, AMQFLOW.worker(job), job.but(report=str(tally)), role="worker"
        ) as worker:
            published = session.run(
                AMQFLOW, python(AMQFLOW.app, "publish-delayed"), job, role="publisher"
            )
            if published["seconds"] > scale.lead:
                message = (
                    f"publishing took {published['seconds']:.1f} s, longer than the lead of "
                    f"{scale.lead} s: the first were due before the last were published"
                )
                raise BenchmarkError(message)
            report = worker.report(tally, scale.lead + scale.spread + scale.deadline)
        session.broker.expect([job.queue], 0)
    finally:
        session.clean(AMQFLOW, job)
    late = [lateness for _, lateness in report["runs"]]
    if not report["ran"] == report["distinct"] == scale.delayed:
        message = (
            f"{scale.delayed} delayed messages, {report['ran']} runs of "
            f"{report['distinct']} different ones"
        )
        raise BenchmarkError(message)
    numbers = {
        "earliest": min(late),
        "p50": percentile(late, 0.5),
        "p99": percentile(late, 0.99),
        "max": max(late),
    }
    rate = published["published"] / published["seconds"]
    session.say(
        f"  {rate:,.0f} delayed publishes/s; lateness ms: "
        + ", ".join(f"{name} {value * 1000:.1f}" for name, value in numbers.items())
    )
    session.results.add(LATENESS, "amqflow", rate=rate, **numbers)


def _pending(session: Session) -> None:
    scale = session.scale
    job = session.job(
        AMQFLOW,
        "pending",
        scale.pending,
        warm_up=scale.warm_up,
        extra={"lead": PENDING_LEAD, "spread": PENDING_LEAD, "report_ready": True},
    )
    ready = session.path(job, "ready.json")
    levels = [name for name in session.broker.ladder_queues() if "delay" in name]
    try:
        with session.start(
            AMQFLOW, AMQFLOW.worker(job), job.but(report=str(ready)), role="worker"
        ) as worker:
            worker.report(ready, scale.deadline)
            time.sleep(SETTLE)
            before = worker.resident()
            published = session.run(
                AMQFLOW, python(AMQFLOW.app, "publish-delayed"), job, role="publisher"
            )
            # All of them wait in the ladder, none in the worker or its queue.
            session.broker.expect(levels, scale.pending, deadline=60, twice=scale.pending // 1000)
            time.sleep(SETTLE)
            after = worker.resident()
    finally:
        session.clean(AMQFLOW, job)
        session.broker.delete_ladder()
    rate = published["published"] / published["seconds"]
    session.results.add(PENDING, "amqflow", rate=rate, count=scale.pending)
    if before is not None and after is not None:
        session.say(
            f"  {scale.pending:,} pending: worker {before / 2**20:.1f} MiB before, "
            f"{after / 2**20:.1f} MiB after; {rate:,.0f} published/s"
        )
        session.results.add(PENDING, "amqflow", before=before, after=after)
