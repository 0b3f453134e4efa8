"""Quorum queues: delivery counts and limits."""

import pamqp.commands as amqp
import pytest

from tests.servers.wait import until_sync


@pytest.fixture
def declare(channel, connect, name):
    """Declare quorum queues: `declare(**arguments)`, in which _ stands for -."""
    declared = []

    def declare(**arguments) -> str:
        named = {key.replace("_", "-"): value for key, value in arguments.items()}
        declared.append(f"{name}-{len(declared)}")
        return channel.queue(declared[-1], arguments={"x-queue-type": "quorum"} | named)

    yield declare
    last = connect().channel()
    for queue in declared:
        last.call(amqp.Queue.Delete(queue=queue))


def publish(channel, queue, body=b"1", **properties) -> None:
    channel.confirm().published(body, queue, **properties)
    channel.holds(queue, 1)


def got(channel, queue):
    channel.holds(queue, 1)
    return channel.get(queue)


@pytest.mark.parametrize("how", ["nack", "reject"])
def test_each_return_is_counted_in_a_header(channel, declare, differs, how):
    queue = declare()
    publish(channel, queue)
    counts = []
    for _ in range(4):
        message = got(channel, queue)
        counts.append((message.headers.get("x-delivery-count"), message.redelivered))
        getattr(channel, how)(message.tag)
    first = differs("quorum queue: x-delivery-count of a first delivery")
    assert counts == [(first, False), (1, True), (2, True), (3, True)]


def test_the_count_stands_beside_the_messages_own_headers(channel, declare):
    queue = declare()
    publish(channel, queue, headers={"mine": "x"})
    channel.nack(got(channel, queue).tag)
    assert got(channel, queue).headers == {"mine": "x", "x-delivery-count": 1}


def test_a_closed_channel_counts_as_a_return(connection, channel, declare, differs):
    queue = declare()
    publish(channel, queue)
    for count in (differs("quorum queue: x-delivery-count of a first delivery"), 1, 2):
        other = connection.channel()
        message = got(other, queue)
        assert message.headers.get("x-delivery-count") == count
        other.close()


def test_a_count_a_client_sends_is_not_believed(channel, declare, differs):
    queue = declare()
    publish(channel, queue, headers={"x-delivery-count": 7})
    first = got(channel, queue)
    channel.nack(first.tag)
    second = got(channel, queue)
    told = [message.headers.get("x-delivery-count") for message in (first, second)]
    assert told == differs("quorum queue: x-delivery-count of 7 sent by a client, then 1 return")


@pytest.mark.parametrize("limit", [0, 1, 3])
def test_past_its_limit_a_message_is_dropped(channel, declare, limit):
    queue = declare(x_delivery_limit=limit)
    publish(channel, queue)
    for _ in range(limit + 1):
        channel.nack(got(channel, queue).tag)
    channel.sync()
    assert channel.quiet(0.05)
    assert channel.get(queue) is None


def test_past_its_limit_a_message_is_dead_lettered(channel, declare, queue):
    limited = declare(
        x_delivery_limit=1, x_dead_letter_exchange="", x_dead_letter_routing_key=queue
    )
    publish(channel, limited, headers={"mine": "x"})
    for _ in range(2):
        channel.nack(got(channel, limited).tag)
    letter = got(channel, queue)
    (death,) = letter.deaths
    assert (death["reason"], death["queue"], death["count"]) == ("delivery_limit", limited, 1)
    assert letter.headers["x-first-death-reason"] == "delivery_limit"
    assert letter.headers["mine"] == "x"


def test_a_dead_letter_takes_no_count_along(channel, declare, queue):
    limited = declare(
        x_delivery_limit=1, x_dead_letter_exchange="", x_dead_letter_routing_key=queue
    )
    publish(channel, limited)
    for _ in range(2):
        channel.nack(got(channel, limited).tag)
    assert "x-delivery-count" not in got(channel, queue).headers


def test_a_dropped_socket_counts_towards_the_limit(connect, channel, declare):
    queue = declare(x_delivery_limit=1)
    publish(channel, queue)
    for _ in range(2):
        channel.holds(queue, 1)
        consumer = connect()
        consumer.channel().get(queue)
        consumer.drop()
    # Gone when a return past the limit was seen: until then it is neither ready nor gone.
    until_sync(lambda: channel.counts(queue) == (0, 0))
    channel.quiet(0.05)
    assert channel.get(queue) is None


def returns(channel, queue) -> int:
    """Return the one message of a queue until it is dropped, 25 times at most; say how often."""
    for number in range(1, 26):
        channel.holds(queue, 1)
        channel.nack(channel.get(queue).tag)
        try:
            until_sync(lambda: channel.ready(queue), deadline=0.7)
        except AssertionError:
            return number
    return 25


def test_a_queue_without_a_limit_of_its_own(channel, declare, differs):
    queue = declare()
    publish(channel, queue)
    assert returns(channel, queue) == differs("quorum queue without a limit: returns, 25 tried")


def test_a_limit_of_minus_1(channel, declare, differs):
    queue = declare(x_delivery_limit=-1)
    publish(channel, queue)
    assert returns(channel, queue) == differs("quorum queue with limit -1: returns, 25 tried")


def test_reject_without_requeue_drops_below_the_limit(channel, declare):
    queue = declare(x_delivery_limit=5)
    publish(channel, queue)
    channel.reject(got(channel, queue).tag, requeue=False)
    channel.sync()
    assert channel.quiet(0.05)
    assert channel.get(queue) is None


def test_a_got_message_that_is_out_counts_as_a_consumer(channel, declare):
    queue = declare()
    publish(channel, queue)
    message = channel.get(queue)
    assert channel.counts(queue) == (0, 1)
    channel.ack(message.tag)
    channel.sync()
    assert until_sync(lambda: channel.counts(queue) == (0, 0))


def test_recover_returns_what_is_outstanding(channel, declare):
    queue = declare()
    publish(channel, queue)
    channel.get(queue)
    channel.recover()
    message = got(channel, queue)
    assert message.redelivered
