"""Frames on an open connection: what breaks the protocol, and how content is cut up."""

import struct

import pamqp.commands as amqp
import pytest

from tests.broker.client import (
    CONTENT_BODY,
    CONTENT_HEADER,
    HEADER,
    HEARTBEAT,
    METHOD,
    HungUp,
    Refused,
    raw_frame,
    raw_method,
    refused,
)

PUBLISH = raw_frame(METHOD, 1, raw_method(60, 40, b"\x00\x00\x00\x07nowhere\x00"))
QOS = raw_frame(METHOD, 1, raw_method(60, 10, bytes(7)))
BODY = raw_frame(CONTENT_BODY, 1, b"hello")


def header(size: int = 0, *, class_id: int = 60, weight: int = 0, flags: bytes = b"\x00\x00"):
    """Return a content header frame; `flags` are followed by what properties they announce."""
    return raw_frame(CONTENT_HEADER, 1, struct.pack(">HHQ", class_id, weight, size) + flags)


def method(class_id: int, method_id: int, arguments: bytes = b"", *, channel: int = 1) -> bytes:
    return raw_frame(METHOD, channel, raw_method(class_id, method_id, arguments))


def declare(table: bytes, length: int) -> bytes:
    """Return queue.declare of `q` with a raw table said to be `length` bytes long."""
    return method(50, 10, b"\x00\x00\x01q\x00" + struct.pack(">I", length) + table)


NO_METHOD = "UNEXPECTED_FRAME - expected method frame, got non method frame instead"
NO_HEADER = (
    "UNEXPECTED_FRAME - expected content header for class 60, got non content header frame instead"
)
NO_BODY = "UNEXPECTED_FRAME - expected content body, got non content body frame instead"
NOT_FOR_CLIENTS = "COMMAND_INVALID - unimplemented method"
NOT_NOW = "CHANNEL_ERROR - unexpected method in connection state running"

