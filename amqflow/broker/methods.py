"""Methods between bytes and pamqp's frame classes, strictly, tables kept with their types.

pamqp knows every method, its ids, its arguments and their types; this reads and writes them so
that nothing a client sends is guessed at (pamqp's own decoder takes a short string that is cut
short) and nothing a client may name is refused (its encoder checks names more narrowly than
RabbitMQ does).
"""

from __future__ import annotations

import struct
from typing import TYPE_CHECKING, Any, Final, TypeAlias

from pamqp import commands, constants

from amqflow.broker import access, tables

if TYPE_CHECKING:
    from collections.abc import Callable

    from pamqp.base import Frame

#: A method by :func:`decode`. Its attributes are named as in pamqp's class, but tables hold fields
#: and long strings bytes, which pamqp's annotations do not know.
Method: TypeAlias = Any

END: Final = bytes([constants.FRAME_END])
HEADER: Final = struct.Struct(">BHI")

_OCTET: Final = struct.Struct(">B")
_SHORT: Final = struct.Struct(">H")
_LONG: Final = struct.Struct(">I")
_LONGLONG: Final = struct.Struct(">Q")
_FIXED: Final = {"octet": _OCTET, "short": _SHORT, "long": _LONG, "longlong": _LONGLONG}
_FIXED["timestamp"] = _LONGLONG
_EMPTY: Final[dict[str, Any]] = {"bit": False, "shortstr": "", "longstr": b"", "table": {}}

_Plan: TypeAlias = tuple[tuple[str, str], ...]
_KINDS: Final[dict[int, type[Frame]]] = {
    **commands.INDEX_MAPPING,
    **{kind.index: kind for kind in (access.Request, access.RequestOk)},
}
_PLANS: Final[dict[int, tuple[type[Frame], _Plan]]] = {
    index: (kind, tuple((name, kind.amqp_type(name)) for name in kind.attributes()))
    for index, kind in _KINDS.items()
}
_BITS: Final = 8
_Reader: TypeAlias = "Callable[[bytes], Any]"


class UnknownMethod(ValueError):
    """A method frame names a class and method that AMQP 0-9-1 does not have."""


class MalformedString(ValueError):
    """A short string among a method's arguments is not UTF-8."""


class MalformedMethod(ValueError):
    """A method's arguments do not fill its frame; ``index`` says which method it is."""

    def __init__(self, index: int) -> None:
        """Name the method."""
        super().__init__("a method is cut short, or too long")
        self.index = index


def decode(payload: bytes) -> Method:
    """Return the method of a method frame's payload, which has four octets at least.

    Strings are made by :func:`~amqflow.broker.tables.text`, long strings are bytes, tables are
    dicts of fields.

    Raises:
        UnknownMethod: there is no such method.
        MalformedMethod: the arguments are cut short, octets are left over, or a table is none.
        MalformedString: a short string is not UTF-8.
    """
    index = int(_LONG.unpack_from(payload)[0])
    found = _PLANS.get(index)
    if found is None:
        raise UnknownMethod(f"{index >> 16}.{index & 0xFFFF}")
    kind, plan = found
    method = kind.__new__(kind)
    at, octet, bit = _LONG.size, 0, _BITS
    try:
        for name, data_type in plan:
            if data_type == "bit":
                if bit == _BITS:
                    octet, bit = payload[at], 0
                    at += 1
                setattr(method, name, bool(octet >> bit & 1))
                bit += 1
                continue
            bit = _BITS
            value, at = _argument(payload, at, data_type)
            setattr(method, name, value)
    except (IndexError, struct.error, tables.MalformedTable) as error:
        raise MalformedMethod(index) from error
    if at != len(payload):
        raise MalformedMethod(index)
    return method


def _argument(payload: bytes, at: int, data_type: str) -> tuple[Any, int]:
    fixed = _FIXED.get(data_type)
    if fixed is not None:
        return fixed.unpack_from(payload, at)[0], at + fixed.size
    if data_type == "shortstr":
        begin = at + 1
        stop = begin + payload[at]
    else:
        begin = at + _LONG.size
        stop = begin + _LONG.unpack_from(payload, at)[0]
    if stop > len(payload):
        raise IndexError
    return _READ[data_type](payload[begin:stop]), stop


def _short_string(raw: bytes) -> str:
    try:
        return raw.decode()
    except UnicodeDecodeError as error:
        raise MalformedString(str(error)) from error


_READ: Final[dict[str, _Reader]] = {
    "shortstr": _short_string,
    "longstr": bytes,
    "table": tables.decode,
}


def make(kind: type[Frame], **values: Any) -> Any:
    """Return a method with these arguments, the others zero or empty, unchecked."""
    method = kind.__new__(kind)
    for name in kind.attributes():
        setattr(method, name, values.get(name, _EMPTY.get(kind.amqp_type(name), 0)))
    return method


def encode(channel: int, kind: type[Frame], **values: Any) -> bytes:
    """Return the frame of a method; arguments that are not given are zero or empty."""
    parts = [_LONG.pack(kind.index)]
    octet, bit = 0, 0
    for name, data_type in _PLANS[kind.index][1]:
        value = values.get(name)
        if data_type == "bit":
            octet |= bool(value) << bit
            bit += 1
            continue
        if bit:
            parts.append(_OCTET.pack(octet))
            octet, bit = 0, 0
        parts.append(_encoded(value, data_type))
    if bit:
        parts.append(_OCTET.pack(octet))
    return frame(constants.FRAME_METHOD, channel, b"".join(parts))


def _encoded(value: Any, data_type: str) -> bytes:
    fixed = _FIXED.get(data_type)
    if fixed is not None:
        return fixed.pack(value or 0)
    if data_type == "shortstr":
        return short_string(value or "")
    raw = tables.encode(value or {}) if data_type == "table" else value or b""
    if isinstance(raw, str):
        raw = tables.octets(raw)
    return _LONG.pack(len(raw)) + raw


def short_string(value: str) -> bytes:
    """Return a short string with its length."""
    raw = tables.octets(value)
    return _OCTET.pack(len(raw)) + raw


def frame(kind: int, channel: int, payload: bytes) -> bytes:
    """Return a frame of any type."""
    return HEADER.pack(kind, channel, len(payload)) + payload + END
