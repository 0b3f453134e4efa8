"""No header frame leaves that is larger than the connection takes (pamqp is the oracle)."""

from __future__ import annotations

import pprint
import string
from dataclasses import asdict
from datetime import UTC, datetime

import pamqp.commands
import pamqp.decode
import pamqp.encode
import pamqp.frame
import pamqp.header
import pytest
from hypothesis import given
from hypothesis import strategies as st

from amqflow.errors import MessageTooLarge
from amqflow.protocol import (
    Limits,
    TaskMessage,
    decode,
    encode,
    fit_headers,
    headers,
    table_size,
)
from amqflow.protocol.frame import travels_as_header
from amqflow.protocol.writer import _quick_size

SPARE = 1024
NAMES = st.text(string.ascii_letters + "é-", min_size=1, max_size=40)
VALUES = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**63), 2**63 - 1)
    | st.floats(width=32)
    | st.text(st.characters(exclude_categories=["Cs"]), max_size=40)
    | st.binary(max_size=20).map(bytearray)
    | st.datetimes(datetime(1970, 1, 1), timezones=st.just(UTC)).map(  # noqa: DTZ001
        lambda moment: moment.replace(microsecond=0, fold=0)
    ),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(NAMES, inner, max_size=4),
    max_leaves=10,
)


def frame_of(envelope) -> bytes:
    properties = asdict(envelope)
    body = properties.pop("body")
    renamed = {"type": "message_type"}
    basic = pamqp.commands.Basic.Properties(
        **{renamed.get(name, name): value for name, value in properties.items()}
    )
    header = pamqp.header.ContentHeader(body_size=len(body), properties=basic)
    return pamqp.frame.marshal(header, 1)


@given(st.dictionaries(NAMES, VALUES, max_size=6))
def test_a_table_is_never_larger_than_measured(table):
    assert len(pamqp.encode.field_table(table)) <= table_size(table)


@given(VALUES)
def test_a_value_that_travels_as_a_header_comes_back_unchanged(value):
    if travels_as_header("name", value):
        written = pamqp.encode.field_table({"name": value})
        read = pamqp.decode.field_table(written)[1]["name"]
        # pprint sorts keys, as pamqp does, and its text finds NaN equal to itself.
        assert pprint.pformat(read) == pprint.pformat(value)


@pytest.mark.parametrize(
    "value",
    [
        0.1,
        1e300,
        2**63,
        -(2**63) - 1,
        "\ud800",
        b"x",
        (1,),
        {1: 2},
        {"a": 0.1},
        [0.1],
        {"\ud800": 1},
        datetime(2031, 1, 1),  # noqa: DTZ001 - a naive one would come back aware
        datetime(2031, 1, 1, 0, 0, 0, 5, UTC),
        datetime(1960, 1, 1, tzinfo=UTC),
        datetime(2107, 1, 1, tzinfo=UTC),
    ],
)
def test_a_value_amqp_would_change_does_not_travel_as_a_header(value):
    assert not travels_as_header("name", value)


def test_a_name_longer_than_amqp_keeps_does_not_travel_as_a_header():
    assert travels_as_header("n" * 128, 1)
    assert not travels_as_header("n" * 129, 1)


