"""Dramatiq: the actor and its publisher. Its worker is `dramatiq benchmarks.apps.dramatiq_app`."""

from __future__ import annotations

import sys

import dramatiq
from dramatiq.brokers.rabbitmq import RabbitmqBroker

from benchmarks.job import Job, fail
from benchmarks.publishing import blocking
from benchmarks.tally import Tally

JOB = Job.from_environment()
TALLY = Tally(JOB)

broker = RabbitmqBroker(url=JOB.broker, confirm_delivery=True)
dramatiq.set_broker(broker)


@dramatiq.actor(actor_name="noop", queue_name=JOB.queue)
def noop(number: int) -> None:
    TALLY.ran(number)


if __name__ == "__main__":
    match sys.argv[1]:
        case "publish":
            blocking(JOB, noop.send)
        case unknown:
            fail(f"no verb {unknown!r}")
    broker.close()
