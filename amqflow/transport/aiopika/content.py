"""Content headers to bytes and back, fast for what tasks carry; pamqp does all the rest.

A task's headers are texts, small integers, booleans, nothing, and tables and lists of these (a
chord's member, ``x-death``). Walking those here costs a third of pamqp's general way; a table with
anything else is handed to pamqp whole, so that the values are pamqp's in every case.
"""

from __future__ import annotations

from datetime import UTC, datetime
from struct import Struct
from struct import error as StructError  # noqa: N812 - an exception's name
from typing import TYPE_CHECKING, Any, Final, cast

import pamqp.frame
from pamqp import commands
from pamqp.header import ContentHeader

from amqflow.errors import EncodeError, MessageTooLarge
from amqflow.logs import get_logger
from amqflow.protocol import Envelope

if TYPE_CHECKING:
    from collections.abc import Mapping

log = get_logger("amqflow.transport")

_FRAME: Final = Struct(">BHL")
_HEADER: Final = Struct(">HHQH")
_LONG: Final = Struct(">L")
_INT: Final = Struct(">i")
_LONGLONG: Final = Struct(">q")
_STAMP: Final = Struct(">Q")

FRAME_END: Final = b"\xce"
_FRAME_HEADER: Final = 2
_FRAME_BODY: Final = 3
_BASIC: Final = 60

# Property flags (AMQP 0-9-1, 4.2.6.1), the first property in the highest bit.
_CONTENT_TYPE: Final = 1 << 15
_CONTENT_ENCODING: Final = 1 << 14
_HEADERS: Final = 1 << 13
_DELIVERY_MODE: Final = 1 << 12
_PRIORITY: Final = 1 << 11
_CORRELATION_ID: Final = 1 << 10
_REPLY_TO: Final = 1 << 9
_EXPIRATION: Final = 1 << 8
_MESSAGE_ID: Final = 1 << 7
_TIMESTAMP: Final = 1 << 6
_TYPE: Final = 1 << 5
_USER_ID: Final = 1 << 4
_APP_ID: Final = 1 << 3
_RARE: Final = 0b111  # cluster-id, and the bit that announces more flags

#: Bytes of a header's name (AMQP 0-9-1, 4.2.5.5); pamqp cuts longer ones off without a word.
_NAME_MAX: Final = 128
_INT_MIN, _INT_MAX = -(2**31), 2**31 - 1
#: Tables within tables that are walked here; pamqp says what is wrong with deeper ones.
_DEEPEST: Final = 8
#: From here on pamqp takes a timestamp for milliseconds.
_MILLISECONDS: Final = 2**32


class _Unusual(Exception):
    """A table holds a type this module leaves to pamqp."""


# -- reading -------------------------------------------------------------------------------


def read_header(frame: bytes) -> tuple[int, Envelope]:
    """Return the body's size and the properties of a whole content header frame.

    The envelope's body is still empty. Properties that cannot be read (a text that is no UTF-8,
    a date beyond the year 9999) are left out, all of them: the message must reach somebody who
    can park it, and an error here would cost the connection, and the next one, for ever.
    """
    try:
        return _read_header(frame)
    except (_Unusual, StructError, IndexError, UnicodeDecodeError, OverflowError, ValueError):
        pass
    try:
        _, _, header = pamqp.frame.unmarshal(frame)
        return _translated(cast("ContentHeader", header))
    except Exception as error:  # noqa: BLE001 - whatever bytes make pamqp raise
        log.warning("the properties of a message cannot be read", error=str(error))
        return _HEADER.unpack_from(frame, 7)[2], Envelope(b"", {}, None, None)


def _read_header(frame: bytes) -> tuple[int, Envelope]:  # noqa: C901, PLR0912 - a list of fields
    _, _, size, flags = _HEADER.unpack_from(frame, 7)
    if flags & _RARE:
        raise _Unusual
    at = 7 + _HEADER.size
    envelope = Envelope(b"", {}, None, None, 1)
    if flags & _CONTENT_TYPE:
        envelope.content_type, at = _short(frame, at)
    if flags & _CONTENT_ENCODING:
        envelope.content_encoding, at = _short(frame, at)
    if flags & _HEADERS:
        envelope.headers, at = _table(frame, at)
    if flags & _DELIVERY_MODE:
        envelope.delivery_mode = frame[at]
        at += 1
    if flags & _PRIORITY:
        envelope.priority = frame[at]
        at += 1
    if flags & _CORRELATION_ID:
        envelope.correlation_id, at = _short(frame, at)
    if flags & _REPLY_TO:
        envelope.reply_to, at = _short(frame, at)
    if flags & _EXPIRATION:
        envelope.expiration, at = _short(frame, at)
    if flags & _MESSAGE_ID:
        envelope.message_id, at = _short(frame, at)
    if flags & _TIMESTAMP:
        envelope.timestamp = datetime.fromtimestamp(_STAMP.unpack_from(frame, at)[0], UTC)
        at += 8
    if flags & _TYPE:
        envelope.type, at = _short(frame, at)
    if flags & _USER_ID:
        envelope.user_id, at = _short(frame, at)
    if flags & _APP_ID:
        envelope.app_id, at = _short(frame, at)
    return size, envelope


