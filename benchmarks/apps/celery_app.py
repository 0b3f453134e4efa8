"""Celery: the task and its callers. Its worker is `celery -A benchmarks.apps.celery_app worker`."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

from celery import Celery, chord
from celery.signals import worker_ready

from benchmarks.job import Job, fail, now, write_report
from benchmarks.publishing import blocking, round_trips, timed_chord
from benchmarks.tally import tally_of

if TYPE_CHECKING:
    from celery.result import AsyncResult

JOB = Job.from_environment()
TALLY = tally_of(JOB)

app = Celery("bench", broker=JOB.broker, backend=JOB.backend or None)
app.conf.update(
    task_default_queue=JOB.queue,
    task_ignore_result=not JOB.backend,
    broker_transport_options={"confirm_publish": True},
    broker_connection_retry_on_startup=True,
    worker_prefetch_multiplier=JOB.prefetch // JOB.threads,
)
if not JOB.classic:
    # What its documentation says for quorum queues, and an ack after the task, as ours.
    app.conf.update(
        task_default_queue_type="quorum", worker_detect_quorum_queues=True, task_acks_late=True
    )


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


def _chord(count: int) -> AsyncResult:
    return chord([zero.s(number) for number in range(count)])(size.s())


@worker_ready.connect
def _ready(**_: object) -> None:
    if dict(JOB.extra).get("report_ready"):
        write_report(JOB.report, {"ready": now()})


def _round_trip(number: int) -> None:
    if add.delay(number, 1).get(timeout=30) != number + 1:
        fail("a wrong result came back")


if __name__ == "__main__":
    match sys.argv[1]:
        case "publish":
            blocking(JOB, noop.delay)
        case "call":
            round_trips(JOB, _round_trip)
        case "chord":
            timed_chord(JOB, _chord)
        case unknown:
            fail(f"no verb {unknown!r}")
