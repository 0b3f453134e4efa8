"""The JSON both ends speak: exact, kombu's, and clear about what it refuses."""

from __future__ import annotations

import dataclasses
import enum
import json
import math
import uuid
from datetime import UTC, datetime, time, timedelta, timezone
from decimal import Decimal

import kombu.utils.json as kombu_json
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import BaseModel, ConfigDict, Field, HttpUrl

from amqflow.errors import EncodeError, Undecodable
from amqflow.protocol import dumps, loads

OFFSETS = st.one_of(
    st.none(),
    st.just(UTC),
    st.integers(-1439, 1439).map(lambda minutes: timezone(timedelta(minutes=minutes))),
)
LEAVES = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(),
    st.integers(-(2**300), 2**300),
    st.floats(),
    st.text(st.characters()),
    st.text(st.characters(categories=["Cs", "Cc", "L"])),
    st.binary(),
    st.uuids(),
    st.decimals(),
    st.datetimes(timezones=OFFSETS),
    st.dates(),
    st.times(timezones=OFFSETS),
)
VALUES = st.recursive(
    LEAVES,
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    max_leaves=20,
)


def same(left, right) -> bool:
    """Whether two values are equal and of equal types, NaN being itself."""
    return typed(left) == typed(right)


def typed(value):
    """Return what tells a value from every other, as something that compares by ``==``."""
    if isinstance(value, list | tuple):
        return type(value), [typed(item) for item in value]
    if isinstance(value, dict):
        return {key: typed(item) for key, item in value.items()}
    if isinstance(value, datetime | time):
        return type(value), value.isoformat()
    # repr tells 1 from True, 0.0 from -0.0, and finds NaN equal to itself.
    return type(value), repr(value)


@given(VALUES)
def test_what_is_written_is_read_back_unchanged(value):
    assert same(loads(dumps(value)), value)


@given(VALUES)
def test_kombu_reads_what_we_write(value):
    assert same(kombu_json.loads(dumps(value)), value)


@given(VALUES)
def test_we_read_what_kombu_writes(value):
    assert same(loads(kombu_json.dumps(value).encode()), value)


@pytest.mark.parametrize(
    "value",
    [
        (1, 2),
        {"a": (1, (2,))},
        {2: "int", 1.5: "float", True: "bool", None: "none"},
        float("inf"),
        -float("inf"),
        2**64,
        -(2**63) - 1,
        "\ud800",
        b"\xff\x00",
        b"plain",
        "12345678-1234-4234-8234-123456789abc",
        uuid.UUID("12345678-1234-4234-8234-123456789abc"),
        "null",
        "__type__",
        {"__type__": "x", "other": 1},
        {"__type__": "x", "__value__": 1, "more": 2},
        -0.0,
        5e-324,
        1e16,
    ],
)
def test_kombu_reads_both_writers_alike(value):
    expected = kombu_json.loads(kombu_json.dumps(value))
    assert same(loads(dumps(value)), expected)
    assert same(kombu_json.loads(dumps(value)), expected)


class Colour(enum.Enum):
    RED = "red"


class Level(enum.IntEnum):
    LOW = 1


class Kind(enum.StrEnum):
    A = "a"


class Reduced:
    def __json__(self):
        return {"reduced": [1, datetime(2031, 1, 2, tzinfo=UTC)]}


class Text(str):
    __slots__ = ()


@pytest.mark.parametrize("value", [Reduced(), Text("x"), Level.LOW, Kind.A])
def test_objects_kombu_writes_are_written_as_kombu_writes_them(value):
    assert loads(dumps(value)) == kombu_json.loads(kombu_json.dumps(value))
    assert loads(dumps([value])) == kombu_json.loads(kombu_json.dumps([value]))


def test_an_enum_member_is_written_as_its_value():
    assert loads(dumps([Colour.RED, Level.LOW, Kind.A])) == ["red", 1, "a"]
    assert loads(dumps([Colour.RED, None])) == ["red", None]


@dataclasses.dataclass
class Point:
    x: int
    when: datetime | None = None


class Inner(BaseModel):
    price: Decimal


class Order(BaseModel):
    model_config = ConfigDict(strict=True)
    number: int = Field(alias="orderNumber")
    when: datetime
    lines: list[Inner]
    ratio: float = math.nan


class Link(BaseModel):
    url: HttpUrl
    wait: timedelta
    tags: set[str]
    colour: Colour


def test_a_dataclass_is_written_as_its_fields():
    when = datetime(2031, 1, 2, tzinfo=UTC)
    assert loads(dumps([Point(1), Point(2, when)])) == [
        {"x": 1, "when": None},
        {"x": 2, "when": when},
    ]


def test_a_strict_model_with_aliases_validates_again():
    order = Order(
        orderNumber=2**70, when=datetime(2031, 1, 2, tzinfo=UTC), lines=[Inner(price="1.10")]
    )
    again = Order.model_validate(loads(dumps(order)))
    assert (again.number, again.when, again.lines) == (order.number, order.when, order.lines)
    assert math.isnan(again.ratio)


def test_a_model_with_types_json_lacks_validates_again():
    link = Link(url="http://a.example/", wait=timedelta(seconds=5), tags={"a"}, colour="red")
    assert Link.model_validate(loads(dumps({"link": link}))["link"]) == link


