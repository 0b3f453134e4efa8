"""Queues: declaring, naming, owning, purging and deleting them."""

import pamqp.commands as amqp
import pytest

from tests.broker.client import Refused, refused
from tests.servers.wait import until_sync

DECLARE = "Queue.Declare"


def missing(queue, served) -> str:
    return f"NOT_FOUND - no queue '{queue}' in vhost '{served.vhost}'"


def gone(connect, queue) -> bool:
    """Say whether a queue is no longer there."""
    channel = connect().channel()
    try:
        channel.ready(queue)
    except Refused as refusal:
        return refusal.code == 404
    return False


# Names


def test_a_nameless_queue_gets_a_name_from_the_broker_and_each_its_own(channel):
    names = {channel.queue(exclusive=True) for _ in range(3)}
    assert len(names) == 3
    assert all(name.startswith("amq.gen-") for name in names)
    assert all(len(name) == len("amq.gen-") + 22 for name in names)


def test_the_empty_name_means_the_queue_this_channel_declared_last(channel, name):
    channel.queue(exclusive=True)
    own = channel.queue(exclusive=True)
    channel.exchange(name, "fanout", auto_delete=True)
    channel.call(amqp.Queue.Bind(0, "", name, ""))
    channel.publish(b"1", exchange=name)
    assert channel.get("").body == b"1"
    channel.publish(b"2", own)
    assert channel.call(amqp.Queue.Purge(queue="")).message_count == 1
    channel.consume("")
    assert channel.counts(own).consumers == 1
    assert channel.call(amqp.Queue.Delete(queue="")).message_count == 0
    with pytest.raises(Refused):
        channel.ready(own)


def test_the_empty_routing_key_of_a_bind_is_the_queues_name_where_the_queue_is_empty_too(
    channel, name
):
    own = channel.queue(exclusive=True)
    channel.exchange(name, auto_delete=True)
    channel.call(amqp.Queue.Bind(0, "", name, ""))
    channel.publish(b"by name", own, exchange=name)
    channel.publish(b"by nothing", "", exchange=name)
    assert channel.drain(own) == [b"by name"]


@pytest.mark.parametrize(
    "use",
    [
        lambda channel: channel.get(""),
        lambda channel: channel.consume(""),
        lambda channel: channel.bind("", "amq.fanout"),
        lambda channel: channel.call(amqp.Queue.Delete(queue="")),
        lambda channel: channel.call(amqp.Queue.Purge(queue="")),
    ],
    ids=["get", "consume", "bind", "delete", "purge"],
)
def test_the_empty_name_before_any_declare_is_refused(channel, use):
    with pytest.raises(Refused) as caught:
        use(channel)
    assert caught.value.args[:3] == ("channel", 404, "NOT_FOUND - no previously declared queue")


@pytest.mark.parametrize("taken", ["amq.", "amq.mine", "amq.gen-abc"])
def test_a_new_queue_may_not_be_named_as_the_brokers_own(channel, served, taken):
    with refused(
        "channel",
        403,
        f"ACCESS_REFUSED - queue name '{taken}' contains reserved prefix 'amq.*'",
        DECLARE,
    ):
        channel.queue(taken)


def test_a_queue_the_broker_named_may_be_declared_again_only_passively(channel, served):
    own = channel.queue(exclusive=True)
    assert channel.queue(own, passive=True) == own
    with refused(
        "channel",
        403,
        f"ACCESS_REFUSED - queue name '{own}' contains reserved prefix 'amq.*'",
        DECLARE,
    ):
        channel.queue(own, exclusive=True)


def test_the_empty_name_is_no_queue_to_a_passive_declare(channel, served):
    channel.queue(exclusive=True)
    with refused("channel", 404, missing("", served), DECLARE):
        channel.queue("", passive=True)


def test_line_breaks_are_cut_out_of_a_name(channel):
    assert channel.queue_of_any_name(b"a\r\nb\n") == "ab"


@pytest.mark.parametrize("queue", ["q" * 255, "λάμδα ", " ", "#.*", "a,b/c>d"], ids=lambda q: q[:9])
def test_names_may_be_of_255_bytes_and_of_any_script(channel, queue):
    assert channel.queue_of_any_name(queue.encode()) == queue
    channel.publish(b"1", queue, mandatory=True)
    channel.consume("")
    assert channel.delivery().route == ("", queue)


# Passive declares and counts


def test_a_passive_declare_counts_ready_messages_and_consumers(channel, other, queue):
    channel.publish_all(range(3), queue)
    channel.get(queue)
    assert channel.counts(queue) == (2, 0)
    channel.qos(1)
    channel.consume(queue, "a")
    assert channel.delivery().body == b"1"
    assert channel.counts(queue) == (1, 1)


