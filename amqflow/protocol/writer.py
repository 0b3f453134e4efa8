"""Task messages to envelopes: Celery's task protocol 2, and only headers that say something."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from amqflow.clock import to_datetime
from amqflow.errors import EncodeError, MessageTooLarge, Undecodable
from amqflow.protocol.codec import dumps
from amqflow.protocol.compression import compress
from amqflow.protocol.envelope import Envelope
from amqflow.protocol.fields import (
    CONTENT_TYPE,
    ENCODING,
    FIELDS,
    MOVED,
    RESERVED,
    STAYS,
    TIME_LIMIT,
    read_limits,
    write_moment,
)
from amqflow.protocol.frame import (
    FRAME_MAX,
    fit_headers,
    frame_room,
    refuse_unsendable,
    table_size,
    travels_as_header,
    value_size,
)
from amqflow.protocol.headers import COMPRESSION, NOT_COPIED
from amqflow.protocol.limits import DEFAULT_LIMITS, Limits

if TYPE_CHECKING:
    from collections.abc import Mapping

    from amqflow.protocol.message import TaskMessage

#: The third part of nearly every body, as kombu writes it.
_NO_EMBED: Final = b'{"callbacks": null, "errbacks": null, "chain": null, "chord": null}'

#: Fields written as they are, where set.
_WHERE_SET: Final = (
    "group",
    "group_index",
    "origin",
    "ignore_result",
    "argsrepr",
    "kwargsrepr",
    "stamped_headers",
    "shadow",
    "traceparent",
    "tracestate",
)
_WHERE_NOT_ZERO: Final = ("retries", "replaced_task_nesting")
_EMBED: Final = ("callbacks", "errbacks", "chain", "chord")
_LARGEST_PRIORITY: Final = 255


def encode(
    message: TaskMessage,
    *,
    limits: Limits = DEFAULT_LIMITS,
    compression: str | None = None,
    frame_max: int = FRAME_MAX,
) -> Envelope:
    """Write a task message as protocol 2, with no header that says nothing.

    Args:
        message: What to send; it is not changed.
        limits: The bounds in force.
        compression: ``zlib``, ``bzip2``, ``lzma``, ``zstd``, or a content type; None: as the
            message says, which is what a message that came compressed does.
        frame_max: The connection's, in bytes; 0: no limit.

    Raises:
        EncodeError: A value cannot be written; the message says which one and where.
        MessageTooLarge: The body, or the headers that must stay, are over their bound.
    """
    _check_properties(message)
    headers, moved = _headers(message)
    if compression is None:
        compression = message.extra.get(COMPRESSION)
    if compression is not None:
        headers[COMPRESSION] = compression  # to be measured; compress() says the final name
    properties = (len(message.id) + len(message.reply_to or "")) * 4
    room = frame_room(frame_max, properties=properties, most=limits.max_headers)
    if not 0 <= _quick_size(headers) <= room:
        headers = _fitted(headers, moved, room)
    body = _body(message, moved, limits)
    if compression is not None:
        body, headers[COMPRESSION] = compress(body, compression)
    if len(body) > limits.max_body:
        raise MessageTooLarge(
            f"the body of {message.task} takes {len(body)} bytes, {limits.max_body} are allowed"
        )
    return Envelope(
        body,
        headers,
        CONTENT_TYPE,
        ENCODING,
        2,
        message.priority,
        message.correlation_id or message.id,
        message.reply_to,
        None,
        message.id,
        None if message.timestamp is None else to_datetime(message.timestamp),
    )


def _check_properties(message: TaskMessage) -> None:
    """Refuse what :func:`~amqflow.protocol.reader.decode` or AMQP would, at the caller."""
    _check("id", message.id)
    _check("task", message.task)
    refuse_unsendable("the task id", message.id)
    if message.correlation_id is not None:
        refuse_unsendable("correlation_id", message.correlation_id)
    if message.reply_to is not None:
        refuse_unsendable("reply_to", message.reply_to)
    if message.priority is not None:
        _check_priority(message.priority)


def _check(name: str, value: Any) -> Any:
    try:
        return FIELDS[name](name, value)
    except Undecodable as exc:
        raise EncodeError(str(exc)) from None


def _check_priority(priority: Any) -> None:
    """Refuse what AMQP cannot carry; callers without types pass anything."""
    if type(priority) is not int or not 0 <= priority <= _LARGEST_PRIORITY:
        raise EncodeError(f"priority must be 0 to {_LARGEST_PRIORITY}, got {priority!r:.80}")


def _headers(message: TaskMessage) -> tuple[dict[str, Any], dict[str, Any]]:
    """Return the headers, and apart those a field table would not give back unchanged."""
    headers: dict[str, Any] = {
        "lang": message.lang,
        "task": message.task,
        "id": message.id,
        "root_id": message.root_id or message.id,
        "parent_id": message.parent_id,
    }
    for name in _WHERE_SET:
        value = getattr(message, name)
        if value is not None:
            headers[name] = _check(name, value)
    for name in _WHERE_NOT_ZERO:
        value = getattr(message, name)
        if value:
            headers[name] = _check(name, value)
    _add_times(headers, message)
    moved: dict[str, Any] = {}
    if message.stamps:
        _place("stamps", _check("stamps", message.stamps), headers, moved)
    if message.extra:
        _add_extra(message.extra, headers, moved)
    return headers, moved


def _add_times(headers: dict[str, Any], message: TaskMessage) -> None:
    if message.eta is not None:
        headers["eta"] = _moment("eta", message.eta)
    if message.expires is not None:
        headers["expires"] = _moment("expires", message.expires)
    if message.time_limit is not None or message.soft_time_limit is not None:
        limits = [message.time_limit, message.soft_time_limit]
        try:
            read_limits(TIME_LIMIT, limits)
        except Undecodable as exc:
            raise EncodeError(str(exc)) from None
        headers[TIME_LIMIT] = limits


def _add_extra(extra: Mapping[Any, Any], headers: dict[str, Any], moved: dict[str, Any]) -> None:
    for name, value in extra.items():
        if not isinstance(name, str):
            raise EncodeError(f"headers: the name {name!r:.80} is not text")
        if name in RESERVED:
            raise EncodeError(f"headers[{name!r}]: the name is taken by the task protocol")
        if name not in NOT_COPIED and name != COMPRESSION:
            _place(name, value, headers, moved)


def _place(name: str, value: Any, headers: dict[str, Any], moved: dict[str, Any]) -> None:
    if type(value) is tuple:
        value = list(value)
    (headers if travels_as_header(name, value) else moved)[name] = value


def _moment(name: str, seconds: float) -> str:
    try:
        return write_moment(seconds)
    except (ValueError, TypeError) as exc:
        raise EncodeError(f"{name}: {seconds!r:.80} is no time that can be written: {exc}") from exc


def _quick_size(headers: Mapping[str, Any], *, nested: bool = False) -> int:
    """Return the table's size where it is plain ASCII, which it nearly always is, else -1."""
    size = 4
    for name, value in headers.items():
        if type(value) is str:
            if not value.isascii():
                return -1
            size += len(value)
        elif type(value) is dict:  # a chord's member
            if (inner := _quick_size(value, nested=True)) < 0:
                return -1
            size += inner
        elif type(value) in _CONTAINERS and (nested or name != TIME_LIMIT):
            return -1
        size += len(name) + _FIELD_COST
    return size if all(map(str.isascii, headers)) else -1


