"""Garbage and surprises by hypothesis: the embedded broker answers or hangs up, and lives on.

AMQFLOW_TEST_FUZZ multiplies the examples, which are then other ones in each run.
"""

import contextlib
import logging
import os
import struct
import time

import pamqp.commands as amqp
import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from tests.broker.client import (
    HEADER,
    HungUp,
    Refused,
    Silence,
    raw_frame,
    raw_method,
)

TIMES = int(os.environ.get("AMQFLOW_TEST_FUZZ", "1"))


def fuzz(examples: int) -> settings:
    return settings(
        max_examples=examples * TIMES,
        derandomize=TIMES == 1,
        deadline=None,
        # A failing example is told as it was found: shrinking one over sockets takes minutes.
        phases=[Phase.explicit, Phase.reuse, Phase.generate],
        suppress_health_check=[HealthCheck.function_scoped_fixture],
    )


@pytest.fixture
def embedded(_embedded, caplog):
    """The embedded broker; an exception it logs fails the test."""
    caplog.set_level(logging.WARNING)
    witness = _embedded.connect()
    channel = witness.channel()
    yield _embedded
    channel.sync()  # who was connected before still is
    witness.drop()
    assert [record for record in caplog.records if record.levelno >= logging.ERROR] == []


def outcome(connection, *, wait: float = 0.02) -> object:
    """Read what comes for a moment: a refusal, a hang-up, or nothing that ends the connection."""
    end = time.monotonic() + wait
    try:
        while True:
            connection.read(end)
    except (Refused, HungUp) as ended:
        return ended
    except Silence:
        return None


def still_serves(embedded) -> None:
    """Have a newcomer declare, publish and get."""
    connection = embedded.connect()
    channel = connection.channel()
    queue = channel.queue(exclusive=True)
    channel.publish(b"alive", queue)
    assert channel.get(queue).body == b"alive"
    connection.close()


# Octets


@fuzz(60)
@given(data=st.binary(max_size=200))
def test_octets_in_the_place_of_the_protocol_header(embedded, data):
    connection = embedded.connect_bare()
    connection.write(data + b"\x00" * 8)
    if data.startswith(HEADER):
        return
    assert connection.raw(100) == HEADER
    connection.drop()


@fuzz(60)
@given(data=st.binary(max_size=400))
def test_octets_after_the_protocol_header(embedded, data):
    connection = embedded.connect_bare()
    connection.write(HEADER)
    connection.control.answer()
    connection.write(data)
    outcome(connection, wait=0.005)
    connection.drop()
    still_serves(embedded)


@fuzz(80)
@given(data=st.binary(min_size=1, max_size=400))
def test_octets_on_an_open_connection(embedded, data):
    connection = embedded.connect()
    connection.channel()
    connection.write(data)
    ended = outcome(connection, wait=0.005)
    if isinstance(ended, Refused):
        assert 500 < ended.code < 600
    connection.drop()


# Frames

FRAMES = st.builds(
    raw_frame,
    st.sampled_from([1, 1, 1, 2, 3, 8, 0, 4, 255]),
    st.sampled_from([0, 1, 1, 1, 2, 65535]),
    st.one_of(
        st.binary(max_size=60),
        st.builds(
            raw_method,
            st.sampled_from([10, 20, 30, 40, 50, 60, 85, 90, 70]),
            st.sampled_from([*range(10, 130, 10), *range(11, 131, 10), 31, 41, 51]),
            st.binary(max_size=40),
        ),
        st.builds(
            lambda size, flags, rest: struct.pack(">HHQ", 60, 0, size) + flags + rest,
            st.sampled_from([0, 1, 5, 2**32, 2**63, 2**64 - 1]),
            st.binary(min_size=2, max_size=2),
            st.binary(max_size=60),
        ),
    ),
)


@fuzz(80)
@given(frames=st.lists(FRAMES, min_size=1, max_size=8))
def test_frames_that_are_well_formed_and_make_no_sense(embedded, frames):
    connection = embedded.connect()
    connection.channel()
    connection.write(b"".join(frames))
    ended = outcome(connection, wait=0.005)
    if isinstance(ended, Refused):
        assert ended.code in {*range(501, 506), 530, 540, 541}
    connection.drop()


