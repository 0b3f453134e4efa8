"""Priority queues: the highest first, in order within a priority."""

import pamqp.commands as amqp
import pytest


@pytest.fixture
def ranked(channel, name):
    """A queue of priorities 0 to 5."""
    return channel.queue(name, exclusive=True, arguments={"x-max-priority": 5})


def publish(channel, queue, *priorities) -> None:
    """Publish bodies `<number>:<priority>`; None is a message without one."""
    for number, priority in enumerate(priorities):
        channel.publish(f"{number}:{priority}".encode(), queue, priority=priority)


def drained(channel, queue) -> list[str]:
    return [body.decode() for body in channel.drain(queue)]


def test_the_highest_priority_comes_first_and_equals_keep_their_order(channel, ranked):
    publish(channel, ranked, 1, 3, 0, 3, 5, 1)
    assert drained(channel, ranked) == ["4:5", "1:3", "3:3", "0:1", "5:1", "2:0"]


def test_no_priority_is_the_lowest(channel, ranked):
    publish(channel, ranked, None, 1, 0, None)
    assert drained(channel, ranked) == ["1:1", "0:None", "2:0", "3:None"]


def test_a_priority_over_the_maximum_is_the_maximum(channel, ranked):
    publish(channel, ranked, 5, 200, 4, 6)
    assert drained(channel, ranked) == ["0:5", "1:200", "3:6", "2:4"]


def test_a_priority_over_the_maximum_arrives_as_it_was_sent(channel, ranked):
    channel.publish(b"1", ranked, priority=200)
    assert channel.get(ranked).properties.priority == 200


def test_a_queue_without_priorities_takes_no_notice(channel, queue):
    publish(channel, queue, 1, 5, 3)
    assert drained(channel, queue) == ["0:1", "1:5", "2:3"]


def test_a_requeued_message_goes_first_within_its_priority(channel, ranked):
    publish(channel, ranked, 3, 3, 5)
    first = channel.get(ranked)
    second = channel.get(ranked)
    assert (first.body, second.body) == (b"2:5", b"0:3")
    channel.nack(second.tag, multiple=True)
    channel.publish(b"3:5", ranked, priority=5)
    assert drained(channel, ranked) == ["2:5", "3:5", "0:3", "1:3"]


def test_a_consumer_gets_what_is_ready_by_priority(channel, ranked):
    publish(channel, ranked, 0, 5, 3)
    channel.qos(1)
    channel.consume(ranked)
    order = []
    for _ in range(3):
        message = channel.delivery()
        order.append(message.body.decode())
        channel.ack(message.tag)
    assert order == ["1:5", "2:3", "0:0"]


def test_a_full_queue_drops_its_head_and_that_is_the_highest_priority(channel, name):
    queue = channel.queue(name, exclusive=True, arguments={"x-max-priority": 5, "x-max-length": 2})
    publish(channel, queue, 5, 0, 3, 4)
    assert drained(channel, queue) == ["2:3", "1:0"]


def test_a_message_of_a_low_priority_expires_only_when_the_higher_are_gone(channel, ranked):
    channel.publish(b"high", ranked, priority=5)
    channel.publish(b"low", ranked, priority=0, expiration="1")
    channel.holds(ranked, 2)
    channel.quiet(0.1)
    assert channel.ready(ranked) == 2
    assert drained(channel, ranked) == ["high"]


def test_purge_takes_every_priority(channel, ranked):
    publish(channel, ranked, 0, 1, 2, 3, 4, 5)
    assert channel.call(amqp.Queue.Purge(queue=ranked)).message_count == 6


def test_255_priorities_are_all_told_apart(channel, name):
    queue = channel.queue(name, exclusive=True, arguments={"x-max-priority": 255})
    publish(channel, queue, *range(0, 256, 5))
    order = [int(body.split(":")[1]) for body in drained(channel, queue)]
    assert order == list(range(255, -1, -5))


def test_quorum_queues_and_priorities(channel, name, differs):
    channel.queue(name, arguments={"x-queue-type": "quorum"})
    channel.confirm()
    for number, priority in enumerate((1, 9, 1, 9)):
        channel.published(f"{number}:{priority}".encode(), name, priority=priority)
    channel.holds(name, 4)
    assert drained(channel, name) == differs("quorum queue: order of priorities 1, 9, 1, 9")
    channel.call(amqp.Queue.Delete(queue=name))