def _short(frame: bytes, at: int) -> tuple[str, int]:
    end = at + 1 + frame[at]
    return frame[at + 1 : end].decode(), end


def _table(frame: bytes, at: int, depth: int = _DEEPEST) -> tuple[dict[str, Any], int]:
    end = at + 4 + _LONG.unpack_from(frame, at)[0]
    at += 4
    table: dict[str, Any] = {}
    while at < end:
        stop = at + 1 + frame[at]
        name = frame[at + 1 : stop].decode()
        if frame[stop] == 83:  # noqa: PLR2004 - "S", a long string: most are
            at = stop + 5 + _LONG.unpack_from(frame, stop + 1)[0]
            table[name] = frame[stop + 5 : at].decode()
        else:
            table[name], at = _value(frame, stop, depth)
    if at != end:
        raise _Unusual
    return table, end


def _array(frame: bytes, at: int, depth: int) -> tuple[list[Any], int]:
    end = at + 4 + _LONG.unpack_from(frame, at)[0]
    at += 4
    array: list[Any] = []
    while at < end:
        value, at = _value(frame, at, depth)
        array.append(value)
    if at != end:
        raise _Unusual
    return array, end


def _value(frame: bytes, at: int, depth: int) -> tuple[Any, int]:  # noqa: C901, PLR0911 - one a type
    kind = frame[at]
    at += 1
    match kind:
        case 83:  # "S"
            stop = at + 4 + _LONG.unpack_from(frame, at)[0]
            return frame[at + 4 : stop].decode(), stop
        case 86:  # "V", nothing
            return None, at
        case 73:  # "I"
            return _INT.unpack_from(frame, at)[0], at + 4
        case 116:  # "t"
            return frame[at] != 0, at + 1
        case 70 if depth:  # "F"
            return _table(frame, at, depth - 1)
        case 65 if depth:  # "A"
            return _array(frame, at, depth - 1)
        case 108:  # "l"
            return _LONGLONG.unpack_from(frame, at)[0], at + 8
        case 98:  # "b"
            return (frame[at] - 256 if frame[at] > 127 else frame[at]), at + 1  # noqa: PLR2004
        case 84:  # "T"
            seconds = _STAMP.unpack_from(frame, at)[0]
            if seconds < _MILLISECONDS:
                return datetime.fromtimestamp(seconds, UTC), at + 8
    raise _Unusual


def _translated(header: ContentHeader) -> tuple[int, Envelope]:
    """Return pamqp's reading as an envelope."""
    properties = header.properties
    return header.body_size, Envelope(
        body=b"",
        headers=cast("dict[str, Any]", properties.headers or {}),
        content_type=properties.content_type,
        content_encoding=properties.content_encoding,
        delivery_mode=properties.delivery_mode or 1,
        priority=properties.priority,
        correlation_id=properties.correlation_id,
        reply_to=properties.reply_to,
        expiration=properties.expiration,
        message_id=properties.message_id,
        timestamp=properties.timestamp,
        type=properties.message_type,
        user_id=properties.user_id,
        app_id=properties.app_id,
    )


# -- writing -------------------------------------------------------------------------------


def write_content(envelope: Envelope, channel: int, body_max: int) -> bytes:
    """Return the header frame and the body frames of a message.

    Args:
        envelope: the message.
        channel: the channel's number.
        body_max: bytes of one frame's payload, ``frame_max`` less 8.

    Raises:
        EncodeError: a header or property is of a type, or a length, that AMQP has not.
        MessageTooLarge: the properties do not fit a frame.
    """
    try:
        payload = _write_header(envelope)
        parts = [_FRAME.pack(_FRAME_HEADER, channel, len(payload)), payload, FRAME_END]
    except (_Unusual, StructError, ValueError):
        payload = _marshalled(envelope, channel)
        parts = [payload]
    if len(payload) > body_max:
        # A larger frame closes the connection under everybody's messages (tried on 3.10.8).
        message = (
            f"the message's properties take {len(payload)} bytes: the broker takes {body_max} in "
            "a frame"
        )
        raise MessageTooLarge(message)
    body = envelope.body
    if len(body) <= body_max:
        if body:
            parts += (_FRAME.pack(_FRAME_BODY, channel, len(body)), body, FRAME_END)
    else:
        for start in range(0, len(body), body_max):
            chunk = body[start : start + body_max]
            parts += (_FRAME.pack(_FRAME_BODY, channel, len(chunk)), chunk, FRAME_END)
    return b"".join(parts)


