"""The headers of a task message and what each may hold: a table, with a reader a shape."""

from __future__ import annotations

from datetime import UTC, datetime
from math import isfinite
from typing import TYPE_CHECKING, Any, Final

from amqflow.clock import LONGEST_LIMIT, to_seconds
from amqflow.errors import Undecodable
from amqflow.protocol.headers import (
    CHORD,
    COMPRESSION,
    EPOCH,
    ERRBACK,
    EXCHANGE,
    ONCE,
    REDELIVERED,
    ROUTING_KEY,
)

if TYPE_CHECKING:
    from collections.abc import Callable

_LONGEST_ID: Final = 255
_COUNT_END: Final = 2**31


def _wrong(name: str, expected: str, value: Any) -> Undecodable:
    return Undecodable(f"header {name!r} must be {expected}, got {value!r:.80}")


def read_text(name: str, value: Any) -> str:
    """Return a text."""
    if type(value) is str:
        return value
    raise _wrong(name, "text", value)


def read_id(name: str, value: Any) -> str:
    """Return an id: text that fits AMQP's ``message-id``."""
    if type(value) is str and value and len(value.encode("utf-8", "replace")) <= _LONGEST_ID:
        return value
    raise _wrong(name, f"text of 1 to {_LONGEST_ID} bytes", value)


def read_name(name: str, value: Any) -> str:
    """Return a text that is not empty."""
    if type(value) is str and value:
        return value
    raise _wrong(name, "text that is not empty", value)


def read_count(name: str, value: Any) -> int:
    """Return a whole number from 0 to 2**31 - 1: stores compare them as doubles."""
    if type(value) is int and 0 <= value < _COUNT_END:
        return value
    raise _wrong(name, "a whole number from 0 to 2147483647", value)


def read_flag(name: str, value: Any) -> bool:
    """Return a bool."""
    if type(value) is bool:
        return value
    raise _wrong(name, "true or false", value)


def read_mapping(name: str, value: Any) -> dict[str, Any]:
    """Return a dict."""
    if isinstance(value, dict):
        return value
    raise _wrong(name, "a table", value)


def read_names(name: str, value: Any) -> list[str]:
    """Return a list of texts."""
    if isinstance(value, list) and all(type(item) is str for item in value):
        return value
    raise _wrong(name, "a list of texts", value)


def read_moment(name: str, value: Any) -> float:
    """Return the Unix seconds of an ISO 8601 text; one without an offset is read as UTC."""
    if isinstance(value, str):
        try:
            return to_seconds(datetime.fromisoformat(value))
        except (ValueError, OverflowError):
            raise _wrong(name, "a time in ISO 8601", value) from None
    if isinstance(value, datetime):
        return to_seconds(value)
    raise _wrong(name, "a time in ISO 8601", value)


def read_limits(name: str, value: Any) -> tuple[float | None, float | None]:
    """Return (hard, soft) seconds; either may be missing."""
    if isinstance(value, (list, tuple)) and len(value) == 2:  # noqa: PLR2004 - hard and soft
        hard, soft = value
        return _seconds(name, hard, value), _seconds(name, soft, value)
    raise _wrong(name, "[hard, soft] in seconds", value)


def _seconds(name: str, limit: Any, value: Any) -> float | None:
    if limit is None:
        return None
    if isinstance(limit, (int, float)) and not isinstance(limit, bool):
        # pamqp sends single precision: 10.1 arrives as 10.100000381.
        seconds = limit if isinstance(limit, int) else round(limit, 3)
        if seconds >= 0 and isfinite(seconds):
            # A foreign client's for ever is a year: what is far beyond it fits into no timer.
            return min(seconds, LONGEST_LIMIT)
    raise _wrong(name, "[hard, soft] in seconds", value)


#: Headers with a field of the same name in TaskMessage. ``timelimit`` has two, see the wire.
FIELDS: Final[dict[str, Callable[[str, Any], Any]]] = {
    "id": read_id,
    "task": read_name,
    "root_id": read_text,
    "parent_id": read_text,
    "group": read_text,
    "group_index": read_count,
    "retries": read_count,
    "eta": read_moment,
    "expires": read_moment,
    "origin": read_text,
    "ignore_result": read_flag,
    "argsrepr": read_text,
    "kwargsrepr": read_text,
    "stamps": read_mapping,
    "stamped_headers": read_names,
    "replaced_task_nesting": read_count,
    "shadow": read_text,
    "traceparent": read_text,
    "tracestate": read_text,
    "lang": read_text,
}

#: Headers of ours that steer a worker; they stay in ``extra`` but are checked all the same.
CHECKED: Final[dict[str, Callable[[str, Any], Any]]] = {
    EPOCH: read_count,
    ONCE: read_flag,
    CHORD: read_mapping,
    ERRBACK: read_flag,
    REDELIVERED: read_count,
    EXCHANGE: read_text,
    ROUTING_KEY: read_text,
    COMPRESSION: read_text,
}

CONTENT_TYPE: Final = "application/json"
ENCODING: Final = "utf-8"

TIME_LIMIT: Final = "timelimit"

#: Where headers travel that the header frame cannot hold: a key of the body's third part. Celery
#: copies unknown keys there into the request's context and reads none of them.
MOVED: Final = "amqflow"

#: Headers that stay in the frame: without them Celery does not find the task.
STAYS: Final = frozenset({"task", "id", "lang", "root_id", "parent_id", COMPRESSION})

#: What a caller's own headers may not be called.
RESERVED: Final = frozenset({*FIELDS, TIME_LIMIT})


def write_moment(seconds: float) -> str:
    """Return Unix seconds as ISO 8601 in UTC, as Celery writes eta and expires.

    Raises:
        ValueError: The time is not finite, or outside the years 1 to 9999.
    """
    try:
        return datetime.fromtimestamp(seconds, UTC).isoformat()
    except (OverflowError, OSError) as exc:
        raise ValueError(str(exc)) from exc
