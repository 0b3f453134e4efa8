"""Taskiq with taskiq-aio-pika: the task and its publisher. Its worker is `taskiq worker`."""

from __future__ import annotations

import sys

import uvloop
from taskiq_aio_pika import AioPikaBroker, Exchange, Queue, QueueType

from benchmarks.job import Job, fail
from benchmarks.publishing import pipelined
from benchmarks.tally import Tally

JOB = Job.from_environment()
TALLY = Tally(JOB)

broker = AioPikaBroker(
    JOB.broker,
    qos=JOB.prefetch,
    exchange=Exchange(name=f"{JOB.queue}.exchange"),
    task_queues=[
        Queue(name=JOB.queue, type=QueueType.CLASSIC if JOB.classic else QueueType.QUORUM)
    ],
    dead_letter_queue=Queue(name=f"{JOB.queue}.dead", type=QueueType.CLASSIC),
)

if JOB.is_async:

    @broker.task(task_name="noop")
    async def noop(number: int) -> None:
        TALLY.ran(number)

else:

    @broker.task(task_name="noop")
    def noop(number: int) -> None:
        TALLY.ran(number)


async def _publish() -> None:
    await broker.startup()
    await pipelined(JOB, noop.kiq)
    await broker.shutdown()


if __name__ == "__main__":
    match sys.argv[1]:
        case "publish":
            uvloop.run(_publish())
        case unknown:
            fail(f"no verb {unknown!r}")
