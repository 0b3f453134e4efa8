"""Which bindings a message matches: each exchange kind by its edge cases."""

import datetime as dt

import pamqp.commands as amqp
import pytest

from tests.broker.client import CONTENT_HEADER, raw_frame, refused


@pytest.fixture
def routed(channel, queue, name):
    """Say whether a message reaches a queue bound so: `routed(kind, binding, key, …)`."""
    made = []

    def routed(kind, key, publish_key="", *, arguments=None, **properties) -> bool:
        exchange = channel.exchange(f"{name}-{len(made)}", kind)
        made.append(exchange)
        channel.bind(queue, exchange, key, arguments)
        channel.publish(b"1", publish_key, exchange=exchange, **properties)
        return channel.get(queue, no_ack=True) is not None

    yield routed
    for exchange in made:
        channel.call(amqp.Exchange.Delete(exchange=exchange))


# Direct, fanout, default


@pytest.mark.parametrize(
    ("binding", "key", "matches"),
    [
        ("a", "a", True),
        ("a", "A", False),
        ("", "", True),
        ("a.*", "a.b", False),
        ("a ", "a", False),
    ],
)
def test_direct_matches_equal_keys_only(routed, binding, key, matches):
    assert routed("direct", binding, key) is matches


@pytest.mark.parametrize(("binding", "key"), [("", "x"), ("a", "b"), ("#", "")])
def test_fanout_matches_whatever_the_keys(routed, binding, key):
    assert routed("fanout", binding, key)


def test_the_default_exchange_routes_by_queue_name(channel, queue):
    channel.publish(b"1", queue)
    assert channel.get(queue).route == ("", queue)


def test_a_queue_bound_twice_gets_a_message_once(channel, queue):
    for key in ("a.#", "#.b", "a.*", "a.b"):
        channel.bind(queue, "amq.topic", key)
    channel.publish(b"1", "a.b", exchange="amq.topic")
    assert channel.drain(queue) == [b"1"]


def test_the_same_binding_made_twice_is_one(channel, queue, name):
    channel.bind(queue, "amq.direct", name)
    channel.bind(queue, "amq.direct", name)
    channel.unbind(queue, "amq.direct", name)
    channel.publish(b"1", name, exchange="amq.direct")
    assert channel.drain(queue) == []


def test_bindings_that_differ_in_arguments_are_two(channel, queue, name):
    channel.bind(queue, "amq.direct", name, {"a": 1})
    channel.bind(queue, "amq.direct", name, {"a": 2})
    channel.unbind(queue, "amq.direct", name, {"a": 1})
    channel.publish(b"1", name, exchange="amq.direct")
    assert channel.drain(queue) == [b"1"]
    channel.unbind(queue, "amq.direct", name, {"a": 2})
    channel.publish(b"2", name, exchange="amq.direct")
    assert channel.drain(queue) == []


# Topic

TOPICS = [
    ("a", "a", True),
    ("a", "a.a", False),
    ("", "", True),
    ("", "a", False),
    ("*", "a", True),
    ("*", "", False),
    ("*", "a.b", False),
    ("*.*", "a.b", True),
    ("*.*", ".", True),
    ("*.*", "a", False),
    ("*.b", ".b", True),
    ("a.*", "a.", True),
    ("a.*", "a", False),
    ("a..b", "a..b", True),
    ("a.*.b", "a..b", True),
    ("a.#.b", "a..b", True),
    ("#", "", True),
    ("#", "a", True),
    ("#", "a.b.c", True),
    ("#", "...", True),
    ("a.#", "a", True),
    ("a.#", "a.", True),
    ("a.#", "a.b.c", True),
    ("a.#", "ab", False),
    ("a.#", "b.a", False),
    ("#.b", "b", True),
    ("#.b", "a.a.b", True),
    ("#.b", "b.a", False),
    ("a.#.b", "a.b", True),
    ("a.#.b", "a.x.y.b", True),
    ("a.#.b", "a.x.y", False),
    ("#.a.#", "x.a.y", True),
    ("#.a.#", "a", True),
    ("#.a.#", "x.y", False),
    ("#.#", "", True),
    ("#.#", "a", True),
    ("#.*", "a", True),
    ("#.*", "", False),
    ("*.#", "", False),
    ("*.#", "a.b", True),
    ("#.*.#", "a", True),
    ("#.*.#.*.#", "a", False),
    ("#.*.#.*.#", "a.b", True),
    ("#.a.*.a.#", "a.a.x.a", True),
    ("a*", "ab", False),
    ("a*", "a*", True),
    ("a#", "a#", True),
    ("#a", "a", False),
    ("*.a", "*.a", True),
    ("a.b", "a.*", False),
    ("a.b", "a.#", False),
    ("**", "a", False),
    ("##", "a", False),
    ("A", "a", False),
    ("λ.*", "λ.μ", True),
]


@pytest.mark.parametrize(("pattern", "key", "matches"), TOPICS)
def test_topic_patterns(routed, pattern, key, matches):
    assert routed("topic", pattern, key) is matches


