"""Consumers: tags, prefetch, turns, priorities, exclusive and single active ones, cancels."""

import pamqp.commands as amqp
import pytest

from tests.broker.client import Message, refused
from tests.servers.wait import until_sync


def bodies(messages) -> list[int]:
    return [int(message.body) for message in messages]


@pytest.fixture(params=["classic", "quorum"])
def work(request, channel, connect, name):
    """An empty queue of each kind."""
    channel.queue(name, arguments={"x-queue-type": request.param})
    yield name
    connect().channel().call(amqp.Queue.Delete(queue=name))


# Tags


def test_the_broker_names_a_nameless_consumer(channel, queue):
    tags = {channel.consume(queue), channel.consume(queue)}
    assert len(tags) == 2
    assert all(tag.startswith("amq.ctag-") for tag in tags)


def test_a_delivery_names_its_consumer(channel, queue):
    channel.consume(queue, "mine")
    channel.publish(b"1", queue)
    assert channel.delivery().method.consumer_tag == "mine"


def test_a_tag_in_use_on_the_channel_is_refused(channel, queue):
    channel.consume(queue, "mine")
    with refused(
        "connection",
        530,
        "NOT_ALLOWED - attempt to reuse consumer tag 'mine'",
        "Basic.Consume",
    ):
        channel.consume(queue, "mine")


def test_another_channel_may_use_the_same_tag(connection, channel, queue):
    assert channel.consume(queue, "mine") == "mine"
    assert connection.channel().consume(queue, "mine") == "mine"


def test_a_cancelled_tag_is_free_again(channel, queue):
    channel.consume(queue, "mine")
    assert channel.cancel("mine") == "mine"
    assert channel.consume(queue, "mine") == "mine"


def test_cancelling_an_unknown_tag_is_answered_with_ok(channel):
    assert channel.cancel("never") == "never"


def test_consume_with_no_wait_is_not_answered(channel, queue):
    channel.cast(amqp.Basic.Consume(0, queue, "mine", nowait=True))
    channel.publish(b"1", queue)
    assert channel.delivery().body == b"1"


def test_cancel_with_no_wait_is_not_answered(channel, queue):
    channel.consume(queue, "mine")
    channel.cast(amqp.Basic.Cancel("mine", nowait=True))
    assert channel.counts(queue).consumers == 0


def test_a_cancelled_consumer_gets_no_more(channel, queue):
    channel.cancel(channel.consume(queue))
    channel.publish(b"1", queue)
    assert channel.quiet(0.05)
    assert channel.drain(queue) == [b"1"]


# Get


def test_get_from_an_empty_queue_is_answered_with_empty(channel, work):
    answer = channel.call(amqp.Basic.Get(0, work))
    assert isinstance(answer, amqp.Basic.GetEmpty)


def test_get_tells_how_many_are_left(channel, work):
    channel.publish_all(range(3), work)
    channel.holds(work, 3)
    assert [channel.get(work).method.message_count for _ in range(3)] == [2, 1, 0]


def test_get_takes_no_notice_of_prefetch(channel, queue):
    channel.publish_all(range(3), queue)
    channel.qos(1)
    assert bodies(channel.get(queue) for _ in range(3)) == [0, 1, 2]


# Order and turns


def test_messages_come_in_the_order_they_were_published(channel, work):
    channel.publish_all(range(200), work)
    channel.consume(work, no_ack=True)
    assert bodies(channel.deliveries(200)) == list(range(200))


def test_two_consumers_take_turns(channel, work):
    tags = [channel.consume(work, each) for each in "ab"]
    channel.qos(1)
    channel.publish_all(range(10), work)
    by_tag = {tag: [] for tag in tags}
    for message in channel.deliveries(10):
        by_tag[message.method.consumer_tag].append(int(message.body))
    assert {len(each) for each in by_tag.values()} == {5}


# Prefetch


def test_prefetch_bounds_what_each_new_consumer_holds(channel, work):
    channel.publish_all(range(10), work)
    channel.qos(3)
    channel.consume(work, "a")
    assert bodies(channel.deliveries(3)) == [0, 1, 2]
    assert channel.quiet(0.05)
    channel.ack(2)
    assert bodies([channel.delivery()]) == [3]
    channel.ack(4, multiple=True)
    assert bodies(channel.deliveries(3)) == [4, 5, 6]
    assert channel.quiet(0.05)


def test_prefetch_of_a_consumer_is_not_shared_with_the_next(channel, queue):
    channel.qos(2)
    channel.consume(queue, "a")
    channel.consume(queue, "b")
    channel.publish_all(range(6), queue)
    messages = channel.deliveries(4)
    assert channel.quiet(0.05)
    assert sorted(message.method.consumer_tag for message in messages) == ["a", "a", "b", "b"]


