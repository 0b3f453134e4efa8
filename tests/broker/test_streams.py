"""Streams as AMQP 0-9-1 clients see them: read from where a consumer asks, emptied by nobody.

Retention is not here: RabbitMQ drops whole segments on disk, the embedded broker single messages
(tests/embedded/test_streams.py).
"""

import pamqp.commands as amqp
import pytest

from tests.broker.client import Refused

COUNT = 5
BODIES = [b"%d" % number for number in range(COUNT)]


@pytest.fixture
def stream(channel, name):
    """A stream of five messages; it ends with the test."""
    channel.queue(name, durable=True, exclusive=False, arguments={"x-queue-type": "stream"})
    channel.confirm()
    for body in BODIES:
        channel.published(body, name)
    yield name
    channel.connection.channel().call(amqp.Queue.Delete(queue=name))


def reading(channel, stream, offset, prefetch=100):
    """Consume from an offset on a channel of its own; None: none is named."""
    own = channel.connection.channel()
    own.qos(prefetch)
    own.consume(stream, arguments={} if offset is None else {"x-stream-offset": offset})
    return own


@pytest.mark.parametrize(("offset", "read"), [("first", BODIES), (3, BODIES[3:])])
def test_a_consumer_reads_from_where_it_asks(channel, stream, offset, read):
    consumer = reading(channel, stream, offset)
    assert consumer.bodies(len(read)) == read
    channel.published(b"new", stream)
    assert consumer.bodies(1) == [b"new"]


@pytest.mark.parametrize("offset", ["next", None])
def test_by_default_it_reads_what_comes_from_now_on(channel, stream, offset):
    consumer = reading(channel, stream, offset)
    channel.published(b"new", stream)
    assert consumer.bodies(1) == [b"new"]


def test_reading_and_acknowledging_takes_nothing_out(channel, stream):
    first = reading(channel, stream, "first")
    assert first.bodies(COUNT) == BODIES
    first.ack(multiple=True)
    assert reading(channel, stream, "first").bodies(COUNT) == BODIES


def test_acknowledging_gives_room_for_the_next(channel, stream):
    consumer = reading(channel, stream, "first", prefetch=2)
    two = consumer.deliveries(2)
    assert consumer.quiet()
    consumer.ack(two[-1].tag, multiple=True)
    assert consumer.bodies(2) == BODIES[2:4]


def test_each_message_says_its_offset(channel, stream):
    consumer = reading(channel, stream, "first")
    offsets = [one.headers["x-stream-offset"] for one in consumer.deliveries(COUNT)]
    assert offsets == list(range(COUNT))


@pytest.mark.parametrize(
    "method",
    [
        pytest.param(lambda name: amqp.Basic.Get(queue=name), id="get"),
        pytest.param(lambda name: amqp.Basic.Consume(queue=name, no_ack=True), id="no ack"),
    ],
)
def test_what_a_stream_cannot_do_ends_the_connection(connect, stream, method):
    own = connect().channel()
    own.qos(10)
    with pytest.raises(Refused) as caught:
        own.call(method(stream))
    assert (caught.value.level, caught.value.code) == ("connection", 540)


def test_a_consumer_must_say_how_much_it_takes_at_a_time(other, stream):
    with pytest.raises(Refused) as caught:
        other.call(amqp.Basic.Consume(queue=stream))
    assert (caught.value.level, caught.value.code) == ("channel", 406)