def test_a_topic_exchange_routes_by_all_its_patterns_and_forgets_the_unbound(channel, name):
    exchange = channel.exchange(name, "topic", auto_delete=True)
    patterns = {p: channel.queue(exclusive=True) for p in ("a.#", "a.*", "*.b", "#", "a.b", "b.#")}
    for pattern, queue in patterns.items():
        channel.bind(queue, exchange, pattern)
    channel.publish(b"1", "a.b", exchange=exchange)
    got = {pattern for pattern, queue in patterns.items() if channel.drain(queue)}
    assert got == {"a.#", "a.*", "*.b", "#", "a.b"}
    channel.unbind(patterns["a.#"], exchange, "a.#")
    channel.unbind(patterns["a.b"], exchange, "a.b")
    channel.publish(b"1", "a.b", exchange=exchange)
    got = {pattern for pattern, queue in patterns.items() if channel.drain(queue)}
    assert got == {"a.*", "*.b", "#"}


# Headers

NOW = dt.datetime(2026, 11, 27, 12, 0, tzinfo=dt.UTC)
HEADERS = [
    # Without x-match all must match.
    ({"a": 1, "b": 2}, {"a": 1, "b": 2, "c": 3}, True),
    ({"a": 1, "b": 2}, {"a": 1}, False),
    ({"x-match": "all", "a": 1, "b": 2}, {"a": 1, "b": 2}, True),
    ({"x-match": "all", "a": 1, "b": 2}, {"a": 1, "b": 3}, False),
    ({"x-match": "any", "a": 1, "b": 2}, {"b": 2}, True),
    ({"x-match": "any", "a": 1, "b": 2}, {"a": 2, "b": 1}, False),
    # Nothing asked: all of nothing matches, any of nothing does not.
    ({}, {}, True),
    ({}, {"a": 1}, True),
    (None, None, True),
    ({"x-match": "all"}, {"a": 1}, True),
    ({"x-match": "any"}, {"a": 1}, False),
    ({"x-match": "any"}, {}, False),
    # Names beginning with x- are not looked at, but with -with-x they are.
    ({"x-match": "all", "x-a": 1}, {}, True),
    ({"x-match": "any", "x-a": 1}, {"x-a": 1}, False),
    ({"x-match": "all-with-x", "x-a": 1}, {}, False),
    ({"x-match": "all-with-x", "x-a": 1}, {"x-a": 1}, True),
    ({"x-match": "any-with-x", "x-a": 1}, {"x-a": 1}, True),
    ({"x-match": "any-with-x", "x-a": 1, "b": 2}, {"b": 2}, True),
    ({"x-match": "any-with-x", "x-a": 1, "b": 2}, {"x-a": 2}, False),
    # A void asks for presence alone.
    ({"a": None}, {"a": 5}, True),
    ({"a": None}, {"a": None}, True),
    ({"a": None}, {}, False),
    ({"a": 5}, {"a": None}, False),
    # Values are compared, and their types count only where the values' meaning differs.
    ({"a": 1}, {"a": "1"}, False),
    ({"a": True}, {"a": 1}, False),
    ({"a": 1}, {"a": 1}, True),
    ({"a": "x"}, {"a": "x"}, True),
    ({"a": "x"}, {"a": "X"}, False),
    ({"A": "x"}, {"a": "x"}, False),
    ({"a": [1, "b"]}, {"a": [1, "b"]}, True),
    ({"a": [1, "b"]}, {"a": ["b", 1]}, False),
    ({"a": {"b": 1}}, {"a": {"b": 1}}, True),
    ({"a": {"b": 1}}, {"a": {"b": 2}}, False),
    ({"a": ""}, {"a": ""}, True),
]


@pytest.mark.parametrize(("arguments", "headers", "matches"), HEADERS)
def test_headers(routed, arguments, headers, matches):
    assert routed("headers", "ignored", "too", arguments=arguments, headers=headers) is matches


@pytest.mark.parametrize(
    ("asked", "given", "behaviour"),
    [
        (1, 1.0, "headers exchange: 1 matches 1.0"),
        (NOW, NOW, "headers exchange: a timestamp matches itself"),
    ],
)
def test_headers_compared_by_type(routed, differs, asked, given, behaviour):
    matches = routed("headers", "", arguments={"a": asked}, headers={"a": given})
    assert matches is differs(behaviour)


def test_an_integer_header_is_compared_whatever_its_width(connection, channel, queue, name):
    exchange = channel.exchange(name, "headers", auto_delete=True)
    channel.bind(queue, exchange, "", {"a": 1})
    wide = b"\x01al" + (1).to_bytes(8, "big")
    header = (60).to_bytes(2, "big") + bytes(2) + bytes(8) + b"\x20\x00"
    channel.cast(amqp.Basic.Publish(0, exchange, ""))
    connection.write(
        raw_frame(CONTENT_HEADER, channel.number, header + len(wide).to_bytes(4, "big") + wide)
    )
    assert channel.drain(queue) == [b""]


@pytest.mark.parametrize(
    ("match", "told"),
    [
        ("most", 'value <<"most">>; expected all, any, all-with-x, or any-with-x'),
        (5, "type byte (value 5); expected longstr"),
    ],
)
def test_an_unknown_x_match_is_refused(channel, queue, match, told):
    text = f"PRECONDITION_FAILED - Invalid x-match field {told}"
    with refused("channel", 406, text, "Queue.Bind"):
        channel.bind(queue, "amq.headers", "", {"x-match": match})