def test_prefetch_changed_later_counts_for_later_consumers(channel, queue):
    channel.qos(1)
    channel.consume(queue, "a")
    channel.qos(2)
    channel.publish_all(range(5), queue)
    assert bodies([channel.delivery()]) == [0]
    assert channel.quiet(0.05)
    channel.consume(queue, "b")
    assert [m.method.consumer_tag for m in channel.deliveries(2)] == ["b", "b"]
    assert channel.quiet(0.05)


def test_a_shared_prefetch_bounds_the_whole_channel(channel, queue):
    channel.qos(3, shared=True)
    channel.consume(queue, "a")
    channel.consume(queue, "b")
    channel.publish_all(range(6), queue)
    channel.deliveries(3)
    assert channel.quiet(0.05)
    channel.ack(1)
    channel.delivery()
    assert channel.quiet(0.05)


def test_a_shared_prefetch_raised_later_counts_at_once(channel, queue):
    channel.qos(1, shared=True)
    channel.consume(queue)
    channel.publish_all(range(4), queue)
    channel.deliveries(1)
    channel.qos(3, shared=True)
    channel.deliveries(2)
    assert channel.quiet(0.05)


def test_no_prefetch_is_no_bound(channel, queue):
    channel.qos(0)
    channel.consume(queue)
    channel.publish_all(range(500), queue)
    assert len(channel.deliveries(500)) == 500


def test_a_consumer_without_acks_knows_no_prefetch(channel, queue):
    channel.qos(1)
    channel.consume(queue, no_ack=True)
    channel.publish_all(range(20), queue)
    assert bodies(channel.deliveries(20)) == list(range(20))


def test_a_requeue_frees_its_place_in_the_prefetch(channel, work):
    channel.publish_all(range(2), work)
    channel.holds(work, 2)
    channel.qos(1)
    channel.consume(work)
    first = channel.delivery()
    channel.nack(first.tag, requeue=False)
    assert bodies([channel.delivery()]) == [1]


def test_prefetch_size_is_not_implemented(channel):
    with refused("connection", 540, "NOT_IMPLEMENTED - prefetch_size!=0 (10)", "Basic.Qos"):
        channel.call(amqp.Basic.Qos(10, 0, False))


def test_a_quorum_queue_takes_no_consumer_under_a_shared_prefetch(channel, served, name):
    channel.queue(name, arguments={"x-queue-type": "quorum"})
    channel.qos(1, shared=True)
    text = f"NOT_IMPLEMENTED - queue '{name}' in vhost '{served.vhost}' does not support global qos"
    with refused("connection", 540, text, "Basic.Consume"):
        channel.consume(name)


# Exclusive consumers


def exclusive_use(queue, served) -> str:
    return f"ACCESS_REFUSED - queue '{queue}' in vhost '{served.vhost}' in exclusive use"


@pytest.fixture
def shared(channel, connect, name):
    """An empty classic queue that other connections may use."""
    yield channel.queue(name)
    connect().channel().call(amqp.Queue.Delete(queue=name))


def test_an_exclusive_consumer_keeps_others_out(channel, other, served, shared):
    channel.consume(shared, exclusive=True)
    with refused("channel", 403, exclusive_use(shared, served), "Basic.Consume"):
        other.consume(shared)


def test_a_queue_with_a_consumer_gives_no_exclusive_one(channel, other, served, shared):
    channel.consume(shared)
    with refused("channel", 403, exclusive_use(shared, served), "Basic.Consume"):
        other.consume(shared, exclusive=True)


def test_an_exclusive_consumer_gives_its_own_connection_no_second(channel, served, shared):
    channel.consume(shared, exclusive=True)
    with refused("channel", 403, exclusive_use(shared, served), "Basic.Consume"):
        channel.consume(shared)


def test_a_quorum_queue_knows_no_exclusive_consumers(channel, other, name):
    channel.queue(name, arguments={"x-queue-type": "quorum"})
    channel.consume(name, exclusive=True)
    assert other.consume(name, "b") == "b"
    other.call(amqp.Queue.Delete(queue=name))


def test_get_is_free_beside_an_exclusive_consumer(channel, other, name):
    channel.queue(name)
    channel.qos(1)
    channel.consume(name, exclusive=True)
    channel.publish_all(range(2), name)
    assert bodies([channel.delivery()]) == [0]
    assert other.get(name).body == b"1"


def test_after_an_exclusive_consumer_others_may_consume(channel, other, shared):
    channel.cancel(channel.consume(shared, exclusive=True))
    assert other.consume(shared, "b") == "b"


# Consumer priorities


