"""Nothing that arrives is trusted: every wrong shape becomes one sentence, at a bounded cost."""

from __future__ import annotations

import bz2
import json
import lzma
import pickle
import zlib
from datetime import datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from amqflow.errors import Undecodable
from amqflow.protocol import Envelope, Limits, TaskMessage, decode, encode, headers

GOOD = encode(TaskMessage("an-id", "shop.add", args=[1]))


def envelope(body: bytes | None = None, **changes) -> Envelope:
    made = encode(TaskMessage("an-id", "shop.add", args=[1]))
    made.headers.update(changes.pop("headers", {}))
    if body is not None:
        made.body = body
    for name, value in changes.items():
        setattr(made, name, value)
    return made


def refused(message: Envelope, **limits) -> str:
    with pytest.raises(Undecodable) as caught:
        decode(message, limits=Limits(**limits))
    return str(caught.value)


@pytest.mark.parametrize(
    ("name", "wrong"),
    [
        ("id", 5),
        ("id", ""),
        ("id", "x" * 256),
        ("task", 5),
        ("task", ""),
        ("root_id", 5),
        ("parent_id", ["x"]),
        ("group", 5),
        ("group_index", "0"),
        ("group_index", -1),
        ("group_index", True),
        ("retries", "2"),
        ("retries", -1),
        ("retries", 1.5),
        ("eta", "tomorrow"),
        ("eta", 1_700_000_000),
        ("eta", "0001-01-01T00:00:00+14:00x"),
        ("eta", "2031-02-30T00:00:00"),
        ("expires", {}),
        ("expires", ""),
        ("timelimit", 20),
        ("timelimit", [20]),
        ("timelimit", [20, 10, 5]),
        ("timelimit", ["20", None]),
        ("timelimit", [True, None]),
        ("timelimit", [-1, None]),
        ("timelimit", [float("nan"), None]),
        ("timelimit", [None, float("inf")]),
        ("origin", 5),
        ("ignore_result", 0),
        ("argsrepr", 5),
        ("kwargsrepr", b"{}"),
        ("stamps", ["customer"]),
        ("stamped_headers", "customer"),
        ("stamped_headers", [1]),
        ("replaced_task_nesting", "1"),
        ("shadow", 5),
        ("traceparent", 5),
        ("tracestate", {}),
        ("lang", 5),
        (headers.EPOCH, "1"),
        (headers.EPOCH, -1),
        (headers.EPOCH, None),
        (headers.ONCE, 1),
        (headers.REDELIVERED, "1"),
        (headers.EXCHANGE, 5),
        (headers.ROUTING_KEY, None),
        ("compression", 5),
    ],
)
def test_a_wrong_header_is_named(name, wrong):
    assert f"header '{name}' must be" in refused(envelope(headers={name: wrong}))


@pytest.mark.parametrize("name", ["id", "task"])
def test_a_missing_header_is_named(name):
    message = envelope()
    del message.headers[name]
    assert refused(message) == (
        f"header '{name}' is missing: this is no message of task protocol 2"
    )


@pytest.mark.parametrize(
    ("body", "sentence"),
    [
        (b"{}", "the body must be [args, kwargs, embed], got an object"),
        (b"null", "the body must be [args, kwargs, embed], got null"),
        (b"5", "the body must be [args, kwargs, embed], got a number"),
        (b"[]", "the body must be [args, kwargs, embed], got 0 parts"),
        (b"[[], {}, {}, {}]", "the body must be [args, kwargs, embed], got 4 parts"),
        (b"[{}, {}, {}]", "args must be an array, got an object"),
        (b'["ab", {}, {}]', "args must be an array, got text"),
        (b"[[], [], {}]", "kwargs must be an object, got an array"),
        (b"[[], null, {}]", "kwargs must be an object, got null"),
        (b"[[], {}, []]", "the third part of the body must be an object, got an array"),
        (b'[[], {}, {"callbacks": {}}]', ""),
        (b'[[], {}, {"callbacks": {"a": 1}}]', "callbacks must be an array of signatures"),
        (b'[[], {}, {"errbacks": ["x"]}]', "errbacks must hold signatures, got text without"),
        (b'[[], {}, {"chain": [{"args": []}]}]', "chain must hold signatures, got an object"),
        (b'[[], {}, {"chain": 5}]', "chain must be an array of signatures, got a number"),
        (b'[[], {}, {"chord": []}]', "chord must be a signature, got an array"),
        (b'[[], {}, {"chord": {"task": 5}}]', "chord must be a signature"),
        (b'[[], {}, {"amqflow": 5}]', "'amqflow' in the body must be an object, got a number"),
        (b'[[], {}, {"amqflow": {"headers": [5]}}]', "header 'headers' must be a table"),
        (b'[[], {}, {"amqflow": {"headers": {"id": "x"}}}]', "must travel as headers"),
        (b'[[], {}, {"amqflow": {"headers": {"compression": "x"}}}]', "must travel as headers"),
        (b'[[], {}, {"amqflow": {"headers": {"retries": "x"}}}]', "header 'retries' must be"),
        (b"[[1], {", "the body is not JSON"),
        (b'[["\xff"], {}, {}]', "the body is not UTF-8"),
        (b'[["\x00"], {}, {}]', "the body is not JSON"),
        (b"", "the body is not JSON"),
        (b"[[" + b"9" * 5000 + b"], {}, {}]", "4300"),
        (b"[" * 10_000 + b"]" * 10_000, "the body nests deeper than 100 levels"),
        (b'{"a":' * 10_000, "the body nests deeper than 100 levels"),
        (pickle.dumps([[], {}, {}]), "the body is not UTF-8"),
    ],
)
def test_a_wrong_body_is_explained(body, sentence):
    if sentence:
        assert sentence in refused(envelope(body))
    else:
        assert decode(envelope(body)).callbacks is None


