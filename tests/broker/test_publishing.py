"""Publishing: confirms, returns, properties on the way, CC and BCC, what is refused."""

import datetime as dt
import decimal
import struct

import pamqp.commands as amqp
import pytest

from tests.broker.client import CONTENT_HEADER, Message, Refused, refused


def confirms(events) -> list[tuple[str, int, bool]]:
    return [(event.name, event.delivery_tag, event.multiple) for event in events]


def confirmed(channel, number) -> set[int]:
    """Read until `number` tags are confirmed, multiple or not, and return them."""
    tags: set[int] = set()
    low = 1
    while len(tags) < number:
        ack = channel.event()
        assert isinstance(ack, amqp.Basic.Ack)
        tags |= set(range(low, ack.delivery_tag + 1)) if ack.multiple else {ack.delivery_tag}
        while low in tags:
            low += 1
    return tags


# Confirms


@pytest.mark.parametrize("kind", ["classic", "quorum"])
def test_every_publish_is_confirmed_by_its_number(channel, name, kind):
    channel.queue(name, arguments={"x-queue-type": kind})
    channel.confirm()
    channel.publish_all(range(50), name)
    assert confirmed(channel, 50) == set(range(1, 51))
    assert channel.holds(name, 50)


def test_numbers_begin_with_the_channel_that_confirms(connection, queue):
    for _ in range(2):
        channel = connection.channel()
        channel.publish(b"not counted", queue)
        channel.confirm()
        assert confirms([channel.published(b"1", queue)]) == [("Basic.Ack", 1, False)]


def test_select_twice_goes_on_counting(channel, queue):
    channel.confirm().published(b"1", queue)
    channel.confirm()
    assert confirms([channel.published(b"2", queue)]) == [("Basic.Ack", 2, False)]


def test_select_with_no_wait_is_not_answered(channel, queue):
    channel.cast(amqp.Confirm.Select(nowait=True))
    assert confirms([channel.published(b"1", queue)]) == [("Basic.Ack", 1, False)]


def test_what_is_routed_nowhere_is_confirmed_too(channel):
    channel.confirm()
    assert confirms([channel.published(b"1", "nowhere")]) == [("Basic.Ack", 1, False)]


def test_a_confirm_on_a_channel_with_transactions_is_refused(channel):
    channel.call(amqp.Tx.Select())
    with refused(
        "channel",
        406,
        "PRECONDITION_FAILED - cannot switch from tx to confirm mode",
        "Confirm.Select",
    ):
        channel.confirm()


# Returns


def test_a_mandatory_message_routed_nowhere_comes_back_before_its_confirm(channel):
    channel.confirm()
    channel.publish(b"body", "nowhere", mandatory=True, message_id="m", headers={"a": 1})
    returned, ack = channel.events(2)
    assert isinstance(returned, Message)
    assert isinstance(returned.method, amqp.Basic.Return)
    assert returned.method.reply_code == 312
    assert returned.method.reply_text == "NO_ROUTE"
    assert returned.route == ("", "nowhere")
    assert returned.body == b"body"
    assert returned.properties.message_id == "m"
    assert returned.headers == {"a": 1}
    assert confirms([ack]) == [("Basic.Ack", 1, False)]


def test_a_mandatory_message_without_confirms_comes_back_too(channel):
    channel.publish(b"body", "nowhere", exchange="amq.topic", mandatory=True)
    returned = channel.event()
    assert returned.method.reply_text == "NO_ROUTE"
    assert returned.route == ("amq.topic", "nowhere")


def test_a_mandatory_message_that_is_routed_does_not_come_back(channel, queue):
    channel.confirm()
    assert isinstance(channel.published(b"1", queue, mandatory=True), amqp.Basic.Ack)


def test_returns_keep_the_order_of_publishing(channel):
    channel.confirm()
    for number in range(20):
        channel.publish(str(number).encode(), "nowhere", mandatory=True)
    order = []
    while not order or order[-1] != "ack 20":
        event = channel.event()
        if isinstance(event, Message):
            order.append(event.body.decode())
        else:
            order.append(f"ack {event.delivery_tag}")
    assert [entry for entry in order if "ack" not in entry] == [str(n) for n in range(20)]
    acked = 0
    for entry in order:  # no confirm overtakes its return
        if "ack" in entry:
            acked = int(entry.split()[1])
        else:
            assert int(entry) >= acked