_CONTAINERS: Final = frozenset({list, bytearray})
#: A field's own bytes around its name and text; or a time limit, two doubles in an array.
_FIELD_COST: Final = 24


def _fitted(headers: dict[str, Any], moved: dict[str, Any], room: int) -> dict[str, Any]:
    """Return headers of at most ``room`` bytes; what does not fit goes to ``moved``."""
    for name in STAYS & headers.keys():
        if not travels_as_header(name, headers[name]):
            raise EncodeError(f"headers[{name!r}]: not text that UTF-8 can write")
    for name in [name for name in headers if not travels_as_header(name, headers[name])]:
        if name != TIME_LIMIT:  # rounded when read, so single precision will do
            moved[name] = headers.pop(name)
    headers = fit_headers(headers, room)
    over = table_size(headers) - room
    for size, name in sorted(((value_size(headers[name]), name) for name in headers), reverse=True):
        if over <= 0:
            break
        if name not in STAYS:
            moved[name] = headers.pop(name)
            over -= size + len(name) + 1
    if over > 0:
        raise MessageTooLarge(
            f"the headers of {headers['task']:.80} need {over} bytes more than the {room} that fit"
        )
    return headers


def _body(message: TaskMessage, moved: Mapping[str, Any], limits: Limits) -> bytes:
    _check_arguments(message.args, message.kwargs)
    depth = limits.max_depth - 1
    args = dumps(message.args, root="args", max_depth=depth) if message.args else b"[]"
    kwargs = dumps(message.kwargs, root="kwargs", max_depth=depth) if message.kwargs else b"{}"
    body = b"[%b, %b, %b]" % (args, kwargs, _embed(message, moved, depth - 1))
    if len(body) > limits.max_inflated:
        raise MessageTooLarge(
            f"the body of {message.task} takes {len(body)} bytes before compression, "
            f"{limits.max_inflated} are allowed"
        )
    return body


def _check_arguments(args: Any, kwargs: Any) -> None:
    """Refuse what would be read back as another shape; callers without types pass anything."""
    if not isinstance(args, (list, tuple)):
        raise EncodeError(f"args must be a list or tuple, got {type(args).__name__}")
    if not isinstance(kwargs, dict):
        raise EncodeError(f"kwargs must be a dict, got {type(kwargs).__name__}")
    for name in kwargs:
        if not isinstance(name, str):
            raise EncodeError(f"kwargs: the name {name!r:.80} is not text")


def _embed(message: TaskMessage, moved: Mapping[str, Any], depth: int) -> bytes:
    if not (moved or message.callbacks or message.errbacks or message.chain or message.chord):
        return _NO_EMBED
    parts = []
    for name in _EMBED:
        value = getattr(message, name)
        written = dumps(value, root=name, max_depth=depth) if value else b"null"
        parts.append(b'"%b": %b' % (name.encode(), written))
    if moved:
        headers = dumps(dict(moved), root="headers", max_depth=depth - 1)
        parts.append(b'"%b": {"headers": %b}' % (MOVED.encode(), headers))
    return b"{%b}" % b", ".join(parts)
