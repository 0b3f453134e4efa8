"""No operation looks at all of a queue: with 100,000 messages it costs what it costs with 100."""

import gc
import time
from collections.abc import Callable

import pamqp.body
import pamqp.commands as amqp
import pamqp.header
import pytest

from amqflow.broker.node import Node
from tests.embedded.sansio import Client, SteppedClock

FEW, MANY = 100, 100_000
ROUNDS, REPEATS = 30, 5

# What MANY may cost more than FEW: an operation that looks at all would cost a thousand times.
# The least of several measurements of CPU time is compared: a busy machine does not matter.
MOST = 50


def _requeue(client: Client) -> None:
    client.send(1, amqp.Basic.Get(queue="q"))
    client.send(1, amqp.Basic.Nack(0, multiple=True, requeue=True))


def _ack(client: Client) -> None:
    client.send(1, amqp.Basic.Get(queue="q"))
    client.send(1, amqp.Basic.Ack(0, multiple=True))
    client.publish("q")


def _publish(client: Client) -> None:
    client.publish("q")
    client.send(1, amqp.Basic.Get(queue="q", no_ack=True))


def _declare(client: Client) -> None:
    client.send(1, amqp.Queue.Declare(queue="q", passive=True))


def _consume(client: Client) -> None:
    client.send(1, amqp.Basic.Consume(queue="q", consumer_tag="c"))
    client.send(1, amqp.Basic.Cancel(consumer_tag="c"))
    client.send(1, amqp.Basic.Recover(requeue=True))


OPERATIONS: dict[str, tuple[Callable[[Client], None], dict[str, object]]] = {
    "publish and get": (_publish, {}),
    "ack": (_ack, {}),
    "requeue to the old place": (_requeue, {}),
    "requeue in a quorum queue": (_requeue, {"x_queue_type": "quorum"}),
    "requeue by priority": (_requeue, {"x_max_priority": 10}),
    "declare": (_declare, {}),
    "consume, cancel, recover": (_consume, {}),
    "publish to a full queue that drops its head": (_publish, {"x_max_length": None}),
    "publish with a time to live": (_publish, {"x_message_ttl": 600_000}),
}


def _least(operation: Callable[[Client], None], arguments: dict[str, object], size: int) -> float:
    node = Node("test@localhost", {"guest": "guest"}, ("/",), SteppedClock())
    client = Client(node).open()
    given = {name: size if value is None else value for name, value in arguments.items()}
    client.queue("q", **given)
    client.call(amqp.Basic.Qos(prefetch_count=1))
    queue = node.vhosts["/"].queues["q"]
    client.publish("q")
    message = queue.ready.head().message
    for _ in range(size - 1):
        queue.publish(message)
    operation(client)
    measured = []
    gc.disable()
    try:
        for _ in range(REPEATS):
            begun = time.thread_time()
            for _ in range(ROUNDS):
                operation(client)
            measured.append(time.thread_time() - begun)
            client.heard.clear()
    finally:
        gc.enable()
    return min(measured)


@pytest.mark.parametrize("name", OPERATIONS)
def test_an_operation_costs_the_same_whatever_waits(name):
    operation, arguments = OPERATIONS[name]
    few, many = (_least(operation, arguments, size) for size in (FEW, MANY))
    assert many < MOST * few


def test_acknowledging_one_of_many_that_are_out_costs_the_same(client):
    def cost(out: int) -> float:
        name = f"q{out}"
        client.queue(name)
        for _ in range(out):
            client.publish(name)
        client.heard.clear()
        client.send(1, amqp.Basic.Consume(queue=name, consumer_tag=name))
        tags = [message.method.delivery_tag for message in client.messages()]
        measured = []
        for round_ in range(REPEATS):
            begun = time.thread_time()
            for tag in tags[round_ * 10 : round_ * 10 + 10]:
                client.send(1, amqp.Basic.Ack(tag, multiple=True))
            measured.append(time.thread_time() - begun)
        client.send(1, amqp.Basic.Ack(0, multiple=True))
        return min(measured)

    assert cost(10_000) < MOST * cost(100)


def test_following_a_stream_costs_the_same_whatever_it_holds():
    def cost(size: int) -> float:
        node = Node("test@localhost", {"guest": "guest"}, ("/",), SteppedClock())
        client = Client(node).open()
        client.queue("s", x_queue_type="stream")
        client.publish("s")
        stream = node.vhosts["/"].queues["s"]
        for _ in range(size - 1):
            stream.publish(stream._log[0].message)
        client.call(amqp.Basic.Qos(prefetch_count=10_000))
        client.send(1, amqp.Basic.Consume(queue="s", arguments={"x-stream-offset": "next"}))
        measured = []
        for _ in range(REPEATS):
            begun = time.thread_time()
            for _ in range(ROUNDS):
                client.publish("s")
            measured.append(time.thread_time() - begun)
            assert len(client.messages()) == ROUNDS
        return min(measured)

    assert cost(MANY) < 4 * cost(FEW)


def test_a_delivery_that_stays_out_keeps_nothing_of_those_after_it(client, node):
    client.queue("q")
    client.consume("q")
    client.publish("q")
    client.messages()
    for _ in range(2000):
        client.publish("q")
        (message,) = client.messages()
        client.send(1, amqp.Basic.Ack(message.method.delivery_tag))
    channel = client.connection.channels[1]
    assert channel.unacked == 1
    assert len(channel._tags) < 1000


def test_empty_body_frames_are_not_kept(client):
    header = pamqp.header.ContentHeader(0, 1, amqp.Basic.Properties())
    client.queue("q")
    client.send(1, amqp.Basic.Publish(routing_key="q"), header)
    for _ in range(1000):
        client.write(b"\x03\x00\x01\x00\x00\x00\x00\xce")
    assert len(client.connection._contents[1]._parts) == 0
    client.send(1, pamqp.body.ContentBody(b"x"))
    assert client.get("q").body == b"x"


def test_a_hundred_thousand_messages_that_expire_together_do(client, node, step):
    client.queue("q", x_message_ttl=1000)
    client.publish("q")
    queue = node.vhosts["/"].queues["q"]
    message = queue.ready.head().message
    for _ in range(MANY):
        queue.publish(message)
    step(1)
    assert client.ready("q") == 0
    assert queue.ready_bytes == 0


def test_auto_delete_exchanges_that_hang_on_one_another_go_together(client, node):
    before, many = len(node.vhosts["/"].exchanges), 600
    for at in range(many):
        client.send(1, amqp.Exchange.Declare(exchange=f"e{at}", auto_delete=True, nowait=True))
        if at:
            bind = amqp.Exchange.Bind(source=f"e{at - 1}", destination=f"e{at}", nowait=True)
            client.send(1, bind)
    client.queue("q")
    client.send(1, amqp.Queue.Bind(queue="q", exchange=f"e{many - 1}", nowait=True))
    assert client.call(amqp.Queue.Delete(queue="q")).name == "Queue.DeleteOk"
    assert len(node.vhosts["/"].exchanges) == before
