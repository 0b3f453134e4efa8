"""Time to live: of messages, by queue and by themselves, and of queues."""

import time

import pamqp.commands as amqp
import pytest

from tests.broker.client import Refused
from tests.servers.wait import until_sync

SOON = 100  # milliseconds
LONG = 60_000


@pytest.fixture(params=["classic", "quorum"])
def declare(request, channel, connect, name):
    """Declare queues of each kind: `declare(**arguments)`, in which _ stands for -."""
    declared = []

    def declare(**arguments) -> str:
        named = {key.replace("_", "-"): value for key, value in arguments.items()}
        queue = f"{name}-{len(declared)}"
        declared.append(queue)
        return channel.queue(queue, arguments={"x-queue-type": request.param} | named)

    yield declare
    last = connect().channel()
    for queue in declared:
        last.call(amqp.Queue.Delete(queue=queue))


def test_a_message_lives_as_long_as_its_queue_says(channel, declare):
    queue = declare(x_message_ttl=SOON)
    channel.confirm().published(b"1", queue)
    assert channel.holds(queue, 0)
    assert channel.get(queue) is None


def test_a_message_lives_as_long_as_it_says_itself(channel, declare):
    queue = declare()
    channel.confirm().published(b"1", queue, expiration=str(SOON))
    channel.published(b"2", queue)
    assert channel.holds(queue, 1)
    assert channel.drain(queue) == [b"2"]


def test_of_two_times_the_shorter_counts(channel, declare):
    queue = declare(x_message_ttl=SOON)
    channel.confirm().published(b"1", queue, expiration=str(LONG))
    assert channel.holds(queue, 0)
    long = declare(x_message_ttl=LONG)
    channel.published(b"1", long, expiration=str(SOON))
    assert channel.holds(long, 0)


def test_a_message_behind_one_that_lives_expires_only_at_the_head(channel, declare):
    queue = declare()
    channel.publish(b"1", queue, expiration=str(LONG))
    channel.publish(b"2", queue, expiration="1")
    channel.publish(b"3", queue)
    assert channel.holds(queue, 3)
    time.sleep(0.1)  # it may not go: there is no condition to wait for
    assert channel.ready(queue) == 3
    assert channel.drain(queue) == [b"1", b"3"]


def test_a_time_of_0_expires_a_message_no_consumer_waits_for(channel, declare):
    queue = declare()
    channel.confirm().published(b"1", queue, expiration="0")
    assert channel.holds(queue, 0)
    zero = declare(x_message_ttl=0)
    channel.published(b"1", zero)
    assert channel.holds(zero, 0)


def test_a_time_of_0_delivers_to_a_consumer_that_waits(channel, declare):
    queue = declare(x_message_ttl=0)
    channel.consume(queue)
    channel.publish(b"1", queue)
    assert channel.delivery().body == b"1"


def test_a_delivered_message_does_not_expire(channel, declare):
    queue = declare(x_message_ttl=SOON)
    channel.consume(queue)
    channel.publish(b"1", queue)
    message = channel.delivery()
    channel.publish(b"2", queue)
    time.sleep(2 * SOON / 1000)  # past its time
    channel.ack(message.tag)
    assert channel.delivery().body == b"2"


def test_a_message_requeued_after_its_time_expires(channel, declare):
    queue = declare(x_message_ttl=5 * SOON)
    channel.confirm().published(b"1", queue)
    message = channel.get(queue)
    time.sleep(10 * SOON / 1000)
    channel.nack(message.tag)
    assert channel.holds(queue, 0)
    assert channel.get(queue) is None


def test_the_expiration_stays_on_a_delivered_message(channel, declare):
    queue = declare()
    channel.publish(b"1", queue, expiration=str(LONG))
    channel.holds(queue, 1)
    assert channel.get(queue).properties.expiration == str(LONG)


# Queues that expire


def gone(connect, queue) -> bool:
    channel = connect().channel()
    try:
        channel.queue(queue, passive=True)
    except Refused as refusal:
        return refusal.code == 404
    channel.connection.drop()
    return False


def expired_within(connect, queue, seconds: float) -> bool:
    """Look rarely: each look uses the queue no more than a passive declare does."""
    return until_sync(lambda: gone(connect, queue), deadline=seconds, every=0.25)


def test_an_unused_queue_is_deleted_after_its_time(connect, declare):
    queue = declare(x_expires=SOON)
    time.sleep(2 * SOON / 1000)
    assert expired_within(connect, queue, 15)


def test_a_consumer_keeps_a_queue(channel, connect, name):
    channel.queue(name, arguments={"x-expires": SOON})
    channel.consume(name, "mine")
    time.sleep(4 * SOON / 1000)
    assert not gone(connect, name)
    channel.cancel("mine")
    time.sleep(2 * SOON / 1000)
    assert expired_within(connect, name, 15)


def test_messages_keep_no_queue(channel, connect, name):
    channel.queue(name, arguments={"x-expires": SOON})
    channel.publish(b"1", name)
    time.sleep(2 * SOON / 1000)
    assert expired_within(connect, name, 15)


USES = {
    "get": lambda channel, queue: channel.get(queue),
    "declare": lambda channel, queue: channel.queue(queue, arguments={"x-expires": 500}),
    "passive declare": lambda channel, queue: channel.ready(queue),
    "publish": lambda channel, queue: channel.publish(b"1", queue),
}


def test_a_queue_stays_while_it_is_declared_or_read_and_not_for_being_published_to(connect, name):
    channels = {use: connect().channel() for use in USES}
    queues = {use: f"{name}-{number}" for number, use in enumerate(USES)}
    for use, queue in queues.items():
        channels[use].queue(queue, arguments={"x-expires": 500})
    end = time.monotonic() + 1.2
    while time.monotonic() < end:
        for use, queue in queues.items():
            USES[use](channels[use], queue)
        time.sleep(0.05)
    assert {use for use, queue in queues.items() if not gone(connect, queue)} == {
        "get",
        "declare",
        "passive declare",
    }


def test_a_queue_that_expires_drops_its_messages_and_dead_letters_none(
    channel, connect, queue, name
):
    channel.queue(
        name,
        arguments={
            "x-expires": SOON,
            "x-dead-letter-exchange": "",
            "x-dead-letter-routing-key": queue,
        },
    )
    channel.publish(b"1", name)
    time.sleep(2 * SOON / 1000)
    assert expired_within(connect, name, 15)
    assert channel.get(queue) is None