def test_a_body_without_its_third_part_is_read():
    assert decode(envelope(b"[[1], {}, null]")).args == [1]


def test_text_may_hold_nul():
    assert decode(envelope(b'[["\\u0000"], {}, {}]')).args == ["\x00"]


@pytest.mark.parametrize(
    "kind",
    ["application/x-python-serialize", "application/x-yaml", "application/x-msgpack", "", None],
)
def test_only_json_is_read(kind):
    assert "only application/json is read here" in refused(envelope(content_type=kind))


class Trap:
    def __reduce__(self):
        return (pytest.exit, ("a pickle was run",))


def test_no_pickle_is_ever_loaded():
    refused(envelope(pickle.dumps(Trap()), content_type="application/x-python-serialize"))
    refused(envelope(pickle.dumps(Trap())))
    refused(envelope(pickle.dumps(Trap()), content_encoding="binary"))


@pytest.mark.parametrize("kind", ["application/json; charset=utf-8", "Application/JSON"])
def test_other_spellings_of_the_content_type_are_read(kind):
    assert decode(envelope(content_type=kind)).id == "an-id"


@pytest.mark.parametrize("encoding", [None, "", "UTF-8", "utf8", "us-ascii", "binary"])
def test_other_names_of_utf_8_are_read(encoding):
    assert decode(envelope(content_encoding=encoding)).id == "an-id"


@pytest.mark.parametrize("encoding", ["utf-16", "latin-1", "gzip", "rot13"])
def test_other_encodings_are_refused(encoding):
    assert "only UTF-8 is read here" in refused(envelope(content_encoding=encoding))


def test_protocol_1_is_called_by_its_name():
    body = json.dumps({"task": "shop.add", "id": "x", "args": [], "kwargs": {}}).encode()
    assert "protocol 1" in refused(Envelope(body, headers={}))


def test_a_body_over_the_bound_is_not_parsed():
    assert refused(envelope(b"[" + b" " * 20 * 1024 * 1024)) == (
        "the body takes 20971521 bytes, 16777216 are allowed"
    )


@pytest.mark.parametrize(
    ("name", "compress"),
    [
        ("application/x-gzip", zlib.compress),
        ("application/x-bz2", bz2.compress),
        ("application/x-lzma", lzma.compress),
        ("zlib", zlib.compress),
    ],
)
class TestCompressed:
    def test_a_body_is_inflated(self, name, compress):
        message = envelope(compress(GOOD.body), headers={"compression": name})
        assert decode(message).args == [1]

    def test_exactly_the_bound_is_allowed(self, name, compress):
        message = envelope(compress(GOOD.body), headers={"compression": name})
        assert decode(message, limits=Limits(max_inflated=len(GOOD.body))).args == [1]
        sentence = refused(message, max_inflated=len(GOOD.body) - 1)
        assert sentence == f"the body inflates to more than {len(GOOD.body) - 1} bytes"

    def test_a_bomb_is_stopped(self, name, compress):
        bomb = compress(b" " * 200_000_000 if name != "application/x-lzma" else b" " * 70_000_000)
        message = envelope(bomb, headers={"compression": name})
        assert refused(message) == "the body inflates to more than 67108864 bytes"

    def test_data_cut_short_is_refused(self, name, compress):
        message = envelope(compress(GOOD.body)[:-3], headers={"compression": name})
        assert refused(message) == "the compressed body ends too early"

    def test_other_data_is_refused(self, name, compress):
        message = envelope(GOOD.body, headers={"compression": name})
        assert "the body is not application/" in refused(message)


def test_several_streams_one_behind_the_other_are_one_bomb():
    bomb = bz2.compress(b" " * 30_000_000) * 3
    message = envelope(bomb, headers={"compression": "bzip2"})
    assert "inflates to more than" in refused(message)


def test_an_unknown_compression_is_named():
    message = envelope(headers={"compression": "application/x-brotli"})
    assert "'application/x-brotli', which is not known here" in refused(message)


@given(st.binary(max_size=200))
def test_noise_as_a_body_is_never_another_error(noise):
    for extra in ({}, {"compression": "zlib"}, {"compression": "lzma"}, {"compression": "bzip2"}):
        refused(envelope(noise, headers=extra))


HEADER_VALUES = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.text(max_size=20)
    | st.binary(max_size=20)
    | st.datetimes(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner),
    max_leaves=4,
)
STEERING = ["eta", "expires", "timelimit", "stamps", "retries", "group", "compression", "x-death"]
HEADER_NAMES = st.sampled_from([*GOOD.headers, *STEERING, headers.EPOCH, headers.ONCE])


@given(st.dictionaries(HEADER_NAMES, HEADER_VALUES, max_size=4))
def test_noise_as_headers_is_read_or_refused(noise):
    try:
        message = decode(envelope(headers=noise))
    except Undecodable:
        return
    encode(message)


def test_a_time_without_an_offset_is_utc():
    read = decode(envelope(headers={"eta": "2031-01-02T03:04:05", "expires": "2031-01-02"}))
    assert read.eta == datetime.fromisoformat("2031-01-02T03:04:05+00:00").timestamp()
    assert read.expires == datetime.fromisoformat("2031-01-02T00:00:00+00:00").timestamp()


def test_a_foreign_time_limit_of_for_ever_is_a_year():
    envelope = encode(TaskMessage("id", "task", time_limit=1e30, soft_time_limit=5))
    read = decode(envelope)
    assert (read.time_limit, read.soft_time_limit) == (366 * 86400, 5)
