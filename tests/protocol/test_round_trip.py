"""What is encoded is decoded unchanged, with few headers and none that grows on the way."""

from __future__ import annotations

import math
import string
import sys
from datetime import UTC, datetime
from decimal import Decimal

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from amqflow.errors import EncodeError, MessageTooLarge
from amqflow.protocol import Envelope, Limits, TaskMessage, decode, encode, headers

TEXT = st.text(st.characters(exclude_categories=["Cs"]), max_size=30)
NAME = st.text(string.ascii_letters + "._é", min_size=1, max_size=30)
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(TEXT, inner),
    max_leaves=8,
)
SIGNATURES = st.lists(st.fixed_dictionaries({"task": NAME, "args": st.lists(JSON)}), min_size=1)
#: Microseconds are what ISO 8601 texts carry.
MOMENTS = st.datetimes(datetime(1970, 1, 2), datetime(9000, 1, 1)).map(  # noqa: DTZ001
    lambda moment: moment.replace(tzinfo=UTC).timestamp()
)
LIMIT = st.none() | st.integers(0, 10**6) | st.integers(0, 10**6).map(lambda ms: ms / 1000)
EXTRA = st.dictionaries(
    st.text(string.ascii_lowercase + "-é", min_size=1, max_size=12).map("x-".__add__),
    JSON | st.binary() | st.decimals(allow_nan=False) | st.datetimes(timezones=st.just(UTC)),
    max_size=4,
)


#: Whole messages take long to draw.
FEW = 20


def optional(strategy):
    return st.none() | strategy


MESSAGES = st.builds(
    TaskMessage,
    id=NAME,
    task=NAME,
    args=st.lists(JSON, max_size=3),
    kwargs=st.dictionaries(TEXT, JSON, max_size=3),
    root_id=NAME,
    parent_id=optional(NAME),
    callbacks=optional(SIGNATURES),
    errbacks=optional(SIGNATURES),
    chain=optional(SIGNATURES),
    chord=optional(st.fixed_dictionaries({"task": NAME})),
    group=optional(TEXT),
    group_index=optional(st.integers(0, 10**6)),
    retries=st.integers(0, 100),
    eta=optional(MOMENTS),
    expires=optional(MOMENTS),
    time_limit=LIMIT,
    soft_time_limit=LIMIT,
    origin=optional(TEXT),
    ignore_result=optional(st.booleans()),
    argsrepr=optional(TEXT),
    stamps=optional(st.dictionaries(TEXT, JSON, min_size=1, max_size=2)),
    stamped_headers=optional(st.lists(TEXT)),
    replaced_task_nesting=st.integers(0, 5),
    shadow=optional(TEXT),
    traceparent=optional(TEXT),
    tracestate=optional(TEXT),
    reply_to=optional(NAME),
    correlation_id=NAME,
    priority=optional(st.integers(0, 255)),
    timestamp=optional(st.integers(0, 2**33).map(float)),
    extra=EXTRA,
)


@settings(max_examples=FEW)
@given(MESSAGES)
def test_every_field_survives(message):
    assert decode(encode(message)) == message


@settings(max_examples=FEW)
@given(MESSAGES, st.sampled_from(["zlib", "bzip2", "lzma"]))
def test_every_field_survives_compression(message, compression):
    again = decode(encode(message, compression=compression))
    assert again.extra.pop("compression").startswith("application/x-")
    message.extra.pop("compression", None)
    assert again == message


def test_only_what_says_something_goes_on_the_wire():
    envelope = encode(TaskMessage("an-id", "shop.add"))
    assert envelope == Envelope(
        body=b'[[], {}, {"callbacks": null, "errbacks": null, "chain": null, "chord": null}]',
        headers={
            "lang": "py",
            "task": "shop.add",
            "id": "an-id",
            "root_id": "an-id",
            "parent_id": None,
        },
        message_id="an-id",
        correlation_id="an-id",
    )


def test_times_are_iso_8601_in_utc():
    envelope = encode(TaskMessage("i", "t", eta=1.5, expires=86_400))
    assert envelope.headers["eta"] == "1970-01-01T00:00:01.500000+00:00"
    assert envelope.headers["expires"] == "1970-01-02T00:00:00+00:00"


def test_our_own_headers_have_names():
    extra = {
        headers.EPOCH: 2,
        headers.ONCE: True,
        headers.REDELIVERED: 1,
        headers.EXCHANGE: "tasks",
        headers.ROUTING_KEY: "email.send",
    }
    message = decode(encode(TaskMessage("i", "t", extra=extra), compression="zlib"))
    assert (message.epoch, message.once, message.redelivered_marker) == (2, True, 1)
    assert (message.original_exchange, message.original_routing_key) == ("tasks", "email.send")
    assert message.compression == "application/x-gzip"
    bare = TaskMessage("i", "t")
    assert (bare.epoch, bare.once, bare.redelivered_marker, bare.compression) == (0, False, 0, None)
    assert (bare.original_exchange, bare.original_routing_key) == (None, None)


def test_a_compressed_message_stays_compressed_when_it_is_sent_again():
    first = encode(TaskMessage("i", "t", args=["x" * 10_000]), compression="gzip")
    second = encode(decode(first))
    assert second == first
    assert len(second.body) < 200