@pytest.mark.parametrize("frame_max", [4096, 8192, 131_072])
@pytest.mark.parametrize("share", [0.1, 0.5, 0.9, 1.0, 1.1, 3.0])
@pytest.mark.parametrize("letter", ["x", "é", "\N{GRINNING FACE}"])
def test_the_frame_keeps_a_kibibyte_free(frame_max, share, letter):
    texts = int(frame_max * share) // len(letter.encode())
    message = TaskMessage(
        "i" * 255,
        "shop.add",
        reply_to="q" * 255,
        priority=5,
        timestamp=1.0,
        argsrepr=letter * (texts // 4),
        shadow=letter * (texts // 4),
        extra={f"x-{number}": letter * (texts // 20) for number in range(10)},
    )
    envelope = encode(message, frame_max=frame_max)
    assert len(frame_of(envelope)) <= frame_max - SPARE
    again = decode(envelope)
    assert again.extra == message.extra
    assert again.shadow == message.shadow
    assert (again.argsrepr or "").rstrip("…") in message.argsrepr


def test_what_people_read_is_cut_before_anything_moves():
    message = TaskMessage("i", "t", argsrepr="a" * 5000, extra={"tenant": "acme"})
    envelope = encode(message, frame_max=4096)
    assert envelope.headers["tenant"] == "acme"
    assert envelope.headers["argsrepr"].endswith("…")
    assert b"amqflow" not in envelope.body


def test_large_headers_move_into_the_body_and_come_back():
    extra = {"small": "s", "large": "l" * 200_000, "table": {"x": ["y" * 70_000, 0.1]}}
    envelope = encode(TaskMessage("i", "t", extra=extra))
    assert envelope.headers["small"] == "s"
    assert not {"large", "table"} & envelope.headers.keys()
    assert decode(envelope).extra == extra


def test_headers_that_must_stay_and_do_not_fit_are_refused():
    with pytest.raises(MessageTooLarge, match=r"need 1.* bytes more than the 3.* that fit"):
        encode(TaskMessage("i", "t" * 4096), frame_max=4096)


def test_no_frame_limit_means_the_bound_of_the_limits():
    message = TaskMessage("i", "t", extra={"large": "l" * 20_000})
    assert "large" in encode(message, frame_max=0).headers
    assert "large" not in encode(message, frame_max=0, limits=Limits(max_headers=8192)).headers


class TestFitHeaders:
    def test_what_fits_is_left_alone(self):
        table = {headers.TRACEBACK: "x" * 100}
        assert fit_headers(table, table_size(table)) is table

    def test_a_traceback_keeps_its_end(self):
        table = {"id": "i", headers.TRACEBACK: "first" + "x" * 500 + "last"}
        fitted = fit_headers(table, 100)
        assert table_size(fitted) <= 100
        assert fitted[headers.TRACEBACK].startswith("…x")
        assert fitted[headers.TRACEBACK].endswith("xlast")
        assert table[headers.TRACEBACK].startswith("first")

    def test_texts_go_in_order_and_whole_where_needed(self):
        table = {
            "id": "i" * 50,
            headers.TRACEBACK: "t" * 500,
            "argsrepr": "a" * 500,
            headers.EXCEPTION_MESSAGE: "m" * 500,
        }
        fitted = fit_headers(table, 400)
        assert table_size(fitted) <= 400
        assert fitted.keys() == {"id", headers.EXCEPTION_MESSAGE}

    @given(
        st.fixed_dictionaries(
            {headers.TRACEBACK: st.text(), "argsrepr": st.text(), "id": st.text()}
        ),
        st.integers(0, 200),
    )
    def test_the_result_fits_unless_what_must_stay_does_not(self, table, room):
        fitted = fit_headers(table, room)
        assert table_size(fitted) <= max(room, table_size({"id": table["id"]}))
        assert fitted["id"] == table["id"]


PLAIN = st.none() | st.booleans() | st.integers(-(2**63), 2**63 - 1) | st.text(max_size=300)
TABLES = st.recursive(
    PLAIN | st.lists(PLAIN, max_size=3),
    lambda inner: st.dictionaries(st.text(max_size=10) | st.just("timelimit"), inner, max_size=3),
    max_leaves=8,
)


@given(st.dictionaries(st.text(max_size=10), TABLES, max_size=6))
def test_the_quick_size_is_never_too_small(table):
    """A list under any name within a table is as long as it is; only ours is known to be short."""
    table.pop("timelimit", None)
    assert _quick_size(table) < 0 or _quick_size(table) >= table_size(table)


def test_a_long_list_in_a_table_of_the_callers_goes_by_the_body():
    message = TaskMessage("id", "t", extra={"mine": {"timelimit": ["x" * 200_000]}})
    assert "mine" not in encode(message).headers
