"""How fast two pool processes run no-op tasks: amqflow's `processes` and Celery's `prefork`."""

from __future__ import annotations

import time
from dataclasses import replace
from typing import TYPE_CHECKING

from benchmarks.contestants import AMQFLOW, AMQFLOW_CLASSIC, CELERY
from benchmarks.process import LOOK, BenchmarkError, python
from benchmarks.tally import Board

if TYPE_CHECKING:
    from benchmarks.contestants import Contestant
    from benchmarks.job import Job
    from benchmarks.process import Child
    from benchmarks.session import Session

POOLS = "pools"

#: Pool processes of each worker.
CHILDREN = 2
#: Messages each worker holds beyond the broker: Celery's default of four per process.
PREFETCH = 8


def _celery(job: Job) -> list[str]:
    return python(
        "celery", "-A", "benchmarks.apps.celery_app", "worker",
        "-P", "prefork", "-c", str(CHILDREN), "-Q", job.queue, "-l", "warning",
        "--without-gossip", "--without-mingle", "--without-heartbeat",
    )  # fmt: skip


def _amqflow(job: Job) -> list[str]:
    return python(
        "amqflow", "-A", "benchmarks.apps.amqflow_app", "worker",
        "-P", "processes", "-c", str(CHILDREN), "-Q", job.queue, "-l", "warning",
    )  # fmt: skip


CONTESTANTS = (
    replace(CELERY, key="celery-prefork", title="Celery, prefork", worker=_celery),
    replace(AMQFLOW, key="amqflow-processes", title="amqflow, processes", worker=_amqflow),
    replace(
        AMQFLOW_CLASSIC,
        key="amqflow-processes-classic",
        title="amqflow, processes",
        worker=_amqflow,
    ),
)


def run(session: Session) -> None:
    """Publish with amqflow, drain with each contestant's worker, rounds interleaved."""
    for number in range(session.scale.rounds):
        turn = number % len(CONTESTANTS)
        for contestant in CONTESTANTS[turn:] + CONTESTANTS[:turn]:
            _one(session, contestant)


def _one(session: Session, contestant: Contestant) -> None:
    count = session.scale.messages
    job = session.job(contestant, POOLS, count, threads=CHILDREN, prefetch=PREFETCH)
    path = session.path(job, "board")
    with Board(path, count) as board:
        job = job.but(extra=(*job.extra, ("board", str(path))))
        try:
            session.run(contestant, contestant.publisher(), job, role="publisher")
            session.broker.expect([job.queue], count)
            with session.start(contestant, contestant.worker(job), job, role="worker") as worker:
                _wait(worker, board, session.scale.deadline)
                said = worker.tail()
            runs, first, last = board.read()
        finally:
            session.clean(contestant, job)
    if runs != [1] * count:
        twice = [number for number, times in enumerate(runs) if times > 1]
        message = (
            f"{contestant.key}: {count} published, {sum(runs)} runs, more than one of "
            f"{twice[:20]}; its worker said:\n{said}"
        )
        raise BenchmarkError(message)
    rate = (count - 1) / (last - first)
    session.say(f"  {contestant.key:<26}{rate:>9,.0f} tasks/s by {CHILDREN} processes")
    session.results.add(POOLS, contestant.key, rate=rate)


def _wait(worker: Child, board: Board, deadline: float) -> None:
    end = time.monotonic() + deadline
    while not board.full:
        if time.monotonic() > end:
            message = f"{worker.name} did not run all in {deadline:.0f} s:\n{worker.tail()}"
            raise BenchmarkError(message)
        time.sleep(LOOK)
