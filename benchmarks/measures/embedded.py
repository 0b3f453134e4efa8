"""The embedded broker, in a process of its own: what aio-pika gets from it, and how soon it is up.

RabbitMQ beside it, with the same client and the same queue, says what the client alone can do.
"""

from __future__ import annotations

import re
import time
from typing import TYPE_CHECKING

from benchmarks.apps.embedded_start import STARTS
from benchmarks.broker import Broker
from benchmarks.contestants import PIKA
from benchmarks.job import now
from benchmarks.process import LOOK, BenchmarkError, Child, python

if TYPE_CHECKING:
    from benchmarks.session import Session

#: Confirmed publishes, and deliveries each acknowledged on its own, to aio-pika.
EMBEDDED_PUBLISH = "embedded publish"
EMBEDDED_DELIVER = "embedded deliver"
#: In a process that has it imported, and from the process's start.
EMBEDDED_START = "embedded start"

EMBEDDED, RABBITMQ = "embedded", "rabbitmq"

_URL = re.compile(r"amqp://\S+")


def run(session: Session) -> None:
    """Start it, then let aio-pika publish to and consume from both brokers, in turns."""
    _starts(session)
    with _served(session) as child:
        brokers = {EMBEDDED: Broker(_announced(child, session.scale.deadline))}
        brokers[RABBITMQ] = session.broker
        for number in range(session.scale.rounds):
            for key in (EMBEDDED, RABBITMQ) if number % 2 else (RABBITMQ, EMBEDDED):
                _one(session, key, brokers[key])


def _served(session: Session) -> Child:
    log = session.file("embedded.log")
    arguments = ("broker", "--port", "0", "--management-port", "0", "--name", f"bench-{log.name}")
    return Child(python("amqflow", *arguments), {}, log, name="embedded broker")


def _announced(child: Child, deadline: float) -> str:
    """Return the URL it prints once it listens."""
    end = now() + deadline
    while (found := _URL.search(child.printed())) is None:
        if now() > end:
            message = f"the embedded broker said nothing in {deadline:.0f} s:\n{child.tail()}"
            raise BenchmarkError(message)
        time.sleep(LOOK)
    return found.group()


def _starts(session: Session) -> None:
    job = session.job(PIKA, "start", session.scale.starts)
    seconds = session.run(PIKA, python(STARTS), job, role="starter")["seconds"]
    for _ in range(session.scale.starts):
        with _served(session) as child:
            _announced(child, session.scale.deadline)
            whole = now() - child.started
        session.say(f"  {EMBEDDED:<26}{whole * 1000:>9.0f} ms from process start to its address")
        session.results.add(EMBEDDED_START, EMBEDDED, process=whole)
    for took in seconds:
        session.results.add(EMBEDDED_START, EMBEDDED, seconds=took)


def _one(session: Session, key: str, broker: Broker) -> None:
    scale = session.scale
    job = session.job(
        PIKA, key, scale.messages, warm_up=min(scale.warm_up, scale.messages // 4)
    ).but(broker=broker.url)
    try:
        published = session.run(PIKA, PIKA.publisher(), job, role="publisher")
        broker.expect([job.queue], job.count)
        rate = published["published"] / published["seconds"]
        session.say(f"  {key:<26}{rate:>9,.0f} confirmed/s")
        cpu = published["cpu"] / published["published"]
        session.results.add(EMBEDDED_PUBLISH, key, rate=rate, cpu=cpu)
        path = session.path(job, "worker.json")
        watched = job.but(report=str(path))
        with session.start(PIKA, PIKA.worker(watched), watched, role="worker") as worker:
            tally = worker.report(path, scale.deadline)
        if not tally["ran"] == tally["distinct"] == job.count:
            message = f"{key}: {job.count} published, {tally['ran']} delivered"
            raise BenchmarkError(message)
        broker.expect([job.queue], 0)
        rate = (tally["ran"] - 1) / (tally["last"] - tally["first"])
        session.say(f"  {key:<26}{rate:>9,.0f} delivered/s")
        session.results.add(EMBEDDED_DELIVER, key, rate=rate, cpu=tally["cpu"] / tally["ran"])
    finally:
        broker.delete([job.queue], [])