def _marshalled(envelope: Envelope, channel: int) -> bytes:
    for name in envelope.headers:
        if len(name.encode()) > _NAME_MAX:
            message = f"the header name {name[:40]!r}… is longer than {_NAME_MAX} bytes"
            raise EncodeError(message)
    header = ContentHeader(body_size=len(envelope.body), properties=_properties(envelope))
    try:
        return pamqp.frame.marshal(header, channel)
    except (TypeError, ValueError, OverflowError, StructError) as error:
        message = f"the message's properties cannot be written as AMQP: {error}"
        raise EncodeError(message) from error


def _write_header(envelope: Envelope) -> bytes:  # noqa: C901 - a list of fields
    flags = _DELIVERY_MODE
    parts: list[bytes] = [b""]
    if envelope.content_type:
        flags |= _CONTENT_TYPE
        parts.append(_short_text(envelope.content_type))
    if envelope.content_encoding:
        flags |= _CONTENT_ENCODING
        parts.append(_short_text(envelope.content_encoding))
    if envelope.headers:
        flags |= _HEADERS
        parts.append(_table_bytes(envelope.headers))
    parts.append(bytes((envelope.delivery_mode,)))
    if envelope.priority is not None:
        flags |= _PRIORITY
        parts.append(bytes((envelope.priority,)))
    if envelope.correlation_id:
        flags |= _CORRELATION_ID
        parts.append(_short_text(envelope.correlation_id))
    if envelope.reply_to:
        flags |= _REPLY_TO
        parts.append(_short_text(envelope.reply_to))
    if envelope.expiration:
        flags |= _EXPIRATION
        parts.append(_short_text(envelope.expiration))
    if envelope.message_id:
        flags |= _MESSAGE_ID
        parts.append(_short_text(envelope.message_id))
    if envelope.timestamp is not None:
        flags |= _TIMESTAMP
        parts.append(_STAMP.pack(int(envelope.timestamp.timestamp())))
    if envelope.type or envelope.user_id or envelope.app_id:
        raise _Unusual
    parts[0] = _HEADER.pack(_BASIC, 0, len(envelope.body), flags)
    return b"".join(parts)


def _short_text(text: str) -> bytes:
    data = text.encode()
    return bytes((len(data),)) + data  # ValueError above 255 bytes: pamqp says it better


def _table_bytes(table: Mapping[str, Any], depth: int = _DEEPEST) -> bytes:
    parts: list[bytes] = [b""]
    for name, value in table.items():
        key = name.encode()
        parts.append(bytes((len(key),)) + key)
        if type(value) is str:
            data = value.encode()
            parts.append(b"S" + _LONG.pack(len(data)) + data)
        else:
            parts.append(_value_bytes(value, depth))
    body = b"".join(parts)
    return _LONG.pack(len(body)) + body


def _value_bytes(value: Any, depth: int) -> bytes:
    kind = type(value)
    if value is None:
        return b"V"
    if kind is bool:
        return b"t\x01" if value else b"t\x00"
    if kind is int and _INT_MIN <= value <= _INT_MAX:
        return b"I" + _INT.pack(value)
    if kind is str:
        data: bytes = value.encode()
        return b"S" + _LONG.pack(len(data)) + data
    if kind is dict and depth:
        return b"F" + _table_bytes(value, depth - 1)
    if kind is list and depth:
        body = b"".join(_value_bytes(one, depth - 1) for one in value)
        return b"A" + _LONG.pack(len(body)) + body
    raise _Unusual


def _properties(envelope: Envelope) -> commands.Basic.Properties:
    return commands.Basic.Properties(
        content_type=envelope.content_type,
        content_encoding=envelope.content_encoding,
        headers=envelope.headers,
        delivery_mode=envelope.delivery_mode,
        priority=envelope.priority,
        correlation_id=envelope.correlation_id,
        reply_to=envelope.reply_to,
        expiration=envelope.expiration,
        message_id=envelope.message_id,
        timestamp=envelope.timestamp,
        message_type=envelope.type,
        user_id=envelope.user_id,
        app_id=envelope.app_id,
    )