# What is sent after channel 1 was opened: code, text and blamed method of the connection's end.
MISTAKES = {
    # 501: frames that are none
    "a frame without its end octet": (
        raw_frame(METHOD, 1, raw_method(60, 10, bytes(7)), b"\x00"),
        (
            501,
            (
                "FRAME_ERROR - type 1, all octets = <<0,60,0,10,0,0,0,0,0,0,0>>:"
                " {invalid_frame_end_marker,0}"
            ),
            None,
        ),
    ),
    "a frame of an unknown type": (
        raw_frame(4, 1, b"hello"),
        (501, 'FRAME_ERROR - type 4, all octets = <<"hello">>: unknown_frame', None),
    ),
    "a frame of an unknown type on channel 0": (
        raw_frame(4, 0, b"hello"),
        (501, 'FRAME_ERROR - type 4, all octets = <<"hello">>: unknown_frame', None),
    ),
    "a frame of an unknown type on a channel that is not open": (
        raw_frame(4, 9, b"hello"),
        (501, 'FRAME_ERROR - type 4, all octets = <<"hello">>: unknown_frame', None),
    ),
    "a frame announced as 4 GiB": (
        b"\x03\x00\x01\xff\xff\xff\xff",
        (
            501,
            "FRAME_ERROR - type 3, all octets = <<>>: {frame_too_large,4294967295,131064}",
            None,
        ),
    ),
    "a payload one octet longer than frame_max": (
        raw_frame(CONTENT_BODY, 1, bytes(131073)),
        (501, "FRAME_ERROR - type 3, all octets = <<>>: {frame_too_large,131073,131064}", None),
    ),
    "a second protocol header": (
        HEADER,
        (
            501,
            "FRAME_ERROR - type 65, all octets = <<>>: {frame_too_large,1342177289,131064}",
            None,
        ),
    ),
    "an empty method frame": (
        raw_frame(METHOD, 1, b""),
        (501, "FRAME_ERROR - type 1, all octets = <<>>: unknown_frame", None),
    ),
    "a method cut short": (
        method(50, 10, b"\x00\x00\xff"),
        (501, "FRAME_ERROR - cannot decode <<0,0,255>>", "Queue.Declare"),
    ),
    "a method with octets left over": (
        method(60, 10, bytes(7) + b"extra"),
        (501, "FRAME_ERROR - cannot decode <<0,0,0,0,0,0,0,101,120,116,114,97>>", "Basic.Qos"),
    ),
    "a table longer than its frame": (
        declare(b"\x03abcZ", 500),
        (
            501,
            "FRAME_ERROR - cannot decode <<0,0,1,113,0,0,0,1,244,3,97,98,99,90>>",
            "Queue.Declare",
        ),
    ),
    "a name that is not UTF-8": (
        method(50, 10, b"\x00\x00\x02\xff\xfe\x00\x00\x00\x00\x00"),
        (501, "FRAME_ERROR - Malformed UTF-8 in shortstr", None),
    ),
    "a content header cut short": (
        PUBLISH + raw_frame(CONTENT_HEADER, 1, b"\x00\x3c"),
        (501, "FRAME_ERROR - type 2, all octets = <<0,60>>: unknown_frame", None),
    ),
    "a heartbeat with a payload": (
        raw_frame(HEARTBEAT, 0, b"abc"),
        (501, 'FRAME_ERROR - type 8, all octets = <<"abc">>: unknown_frame', None),
    ),
    # 503: methods a client must not send here
    "basic.consume-ok from a client": (
        method(60, 21, b"\x01x"),
        (503, NOT_FOR_CLIENTS, "Basic.ConsumeOk"),
    ),
    "channel.open-ok from a client": (
        method(20, 11, b"\x00\x00\x00\x00"),
        (503, NOT_FOR_CLIENTS, "Channel.OpenOk"),
    ),
    "channel.close-ok when no close was sent": (
        method(20, 41),
        (503, NOT_FOR_CLIENTS, "Channel.CloseOk"),
    ),
    "basic.deliver from a client": (
        method(60, 60, b"\x01x" + bytes(8) + b"\x00\x00\x00") + header(),
        (503, NOT_FOR_CLIENTS, "Basic.Deliver"),
    ),
    "connection.close on a channel": (
        method(10, 50, b"\x00\xc8\x00\x00\x00\x00\x00"),
        (503, NOT_FOR_CLIENTS, "Connection.Close"),
    ),
    # 504: methods in the wrong place
    "a method on a channel that is not open": (
        method(60, 10, bytes(7), channel=7),
        (504, "CHANNEL_ERROR - expected 'channel.open'", "Basic.Qos"),
    ),
    "channel.open on an open channel": (
        method(20, 10, b"\x00"),
        (504, "CHANNEL_ERROR - second 'channel.open' seen", "Channel.Open"),
    ),
    "channel.open on channel 0": (
        method(20, 10, b"\x00", channel=0),
        (504, NOT_NOW, "Channel.Open"),
    ),
    "basic.qos on channel 0": (
        method(60, 10, bytes(7), channel=0),
        (504, NOT_NOW, "Basic.Qos"),
    ),
    "connection.close-ok when no close was sent": (
        method(10, 51, channel=0),
        (504, NOT_NOW, "Connection.CloseOk"),
    ),
    # 505: frames out of order
    "a content header without a publish": (header(), (505, NO_METHOD, None)),
    "a content body without a publish": (BODY, (505, NO_METHOD, None)),
    "a method in the place of a content header": (
        PUBLISH + QOS,
        (505, NO_HEADER, "Basic.Publish"),
    ),
    "a content body in the place of its header": (
        PUBLISH + BODY,
        (505, NO_HEADER, "Basic.Publish"),
    ),
    "a content header of another class": (
        PUBLISH + header(3, class_id=50),
        (
            505,
            "UNEXPECTED_FRAME - expected content header for class 60, got one for class 50 instead",
            "Basic.Publish",
        ),
    ),
    "a content header whose weight is not 0": (
        PUBLISH + header(weight=1),
        (505, NO_HEADER, "Basic.Publish"),
    ),
    "a method in the middle of a body": (
        PUBLISH + header(10) + BODY + QOS,
        (505, NO_BODY, "Basic.Publish"),
    ),
    "a second content header": (
        PUBLISH + header(10) + header(10),
        (505, NO_BODY, "Basic.Publish"),
    ),
    "a body where the header said there is none": (
        PUBLISH + header() + BODY,
        (505, NO_METHOD, None),
    ),
    "a heartbeat on a channel": (
        raw_frame(HEARTBEAT, 1, b""),
        (505, "UNEXPECTED_FRAME - type 8, all octets = <<>>", None),
    ),
    # 540: what RabbitMQ leaves out
    "channel.flow that stops the broker": (
        method(20, 20, b"\x00"),
        (540, "NOT_IMPLEMENTED - active=false", "Channel.Flow"),
    ),
}


@pytest.mark.parametrize("mistake", MISTAKES)
def test_a_mistake_closes_the_connection_with_its_code(channel, other, mistake):
    data, (code, text, blamed) = MISTAKES[mistake]
    with refused("connection", code, text, blamed):
        channel.connection.write(data)
        channel.connection.wait_closed()
    other.sync()  # nobody else is disturbed