def test_a_passive_declare_of_what_is_not_there_is_refused(channel, served, name):
    with refused("channel", 404, missing(name, served), DECLARE):
        channel.queue(name, passive=True)


def test_a_passive_declare_looks_at_nothing_but_the_name(channel, name):
    channel.queue(name, durable=True, auto_delete=True, arguments={"x-max-length": 5})
    assert channel.queue(name, passive=True, durable=False) == name
    channel.call(amqp.Queue.Delete(queue=name))


def test_a_declare_with_no_wait_is_not_answered(channel, name):
    channel.cast(amqp.Queue.Declare(queue=name, exclusive=True, nowait=True))
    assert channel.counts(name) == (0, 0)


def test_a_queue_declared_twice_alike_keeps_its_messages(channel, queue):
    channel.publish(b"1", queue)
    assert channel.queue(queue, exclusive=True) == queue
    assert channel.drain(queue) == [b"1"]


# Exclusive


def locked(queue, served) -> str:
    return (
        f"RESOURCE_LOCKED - cannot obtain exclusive access to locked queue '{queue}' in vhost"
        f" '{served.vhost}'. It could be originally declared on another connection or the exclusive"
        " property value does not match that of the original declaration."
    )


@pytest.mark.parametrize(
    ("use", "blamed"),
    [
        (lambda channel, queue: channel.queue(queue, exclusive=True), DECLARE),
        (lambda channel, queue: channel.queue(queue), DECLARE),
        (lambda channel, queue: channel.ready(queue), DECLARE),
        (lambda channel, queue: channel.get(queue), "Basic.Get"),
        (lambda channel, queue: channel.consume(queue), "Basic.Consume"),
        (lambda channel, queue: channel.bind(queue, "amq.fanout"), "Queue.Bind"),
        (lambda channel, queue: channel.call(amqp.Queue.Purge(queue=queue)), "Queue.Purge"),
        (lambda channel, queue: channel.call(amqp.Queue.Delete(queue=queue)), "Queue.Delete"),
    ],
    ids=["declare", "declare shared", "passive", "get", "consume", "bind", "purge", "delete"],
)
def test_an_exclusive_queue_is_locked_for_other_connections(other, queue, served, use, blamed):
    with refused("channel", 405, locked(queue, served), blamed):
        use(other, queue)


def test_anyone_may_publish_to_an_exclusive_queue(channel, other, queue):
    other.confirm().published(b"1", queue)
    assert channel.get(queue).body == b"1"


def test_another_channel_of_the_connection_may_use_an_exclusive_queue(connection, queue):
    assert connection.channel().counts(queue) == (0, 0)


@pytest.mark.parametrize("end", ["close", "drop"])
def test_an_exclusive_queue_ends_with_its_connection_and_not_with_its_channel(connect, name, end):
    owner = connect()
    channel = owner.channel()
    channel.queue(name, exclusive=True)
    channel.close()
    owner.channel(9).ready(name)
    getattr(owner, end)()
    until_sync(lambda: gone(connect, name))


def test_exclusive_on_a_shared_queue_is_refused(channel, name, served):
    channel.queue(name)
    with refused("channel", 405, locked(name, served), DECLARE):
        channel.queue(name, exclusive=True)


def test_a_shared_declare_of_an_own_exclusive_queue_is_refused(channel, queue, served):
    with refused("channel", 405, locked(queue, served), DECLARE):
        channel.queue(queue)


# Auto-delete


def test_an_auto_delete_queue_lives_until_its_last_consumer_is_cancelled(channel, connect, name):
    channel.queue(name, auto_delete=True)
    channel.sync()
    assert channel.counts(name) == (0, 0)  # without a consumer it waits for one
    channel.consume(name, "a")
    channel.consume(name, "b")
    channel.cancel("a")
    assert channel.counts(name) == (0, 1)
    channel.cancel("b")
    until_sync(lambda: gone(connect, name))


def test_an_auto_delete_queue_ends_with_its_consumers_connection(channel, connect, name):
    channel.queue(name, auto_delete=True)
    consumer = connect()
    consumer.channel().consume(name)
    consumer.drop()
    until_sync(lambda: gone(connect, name))


def test_an_auto_delete_queue_ends_with_its_consumers_channel(channel, connection, connect, name):
    channel.queue(name, auto_delete=True)
    consumer = connection.channel()
    consumer.consume(name)
    consumer.close()
    until_sync(lambda: gone(connect, name))


