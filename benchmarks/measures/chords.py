"""How fast a chord of many no-op members completes: from the call to the body's result."""

from __future__ import annotations

from typing import TYPE_CHECKING

from benchmarks.contestants import AMQFLOW, CELERY
from benchmarks.process import python

if TYPE_CHECKING:
    from benchmarks.contestants import Contestant
    from benchmarks.session import Session

CHORDS = "chords"

#: The keys of the chord of twice the size: whether the time per member stays.
TWICE = "-twice"


def run(session: Session) -> None:
    """Let each run chords against its own worker, rounds interleaved."""
    scale = session.scale
    for number in range(scale.rounds):
        pair = (CELERY, AMQFLOW) if number % 2 == 0 else (AMQFLOW, CELERY)
        for contestant in pair:
            _one(session, contestant, scale.members, contestant.key)
        _one(session, AMQFLOW, 2 * scale.members, AMQFLOW.key + TWICE)


def _one(session: Session, contestant: Contestant, members: int, key: str) -> None:
    scale = session.scale
    job = session.job(contestant, "chord", members, warm_up=20, backend=session.backend)
    ready = session.path(job, "ready.json")
    watched = job.but(report=str(ready), extra=(*job.extra, ("report_ready", True)))
    try:
        with session.start(contestant, contestant.worker(job), watched, role="worker") as worker:
            worker.report(ready, scale.deadline)
            report = session.run(contestant, python(contestant.app, "chord"), job, role="caller")
    finally:
        session.clean(contestant, job)
    rate = members / report["seconds"]
    session.say(f"  {key:<26}{rate:>9,.0f} members/s of {members:,}")
    session.results.add(CHORDS, key, rate=rate, members=members, sent=report["sent"])