def test_immediate_is_refused(channel, queue):
    with refused("connection", 540, "NOT_IMPLEMENTED - immediate=true", "Basic.Publish"):
        channel.publish(b"1", queue, immediate=True)
        channel.wait_closed()


# Properties and headers arrive as they were sent


PROPERTIES = {
    "content_type": "application/json",
    "content_encoding": "gzip",
    "delivery_mode": 2,
    "priority": 7,
    "correlation_id": "c" * 255,
    "reply_to": "somewhere",
    "expiration": "60000",
    "message_id": "m",
    "timestamp": dt.datetime(2026, 11, 27, 12, 30, 1, tzinfo=dt.UTC),
    "message_type": "type",
    "user_id": "guest",
    "app_id": "app",
}


def test_properties_arrive_as_they_were_sent(channel, queue):
    channel.publish(b"1", queue, **PROPERTIES)
    properties = channel.get(queue).properties
    assert {name: getattr(properties, name) for name in PROPERTIES} == PROPERTIES


def test_no_properties_arrive_as_none(channel, queue):
    channel.publish(b"1", queue)
    properties = channel.get(queue).properties
    assert all(getattr(properties, name) is None for name in PROPERTIES)
    assert properties.headers is None


HEADERS = {
    "int8": -5,
    "int16": 300,
    "int32": 70_000,
    "int64": 2**40,
    "negative": -(2**40),
    "true": True,
    "false": False,
    "text": "λ",
    "empty": "",
    "long": "x" * 70_000,
    "bytes": bytearray(b"\x00\xff"),
    "float": 1.5,
    "decimal": decimal.Decimal("1.23"),
    "void": None,
    "when": dt.datetime(2026, 11, 27, tzinfo=dt.UTC),
    "list": [1, "two", [3.5, None], {"four": True}],
    "table": {"a": {"b": {"c": [1]}}},
    "nothing": {},
    "no items": [],
}


def test_headers_arrive_as_they_were_sent(channel, queue):
    channel.publish(b"1", queue, headers=HEADERS)
    assert channel.get(queue).headers == HEADERS


FIELDS = {
    "t": b"\x01",
    "b": b"\xfb",
    "B": b"\xfb",
    "s": b"\xff\xfb",
    "u": b"\xff\xfb",
    "I": b"\xff\xff\xff\xfb",
    "i": b"\xff\xff\xff\xfb",
    "l": b"\xff\xff\xff\xff\xff\xff\xff\xfb",
    "f": b"\x3f\xc0\x00\x00",
    "d": b"\x3f\xf8" + bytes(6),
    "D": b"\x02\x00\x00\x00\x7b",
    "S": b"\x00\x00\x00\x01x",
    "A": b"\x00\x00\x00\x05I\x00\x00\x00\x01",
    "T": bytes(7) + b"\x05",
    "F": b"\x00\x00\x00\x00",
    "V": b"",
    "x": b"\x00\x00\x00\x01x",
}


@pytest.mark.parametrize("kind", FIELDS)
def test_a_header_of_every_type_arrives_octet_by_octet(connection, channel, queue, kind):
    table = b"\x01a" + kind.encode() + FIELDS[kind]
    properties = b"\x20\x00" + struct.pack(">I", len(table)) + table
    channel.publish_raw(queue, properties)
    channel.sync()
    channel.cast(amqp.Basic.Get(0, queue))
    while connection.raw(1) != bytes([CONTENT_HEADER]):
        connection.raw(struct.unpack(">I", connection.raw(6)[2:])[0] + 1)
    length = struct.unpack(">I", connection.raw(6)[2:])[0]
    assert connection.raw(length)[12:] == properties


def test_an_empty_table_of_headers_stays_one(channel, queue):
    channel.publish(b"1", queue, headers={})
    assert channel.get(queue).properties.headers == {}


def test_cluster_id_of_old_specifications_arrives_too(channel, queue):
    channel.publish_raw(queue, b"\x00\x04\x01x")
    assert channel.get(queue).properties.cluster_id == "x"


@pytest.mark.parametrize("mode", [0, 7])
def test_a_delivery_mode_that_is_none(channel, queue, differs, mode):
    channel.publish_raw(queue, b"\x10\x00" + bytes([mode]))
    if differs("a delivery mode other than 1 and 2 is kept"):
        assert channel.get(queue).properties.delivery_mode == mode
        return
    text = f"PRECONDITION_FAILED - invalid message: {{delivery_mode_unknown,{mode}}}"
    with refused("channel", 406, text, "Basic.Publish"):
        channel.wait_closed()


