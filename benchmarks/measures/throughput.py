"""Confirmed publishes per second, and how fast one worker process drains what was published."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from benchmarks.process import BenchmarkError

if TYPE_CHECKING:
    from collections.abc import Iterable

    from benchmarks.contestants import Contestant
    from benchmarks.job import Job
    from benchmarks.session import Session

PUBLISH = "publish"
DRAIN = "drain"


def run(session: Session, contestants: Iterable[Contestant], *, drain: bool = True) -> None:
    """Publish with each contestant, and drain with its worker what it has published.

    Rounds go over all contestants before the next begins, in turning order: what slows the
    machine down for a while does not always hit the same one.
    """
    every = list(contestants)
    for number in range(session.scale.rounds):
        turn = number % len(every)
        for contestant in every[turn:] + every[:turn]:
            if drain or contestant.published:
                _one(session, contestant, drain=drain and contestant.drained)


def _one(session: Session, contestant: Contestant, *, drain: bool) -> None:
    scale = session.scale
    count = scale.slow_messages if contestant.slow and not drain else scale.messages
    job = session.job(contestant, PUBLISH, count, warm_up=min(scale.warm_up, count // 4))
    try:
        published = session.run(contestant, contestant.publisher(), job, role="publisher")
        # Every confirmed message is there, no more and no less.
        session.broker.expect([job.queue], count)
        rate = published["published"] / published["seconds"]
        session.say(f"  {contestant.key:<26}{rate:>9,.0f} published/s")
        if contestant.published:
            session.results.add(
                PUBLISH,
                contestant.key,
                rate=rate,
                cpu=published["cpu"] / published["published"],
            )
        if drain:
            _drain(session, contestant, job)
    finally:
        session.clean(contestant, job)


def _drain(session: Session, contestant: Contestant, job: Job) -> None:
    path = session.path(job, "worker.json")
    job = job.but(report=str(path))
    with session.start(contestant, contestant.worker(job), job, role="worker") as worker:
        tally = worker.report(path, session.scale.deadline)
        _exactly_once(contestant, job, tally)
    # Told to stop, the worker has acked what it ran: nothing may come again.
    session.broker.expect([job.queue], 0)
    seconds = tally["last"] - tally["first"]
    rate = (tally["ran"] - 1) / seconds
    session.say(f"  {contestant.key:<26}{rate:>9,.0f} tasks/s drained")
    session.results.add(
        DRAIN,
        contestant.key,
        rate=rate,
        cpu=tally["cpu"] / tally["ran"],
        first=tally["first"] - worker.started,
    )


def _exactly_once(contestant: Contestant, job: Job, tally: dict[str, Any]) -> None:
    if not tally["ran"] == tally["distinct"] == job.count:
        message = (
            f"{contestant.key}: {job.count} published, {tally['ran']} runs of "
            f"{tally['distinct']} different tasks"
        )
        raise BenchmarkError(message)