# What RabbitMQ hangs up on without a word.
NONSENSE = {
    "a method of an unknown class": method(61, 10),
    "an unknown method of a known class": method(60, 199),
    "an unknown method on channel 0": method(10, 199, channel=0),
    "a table that is none": declare(b"\x03abc\xff", 5),
    "properties that are not what their flags say": PUBLISH + header(flags=b"\x80\x00\x09abc"),
}


@pytest.mark.parametrize("nonsense", NONSENSE)
def test_what_no_table_of_the_protocol_knows_ends_the_connection(channel, other, differs, nonsense):
    with pytest.raises((HungUp, Refused)) as ended:
        channel.connection.write(NONSENSE[nonsense])
        channel.connection.wait_closed()
    assert differs(nonsense) == (
        ended.value.args if isinstance(ended.value, Refused) else "hangs up"
    )
    other.sync()


def test_a_body_longer_than_announced(channel, differs):
    channel.connection.write(PUBLISH + header(3) + BODY)
    with pytest.raises((HungUp, Refused, AssertionError)) as ended:
        channel.connection.wait_closed(deadline=0.3)
    assert differs("a body longer than announced") == (
        ended.value.args if isinstance(ended.value, Refused) else "nothing"
    )


@pytest.mark.parametrize("size", [0, 1, 4088, 4089, 8176, 100_000])
def test_bodies_are_cut_at_frame_max_and_put_together_again(connect, size):
    channel = connect(frame_max=4096).channel()
    queue = channel.queue(exclusive=True)
    body = bytes(index % 251 for index in range(size))
    channel.publish(body, queue)
    message = channel.get(queue)
    assert message.body == body
    assert message.frames == -(-size // 4088)


def test_a_body_may_come_in_frames_of_any_length(channel, queue):
    channel.cast(amqp.Basic.Publish(0, "", queue))
    pieces = [b"", b"a", b"bc" * 1000, b"", b"d"]
    channel.connection.write(header(sum(map(len, pieces))))
    for piece in pieces:
        channel.connection.write(raw_frame(CONTENT_BODY, 1, piece))
    assert channel.get(queue).body == b"".join(pieces)


def test_a_body_of_a_megabyte_arrives_whole(channel, queue):
    body = bytes(range(256)) * 4096
    channel.publish(body, queue)
    channel.consume(queue)
    assert channel.delivery().body == body


def test_frames_of_two_channels_may_be_mixed(connection, queue):
    first, second = connection.channel(), connection.channel()
    for channel, body in ((first, b"aabb"), (second, b"ccdd")):
        channel.cast(amqp.Basic.Publish(0, "", queue))
        channel.cast(channel._frames(body, {})[0])
    for number, piece in ((2, b"aa"), (3, b"cc"), (2, b"bb"), (3, b"dd")):
        connection.write(raw_frame(CONTENT_BODY, number, piece))
    first.sync()
    second.sync()
    assert sorted(first.drain(queue)) == [b"aabb", b"ccdd"]


def test_frames_may_arrive_octet_by_octet(connection, channel, queue):
    data = method(60, 40, b"\x00\x00\x00" + bytes([len(queue)]) + queue.encode() + b"\x00")
    for octet in data + header(5) + BODY:
        connection.write(bytes([octet]))
    assert channel.get(queue).body == b"hello"


def test_channel_flow_true_is_answered(channel):
    assert channel.call(amqp.Channel.Flow(True)).active is True


def test_access_request_of_old_clients_is_granted(connection, channel):
    connection.write(method(30, 10, b"\x01/\x00"))
    assert connection.raw(14) == method(30, 11, b"\x00\x01")


def test_after_a_channel_error_what_was_sent_behind_it_is_ignored(connection, channel, name):
    channel.cast(amqp.Queue.Declare(queue=name, passive=True))
    channel.cast(amqp.Queue.Declare(queue=f"{name}-late", exclusive=True))
    with pytest.raises(Refused):
        channel.wait_closed()
    fresh = connection.channel()
    with pytest.raises(Refused, match="404"):
        fresh.ready(f"{name}-late")


def test_a_closed_channels_number_may_be_opened_again_once_close_is_answered(connection, name):
    channel = connection.channel(5)
    with pytest.raises(Refused):
        channel.ready(name)
    del connection.channels[5]
    assert connection.channel(5).queue(exclusive=True)


def test_a_method_on_a_channel_the_client_closed_is_a_connection_error(connection):
    channel = connection.channel()
    channel.close()
    with refused("connection", 504, "CHANNEL_ERROR - expected 'channel.open'", "Exchange.Declare"):
        channel.sync()
