"""What fits into AMQP's content header frame: sizes, values a field table keeps, and cuts.

A frame larger than ``frame_max`` closes the connection for everybody on it (tried), so nothing
leaves without having been measured here.
"""

from __future__ import annotations

import struct
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, Final

from amqflow.errors import EncodeError
from amqflow.protocol.headers import EXCEPTION_MESSAGE, TRACEBACK

if TYPE_CHECKING:
    from collections.abc import Mapping

#: RabbitMQ's default, and what clients ask for.
FRAME_MAX: Final = 131_072
#: Left free for what a republish adds.
SPARE: Final = 1024
#: Frame header and end, class, weight, body size, flags, and the properties around the table:
#: each of the texts is at most 255 bytes, in practice a tenth.
_AROUND: Final = 64
_NUMBER: Final = 9
_LENGTH: Final = 5
#: A field's name is a short string; pamqp cuts longer ones.
LONGEST_NAME: Final = 128

_LARGEST_INT: Final = 2**63 - 1
_SMALLEST_INT: Final = -(2**63)
#: Seconds from here on pamqp reads as milliseconds (the year 2106).
_MOMENTS: Final = 2**32

#: What people read and nothing depends on, in the order it goes.
_CUT_FIRST: Final = (TRACEBACK, "argsrepr", "kwargsrepr", EXCEPTION_MESSAGE)
_CUT_MARK: Final = "…"


def table_size(table: Mapping[str, Any]) -> int:
    """Return how many bytes a field table takes at most (AMQP 0-9-1, 4.2.5.5)."""
    return 4 + sum(1 + _text_size(name) + value_size(value) for name, value in table.items())


def value_size(value: Any) -> int:
    """Return how many bytes one value takes at most, its type included."""
    if isinstance(value, str):
        return _LENGTH + _text_size(value)
    if isinstance(value, dict):
        return 1 + table_size(value)
    if isinstance(value, (list, tuple)):
        return _LENGTH + sum(map(value_size, value))
    if isinstance(value, (bytes, bytearray)):
        return _LENGTH + len(value)
    return _NUMBER


def _text_size(text: str) -> int:
    return len(text) if text.isascii() else len(text.encode("utf-8", "surrogatepass"))


def frame_room(frame_max: int, *, properties: int = 0, most: int = FRAME_MAX) -> int:
    """Return the bytes a message's header table may take.

    Args:
        frame_max: What the connection agreed on; 0 means no limit.
        properties: Bytes of the other properties' texts.
        most: A bound of one's own for the whole frame.
    """
    frame = min(frame_max - SPARE, most) if frame_max else most
    return frame - _AROUND - properties


def travels_as_header(name: str, value: Any) -> bool:
    """Whether a field table gives ``value`` back unchanged.

    It does not for doubles (pamqp sends single precision), fractions of a second, integers over
    64 bits, lone surrogates and every type AMQP lacks.
    """
    return _is_name(name) and _is_exact(value)


def _is_name(name: Any) -> bool:
    return isinstance(name, str) and _is_text(name) and _text_size(name) <= LONGEST_NAME


def _is_text(text: str) -> bool:
    if text.isascii():
        return True
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def _is_exact(value: Any) -> bool:  # noqa: PLR0911 - one line a type
    if value is None or isinstance(value, bool):
        return True
    if isinstance(value, str):
        return _is_text(value)
    if isinstance(value, int):
        return _SMALLEST_INT <= value <= _LARGEST_INT
    if isinstance(value, float):
        return _is_single(value)
    if isinstance(value, datetime):
        return value.tzinfo is UTC and not value.microsecond and 0 <= value.timestamp() < _MOMENTS
    if isinstance(value, bytearray):
        return True
    if type(value) is dict:
        return all(_is_name(name) and _is_exact(item) for name, item in value.items())
    return type(value) is list and all(map(_is_exact, value))


def _is_single(value: float) -> bool:
    try:
        return bool(struct.unpack("f", struct.pack("f", value))[0] == value)
    except OverflowError:
        return False


def fit_headers(headers: dict[str, Any], room: int) -> dict[str, Any]:
    """Shorten what only people read until ``headers`` take at most ``room`` bytes.

    Returns the very dict if it fits, else a copy. It may still be too large: what programs
    depend on is never touched.
    """
    over = table_size(headers) - room
    if over <= 0:
        return headers
    fitted = dict(headers)
    for name in _CUT_FIRST:
        text = fitted.get(name)
        if over <= 0:
            break
        if isinstance(text, str):
            before = value_size(text)
            shorter = shortened(text, _text_size(text) - over, tail=name == TRACEBACK)
            if shorter == _CUT_MARK:
                del fitted[name]
                over -= before + 1 + len(name)
            else:
                fitted[name] = shorter
                over -= before - value_size(shorter)
    return fitted


def shortened(text: str, most: int, *, tail: bool = False) -> str:
    """Return ``text`` in at most ``most`` bytes of UTF-8, its beginning or its end, marked.

    The mark itself always remains.
    """
    data = text.encode("utf-8", "replace")
    if len(data) <= most:
        return data.decode("utf-8")
    keep = max(0, most - len(_CUT_MARK.encode()))
    if tail:
        return _CUT_MARK + data[len(data) - keep :].decode("utf-8", "ignore")
    return data[:keep].decode("utf-8", "ignore") + _CUT_MARK


def refuse_unsendable(name: str, value: str | None) -> None:
    """Raise EncodeError if ``value`` does not fit a short string of the properties."""
    if value is not None and (not _is_text(value) or _text_size(value) > 255):  # noqa: PLR2004
        raise EncodeError(f"{name} must be text of at most 255 bytes, got {value!r:.80}")
