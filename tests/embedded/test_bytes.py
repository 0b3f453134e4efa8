"""Whatever bytes come: an AMQP error and a close, no exception, and nobody else is disturbed."""

import random

import pamqp.commands as amqp
import pamqp.frame
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from amqflow.broker import Limits
from amqflow.broker.connection import Phase
from amqflow.broker.frames import FrameReader
from amqflow.broker.methods import frame
from amqflow.broker.node import Node
from tests.embedded.sansio import HEADER, Client, SteppedClock, no_mistakes

SOME = settings(max_examples=100, deadline=None)


@pytest.fixture(scope="module", autouse=True)
def _no_mistakes():
    with no_mistakes():
        yield


# A session as a client has it: everything a mutation can break is in it.
SESSION = [
    pamqp.frame.marshal(method, 1)
    for method in (
        amqp.Channel.Open(),
        amqp.Confirm.Select(),
        amqp.Exchange.Declare(exchange="x", exchange_type="topic"),
        amqp.Queue.Declare(queue="q", arguments={"x-max-length": 5, "x-message-ttl": 60000}),
        amqp.Queue.Bind(queue="q", exchange="x", routing_key="a.#"),
        amqp.Basic.Qos(prefetch_count=2),
        amqp.Basic.Publish(exchange="x", routing_key="a.b"),
    )
]
SESSION += [
    frame(2, 1, b"\x00\x3c\x00\x00" + (5).to_bytes(8, "big") + b"\x10\x00\x02"),
    frame(3, 1, b"hello"),
    *(
        pamqp.frame.marshal(method, 1)
        for method in (
            amqp.Basic.Consume(queue="q", consumer_tag="c"),
            amqp.Basic.Ack(1),
            amqp.Basic.Get(queue="q"),
            amqp.Basic.Cancel(consumer_tag="c"),
            amqp.Queue.Delete(queue="q"),
            amqp.Channel.Close(200, "", 0, 0),
        )
    ),
]


def _node() -> Node:
    return Node("test@localhost", {"guest": "guest"}, ("/",), SteppedClock())


def _others_go_on(node: Node) -> None:
    witness = Client(node).open()
    witness.queue("witness")
    witness.publish("witness", b"here")
    assert witness.get("witness").body == b"here"


def _sane(client: Client) -> None:
    """The connection works, or has ended with a close that says why."""
    closing = [method for _, method in client.heard if isinstance(method, amqp.Connection.Close)]
    if client.connection.phase is Phase.CLOSED:
        assert client.socket.closed
        assert not client.connection.channels
    for method in closing:
        assert method.reply_code >= 320
        assert method.reply_text


@given(st.binary(max_size=400))
@SOME
def test_garbage_instead_of_a_header(garbage):
    node = _node()
    client = Client(node, handshake=False)
    client.connection.receive(garbage)
    client.socket.now()
    if len(garbage) >= 8 and not garbage.startswith(b"AMQP"):
        assert client.socket.closed
        assert client.socket.sent == HEADER
    _others_go_on(node)


@given(st.binary(max_size=400))
@SOME
def test_garbage_after_the_header(garbage):
    node = _node()
    client = Client(node, handshake=False)
    client.write(HEADER)
    client.write(garbage)
    _sane(client)
    _others_go_on(node)


@given(st.binary(max_size=400))
@SOME
def test_garbage_on_an_open_connection(garbage):
    node = _node()
    client = Client(node).open()
    client.write(garbage)
    _sane(client)
    _others_go_on(node)


@given(st.integers(1, 3), st.integers(0, 3), st.binary(max_size=60))
@SOME
def test_whole_frames_with_garbage_in_them(kind, number, payload):
    node = _node()
    client = Client(node).open()
    client.write(frame(kind, number, payload))
    _sane(client)
    _others_go_on(node)


@given(st.lists(st.sampled_from(SESSION), max_size=25))
@SOME
def test_frames_of_a_session_in_any_order(frames):
    node = _node()
    client = Client(node)
    client.write(b"".join(frames))
    _sane(client)
    _others_go_on(node)


@given(st.integers(0, 2**32), st.integers(1, 6))
@SOME
def test_a_session_with_octets_changed(seed, changes):
    chance = random.Random(seed)
    data = bytearray(b"".join(SESSION))
    for _ in range(changes):
        data[chance.randrange(len(data))] = chance.randrange(256)
    node = _node()
    client = Client(node)
    client.write(bytes(data))
    _sane(client)
    _others_go_on(node)


@given(st.integers(0, len(b"".join(SESSION))))
@SOME
def test_a_session_cut_off_anywhere_leaves_nothing_behind(length):
    node = _node()
    client = Client(node)
    client.write(b"".join(SESSION)[:length])
    client.connection.lost()
    assert not node.connections
    for queue in node.vhosts["/"].queues.values():
        assert len(queue.consumers) == 0
        assert not queue.unacked
    _others_go_on(node)


@pytest.mark.parametrize("size", [2**17 + 1, 2**24, 2**32 - 1])
def test_an_oversize_frame_is_refused_by_its_head(client, size):
    client.write(b"\x03\x00\x01" + size.to_bytes(4, "big"))
    _, close = client.heard[-1]
    assert close.reply_code == 501
    assert "frame_too_large" in close.reply_text


@pytest.mark.parametrize(("limits", "size"), [(Limits(), 2**40), (Limits(1000), 1001)])
def test_a_message_announced_too_large_is_refused_before_its_body(client, node, limits, size):
    node.limits = limits
    client.send(1, amqp.Basic.Publish(routing_key="q"))
    client.write(frame(2, 1, b"\x00\x3c\x00\x00" + size.to_bytes(8, "big") + b"\x00\x00"))
    _, close = client.heard[-1]
    assert (close.name, close.reply_code) == ("Channel.Close", 406)
    client.write(frame(3, 1, bytes(100_000)))  # what was on its way is dropped
    client.send(1, amqp.Channel.CloseOk())
    client.open()
    client.queue("q")
    assert client.ready("q") == 0


def test_a_frame_that_drips_is_whole_when_its_last_octet_came():
    session = HEADER + frame(1, 0, b"method") + frame(3, 1, bytes(3000)) + frame(8, 0, b"")
    reader = FrameReader()
    found = [one for octet in session for one in reader.feed(bytes([octet]))]
    assert found == [None, (1, 0, b"method"), (3, 1, bytes(3000)), (8, 0, b"")]
