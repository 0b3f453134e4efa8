"""Other clients on the broker: pika, py-amqp with kombu, and a Celery worker with its producer."""

import asyncio
import os
import subprocess
import sys
from pathlib import Path

import amqp
import kombu
import pika
import pika.adapters.asyncio_connection
import pytest
from kombu.simple import SimpleQueue

from tests.broker.conftest import BROKERS
from tests.servers.wait import until_sync

ROOT = Path(__file__).parents[2]


# pika


@pytest.fixture
def blocking(served):
    connection = pika.BlockingConnection(pika.URLParameters(served.url))
    yield connection
    if connection.is_open:
        connection.close()


def test_pikas_blocking_connection_publishes_consumes_and_settles(blocking, name):
    channel = blocking.channel()
    channel.confirm_delivery()
    channel.queue_declare(name, durable=True, arguments={"x-max-priority": 3})
    for priority in (1, 3, 2):
        properties = pika.BasicProperties(delivery_mode=2, priority=priority, headers={"n": 1})
        channel.basic_publish("", name, str(priority).encode(), properties, mandatory=True)
    with pytest.raises(pika.exceptions.UnroutableError):
        channel.basic_publish("", f"{name}-nowhere", b"1", mandatory=True)
    order = []
    for method, properties, body in channel.consume(name, inactivity_timeout=10):
        if not method.redelivered:
            channel.basic_nack(method.delivery_tag)
            continue
        order.append((body, properties.headers))
        channel.basic_ack(method.delivery_tag)
        if len(order) == 3:
            break
    assert order == [(b"3", {"n": 1}), (b"2", {"n": 1}), (b"1", {"n": 1})]
    assert channel.cancel() == 0
    assert channel.queue_delete(name).method.message_count == 0


def test_pika_reads_the_brokers_refusals(blocking, name):
    channel = blocking.channel()
    with pytest.raises(pika.exceptions.ChannelClosedByBroker) as caught:
        channel.queue_declare(name, passive=True)
    assert caught.value.reply_code == 404
    again = blocking.channel()
    assert again.queue_declare("", exclusive=True).method.message_count == 0


def test_pika_learns_of_a_wrong_password(served):
    parameters = pika.URLParameters(served.url.replace("guest:guest", "guest:wrong"))
    with pytest.raises(pika.exceptions.ProbableAuthenticationError):
        pika.BlockingConnection(parameters)


async def test_pikas_asyncio_connection_publishes_and_consumes(served, name):
    loop = asyncio.get_running_loop()
    received: asyncio.Queue[bytes] = asyncio.Queue()
    closed = loop.create_future()

    def opened(connection):
        connection.channel(on_open_callback=with_channel)

    def with_channel(channel):
        channel.queue_declare(name, exclusive=True, callback=lambda _: consume(channel))

    def consume(channel):
        def receive(channel, method, _properties, body):
            channel.basic_ack(method.delivery_tag)
            received.put_nowait(body)

        channel.basic_qos(prefetch_count=5)
        channel.basic_consume(name, receive)
        for number in range(20):
            channel.basic_publish("", name, str(number).encode())

    connection = pika.adapters.asyncio_connection.AsyncioConnection(
        pika.URLParameters(served.url),
        on_open_callback=opened,
        on_close_callback=lambda _connection, _reason: closed.set_result(True),
        custom_ioloop=loop,
    )
    async with asyncio.timeout(15):
        bodies = [await received.get() for _ in range(20)]
        connection.close()
        await closed
    assert bodies == [str(number).encode() for number in range(20)]


# py-amqp and kombu


def test_py_amqp_publishes_and_consumes(served, name):
    host, port = served.address
    with amqp.Connection(f"{host}:{port}", virtual_host=served.vhost, confirm_publish=True) as it:
        channel = it.channel()
        channel.queue_declare(name, exclusive=True)
        channel.basic_publish(amqp.Message("one", delivery_mode=2), routing_key=name)
        received = []
        channel.basic_consume(name, callback=received.append)
        while not received:
            it.drain_events(timeout=10)
        assert received[0].body == "one"
        channel.basic_ack(received[0].delivery_tag)
        with pytest.raises(amqp.exceptions.NotFound):
            channel.queue_declare(f"{name}-nowhere", passive=True)


def test_kombu_sends_and_receives_objects(served, name):
    with kombu.Connection(served.url) as connection, SimpleQueue(connection, name) as queue:
        queue.put({"hello": [1, 2, 3]})
        message = queue.get(timeout=30)
        assert message.payload == {"hello": [1, 2, 3]}
        message.ack()


# Celery

PRODUCER = """
from tests.broker.celery_app import add, app, fail, stubborn
from celery import chain, group
import time
end = time.monotonic() + 30
while not app.control.ping(timeout=0.5):
    assert time.monotonic() < end, "no worker answers"
print(add.delay(2, 3).get(timeout=60))
print(add.apply_async((1, 1), countdown=0.3, priority=5).get(timeout=60))
print(chain(add.s(1, 2), add.s(3))().get(timeout=60))
print(group(add.s(n, n) for n in range(20))().get(timeout=60))
print(stubborn.delay().get(timeout=60))
try:
    fail.delay().get(timeout=60)
except ValueError as error:
    print("ValueError", error)
print(sorted(app.control.inspect(timeout=5).active_queues().popitem()[1][0])[:2])
"""


@pytest.mark.parametrize(
    "served",
    [pytest.param(one, marks=pytest.mark.slow) if one == "rabbitmq" else one for one in BROKERS],
    indirect=True,
)
def test_a_celery_worker_and_its_producer_work_on_the_broker(served, tmp_path):
    environment = os.environ | {"PLAIN_BROKER": served.url, "PYTHONPATH": str(ROOT)}
    celery = [sys.executable, "-m", "celery", "-A", "tests.broker.celery_app", "worker"]
    log = tmp_path / "worker.log"
    with (
        log.open("wb") as output,
        subprocess.Popen(
            [*celery, "-P", "threads", "-c", "4", "-l", "info", "-E"],
            cwd=ROOT,
            env=environment,
            stdout=output,
            stderr=subprocess.STDOUT,
        ) as worker,
    ):
        try:
            producer = subprocess.run(
                [sys.executable, "-c", PRODUCER],
                cwd=ROOT,
                env=environment,
                capture_output=True,
                text=True,
                timeout=90,
                check=False,
            )
        finally:
            worker.terminate()
            worker.wait(30)
    assert producer.stdout.splitlines() == [
        "5",
        "2",
        "6",
        str([2 * number for number in range(20)]),
        "2",
        "ValueError as it should",
        "['alias', 'auto_delete']",
    ], producer.stderr + log.read_text()
    assert until_sync(lambda: worker.returncode == 0, deadline=1)
