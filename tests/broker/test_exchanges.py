"""Exchanges: declaring, deleting, binding to each other, alternates."""

import pamqp.commands as amqp
import pytest

from tests.broker.client import Refused, refused
from tests.servers.wait import until_sync

DECLARE = "Exchange.Declare"
KINDS = ("direct", "fanout", "topic", "headers")
PREDECLARED = {
    "amq.direct": "direct",
    "amq.fanout": "fanout",
    "amq.topic": "topic",
    "amq.headers": "headers",
    "amq.match": "headers",
}
ON_DEFAULT = "ACCESS_REFUSED - operation not permitted on the default exchange"


def missing(exchange, served) -> str:
    return f"NOT_FOUND - no exchange '{exchange}' in vhost '{served.vhost}'"


def there(connect, exchange) -> bool:
    channel = connect().channel()
    try:
        channel.exchange(exchange, passive=True)
    except Refused as refusal:
        return refusal.code != 404
    return True


@pytest.fixture
def exchange(channel, name):
    """Declare exchanges that end with the test: `exchange("fanout", internal=True)`."""
    declared = []

    def declare(kind: str = "direct", **options) -> str:
        declared.append(channel.exchange(f"{name}-{len(declared)}", kind, **options))
        return declared[-1]

    yield declare
    if channel.refusal:
        channel = channel.connection.channel()
    for each in declared:
        channel.call(amqp.Exchange.Delete(exchange=each))


@pytest.mark.parametrize("kind", KINDS)
def test_an_exchange_may_be_declared_twice_alike_and_looked_at(channel, exchange, kind):
    own = exchange(kind)
    assert channel.exchange(own, kind) == own
    assert channel.exchange(own, kind, passive=True) == own


def test_an_exchange_declared_with_no_wait_is_not_answered(channel, name):
    channel.cast(amqp.Exchange.Declare(exchange=name, nowait=True))
    channel.sync()
    assert channel.exchange(name, passive=True) == name
    channel.cast(amqp.Exchange.Delete(exchange=name, nowait=True))
    with pytest.raises(Refused):
        channel.exchange(name, passive=True)


@pytest.mark.parametrize("own", PREDECLARED)
def test_the_brokers_own_exchanges_are_there_and_durable(channel, own):
    assert channel.exchange(own, PREDECLARED[own]) == own


def test_a_passive_declare_of_what_is_not_there_is_refused(channel, served, name):
    with refused("channel", 404, missing(name, served), DECLARE):
        channel.exchange(name, passive=True)


def test_a_passive_declare_looks_at_nothing_but_the_name(channel, exchange):
    own = exchange("topic")
    assert channel.exchange(own, "fanout", durable=False, passive=True) == own


@pytest.mark.parametrize("reserved", ["amq.", "amq.mine"])
def test_a_new_exchange_may_not_be_named_as_the_brokers_own(channel, reserved):
    with refused(
        "channel",
        403,
        f"ACCESS_REFUSED - exchange name '{reserved}' contains reserved prefix 'amq.*'",
        DECLARE,
    ):
        channel.exchange(reserved)


@pytest.mark.parametrize(
    ("use", "blamed"),
    [
        (lambda channel: channel.exchange(""), "Exchange.Declare"),
        (lambda channel: channel.exchange("", passive=True), "Exchange.Declare"),
        (lambda channel: channel.call(amqp.Exchange.Delete(exchange="")), "Exchange.Delete"),
        (lambda channel: channel.bind_exchange("", "amq.fanout"), "Exchange.Bind"),
        (lambda channel: channel.bind_exchange("amq.fanout", ""), "Exchange.Bind"),
        (
            lambda channel: channel.call(amqp.Exchange.Unbind(0, "amq.fanout", "", "")),
            "Exchange.Unbind",
        ),
    ],
    ids=["declare", "passive", "delete", "bind", "bind from", "unbind from"],
)
def test_the_default_exchange_may_not_be_touched(channel, use, blamed):
    with refused("channel", 403, ON_DEFAULT, blamed):
        use(channel)


def test_an_unknown_kind_is_refused(channel, name, differs):
    level, code, text = differs("an unknown exchange type")
    with refused(level, code, f"{text} - unknown exchange type 'ring'", DECLARE):
        channel.exchange(name, "ring")


def inequivalent(what, exchange, served, received, current) -> str:
    return (
        f"PRECONDITION_FAILED - inequivalent arg '{what}' for exchange '{exchange}' in vhost"
        f" '{served.vhost}': received {received} but current is {current}"
    )


@pytest.mark.parametrize(
    ("what", "before", "again"),
    [
        ("type", {"kind": "direct"}, {"kind": "topic"}),
        ("durable", {"durable": True}, {"durable": False}),
        ("durable", {"durable": False}, {"durable": True}),
        ("auto_delete", {"auto_delete": False}, {"auto_delete": True}),
        ("internal", {"internal": False}, {"internal": True}),
        ("internal", {"internal": True}, {"internal": False}),
    ],
)
def test_an_exchange_declared_again_with_another_property_is_refused(
    channel, served, exchange, what, before, again
):
    own = exchange(**before)
    received, current = (f"'{str(next(iter(side.values()))).lower()}'" for side in (again, before))
    with refused("channel", 406, inequivalent(what, own, served, received, current), DECLARE):
        channel.exchange(own, **again)