def looped() -> list:
    loop: list = []
    loop.append(loop)
    return loop


def nested(levels: int) -> list:
    value: list = []
    for _ in range(levels - 1):
        value = [value]
    return value


class Rude:
    def __json__(self):
        raise KeyError("rude")


@pytest.mark.parametrize(
    ("value", "message"),
    [
        ([1, {"user": object()}], r"^args\[1\]\['user'\]: object of type object cannot be"),
        ([1, {2, 3}], r"^args\[1\]: object of type set cannot"),
        ([bytearray(b"x")], r"^args\[0\]: object of type bytearray cannot"),
        ([{(1, 2): 3}], r"^args\[0\]: key \(1, 2\) is of type tuple; JSON keys are text"),
        ([Point(object())], r"^args\[0\]\['x'\]: object of type object"),
        ([int], r"^args\[0\]: object of type type"),
        ([Point], r"^args\[0\]: object of type type"),
        ([Rude()], r"^args\[0\]: 'rude'"),
        ([10**5000], r"^args\[0\]: .*4300"),
        ([{"__type__": "uuid", "__value__": 1}], r"^args\[0\]: a dict of exactly the keys"),
        ([None, {"a": {"__type__": 0, "__value__": 1}}], r"^args\[1\]\['a'\]: a dict of exactly"),
        (looped(), "^args: nested deeper than 100 levels"),
        (nested(101), "^args: nested deeper than 100 levels"),
        (nested(100_000), "^args: nested deeper than 100 levels"),
    ],
)
def test_what_cannot_be_written_is_named_with_its_place(value, message):
    with pytest.raises(EncodeError, match=message):
        dumps(value, root="args")


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"", "not JSON"),
        (b"[1, 2", "not JSON"),
        (b'"\xff"', "not UTF-8: invalid start byte at byte 1"),
        (b'"\x00"', "not JSON"),
        (b"\x00", "not JSON"),
        (b"1 2", "not JSON"),
        (b"\xef\xbb\xbf1", "not JSON"),
        (b"9" * 5000, "4300"),
        (b"[" * 10_000 + b"]" * 10_000, "deeper than 100"),
        (b'{"a":' * 10_000 + b"1" + b"}" * 10_000, "deeper than 100"),
        (b"[" * 1_000_000, "deeper than 100"),
        (b'{"__type__": "nothing", "__value__": 1}', "unknown __type__ 'nothing'"),
        (b'{"__type__": ["x"], "__value__": 1}', "unknown __type__"),
        (b'{"__type__": "datetime", "__value__": 5}', "broken datetime: text expected, got int"),
        (b'{"__type__": "datetime", "__value__": "x"}', "broken datetime"),
        (b'{"__type__": "date", "__value__": "2031-13-01"}', "broken date"),
        (b'{"__type__": "time", "__value__": "x"}', "broken time"),
        (b'{"__type__": "decimal", "__value__": "x"}', "broken decimal"),
        (b'{"__type__": "uuid", "__value__": {"int": 5}}', "broken uuid"),
        (b'{"__type__": "uuid", "__value__": {}}', "broken uuid"),
        (b'{"__type__": "uuid", "__value__": {"hex": "x", "version": "y"}}', "broken uuid"),
        (b'{"__type__": "base64", "__value__": "a"}', "broken base64"),
        (b'{"__type__": "bytes", "__value__": "\\ud800"}', "broken bytes"),
        (b'{"__\\u0074ype__": "no", "_\\u005fvalue__": 1}', "unknown __type__"),
    ],
)
def test_what_cannot_be_read_is_refused_with_a_sentence(data, message):
    with pytest.raises(Undecodable, match=message):
        loads(data)


def test_an_escaped_underscore_hides_no_type():
    hidden = b'{"\\u005F\\u005ftype\\u005f\\u005f": "decimal", "\\u005f_value__": "1"}'
    assert loads(hidden) == Decimal(1) == kombu_json.loads(hidden)


def test_white_space_around_is_allowed():
    assert loads(b" \r\n\t[1] \n") == [1]


def test_the_older_uuid_of_kombu_is_read():
    written = {"__type__": "uuid", "__value__": {"hex": uuid.UUID(int=7).hex, "version": None}}
    assert loads(json.dumps(written).encode()) == uuid.UUID(int=7)


@pytest.mark.parametrize("levels", [1, 7, 8, 9, 99, 100])
def test_nesting_up_to_the_bound_is_read(levels):
    assert loads(dumps(nested(levels))) == nested(levels)
    wide = [nested(levels - 1)] * 200 if levels > 1 else []
    assert loads(dumps(wide)) == wide


@given(
    st.recursive(
        st.text('[]{}"\\an\n'),
        lambda inner: st.lists(inner, min_size=1) | st.dictionaries(st.text('[]{}"\\'), inner),
    ),
    st.integers(0, 6),
)
def test_depth_is_counted_exactly(value, limit):
    def depth(item) -> int:
        if isinstance(item, dict):
            item = list(item.values())
        return 1 + max(map(depth, item), default=0) if isinstance(item, list) else 0

    data = json.dumps(value).encode()
    if depth(value) > limit:
        with pytest.raises(Undecodable, match="nests deeper"):
            loads(data, max_depth=limit)
    else:
        assert loads(data, max_depth=limit) == value
