"""Field tables with their types: what a client declared is compared, and sent on, as it was.

pamqp's decoder gives plain values. A broker must keep the types: RabbitMQ's texts name them, and
a header that came as a 64-bit float leaves as one. Types and letters: RabbitMQ's AMQP errata.
"""

from __future__ import annotations

import struct
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, Final, NamedTuple, TypeAlias

if TYPE_CHECKING:
    from collections.abc import Callable


class Field(NamedTuple):
    """A value with its type, as RabbitMQ names types: ``Field("signedint", 5)``.

    The value of a ``table`` is a dict of fields, of an ``array`` a list of fields, of a
    ``timestamp`` Unix seconds, of a ``decimal`` a pair of scale and integer.
    """

    type: str
    value: Any


Table: TypeAlias = dict[str, Field]


class MalformedTable(ValueError):
    """Octets that are no field table: cut short, nested too deep, or of an unknown type."""


#: Tables in tables deeper than this are refused: RabbitMQ's bound is its memory, ours the stack.
MAX_DEPTH: Final = 64

_FIXED: Final = {
    0x62: ("byte", struct.Struct(">b")),
    0x42: ("unsignedbyte", struct.Struct(">B")),
    0x73: ("short", struct.Struct(">h")),
    0x75: ("unsignedshort", struct.Struct(">H")),
    0x49: ("signedint", struct.Struct(">i")),
    0x69: ("unsignedint", struct.Struct(">I")),
    0x6C: ("long", struct.Struct(">q")),
    0x4C: ("long", struct.Struct(">q")),
    0x66: ("float", struct.Struct(">f")),
    0x64: ("double", struct.Struct(">d")),
    0x54: ("timestamp", struct.Struct(">Q")),
}
#: Types whose value says its own length.
_SIZED: Final = {0x53: "longstr", 0x46: "table", 0x41: "array", 0x78: "binary"}
_DECIMAL: Final = struct.Struct(">Bi")
#: Types of a fixed size that are no plain number.
_SMALL: Final[dict[int, Callable[[bytes], tuple[str, Any]]]] = {
    0x74: lambda raw: ("bool", raw != b"\x00"),
    0x44: lambda raw: ("decimal", _DECIMAL.unpack(raw)),
    0x56: lambda _: ("void", None),
    0x00: lambda _: ("void", None),
}
_SIZES: Final = {
    **{letter: codec.size for letter, (_, codec) in _FIXED.items()},
    0x74: 1,
    0x44: _DECIMAL.size,
    0x56: 0,
    0x00: 0,
}
_LETTERS: Final = {name: (bytes([letter]), codec) for letter, (name, codec) in _FIXED.items()}
_LETTERS["long"] = (b"l", struct.Struct(">q"))
_LONG: Final = struct.Struct(">I")

#: The types an argument that counts something may have.
INTEGERS: Final = frozenset(
    {
        "byte",
        "unsignedbyte",
        "short",
        "unsignedshort",
        "signedint",
        "unsignedint",
        "long",
    }
)


def text(raw: bytes) -> str:
    """Return bytes as a string that encodes back to the same bytes, whatever they are."""
    return raw.decode(errors="surrogateescape")


def octets(value: str) -> bytes:
    """Return the bytes of a string made by :func:`text`."""
    return value.encode(errors="surrogateescape")


# -- reading -------------------------------------------------------------------------------


def decode(raw: bytes, depth: int = 0) -> Table:
    """Return the fields of a table's content (without its length).

    Raises:
        MalformedTable: it is cut short, nested too deep, or holds an unknown type.
    """
    if depth > MAX_DEPTH:
        raise MalformedTable("tables nested too deep")
    fields: Table = {}
    at, end = 0, len(raw)
    while at < end:
        name, at = _name(raw, at)
        value, at = _value(raw, at, depth)
        fields.setdefault(text(name), value)
    return fields


def split(raw: bytes) -> list[tuple[bytes, bytes]]:
    """Return each field of a table's content as its name and its own bytes, name included.

    Raises:
        MalformedTable: as :func:`decode`.
    """
    items = []
    at, end = 0, len(raw)
    while at < end:
        begin = at
        name, at = _name(raw, at)
        at = _skip(raw, at)
        items.append((name, raw[begin:at]))
    return items


def _name(raw: bytes, at: int) -> tuple[bytes, int]:
    stop = at + 1 + raw[at]
    if stop >= len(raw):
        raise MalformedTable("a field is cut short")
    return raw[at + 1 : stop], stop


def _sized(raw: bytes, at: int) -> tuple[int, int]:
    """Return where a value with a four-octet length begins and stops."""
    begin = at + 4
    if begin > len(raw):
        raise MalformedTable("a field is cut short")
    stop = begin + int(_LONG.unpack_from(raw, at)[0])
    if stop > len(raw):
        raise MalformedTable("a field is cut short")
    return begin, stop


