"""Queues with a limit: what is dropped or refused when they are full."""

import pamqp.commands as amqp
import pytest


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


def publish(channel, queue, number) -> None:
    """Publish 0, 1, 2 … under confirm, one after the other."""
    channel.confirm()
    for each in range(number):
        assert isinstance(channel.published(str(each).encode(), queue), amqp.Basic.Ack)


@pytest.mark.parametrize("overflow", [{}, {"x_overflow": "drop-head"}])
def test_a_full_queue_drops_its_oldest(channel, declare, overflow):
    queue = declare(x_max_length=3, **overflow)
    publish(channel, queue, 5)
    assert channel.holds(queue, 3)
    assert channel.drain(queue) == [b"2", b"3", b"4"]


def test_a_queue_full_of_bytes_drops_its_oldest(channel, declare):
    queue = declare(x_max_length_bytes=10)
    channel.confirm()
    for body in (b"aaaa", b"bbbb", b"cc", b"ddd"):
        channel.published(body, queue)
    assert channel.holds(queue, 3)
    assert channel.drain(queue) == [b"bbbb", b"cc", b"ddd"]


def test_a_message_larger_than_the_queue_is_dropped_with_all_before_it(channel, declare):
    queue = declare(x_max_length_bytes=10)
    channel.confirm()
    channel.published(b"a", queue)
    channel.published(b"b" * 11, queue)
    assert channel.holds(queue, 0)


def test_the_first_limit_reached_counts(channel, declare):
    queue = declare(x_max_length=2, x_max_length_bytes=1000)
    publish(channel, queue, 3)
    assert channel.drain(queue) == [b"1", b"2"]


def test_headers_count_no_bytes(channel, declare):
    queue = declare(x_max_length_bytes=10)
    channel.confirm()
    channel.published(b"a" * 10, queue, headers={"long": "x" * 1000})
    assert channel.holds(queue, 1)


def test_a_length_of_0_holds_nothing(channel, declare):
    queue = declare(x_max_length=0)
    publish(channel, queue, 2)
    assert channel.holds(queue, 0)
    channel.consume(queue)
    channel.published(b"straight on", queue)


def test_outstanding_messages_count_not(channel, declare):
    queue = declare(x_max_length=2)
    publish(channel, queue, 2)
    held = [channel.get(queue), channel.get(queue)]
    for each in (b"2", b"3"):
        channel.published(each, queue)
    assert channel.holds(queue, 2)
    channel.nack(held[-1].tag, multiple=True)
    assert channel.holds(queue, 2)


def test_what_returns_to_a_full_queue_is_dropped_from_the_head(channel, name):
    channel.queue(name, exclusive=True, arguments={"x-max-length": 2})
    publish(channel, name, 2)
    channel.get(name)
    channel.get(name)
    for each in (b"2", b"3"):
        channel.published(each, name)
    channel.nack(2, multiple=True)
    channel.sync()
    assert channel.drain(name) == [b"2", b"3"]


# reject-publish


def test_a_full_queue_that_rejects_nacks(channel, name):
    channel.queue(
        name, exclusive=True, arguments={"x-max-length": 2, "x-overflow": "reject-publish"}
    )
    channel.confirm()
    answers = [channel.published(str(n).encode(), name) for n in range(4)]
    assert [answer.name for answer in answers] == ["Basic.Ack"] * 2 + ["Basic.Nack"] * 2
    assert [answer.delivery_tag for answer in answers] == [1, 2, 3, 4]
    assert channel.drain(name) == [b"0", b"1"]
    assert isinstance(channel.published(b"room again", name), amqp.Basic.Ack)


def test_a_full_quorum_queue_that_rejects_nacks_in_time(channel, connect, name):
    """It tells its publishers that it is full, and takes what is under way until then."""
    channel.queue(
        name,
        arguments={"x-queue-type": "quorum", "x-max-length": 2, "x-overflow": "reject-publish"},
    )
    channel.confirm()
    answers = [channel.published(str(n).encode(), name).name for n in range(20)]
    assert answers[:2] == ["Basic.Ack"] * 2
    assert answers[-1] == "Basic.Nack"
    channel.call(amqp.Queue.Delete(queue=name))


def test_without_confirms_what_is_rejected_is_dropped_without_a_word(channel, name):
    channel.queue(
        name, exclusive=True, arguments={"x-max-length": 1, "x-overflow": "reject-publish"}
    )
    channel.publish_all(range(3), name)
    assert channel.drain(name) == [b"0"]


def test_mandatory_does_not_return_what_is_rejected(channel, name):
    channel.queue(
        name, exclusive=True, arguments={"x-max-length": 0, "x-overflow": "reject-publish"}
    )
    channel.confirm()
    assert isinstance(channel.published(b"1", name, mandatory=True), amqp.Basic.Nack)


def test_a_message_for_a_full_and_another_queue_is_nacked_and_kept_by_the_other(
    channel, name, queue
):
    channel.queue(
        name, exclusive=True, arguments={"x-max-length": 0, "x-overflow": "reject-publish"}
    )
    channel.confirm()
    answer = channel.published(b"1", name, headers={"CC": [queue]})
    assert isinstance(answer, amqp.Basic.Nack)
    assert channel.drain(queue) == [b"1"]


def test_a_queue_full_of_bytes_rejects(channel, name):
    channel.queue(
        name, exclusive=True, arguments={"x-max-length-bytes": 5, "x-overflow": "reject-publish"}
    )
    channel.confirm()
    answers = [channel.published(body, name).name for body in (b"aaa", b"bb", b"c")]
    # Full is what has reached the limit, not what would pass it.
    assert answers == ["Basic.Ack", "Basic.Ack", "Basic.Nack"]
