"""Content headers written and read the short way mean what pamqp says they mean."""

from datetime import UTC, datetime

import pamqp.frame
import pytest
from hypothesis import given
from hypothesis import strategies as st

from amqflow.protocol import Envelope
from amqflow.transport.aiopika.content import read_header, write_content

names = st.text(min_size=1, max_size=20)
plain = (
    st.text(max_size=50)
    | st.none()
    | st.booleans()
    | st.integers(-(2**63), 2**63 - 1)
    | st.integers(0, 2**32 - 1).map(lambda seconds: datetime.fromtimestamp(seconds, UTC))
)
values = st.recursive(
    plain,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(names, inner, max_size=3),
    max_leaves=8,
)
short = st.none() | st.text(min_size=1, max_size=60)
envelopes = st.builds(
    Envelope,
    body=st.binary(max_size=300),
    headers=st.dictionaries(names, values, max_size=8),
    content_type=short,
    content_encoding=short,
    delivery_mode=st.sampled_from([1, 2]),
    priority=st.none() | st.integers(0, 255),
    correlation_id=short,
    reply_to=short,
    message_id=short,
    timestamp=st.none() | st.just(datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)),
    type=short,
)


def frames_of(data):
    while data:
        count, _, frame = pamqp.frame.unmarshal(data)
        yield data[:count], frame
        data = data[count:]


@given(envelopes)
def test_what_is_written_reads_back_the_same_both_ways(envelope):
    frames = list(frames_of(write_content(envelope, 3, 4088)))
    header_bytes, header = frames[0]
    size, read = read_header(header_bytes)
    assert size == len(envelope.body) == header.body_size
    assert b"".join(frame.value for _, frame in frames[1:]) == envelope.body
    read.body = envelope.body
    assert read == envelope
    assert (header.properties.headers or {}) == envelope.headers


@pytest.mark.parametrize("size", [0, 1, 99, 100, 101, 200, 1001])
def test_bodies_are_split_at_the_frame(size):
    frames = list(frames_of(write_content(Envelope(b"x" * size, {}), 1, 100)))
    assert [len(frame.value) for _, frame in frames[1:]] == [
        min(100, size - start) for start in range(0, size, 100)
    ]


@given(st.dictionaries(names, values, max_size=8))
def test_tables_written_by_pamqp_read_as_pamqp_reads_them(headers):
    """Brokers and other clients write numbers in types of their own."""
    properties = pamqp.commands.Basic.Properties(headers=headers)
    frame = pamqp.frame.marshal(pamqp.header.ContentHeader(body_size=0, properties=properties), 1)
    _, _, header = pamqp.frame.unmarshal(frame)
    assert read_header(frame)[1].headers == (header.properties.headers or {})


def test_tables_too_deep_to_walk_are_left_out_and_cost_no_connection():
    deep = {}
    for _ in range(5000):
        deep = b"\x01aF" + len(deep).to_bytes(4, "big") + deep if deep else b"\x01aV"
    table = len(deep).to_bytes(4, "big") + deep
    payload = b"\x00\x3c\x00\x00" + (7).to_bytes(8, "big") + b"\x20\x00" + table
    frame = b"\x02\x00\x01" + len(payload).to_bytes(4, "big") + payload + b"\xce"
    assert read_header(frame) == (7, Envelope(b"", {}, None, None))