NAMES = st.one_of(st.sampled_from(["", "q1", "q2", "amq.direct", "amq.x", "a.b"]))
NUMBERS = st.sampled_from([0, 1, 2, 77])
VALUES = st.recursive(
    st.one_of(
        st.none(),
        st.booleans(),
        st.integers(-(2**63), 2**63 - 1),
        st.floats(allow_nan=False, allow_infinity=False, width=32),  # Erlang has neither
        st.text(st.characters(exclude_categories=["Cs"]), max_size=10),
        st.binary(max_size=10).map(bytearray),
    ),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(st.text("abx-", max_size=8), inner, max_size=3)
    ),
    max_leaves=6,
)
ARGUMENTS = st.dictionaries(
    st.sampled_from(
        [
            "x-message-ttl",
            "x-expires",
            "x-max-length",
            "x-max-length-bytes",
            "x-max-priority",
            "x-overflow",
            "x-dead-letter-exchange",
            "x-dead-letter-routing-key",
            "x-single-active-consumer",
            "x-queue-type",
            "x-priority",
            "x-match",
            "alternate-exchange",
            "x-delivery-limit",
            "other",
        ]
    ),
    st.one_of(
        VALUES,
        st.sampled_from([0, 1, 5, 1000, "quorum", "stream", "drop-head", "reject-publish", "q1"]),
    ),
    max_size=3,
)
FLAG = st.booleans()
METHODS = st.one_of(
    st.builds(amqp.Queue.Declare, st.just(0), NAMES, FLAG, FLAG, FLAG, FLAG, FLAG, ARGUMENTS),
    st.builds(amqp.Queue.Bind, st.just(0), NAMES, NAMES, NAMES, FLAG, ARGUMENTS),
    st.builds(amqp.Queue.Unbind, st.just(0), NAMES, NAMES, NAMES, ARGUMENTS),
    st.builds(amqp.Queue.Purge, st.just(0), NAMES, FLAG),
    st.builds(amqp.Queue.Delete, st.just(0), NAMES, FLAG, FLAG, FLAG),
    st.builds(
        amqp.Exchange.Declare,
        st.just(0),
        NAMES,
        st.sampled_from(["direct", "topic", "fanout", "headers", "x-none", ""]),
        FLAG,
        FLAG,
        FLAG,
        FLAG,
        FLAG,
        ARGUMENTS,
    ),
    st.builds(amqp.Exchange.Delete, st.just(0), NAMES, FLAG, FLAG),
    st.builds(amqp.Exchange.Bind, st.just(0), NAMES, NAMES, NAMES, FLAG, ARGUMENTS),
    st.builds(amqp.Exchange.Unbind, st.just(0), NAMES, NAMES, NAMES, FLAG, ARGUMENTS),
    st.builds(amqp.Basic.Consume, st.just(0), NAMES, NAMES, FLAG, FLAG, FLAG, FLAG, ARGUMENTS),
    st.builds(amqp.Basic.Cancel, NAMES, FLAG),
    st.builds(amqp.Basic.Get, st.just(0), NAMES, FLAG),
    st.builds(amqp.Basic.Ack, NUMBERS, FLAG),
    st.builds(amqp.Basic.Nack, NUMBERS, FLAG, FLAG),
    st.builds(amqp.Basic.Reject, NUMBERS, FLAG),
    st.builds(amqp.Basic.Recover, FLAG),
    st.builds(amqp.Basic.Qos, NUMBERS, NUMBERS, FLAG),
    st.builds(amqp.Confirm.Select, FLAG),
    st.builds(amqp.Tx.Select),
    st.builds(amqp.Tx.Commit),
    st.builds(amqp.Tx.Rollback),
    st.builds(amqp.Channel.Flow, FLAG),
    st.builds(amqp.Channel.Close, st.just(200), st.just("x"), st.just(0), st.just(0)),
    st.builds(amqp.Channel.Open),
)
PUBLISHES = st.builds(
    lambda exchange, key, mandatory, body, headers, priority, expiration: (
        exchange,
        key,
        mandatory,
        body,
        {"headers": headers, "priority": priority, "expiration": expiration},
    ),
    NAMES,
    NAMES,
    FLAG,
    st.binary(max_size=20),
    st.one_of(st.none(), st.dictionaries(st.sampled_from(["CC", "BCC", "a", "x-death"]), VALUES)),
    st.one_of(st.none(), st.integers(0, 255)),
    st.sampled_from([None, "0", "1", "x", "60000"]),
)


@fuzz(80)
@given(steps=st.lists(st.one_of(METHODS, PUBLISHES), min_size=3, max_size=25))
def test_any_methods_in_any_order(embedded, steps):
    """Errors are answers; what is not allowed is silence for good, or a traceback."""
    connection = embedded.connect()
    channel = connection.channel()
    for step in steps:
        with contextlib.suppress(Refused, HungUp):
            if connection.refusal is not None:
                break
            if channel.refusal is not None:
                del connection.channels[channel.number]
                channel = connection.channel()
            if isinstance(step, tuple):
                exchange, key, mandatory, body, properties = step
                channel.publish(body, key, exchange=exchange, mandatory=mandatory, **properties)
            elif isinstance(step, amqp.Channel.Close):
                channel.close()
                del connection.channels[channel.number]
                channel = connection.channel()
            else:
                channel.cast(step)
    if connection.refusal is None:
        with contextlib.suppress(Refused, HungUp):
            connection.channel().sync()
    connection.drop()


# Tables


@fuzz(60)
@given(
    headers=st.dictionaries(
        st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=20).filter(
            lambda key: key not in ("CC", "BCC") and len(key.encode()) < 100
        ),
        VALUES,
        max_size=5,
    )
)
def test_any_headers_arrive_as_they_were_sent(channel, queue, headers):
    channel.publish(b"1", queue, headers=headers)
    message = channel.get(queue, no_ack=True)
    assert message.headers == headers


@fuzz(40)
@given(body=st.binary(max_size=3000), pieces=st.lists(st.integers(0, 700), max_size=6))
def test_a_body_cut_anywhere_arrives_whole(channel, queue, body, pieces):
    from tests.broker.client import CONTENT_BODY, CONTENT_HEADER

    channel.cast(amqp.Basic.Publish(0, "", queue))
    data = raw_frame(
        CONTENT_HEADER, channel.number, struct.pack(">HHQ", 60, 0, len(body)) + b"\x00\x00"
    )
    rest = body
    for size in pieces:
        piece, rest = rest[:size], rest[size:]
        if piece:
            data += raw_frame(CONTENT_BODY, channel.number, piece)
    if rest:
        data += raw_frame(CONTENT_BODY, channel.number, rest)
    channel.connection.write(data)
    assert channel.get(queue, no_ack=True).body == body