def test_the_consumer_of_the_highest_priority_is_served_first(channel, work):
    channel.qos(2)
    channel.consume(work, "low", arguments={"x-priority": -5})
    channel.consume(work, "none")
    channel.consume(work, "high", arguments={"x-priority": 10})
    channel.publish_all(range(6), work)
    tags = [message.method.consumer_tag for message in channel.deliveries(6)]
    assert tags == ["high"] * 2 + ["none"] * 2 + ["low"] * 2


def test_a_high_consumer_that_has_room_again_goes_first(channel, queue):
    channel.qos(1)
    channel.consume(queue, "low")
    channel.consume(queue, "high", arguments={"x-priority": 1})
    channel.publish_all(range(2), queue)
    high, low = channel.deliveries(2)
    assert (high.method.consumer_tag, low.method.consumer_tag) == ("high", "low")
    channel.ack(high.tag)
    channel.sync()
    channel.publish(b"2", queue)
    assert channel.delivery().method.consumer_tag == "high"


def test_a_consumer_priority_that_is_no_number_is_refused(channel, served, queue):
    text = (
        f"PRECONDITION_FAILED - invalid arg 'x-priority' for queue '{queue}' in vhost"
        f" '{served.vhost}': \"expected integer, got longstr\""
    )
    with refused("channel", 406, text, "Basic.Consume"):
        channel.consume(queue, arguments={"x-priority": "high"})


# Single active consumer


@pytest.fixture(params=["classic", "quorum"])
def single(request, channel, connect, name):
    channel.queue(name, arguments={"x-queue-type": request.param, "x-single-active-consumer": True})
    yield name
    connect().channel().call(amqp.Queue.Delete(queue=name))


def test_only_the_first_consumer_of_a_single_active_queue_is_served(channel, other, single):
    channel.qos(1)
    channel.consume(single, "first")
    other.consume(single, "second")
    channel.publish_all(range(3), single)
    assert bodies([channel.delivery()]) == [0]
    assert other.quiet(0.05)


@pytest.mark.parametrize("end", ["cancel", "channel", "socket"])
def test_the_next_consumer_becomes_active_when_the_first_ends(connect, other, single, end):
    first = connect().channel()
    first.consume(single, "first")
    other.consume(single, "second")
    match end:
        case "cancel":
            first.cancel("first")
        case "channel":
            first.close()
        case "socket":
            first.connection.drop()
    other.publish(b"0", single)
    assert bodies([other.delivery()]) == [0]


def test_outstanding_deliveries_of_the_old_active_consumer_stay_with_it(channel, other, single):
    channel.consume(single, "first")
    channel.publish(b"0", single)
    message = channel.delivery()
    other.consume(single, "second")
    channel.cancel("first")
    channel.publish(b"1", single)
    assert bodies([other.delivery()]) == [1]
    channel.nack(message.tag)
    returned = other.delivery()
    assert (bodies([returned]), returned.redelivered) == ([0], True)


def test_an_exclusive_consumer_on_a_single_active_queue_is_refused(channel, served, name):
    channel.queue(name, exclusive=True, arguments={"x-single-active-consumer": True})
    with refused("channel", 403, exclusive_use(name, served), "Basic.Consume"):
        channel.consume(name, exclusive=True)


# Cancel by the broker


def test_a_consumer_is_told_when_its_queue_is_deleted(channel, other, work):
    channel.consume(work, "mine")
    other.call(amqp.Queue.Delete(queue=work))
    event = channel.event()
    assert isinstance(event, amqp.Basic.Cancel)
    assert event.consumer_tag == "mine"
    assert channel.consume(channel.queue(exclusive=True), "mine") == "mine"


def test_a_client_without_the_capability_is_not_told(connect, name):
    connection = connect(capabilities={})
    channel = connection.channel()
    channel.consume(channel.queue(name))
    channel.call(amqp.Queue.Delete(queue=name))
    assert channel.quiet(0.05)


def test_deliveries_of_a_deleted_queue_may_still_be_acked(channel, other, work):
    channel.consume(work)
    channel.publish(b"1", work)
    message = channel.delivery()
    other.call(amqp.Queue.Delete(queue=work))
    assert isinstance(channel.event(), amqp.Basic.Cancel)
    channel.ack(message.tag)
    channel.sync()


def test_a_consumers_own_cancel_is_answered_not_notified(channel, queue):
    channel.consume(queue, "mine")
    channel.cancel("mine")
    assert channel.quiet(0.05)


def test_no_local_is_not_honoured(channel, queue):
    channel.consume(queue, no_local=True)
    channel.publish(b"1", queue)
    assert isinstance(channel.event(), Message)


# Counting


def test_consumers_end_with_their_connection(channel, connect, work):
    consumer = connect()
    consumer.channel().consume(work)
    assert channel.counts(work).consumers == 1
    consumer.drop()
    until_sync(lambda: channel.counts(work).consumers == 0)
