"""Streams: read from where a consumer asks, emptied by nobody, kept as far as they may grow."""

import pamqp.commands as amqp
import pytest


@pytest.fixture
def stream(client):
    """A stream of five messages, and a client that may consume it."""
    client.queue("s", x_queue_type="stream")
    for number in range(5):
        client.publish("s", b"%d" % number)
    client.call(amqp.Basic.Qos(prefetch_count=100))
    client.heard.clear()
    return client


def _read(client, offset=None, tag="c"):
    arguments = {} if offset is None else {"x-stream-offset": offset}
    client.heard.clear()
    client.consume("s", consumer_tag=tag, arguments=arguments)
    return [message.body for message in client.messages()]


@pytest.mark.parametrize(
    ("offset", "read"),
    [
        ("first", [b"0", b"1", b"2", b"3", b"4"]),
        (3, [b"3", b"4"]),
        (99, []),
        ("last", [b"4"]),
        ("next", []),
        (None, []),
    ],
)
def test_a_consumer_reads_from_where_it_asks(stream, offset, read):
    assert _read(stream, offset) == read
    stream.publish("s", b"new")
    assert [message.body for message in stream.messages()] == [b"new"]


def test_an_age_or_a_moment_is_an_offset_too(stream, clock):
    clock.step(3600)
    stream.publish("s", b"new")
    assert _read(stream, "30m", "a") == [b"new"]
    assert _read(stream, "2h", "b") == [b"0", b"1", b"2", b"3", b"4", b"new"]


def test_reading_and_acknowledging_takes_nothing_out(stream):
    assert len(_read(stream, "first", "a")) == 5
    stream.send(1, amqp.Basic.Ack(0, multiple=True))
    assert len(_read(stream, "first", "b")) == 5
    assert stream.ready("s") == 5


def test_acknowledging_gives_room_for_the_next(client):
    client.queue("s", x_queue_type="stream")
    for number in range(5):
        client.publish("s", b"%d" % number)
    client.call(amqp.Basic.Qos(prefetch_count=2))
    assert _read(client, "first") == [b"0", b"1"]
    client.send(1, amqp.Basic.Ack(0, multiple=True))
    assert [message.body for message in client.messages()] == [b"2", b"3"]


def test_each_message_says_its_offset(stream):
    stream.consume("s", arguments={"x-stream-offset": "first"})
    offsets = [message.headers["x-stream-offset"] for message in stream.messages()]
    assert offsets == [0, 1, 2, 3, 4]


def test_the_oldest_go_where_a_stream_may_grow_no_further(client):
    client.queue("s", x_queue_type="stream", x_max_length_bytes=3)
    for number in range(5):
        client.publish("s", b"%d" % number)
    client.call(amqp.Basic.Qos(prefetch_count=100))
    assert _read(client, "first", "a") == [b"2", b"3", b"4"]
    assert _read(client, 0, "b") == [b"2", b"3", b"4"]


def test_a_stream_outlives_a_restart(stream, node):
    node.restart()
    assert stream.ready("s") == 5


@pytest.mark.parametrize(
    ("method", "code"),
    [
        (amqp.Basic.Get(queue="s"), 540),
        (amqp.Queue.Purge(queue="s"), 540),
        (amqp.Basic.Consume(queue="s", no_ack=True), 540),
    ],
)
def test_what_a_stream_cannot_do_is_refused(stream, method, code):
    assert stream.call(method).reply_code == code


def test_a_consumer_must_say_how_much_it_takes_at_a_time(client):
    client.queue("s", x_queue_type="stream")
    assert client.call(amqp.Basic.Consume(queue="s")).reply_code == 406
