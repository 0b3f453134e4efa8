"""Field tables keep their types and their octets; what is none is refused, whatever it is."""

import struct

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from amqflow.broker import methods, tables
from amqflow.broker.frames import FrameBroken, FrameReader, NotAmqp
from amqflow.broker.properties import HEADERS, Properties
from amqflow.broker.tables import Field, MalformedTable

HEADER = b"AMQP\x00\x00\x09\x01"

SCALARS = st.one_of(
    st.builds(Field, st.just("longstr"), st.text(max_size=20)),
    st.builds(Field, st.just("bool"), st.booleans()),
    st.builds(Field, st.just("byte"), st.integers(-128, 127)),
    st.builds(Field, st.just("unsignedbyte"), st.integers(0, 255)),
    st.builds(Field, st.just("short"), st.integers(-(2**15), 2**15 - 1)),
    st.builds(Field, st.just("unsignedint"), st.integers(0, 2**32 - 1)),
    st.builds(Field, st.just("long"), st.integers(-(2**63), 2**63 - 1)),
    st.builds(Field, st.just("double"), st.floats(allow_nan=False)),
    st.builds(Field, st.just("timestamp"), st.integers(0, 2**63)),
    st.builds(Field, st.just("binary"), st.binary(max_size=20)),
    st.builds(
        Field,
        st.just("decimal"),
        st.tuples(st.integers(0, 255), st.integers(-(2**31), 2**31 - 1)),
    ),
    st.just(Field("void", None)),
)
NAMES = st.text(max_size=10)
FIELDS = st.recursive(
    SCALARS,
    lambda inner: st.one_of(
        st.builds(Field, st.just("array"), st.lists(inner, max_size=4)),
        st.builds(Field, st.just("table"), st.dictionaries(NAMES, inner, max_size=4)),
    ),
    max_leaves=12,
)
TABLES = st.dictionaries(NAMES, FIELDS, max_size=6)


@given(TABLES)
def test_a_table_comes_back_as_it_was(table):
    raw = tables.encode(table)
    assert tables.decode(raw) == table
    assert b"".join(item for _, item in tables.split(raw)) == raw


@given(st.binary(max_size=200))
def test_octets_are_a_table_or_malformed(raw):
    try:
        table = tables.decode(raw)
    except MalformedTable:
        return
    assert tables.decode(tables.encode(table)) == table


def test_tables_in_tables_have_a_depth_they_may_not_pass():
    raw = b""
    for _ in range(5000):
        raw = b"\x01aF" + struct.pack(">I", len(raw)) + raw
    with pytest.raises(MalformedTable, match="too deep"):
        tables.decode(raw)


@given(TABLES, TABLES)
@settings(max_examples=50, deadline=None)
def test_changing_headers_leaves_the_others_octets_alone(before, added):
    raw = tables.encode(before)
    flags = struct.pack(">HI", HEADERS, len(raw)) + raw
    changed = Properties(flags).with_headers(added)
    assert changed.headers == before | added
    kept = [item for name, item in tables.split(raw) if tables.text(name) not in added]
    assert changed.headers_raw.startswith(b"".join(kept))


@given(st.binary(max_size=60))
def test_properties_are_read_or_refused(raw):
    try:
        properties = Properties(raw)
        properties.check_headers()
    except ValueError:
        return
    assert properties.raw == raw


@given(st.binary(min_size=4, max_size=80))
def test_a_method_is_read_or_refused_by_name(payload):
    refused = (methods.UnknownMethod, methods.MalformedMethod, methods.MalformedString)
    try:
        method = methods.decode(payload)
    except refused:
        return
    assert struct.pack(">I", method.index) == payload[:4]


@given(st.lists(st.binary(max_size=30), max_size=8), st.data())
def test_frames_are_the_same_however_the_stream_is_cut(payloads, data):
    stream = HEADER + b"".join(methods.frame(3, 1, payload) for payload in payloads)
    reader = FrameReader()
    found = []
    while stream:
        size = data.draw(st.integers(1, len(stream)))
        found += [frame.payload for frame in reader.feed(stream[:size]) if frame is not None]
        stream = stream[size:]
    assert found == payloads


@given(st.lists(st.binary(max_size=50), max_size=10))
def test_the_reader_holds_no_more_than_a_frame(chunks):
    reader = FrameReader()
    try:
        for _ in reader.feed(HEADER):
            pass
        for chunk in chunks:
            for _ in reader.feed(chunk):
                pass
            assert len(reader._rest) <= reader.limit + 8 + len(chunk)
    except (FrameBroken, NotAmqp):
        pass