# CC, BCC


def test_cc_and_bcc_route_to_more_keys_and_bcc_is_taken_away(channel, queue):
    copies = [channel.queue(exclusive=True) for _ in range(3)]
    headers = {"CC": copies[:2], "BCC": copies[2:], "kept": 1}
    channel.publish(b"1", queue, headers=headers)
    for each in (queue, *copies):
        message = channel.get(each)
        assert message.route == ("", queue)
        assert message.headers == {"CC": copies[:2], "kept": 1}


def test_a_queue_named_twice_gets_one_copy(channel, queue):
    channel.publish(b"1", queue, headers={"CC": [queue, queue], "BCC": [queue]})
    assert channel.drain(queue) == [b"1"]


def test_cc_counts_for_mandatory(channel, queue):
    channel.confirm()
    event = channel.published(b"1", "nowhere", mandatory=True, headers={"BCC": [queue]})
    assert isinstance(event, amqp.Basic.Ack)


def test_cc_works_on_every_exchange_that_uses_keys(channel, queue, name):
    channel.bind(queue, "amq.topic", f"{name}.*")
    channel.publish(b"1", "other", exchange="amq.topic", headers={"CC": [f"{name}.x"]})
    assert channel.drain(queue) == [b"1"]


@pytest.mark.parametrize("which", ["CC", "BCC"])
@pytest.mark.parametrize(
    ("value", "kind"), [("text", "longstr"), (5, "byte"), ({"a": 1}, "table"), (None, "void")]
)
def test_cc_that_is_no_list_is_refused(channel, queue, which, value, kind):
    text = (
        f'PRECONDITION_FAILED - invalid message: {{unacceptable_type_in_header,"{which}",{kind}}}'
    )
    with refused("channel", 406, text, "Basic.Publish"):
        channel.publish(b"1", queue, headers={which: value})
        channel.wait_closed()


def test_what_is_no_text_in_cc_is_no_key(channel, queue):
    copy = channel.queue(exclusive=True)
    channel.publish(b"1", queue, headers={"CC": [5, ["x"], copy]})
    assert channel.get(copy).headers == {"CC": [5, ["x"], copy]}


# user_id


def test_ones_own_user_id_is_taken(channel, queue):
    channel.publish(b"1", queue, user_id="guest")
    assert channel.get(queue).properties.user_id == "guest"


def test_anothers_user_id_is_refused(channel, queue):
    with refused(
        "channel",
        406,
        "PRECONDITION_FAILED - user_id property set to 'root' but authenticated user was 'guest'",
        "Basic.Publish",
    ):
        channel.publish(b"1", queue, user_id="root")
        channel.wait_closed()


# expiration


@pytest.mark.parametrize(
    ("expiration", "reason"),
    [
        ("", "no_integer"),
        ("soon", "no_integer"),
        (" 5", "no_integer"),
        ("5 ", '{leftover_string," "}'),
        ("1.5", '{leftover_string,".5"}'),
        ("1e3", '{leftover_string,"e3"}'),
        ("-1", "{value_negative,-1}"),
        (str(2**40), f"{{value_too_large,{2**40}}}"),
    ],
)
def test_an_expiration_that_is_no_time_is_refused(channel, queue, expiration, reason):
    text = f"PRECONDITION_FAILED - invalid expiration '{expiration}': {reason}"
    with refused("channel", 406, text, "Basic.Publish"):
        channel.publish_raw(queue, b"\x01\x00" + bytes([len(expiration)]) + expiration.encode())
        channel.wait_closed()


def test_a_refused_publish_on_one_channel_leaves_the_others(connection, channel, queue):
    other = connection.channel().confirm()
    with pytest.raises(Refused):
        channel.publish(b"1", queue, expiration="soon")
        channel.wait_closed()
    assert isinstance(other.published(b"2", queue), amqp.Basic.Ack)
    assert other.drain(queue) == [b"2"]


@pytest.mark.parametrize("size", [0, 1, 131064, 131065, 400_000])
def test_bodies_of_any_size_pass_under_confirm(channel, queue, size):
    channel.confirm()
    body = bytes(size)
    assert isinstance(channel.published(body, queue), amqp.Basic.Ack)
    assert channel.get(queue).body == body