def test_get_is_no_consumer_to_an_auto_delete_queue(channel, name):
    channel.queue(name, auto_delete=True)
    channel.publish(b"1", name)
    channel.get(name, no_ack=True)
    assert channel.counts(name) == (0, 0)


# Purge and delete


def test_purge_drops_what_is_ready_and_says_how_many(channel, queue):
    channel.publish_all(range(5), queue)
    held = channel.get(queue)
    assert channel.call(amqp.Queue.Purge(queue=queue)).message_count == 4
    assert channel.call(amqp.Queue.Purge(queue=queue)).message_count == 0
    channel.nack(held.tag)
    assert channel.drain(queue) == [b"0"]


def test_purge_of_what_is_not_there_is_refused(channel, served, name):
    with refused("channel", 404, missing(name, served), "Queue.Purge"):
        channel.call(amqp.Queue.Purge(queue=name))


def test_delete_says_how_many_messages_it_dropped(channel, name):
    channel.queue(name)
    channel.publish_all(range(3), name)
    assert channel.call(amqp.Queue.Delete(queue=name)).message_count == 3


def test_delete_of_what_is_not_there_is_done(channel, name):
    assert channel.call(amqp.Queue.Delete(queue=name)).message_count == 0


def test_delete_if_empty_spares_a_queue_with_messages(channel, served, name):
    channel.queue(name)
    channel.publish(b"1", name)
    assert channel.holds(name, 1)
    with refused(
        "channel",
        406,
        f"PRECONDITION_FAILED - queue '{name}' in vhost '{served.vhost}' not empty",
        "Queue.Delete",
    ):
        channel.call(amqp.Queue.Delete(queue=name, if_empty=True))


def test_delete_if_unused_spares_a_queue_with_consumers(channel, served, name):
    channel.queue(name, exclusive=True)
    channel.consume(name)
    with refused(
        "channel",
        406,
        f"PRECONDITION_FAILED - queue '{name}' in vhost '{served.vhost}' in use",
        "Queue.Delete",
    ):
        channel.call(amqp.Queue.Delete(queue=name, if_unused=True))


def test_delete_if_unused_and_if_empty_deletes_what_is_both(channel, name):
    channel.queue(name)
    answer = channel.call(amqp.Queue.Delete(queue=name, if_unused=True, if_empty=True))
    assert answer.message_count == 0
    with pytest.raises(Refused):
        channel.ready(name)


def test_a_deleted_queue_takes_its_bindings_along(channel, name):
    channel.exchange(name, "fanout")
    for _ in range(2):
        channel.queue(name)
        channel.bind(name, name)
        channel.call(amqp.Queue.Delete(queue=name))
    channel.queue(name, exclusive=True)
    channel.publish(b"1", exchange=name, mandatory=True)
    assert channel.event().method.reply_text == "NO_ROUTE"
    channel.call(amqp.Exchange.Delete(exchange=name))


# What is not there


@pytest.mark.parametrize(
    ("use", "blamed"),
    [
        (lambda channel, queue: channel.get(queue), "Basic.Get"),
        (lambda channel, queue: channel.consume(queue), "Basic.Consume"),
        (lambda channel, queue: channel.bind(queue, "amq.fanout"), "Queue.Bind"),
    ],
    ids=["get", "consume", "bind"],
)
def test_using_a_queue_that_is_not_there_is_refused(channel, served, name, use, blamed):
    with refused("channel", 404, missing(name, served), blamed):
        use(channel, name)


def test_binding_to_an_exchange_that_is_not_there_is_refused(channel, served, queue, name):
    with refused(
        "channel", 404, f"NOT_FOUND - no exchange '{name}' in vhost '{served.vhost}'", "Queue.Bind"
    ):
        channel.bind(queue, name)


def test_binding_to_or_from_the_default_exchange_is_refused(channel, queue):
    with refused(
        "channel",
        403,
        "ACCESS_REFUSED - operation not permitted on the default exchange",
        "Queue.Bind",
    ):
        channel.bind(queue, "", "key")


def test_unbinding_from_the_default_exchange_is_refused(channel, queue):
    with refused(
        "channel",
        403,
        "ACCESS_REFUSED - operation not permitted on the default exchange",
        "Queue.Unbind",
    ):
        channel.unbind(queue, "", queue)


def test_unbinding_what_is_not_bound_is_done(channel, queue, name):
    channel.unbind(queue, "amq.direct", "never")
    channel.unbind(queue, name, "never")
    channel.unbind(name, "amq.direct", "never")
