"""How long one call takes from `delay()` to its result, one after another, results in Redis."""

from __future__ import annotations

from typing import TYPE_CHECKING

from benchmarks.contestants import AMQFLOW, AMQFLOW_CLASSIC, CELERY, CELERY_QUORUM
from benchmarks.process import python
from benchmarks.results import percentile

if TYPE_CHECKING:
    from benchmarks.contestants import Contestant
    from benchmarks.session import Session

ROUND_TRIP = "round trip"

#: Who calls, with which verb, under which key the numbers are kept.
CALLERS = (
    (CELERY, "call", "celery"),
    (CELERY_QUORUM, "call", "celery-quorum"),
    (AMQFLOW, "call", "amqflow"),
    (AMQFLOW_CLASSIC, "call", "amqflow-classic"),
    (AMQFLOW, "acall", "amqflow-await"),
)


def run(session: Session) -> None:
    """Let each caller make its calls against its own worker, rounds interleaved."""
    for number in range(session.scale.rounds):
        turn = number % len(CALLERS)
        for contestant, verb, key in CALLERS[turn:] + CALLERS[:turn]:
            _one(session, contestant, verb, key)


def _one(session: Session, contestant: Contestant, verb: str, key: str) -> None:
    scale = session.scale
    job = session.job(
        contestant, "call", scale.calls, warm_up=scale.warm_up // 10 + 5, backend=session.backend
    )
    ready = session.path(job, "ready.json")
    watched = job.but(report=str(ready), extra=(*job.extra, ("report_ready", True)))
    try:
        with session.start(contestant, contestant.worker(job), watched, role="worker") as worker:
            worker.report(ready, scale.deadline)
            report = session.run(contestant, python(contestant.app, verb), job, role="caller")
    finally:
        session.clean(contestant, job)
    took = report["seconds"]
    p50, p99 = percentile(took, 0.5), percentile(took, 0.99)
    session.say(f"  {key:<26}{p50 * 1000:>9.2f} ms p50 {p99 * 1000:>9.2f} ms p99")
    session.results.add(ROUND_TRIP, key, p50=p50, p99=p99)
