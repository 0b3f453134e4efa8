"""Acks, nacks, rejects and recover: what comes back, in which order, marked how."""

import pamqp.commands as amqp
import pytest

from tests.broker.client import refused

ACKS = {
    "Basic.Ack": lambda channel, tag, **o: channel.ack(tag, **o),
    "Basic.Nack": lambda channel, tag, **o: channel.nack(tag, **o),
    "Basic.Reject": lambda channel, tag: channel.reject(tag),
}
SINGLE = pytest.mark.parametrize("how", ACKS)
MULTIPLE = pytest.mark.parametrize("how", ["Basic.Ack", "Basic.Nack"])


def unknown(tag: int) -> str:
    return f"PRECONDITION_FAILED - unknown delivery tag {tag}"


@pytest.fixture(params=["classic", "quorum"])
def kind(request) -> str:
    return request.param


@pytest.fixture
def work(channel, connect, name, kind):
    """An empty queue of each kind."""
    channel.queue(name, arguments={"x-queue-type": kind})
    yield name
    connect().channel().call(amqp.Queue.Delete(queue=name))


def fill(channel, queue, number) -> None:
    """Publish 0, 1, 2 … and wait until they are there."""
    channel.publish_all(range(number), queue)
    channel.holds(queue, number)


def seen(messages) -> list[tuple[int, bool]]:
    return [(int(message.body), message.redelivered) for message in messages]


def again(channel, queue, number) -> list[tuple[int, bool]]:
    """Wait for `number` ready messages and take them."""
    channel.holds(queue, number)
    return seen([channel.get(queue, no_ack=True) for _ in range(number)])


# Tags


def test_tags_count_from_1_on_each_channel_over_all_its_consumers(connection, channel, queue):
    channel.publish_all(range(3), queue)
    assert channel.get(queue).tag == 1
    channel.consume(queue)
    assert [message.tag for message in channel.deliveries(2)] == [2, 3]
    second = connection.channel()
    second.publish(b"3", queue)
    channel.cancel(channel.consume(queue))


@SINGLE
@pytest.mark.parametrize("tag", [1, 77, 2**63 - 1])
def test_settling_a_tag_that_was_never_given_is_refused(channel, how, tag):
    with refused("channel", 406, unknown(tag), how):
        ACKS[how](channel, tag)
        channel.wait_closed()


@SINGLE
@pytest.mark.parametrize("first", ACKS)
def test_settling_a_tag_twice_is_refused(channel, queue, how, first):
    fill(channel, queue, 1)
    ACKS[first](channel, channel.get(queue).tag)
    with refused("channel", 406, unknown(1), how):
        ACKS[how](channel, 1)
        channel.wait_closed()


@SINGLE
def test_settling_what_was_delivered_without_acks_is_refused(channel, queue, how):
    fill(channel, queue, 1)
    tag = channel.get(queue, no_ack=True).tag
    with refused("channel", 406, unknown(tag), how):
        ACKS[how](channel, tag)
        channel.wait_closed()


@SINGLE
def test_settling_on_another_channel_is_refused(connection, channel, queue, how):
    fill(channel, queue, 1)
    tag = channel.get(queue).tag
    other = connection.channel()
    with refused("channel", 406, unknown(tag), how):
        ACKS[how](other, tag)
        other.wait_closed()


@SINGLE
def test_tag_0_without_multiple_is_refused(channel, queue, how):
    fill(channel, queue, 1)
    channel.get(queue)
    with refused("channel", 406, unknown(0), how):
        ACKS[how](channel, 0)
        channel.wait_closed()


@MULTIPLE
def test_multiple_settles_everything_up_to_its_tag(channel, queue, how):
    fill(channel, queue, 4)
    for _ in range(4):
        channel.get(queue)
    ACKS[how](channel, 3, multiple=True)
    channel.ack(4)
    expected = [] if how == "Basic.Ack" else [(0, True), (1, True), (2, True)]
    assert again(channel, queue, len(expected)) == expected
    assert channel.get(queue) is None


@MULTIPLE
def test_multiple_with_tag_0_settles_everything(channel, queue, how):
    fill(channel, queue, 3)
    for _ in range(3):
        channel.get(queue)
    ACKS[how](channel, 0, multiple=True)
    expected = [] if how == "Basic.Ack" else [(0, True), (1, True), (2, True)]
    assert again(channel, queue, len(expected)) == expected


@MULTIPLE
def test_multiple_with_tag_0_and_nothing_outstanding_is_fine(channel, how):
    ACKS[how](channel, 0, multiple=True)
    channel.sync()


@MULTIPLE
def test_multiple_skips_what_is_settled_already(channel, queue, how):
    fill(channel, queue, 3)
    for _ in range(3):
        channel.get(queue)
    channel.ack(2)
    ACKS[how](channel, 3, multiple=True)
    expected = [] if how == "Basic.Ack" else [(0, True), (2, True)]
    assert again(channel, queue, len(expected)) == expected


@MULTIPLE
def test_multiple_that_ends_on_a_settled_tag(channel, queue, how):
    fill(channel, queue, 3)
    for _ in range(3):
        channel.get(queue)
    channel.ack(2)
    with refused("channel", 406, unknown(2), how):
        ACKS[how](channel, 2, multiple=True)
        channel.wait_closed()