def test_an_exchange_declared_again_with_another_alternate_is_refused(channel, served, exchange):
    own = exchange(arguments={"alternate-exchange": "one"})
    text = inequivalent("alternate-exchange", own, served, "'two'", "'one'")
    with refused("channel", 406, text, DECLARE):
        channel.exchange(own, arguments={"alternate-exchange": "two"})


def test_an_exchange_declared_again_without_its_alternate_is_refused(channel, served, exchange):
    own = exchange(arguments={"alternate-exchange": "one"})
    text = inequivalent(
        "alternate-exchange", own, served, "none", "the value 'one' of type 'longstr'"
    )
    with refused("channel", 406, text, DECLARE):
        channel.exchange(own)


def test_an_argument_the_broker_does_not_know_is_not_compared(channel, exchange):
    own = exchange(arguments={"x-mine": 1})
    assert channel.exchange(own, arguments={"x-mine": 2}) == own


def test_an_alternate_that_is_no_name_is_refused(channel, served, name):
    with refused(
        "channel",
        406,
        f"PRECONDITION_FAILED - invalid type 'byte' for arg 'alternate-exchange' in exchange"
        f" '{name}' in vhost '{served.vhost}'",
        DECLARE,
    ):
        channel.exchange(name, arguments={"alternate-exchange": 5})


# Delete


def test_delete_of_what_is_not_there_is_done(channel, name):
    answer = channel.call(amqp.Exchange.Delete(exchange=name))
    assert isinstance(answer, amqp.Exchange.DeleteOk)


def test_the_brokers_own_exchanges_may_not_be_deleted(channel, served):
    with refused(
        "channel",
        403,
        f"ACCESS_REFUSED - deletion of system exchange 'amq.direct' in vhost '{served.vhost}' not"
        " allowed",
        "Exchange.Delete",
    ):
        channel.call(amqp.Exchange.Delete(exchange="amq.direct"))


def test_delete_if_unused_spares_an_exchange_with_bindings(channel, served, exchange, queue):
    own = exchange()
    channel.bind(queue, own, "key")
    with refused(
        "channel",
        406,
        f"PRECONDITION_FAILED - exchange '{own}' in vhost '{served.vhost}' in use",
        "Exchange.Delete",
    ):
        channel.call(amqp.Exchange.Delete(exchange=own, if_unused=True))


def test_delete_if_unused_does_not_count_bindings_to_the_exchange(channel, connect, exchange):
    source, own = exchange(), exchange()
    channel.bind_exchange(own, source, "key")
    channel.call(amqp.Exchange.Delete(exchange=own, if_unused=True))
    assert not there(connect, own)


def test_a_deleted_exchange_takes_its_bindings_along(channel, exchange, queue):
    own = exchange("fanout")
    channel.bind(queue, own)
    channel.call(amqp.Exchange.Delete(exchange=own))
    channel.exchange(own, "fanout")
    channel.publish(b"1", exchange=own)
    assert channel.drain(queue) == []


# Auto-delete


def test_an_auto_delete_exchange_ends_with_its_last_binding(channel, connect, name, queue):
    channel.exchange(name, auto_delete=True)
    assert there(connect, name)  # never bound, it waits for a binding
    channel.bind(queue, name, "one")
    channel.bind(queue, name, "two")
    channel.unbind(queue, name, "one")
    assert there(connect, name)
    channel.unbind(queue, name, "two")
    assert not there(connect, name)


def test_an_auto_delete_exchange_ends_with_the_last_queue_bound_to_it(
    channel, connect, name, queue
):
    channel.exchange(name, auto_delete=True)
    channel.bind(queue, name)
    channel.call(amqp.Queue.Delete(queue=queue))
    until_sync(lambda: not there(connect, name))


def test_an_auto_delete_exchange_ends_with_an_exclusive_queue_of_a_connection_that_went(
    channel, connect, name
):
    channel.exchange(name, auto_delete=True)
    owner = connect()
    theirs = owner.channel()
    theirs.bind(theirs.queue(exclusive=True), name)
    owner.drop()
    until_sync(lambda: not there(connect, name))


def test_an_auto_delete_exchange_bound_to_an_exchange_ends_with_that(
    channel, connect, exchange, name
):
    target = exchange()
    channel.exchange(name, auto_delete=True)
    channel.bind_exchange(target, name)
    channel.call(amqp.Exchange.Delete(exchange=target))
    until_sync(lambda: not there(connect, name))


# Internal


def test_an_internal_exchange_takes_no_publish(channel, served, exchange):
    own = exchange(internal=True)
    with refused(
        "channel",
        403,
        f"ACCESS_REFUSED - cannot publish to internal exchange '{own}' in vhost '{served.vhost}'",
        "Basic.Publish",
    ):
        channel.publish(b"1", exchange=own)
        channel.wait_closed()


