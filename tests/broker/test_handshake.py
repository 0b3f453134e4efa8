"""Opening a connection: headers, mechanisms, virtual hosts, what both sides tune."""

import struct
import time
from concurrent.futures import ThreadPoolExecutor

import pamqp.commands as amqp
import pytest

from tests.broker.client import (
    HEADER,
    HEARTBEAT,
    METHOD,
    Connection,
    HungUp,
    Refused,
    raw_frame,
    raw_method,
    refused,
)


@pytest.fixture
def stranger(served):
    """A connected socket on which nothing was said yet."""
    connection = Connection(served.address)
    yield connection
    connection.drop()


@pytest.mark.parametrize(
    "header",
    [
        b"AMQP\x00\x00\x09\x00",  # 0-9-0
        b"AMQP\x01\x01\x00\x0a",  # 0-10
        b"AMQP\x00\x00\x08\x00",
        b"AMQP\x09\x09\x09\x09",
        b"HTTP/1.1",
        b"\x00" * 8,
    ],
)
def test_a_wrong_protocol_header_is_answered_with_the_right_one_and_a_closed_socket(
    stranger, header, differs
):
    stranger.write(header)
    known = header.startswith(b"AMQP\x00\x00\x09")
    assert stranger.raw(100) == (HEADER if known else differs("the protocol it would rather speak"))


def test_the_broker_speaks_first_of_itself(stranger):
    stranger.write(HEADER)
    start = stranger.control.answer()
    assert (start.version_major, start.version_minor) == (0, 9)
    assert {"PLAIN", "AMQPLAIN"} <= set(start.mechanisms.split(" "))
    assert start.locales == "en_US"
    assert start.server_properties["capabilities"] == {
        "publisher_confirms": True,
        "exchange_exchange_bindings": True,
        "basic.nack": True,
        "consumer_cancel_notify": True,
        "connection.blocked": True,
        "consumer_priorities": True,
        "authentication_failure_close": True,
        "per_consumer_qos": True,
        "direct_reply_to": True,
    }
    assert {"product", "version", "platform", "information"} <= set(start.server_properties)


def test_amqplain_opens_a_connection(stranger, served):
    table = b"\x05LOGINS" + struct.pack(">I", 5) + b"guest"
    table += b"\x08PASSWORDS" + struct.pack(">I", 5) + b"guest"
    stranger.open(served.vhost, mechanism="AMQPLAIN", response=table.decode())
    assert stranger.channel().number == 1


@pytest.mark.parametrize(
    "response", ["\x00guest\x00wrong", "\x00nobody\x00guest", "\x00\x00", "\x00guest\x00"]
)
def test_wrong_credentials_are_refused_with_403_where_the_client_can_take_it(stranger, response):
    with refused(
        "connection",
        403,
        "ACCESS_REFUSED - Login was refused using authentication mechanism PLAIN. For details see"
        " the broker logfile.",
        None,
    ):
        stranger.open(response=response)


def test_an_unknown_vhost_is_refused(stranger):
    with refused("connection", 530, "NOT_ALLOWED - vhost nowhere not found", "Connection.Open"):
        stranger.open("nowhere")


def test_a_client_may_lower_channel_max_and_frame_max(connect):
    connection = connect(channel_max=3, frame_max=4096)
    channel = [connection.channel() for _ in range(3)][-1]
    queue = channel.queue("", exclusive=True)
    channel.publish(b"x" * 10_000, queue)
    message = channel.get(queue)
    assert (len(message.body), message.frames) == (10_000, 3)


def test_the_broker_offers_channel_max_2047_frame_max_131072_and_heartbeat_60(stranger, served):
    tune = stranger.open(served.vhost)
    assert (tune.channel_max, tune.frame_max, tune.heartbeat) == (2047, 131072, 60)


def _response(text: str):
    return lambda stranger, vhost: stranger.open(response=text)


def _tune(**options: int):
    return lambda stranger, vhost: stranger.open(vhost, **options)


def _first(method):
    """Send `method` in the place of connection.start-ok."""

    def send(stranger: Connection, vhost: str) -> None:
        stranger.write(HEADER)
        stranger.control.answer()
        stranger.control.call(method)

    return send


def _bytes(data: bytes):
    """Send bytes in the place of connection.start-ok."""

    def send(stranger: Connection, vhost: str) -> None:
        stranger.write(HEADER)
        stranger.control.answer()
        stranger.write(data)
        stranger.control.answer()

    return send