@MULTIPLE
def test_multiple_that_ends_on_a_tag_not_given_yet_is_refused(channel, queue, how):
    fill(channel, queue, 2)
    channel.get(queue)
    with refused("channel", 406, unknown(2), how):
        ACKS[how](channel, 2, multiple=True)
        channel.wait_closed()


def test_what_was_acked_is_gone_when_the_channel_ends(connection, channel, work):
    fill(channel, work, 3)
    consumer = connection.channel()
    for _ in range(2):
        consumer.ack(consumer.get(work).tag)
    consumer.close()
    assert again(channel, work, 1) == [(2, False)]


# What comes back


@pytest.mark.parametrize("how", ["Basic.Nack", "Basic.Reject"])
def test_a_requeued_message_comes_first_again_and_is_marked(channel, queue, how):
    fill(channel, queue, 3)
    first, second = channel.get(queue), channel.get(queue)
    assert not first.redelivered
    ACKS[how](channel, second.tag)
    ACKS[how](channel, first.tag)
    assert again(channel, queue, 3) == [(0, True), (1, True), (2, False)]


def test_a_requeued_message_of_a_quorum_queue(channel, connect, name, differs):
    channel.queue(name, arguments={"x-queue-type": "quorum"})
    fill(channel, name, 3)
    first, second = channel.get(name), channel.get(name)
    channel.nack(second.tag)
    channel.nack(first.tag)
    order = again(channel, name, 3)
    assert [body for body, _ in order] == differs("quorum queue: 1, then 0 return to 2")
    assert sorted(order) == [(0, True), (1, True), (2, False)]
    channel.call(amqp.Queue.Delete(queue=name))


@pytest.mark.parametrize("end", ["channel", "connection", "socket"])
def test_what_was_not_settled_comes_back_in_order_and_marked(connect, channel, work, end):
    fill(channel, work, 5)
    connection = connect()
    consumer = connection.channel()
    consumer.qos(3)
    consumer.consume(work)
    assert seen(consumer.deliveries(3)) == [(0, False), (1, False), (2, False)]
    consumer.ack(2)
    assert consumer.delivery().body == b"3"
    match end:
        case "channel":
            consumer.close()
        case "connection":
            connection.close()
        case "socket":
            connection.drop()
    assert again(channel, work, 4) == [(0, True), (2, True), (3, True), (4, False)]


def test_a_message_returned_by_a_channel_error_is_marked(connection, channel, queue):
    fill(channel, queue, 2)
    other = connection.channel()
    other.get(queue)
    other.ack(99)
    assert again(channel, queue, 2) == [(0, True), (1, False)]


def test_a_message_got_and_returned_is_marked(channel, work):
    fill(channel, work, 1)
    channel.nack(channel.get(work).tag)
    assert again(channel, work, 1) == [(0, True)]


def test_a_message_prefetched_but_never_looked_at_is_marked_too(connection, channel, work):
    fill(channel, work, 2)
    consumer = connection.channel()
    consumer.consume(work)
    consumer.deliveries(2)
    consumer.close()
    assert again(channel, work, 2) == [(0, True), (1, True)]


def test_reject_without_requeue_drops(channel, work):
    fill(channel, work, 3)
    for _ in range(3):
        channel.get(work)
    channel.reject(1, requeue=False)
    channel.nack(3, multiple=True, requeue=False)
    channel.sync()
    assert channel.quiet(0.05)
    assert channel.get(work) is None


def test_a_requeued_message_goes_to_the_next_consumer_at_once(channel, other, work):
    fill(channel, work, 1)
    channel.consume(work)
    message = channel.delivery()
    other.consume(work)
    channel.cancel(message.method.consumer_tag)
    channel.nack(message.tag)
    assert seen([other.delivery()]) == [(0, True)]


# Cancel


def test_cancel_leaves_outstanding_deliveries_to_be_settled(channel, work):
    fill(channel, work, 2)
    channel.qos(1)
    tag = channel.consume(work)
    message = channel.delivery()
    channel.cancel(tag)
    assert channel.ready(work) == 1
    channel.ack(message.tag)
    channel.sync()
    assert again(channel, work, 1) == [(1, False)]


# Recover


def test_recover_requeues_everything_outstanding(channel, queue):
    fill(channel, queue, 3)
    for _ in range(3):
        channel.get(queue)
    channel.recover()
    assert again(channel, queue, 3) == [(0, True), (1, True), (2, True)]


def test_recovered_deliveries_have_new_tags(channel, queue):
    fill(channel, queue, 2)
    channel.consume(queue)
    channel.deliveries(2)
    channel.recover()
    messages = channel.deliveries(2)
    assert seen(messages) == [(0, True), (1, True)]
    assert [message.tag for message in messages] == [3, 4]


def test_recover_async_does_the_same_without_an_answer(channel, queue):
    fill(channel, queue, 1)
    channel.get(queue)
    with pytest.warns(DeprecationWarning, match="deprecated in AMQP 0-9-1"):
        channel.cast(amqp.Basic.RecoverAsync(True))
    assert again(channel, queue, 1) == [(0, True)]


def test_recover_without_requeue_is_not_implemented(channel, queue):
    fill(channel, queue, 1)
    channel.get(queue)
    with refused("connection", 540, "NOT_IMPLEMENTED - requeue=false", "Basic.Recover"):
        channel.recover(requeue=False)