def test_what_the_broker_wrote_is_not_sent_again():
    envelope = encode(TaskMessage("i", "t", extra={"x-death": [{"count": 1}], "CC": ["a"]}))
    assert envelope.headers.keys() == {"lang", "task", "id", "root_id", "parent_id"}


def test_header_values_a_field_table_would_change_travel_in_the_body():
    moment = datetime(2031, 1, 2, 3, 4, 5, 6, UTC)
    extra = {
        "double": 0.1,
        "huge": 2**70,
        "moment": moment,
        "price": Decimal("1.10"),
        "single": 0.5,
    }
    envelope = encode(TaskMessage("i", "t", extra=extra))
    assert envelope.headers.keys() & extra.keys() == {"single"}
    assert decode(envelope).extra == extra


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"id": ""}, "header 'id' must be text of 1 to 255 bytes"),
        ({"id": None}, "header 'id' must be text"),
        ({"id": "é" * 128}, "header 'id' must be text of 1 to 255 bytes"),
        ({"id": "\ud800"}, "the task id must be text"),
        ({"task": ""}, "header 'task' must be text that is not empty"),
        ({"task": "\ud800"}, r"headers\['task'\]: not text that UTF-8 can write"),
        ({"parent_id": "\ud800"}, r"headers\['parent_id'\]: not text"),
        ({"args": "text"}, "args must be a list or tuple, got str"),
        ({"kwargs": [1]}, "kwargs must be a dict, got list"),
        ({"kwargs": {1: 2}}, "kwargs: the name 1 is not text"),
        ({"args": [object()]}, r"args\[0\]: object of type object"),
        ({"kwargs": {"a": [set()]}}, r"kwargs\['a'\]\[0\]: object of type set"),
        ({"callbacks": [{"task": "x", "args": [set()]}]}, r"callbacks\[0\]\['args'\]\[0\]: object"),
        ({"extra": {"mine": {1, 2}}}, r"headers\['mine'\]: object of type set"),
        ({"extra": {1: "a"}}, "headers: the name 1 is not text"),
        ({"extra": {"eta": "x"}}, r"headers\['eta'\]: the name is taken"),
        ({"eta": math.nan}, "eta: nan is no time"),
        ({"eta": 1e18}, "eta: 1e\\+18 is no time"),
        ({"expires": "soon"}, "expires: 'soon' is no time"),
        ({"time_limit": "20"}, r"header 'timelimit' must be \[hard, soft\]"),
        ({"soft_time_limit": math.inf}, r"header 'timelimit' must be \[hard, soft\]"),
        ({"time_limit": -1}, r"header 'timelimit' must be \[hard, soft\]"),
        ({"priority": 256}, "priority must be 0 to 255"),
        ({"priority": "high"}, "priority must be 0 to 255"),
        ({"retries": "2"}, "header 'retries' must be a whole number"),
        ({"group": 5}, "header 'group' must be text"),
        ({"ignore_result": "no"}, "header 'ignore_result' must be true or false"),
        ({"stamps": [1]}, "header 'stamps' must be a table"),
        ({"reply_to": "q" * 256}, "reply_to must be text of at most 255 bytes"),
        ({"correlation_id": "\ud800"}, "correlation_id must be text"),
    ],
)
def test_what_no_receiver_would_take_is_refused_at_the_sender(changes, message):
    task = TaskMessage("an-id", "shop.add")
    for name, value in changes.items():
        setattr(task, name, value)
    with pytest.raises(EncodeError, match=message):
        encode(task)


def test_an_unknown_compression_is_refused_at_the_sender():
    with pytest.raises(EncodeError, match="unknown compression 'rar'; known are bzip"):
        encode(TaskMessage("i", "t"), compression="rar")


def test_a_compression_that_is_not_installed_names_the_package(monkeypatch):
    for name in ("compression.zstd", "backports.zstd"):
        monkeypatch.setitem(sys.modules, name, None)
    with pytest.raises(EncodeError, match=r"package backports\.zstd: pip install"):
        encode(TaskMessage("i", "t"), compression="zstd")


def test_bounds_hold_at_the_sender():
    large = TaskMessage("i", "t", args=["x" * 2000])
    with pytest.raises(MessageTooLarge, match="body of t takes 2079 bytes, 1000 are"):
        encode(large, limits=Limits(max_body=1000))
    assert len(encode(large, limits=Limits(max_body=1000), compression="zlib").body) < 1000
    with pytest.raises(MessageTooLarge, match="2079 bytes before compression, 1500 are"):
        encode(large, limits=Limits(max_inflated=1500), compression="zlib")


@pytest.mark.parametrize("levels", [98, 99])
def test_the_bound_on_nesting_is_the_same_on_both_sides(levels):
    value: object = 1
    for _ in range(levels):
        value = [value]
    message = TaskMessage("i", "t", args=[value])  # args and the body are two levels more
    if levels == 98:
        assert decode(encode(message)).args == [value]
    else:
        with pytest.raises(EncodeError, match="args: nested deeper than 99 levels"):
            encode(message)