def _skip(raw: bytes, at: int) -> int:
    """Return where the value whose type letter is at ``at`` ends."""
    letter = raw[at]
    size = _SIZES.get(letter)
    if size is not None:
        stop = at + 1 + size
    elif letter in _SIZED:
        stop = _sized(raw, at + 1)[1]
    else:
        raise MalformedTable(f"unknown field type {letter}")
    if stop > len(raw):
        raise MalformedTable("a field is cut short")
    return stop


def _value(raw: bytes, at: int, depth: int) -> tuple[Field, int]:
    stop = _skip(raw, at)
    letter = raw[at]
    fixed = _FIXED.get(letter)
    if fixed is not None:
        return Field(fixed[0], fixed[1].unpack_from(raw, at + 1)[0]), stop
    if letter not in _SIZED:
        return Field(*_SMALL[letter](raw[at + 1 : stop])), stop
    content = raw[at + 5 : stop]
    kind = _SIZED[letter]
    value: Any = content
    if kind == "longstr":
        value = text(content)
    elif kind == "table":
        value = decode(content, depth + 1)
    elif kind == "array":
        value = _array(content, depth + 1)
    return Field(kind, value), stop


def _array(raw: bytes, depth: int) -> list[Field]:
    if depth > MAX_DEPTH:
        raise MalformedTable("tables nested too deep")
    items = []
    at = 0
    while at < len(raw):
        item, at = _value(raw, at, depth)
        items.append(item)
    return items


# -- writing -------------------------------------------------------------------------------


def encode(fields: Table) -> bytes:
    """Return the content of a table, without its length."""
    return b"".join(encode_item(name, field) for name, field in fields.items())


def encode_item(name: str, field: Field) -> bytes:
    """Return one field with its name, as it stands in a table."""
    raw = octets(name)
    return bytes([len(raw)]) + raw + _encode_value(field)


def _encode_value(field: Field) -> bytes:
    kind, value = field
    number = _LETTERS.get(kind)
    if number is not None:
        return number[0] + number[1].pack(value)
    return _WRITERS[kind](value)


def _long_string(raw: bytes) -> bytes:
    return _LONG.pack(len(raw)) + raw


_WRITERS: Final[dict[str, Callable[[Any], bytes]]] = {
    "longstr": lambda value: b"S" + _long_string(octets(value)),
    "bool": lambda value: b"t\x01" if value else b"t\x00",
    "table": lambda value: b"F" + _long_string(encode(value)),
    "array": lambda value: b"A" + _long_string(b"".join(map(_encode_value, value))),
    "binary": lambda value: b"x" + _long_string(value),
    "decimal": lambda value: b"D" + _DECIMAL.pack(*value),
    "void": lambda _: b"V",
}


# -- as other things see them ----------------------------------------------------------------


def plain(field: Field) -> Any:
    """Return a field's value as JSON has it."""
    kind, value = field
    if kind == "table":
        return {name: plain(inner) for name, inner in value.items()}
    if kind == "array":
        return [plain(item) for item in value]
    if kind == "binary":
        return text(value)
    if kind == "decimal":
        return value[1] / 10 ** value[0]
    if kind == "timestamp":
        return _moment(value)
    return value


def _moment(seconds: int) -> Any:
    try:
        return datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%d %H:%M:%S")
    except (OverflowError, ValueError, OSError):
        return seconds  # no year has it: a client may send any 64 bits


def typed(value: Any) -> Field:
    """Return a JSON value as a field, with the types RabbitMQ's HTTP API gives it.

    Raises:
        ValueError: no JSON value.
    """
    if isinstance(value, dict):
        return Field("table", {name: typed(inner) for name, inner in value.items()})
    if isinstance(value, list):
        return Field("array", [typed(item) for item in value])
    kind = _JSON.get(type(value))
    if kind is None:
        raise ValueError(f"{type(value).__name__} is no field value")
    return Field(kind, value)


_JSON: Final[dict[type, str]] = {
    bool: "bool",
    int: "long",
    float: "double",
    str: "longstr",
    type(None): "void",
}


def frozen(fields: Table) -> tuple[Any, ...]:
    """Return a table as a value that can be hashed and compared, the order of names aside."""
    return tuple(sorted((name, _frozen(field)) for name, field in fields.items()))


def _frozen(field: Field) -> tuple[str, Any]:
    kind, value = field
    if kind == "table":
        return kind, frozen(value)
    if kind == "array":
        return kind, tuple(_frozen(item) for item in value)
    return kind, value