def test_an_internal_exchange_passes_on_what_comes_from_others(channel, exchange, queue):
    source, inner = exchange("fanout"), exchange("fanout", internal=True)
    channel.bind_exchange(inner, source)
    channel.bind(queue, inner)
    channel.publish(b"1", exchange=source)
    assert channel.drain(queue) == [b"1"]


def test_a_publish_to_an_exchange_that_is_not_there_closes_the_channel(channel, served, name):
    with refused("channel", 404, missing(name, served), "Basic.Publish"):
        channel.publish(b"1", exchange=name)
        channel.wait_closed()


# Exchange to exchange


def test_a_message_goes_through_a_chain_of_exchanges_and_keeps_its_key(channel, exchange, queue):
    first, second, third = exchange("topic"), exchange("fanout"), exchange("direct")
    channel.bind_exchange(second, first, "a.#")
    channel.bind_exchange(third, second, "ignored")
    channel.bind(queue, third, "a.b")
    channel.publish(b"1", "a.b", exchange=first)
    channel.publish(b"2", "a.c", exchange=first)
    assert channel.get(queue).route == (first, "a.b")
    assert channel.get(queue) is None


def test_a_cycle_of_exchanges_delivers_once(channel, exchange, queue):
    first, second = exchange("fanout"), exchange("fanout")
    channel.bind_exchange(second, first)
    channel.bind_exchange(first, second)
    channel.bind_exchange(first, first)
    channel.bind(queue, first)
    channel.bind(queue, second)
    channel.publish(b"1", exchange=first)
    assert channel.drain(queue) == [b"1"]


def test_unbinding_exchanges_ends_the_way(channel, exchange, queue):
    first, second = exchange("fanout"), exchange("fanout")
    channel.bind_exchange(second, first, "one")
    channel.bind_exchange(second, first, "two")
    channel.bind(queue, second)
    channel.call(amqp.Exchange.Unbind(0, second, first, "one"))
    channel.publish(b"1", exchange=first)
    assert channel.drain(queue) == [b"1"]
    channel.call(amqp.Exchange.Unbind(0, second, first, "two"))
    channel.publish(b"2", exchange=first)
    assert channel.drain(queue) == []


def test_unbinding_exchanges_that_are_not_bound_is_done(channel, exchange, name):
    channel.call(amqp.Exchange.Unbind(0, exchange(), exchange(), "never"))
    channel.call(amqp.Exchange.Unbind(0, name, f"{name}-x", "never"))


@pytest.mark.parametrize("side", ["source", "destination"])
def test_binding_exchanges_that_are_not_there_is_refused(channel, served, exchange, name, side):
    ends = {"source": exchange(), "destination": exchange()} | {side: name}
    with refused("channel", 404, missing(name, served), "Exchange.Bind"):
        channel.bind_exchange(ends["destination"], ends["source"])


# Alternate exchange


def test_what_an_exchange_cannot_route_goes_to_its_alternate(channel, exchange, queue):
    alternate = exchange("fanout")
    own = exchange(arguments={"alternate-exchange": alternate})
    channel.bind(queue, alternate)
    channel.publish(b"1", "no such key", exchange=own, mandatory=True)
    message = channel.get(queue)
    assert message.route == (own, "no such key")
    assert channel.quiet(0.05)  # routed: nothing returns


def test_alternates_form_a_chain_and_a_cycle_ends(channel, exchange, queue, name):
    names = [f"{name}-{number}" for number in range(3)]
    for _ in names:
        exchange(arguments={"alternate-exchange": names[(names.index(f"{name}-{_[-1]}") + 1) % 3]})
    channel.bind(queue, names[2], "key")
    channel.publish(b"1", "key", exchange=names[0], mandatory=True)
    assert channel.drain(queue) == [b"1"]
    channel.publish(b"2", "other", exchange=names[0], mandatory=True)
    assert channel.event().method.reply_text == "NO_ROUTE"


def test_an_alternate_that_is_not_there_drops_or_returns(channel, exchange):
    own = exchange(arguments={"alternate-exchange": "nowhere"})
    channel.publish(b"1", "key", exchange=own)
    channel.publish(b"2", "key", exchange=own, mandatory=True)
    assert channel.event().body == b"2"


def test_an_alternate_is_not_asked_where_an_exchange_routes(channel, exchange, queue):
    alternate = exchange("fanout")
    own = exchange(arguments={"alternate-exchange": alternate})
    other = channel.queue(exclusive=True)
    channel.bind(queue, alternate)
    channel.bind(other, own, "key")
    channel.publish(b"1", "key", exchange=own)
    assert (channel.drain(other), channel.drain(queue)) == ([b"1"], [])


def test_an_alternate_is_not_asked_where_a_bound_exchange_routes_nowhere(channel, exchange, queue):
    alternate, empty = exchange("fanout"), exchange("fanout")
    own = exchange(arguments={"alternate-exchange": alternate})
    channel.bind_exchange(empty, own, "key")
    channel.bind(queue, alternate)
    channel.publish(b"1", "key", exchange=own, mandatory=True)
    assert channel.event().method.reply_text == "NO_ROUTE"
    assert channel.drain(queue) == []