WORDLESS = {
    "a wrong password of a client without the capability": lambda stranger, vhost: stranger.open(
        response="\x00guest\x00wrong", capabilities={}
    ),
    "an empty PLAIN response": _response(""),
    "a PLAIN response without zeros": _response("guest"),
    "a PLAIN response with one zero": _response("guest\x00guest"),
    "a PLAIN response with three zeros": _response("\x00a\x00b\x00c"),
    "an unknown mechanism": lambda stranger, vhost: stranger.open(mechanism="KERBEROS"),
    "channel_max raised": _tune(channel_max=2048),
    "channel_max 0, which means no limit": _tune(channel_max=0),
    "frame_max raised": _tune(frame_max=131073),
    "frame_max 0, which means no limit": _tune(frame_max=0),
    "frame_max under 4096": _tune(frame_max=4095),
    "open before start-ok": _first(amqp.Connection.Open("/")),
    "tune-ok before start-ok": _first(amqp.Connection.TuneOk(2047, 131072, 0)),
    "a channel before the connection is open": _first(amqp.Channel.Open()),
    "zeros": _bytes(b"\x00" * 100),
    "a second protocol header": _bytes(HEADER),
    "an HTTP request": _bytes(b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n"),
    "a frame of 4 GiB": _bytes(b"\x01\x00\x00\xff\xff\xff\xff" + b"\x00" * 100),
    "a frame longer than frame_min": _bytes(
        raw_frame(METHOD, 0, b"\x00\x0a\x00\x0b" + bytes(200_000))
    ),
    "a frame without its end": _bytes(raw_frame(METHOD, 0, raw_method(10, 11), b"\x00")),
}


# What is never answered with a word, and the codes of the others where there is one.
SILENT = {"a wrong password of a client without the capability"}
CODES = {
    "an empty PLAIN response": 502,
    "a PLAIN response without zeros": 502,
    "a PLAIN response with one zero": 502,
    "a PLAIN response with three zeros": 502,
    "an unknown mechanism": 503,
    "channel_max raised": 530,
    "channel_max 0, which means no limit": 530,
    "frame_max raised": 530,
    "frame_max 0, which means no limit": 530,
    "frame_max under 4096": 530,
    "open before start-ok": 504,
    "tune-ok before start-ok": 504,
    "a channel before the connection is open": 504,
    "zeros": 501,
    "a second protocol header": 501,
    "an HTTP request": 501,
    "a frame of 4 GiB": 501,
    "a frame longer than frame_min": 501,
    "a frame without its end": 501,
}


@pytest.fixture(scope="module")
def wordless(served):
    """Everything of WORDLESS at once: RabbitMQ lets three seconds pass before it hangs up."""

    def end(mistake) -> object:
        stranger = Connection(served.address)
        try:
            mistake(stranger, served.vhost)
        except (HungUp, Refused) as ended:
            return ended
        finally:
            stranger.drop()
        return None

    with ThreadPoolExecutor(len(WORDLESS)) as pool:
        return dict(zip(WORDLESS, pool.map(end, WORDLESS.values()), strict=True))


@pytest.mark.parametrize("mistake", WORDLESS)
def test_before_a_connection_is_open_a_mistake_closes_the_socket(wordless, differs, mistake):
    ended = wordless[mistake]
    if differs("a mistake before the connection is open") == "hangs up" or mistake in SILENT:
        assert isinstance(ended, HungUp)
    else:
        assert isinstance(ended, Refused)
        assert (ended.level, ended.code) == ("connection", CODES[mistake])


@pytest.mark.parametrize(
    "method",
    [
        amqp.Connection.StartOk({}, "PLAIN", "\x00guest\x00guest", "en_US"),
        amqp.Connection.TuneOk(2047, 131072, 0),
        amqp.Connection.Open("/"),
        amqp.Connection.SecureOk("x"),
    ],
    ids=lambda method: method.name,
)
def test_a_method_of_the_handshake_is_refused_once_the_connection_is_open(connection, method):
    with refused(
        "connection",
        504,
        "CHANNEL_ERROR - unexpected method in connection state running",
        method.name,
    ):
        connection.control.call(method)


def test_one_channel_more_than_channel_max_is_refused(connect):
    connection = connect(channel_max=3)
    for _ in range(3):
        connection.channel()
    with refused(
        "connection",
        530,
        "NOT_ALLOWED - number of channels opened (3) has reached the negotiated channel_max (3)",
        None,
    ):
        connection.channel()


def test_a_channel_number_above_channel_max_is_taken_while_fewer_are_open(connect):
    connection = connect(channel_max=3)
    assert connection.channel(65535).queue(exclusive=True)


def test_a_closed_channel_makes_room_for_another(connect):
    connection = connect(channel_max=1)
    for _ in range(3):
        connection.channel(1).close()
        del connection.channels[1]


def test_a_client_that_asks_for_heartbeats_gets_one_in_half_the_time(connect):
    connection = connect(heartbeat=1)
    end = time.monotonic() + 10
    while connection.heartbeats < 2:
        connection.read(end)


def test_a_silent_client_is_dropped_after_its_heartbeats_and_one_that_speaks_is_not(connect):
    silent, speaking = connect(heartbeat=1), connect(heartbeat=1)
    end = time.monotonic() + 10
    while not silent.hangs_up(deadline=0.3):
        speaking.write(raw_frame(HEARTBEAT, 0, b""))
        assert time.monotonic() < end
    assert speaking.channel().queue(exclusive=True)


def test_a_client_without_heartbeats_may_be_silent(connect):
    connection = connect(heartbeat=0)
    assert not connection.hangs_up(deadline=0.2)
    assert connection.heartbeats == 0


def test_a_close_of_the_clients_is_answered(connection):
    answer = connection.control.call(amqp.Connection.Close(200, "bye", 0, 0))
    assert isinstance(answer, amqp.Connection.CloseOk)
    # Closing the socket is left to the client, who may still be busy with its own end.
    assert not connection.hangs_up(deadline=0.2)


def test_an_open_connection_counts_what_it_is_told_of_capabilities(connect):
    connection = connect(capabilities={})
    channel = connection.channel()
    queue = channel.queue(exclusive=True)
    channel.consume(queue)
    channel.call(amqp.Queue.Delete(queue=queue))
    assert channel.quiet()  # no basic.cancel for a client that does not know it


@pytest.mark.slow
def test_a_client_that_never_finishes_the_handshake_is_dropped(stranger):
    stranger.write(b"AMQP\x00")
    assert stranger.hangs_up(deadline=60)
