"""Task messages to envelopes and back: Celery's task protocol 2 (design 4)."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from amqflow.clock import to_datetime, to_seconds
from amqflow.errors import EncodeError, MessageTooLarge, Undecodable
from amqflow.protocol.codec import dumps, loads
from amqflow.protocol.compression import compress, decompress
from amqflow.protocol.envelope import Envelope
from amqflow.protocol.fields import (
    CHECKED,
    FIELDS,
    RESERVED,
    TIME_LIMIT,
    read_limits,
    read_mapping,
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
from amqflow.protocol.headers import BROKER_HEADERS, COMPRESSION
from amqflow.protocol.limits import DEFAULT_LIMITS, Limits
from amqflow.protocol.message import TaskMessage

if TYPE_CHECKING:
    from collections.abc import Mapping

CONTENT_TYPE: Final = "application/json"
ENCODING: Final = "utf-8"

#: Where headers travel that the header frame cannot hold: a key of the body's third part. Celery
#: copies unknown keys there into the request's context and reads none of them.
MOVED: Final = "amqflow"

#: The third part of nearly every body, as kombu writes it.
_NO_EMBED: Final = b'{"callbacks": null, "errbacks": null, "chain": null, "chord": null}'

#: Headers that stay in the frame: without them Celery does not find the task.
_STAYS: Final = frozenset({"task", "id", "lang", "root_id", "parent_id", COMPRESSION})

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
_EMBED: Final = ("callbacks", "errbacks", "chain", "chord")
_LARGEST_PRIORITY: Final = 255


# -- encode --------------------------------------------------------------------------------


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
    if not message.id or not message.task:
        raise EncodeError("a task message needs an id and the name of a task")
    refuse_unsendable("the task id", message.id)
    if message.correlation_id is not None:
        refuse_unsendable("correlation_id", message.correlation_id)
    if message.reply_to is not None:
        refuse_unsendable("reply_to", message.reply_to)
    if message.priority is not None:
        _check_priority(message.priority)


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
            headers[name] = value
    if message.retries:
        headers["retries"] = message.retries
    if message.replaced_task_nesting:
        headers["replaced_task_nesting"] = message.replaced_task_nesting
    _add_times(headers, message)
    moved: dict[str, Any] = {}
    if message.stamps is not None:
        _place("stamps", message.stamps, headers, moved)
    if message.extra:
        _add_extra(message.extra, headers, moved)
    return headers, moved


def _add_times(headers: dict[str, Any], message: TaskMessage) -> None:
    if message.eta is not None:
        headers["eta"] = _moment("eta", message.eta)
    if message.expires is not None:
        headers["expires"] = _moment("expires", message.expires)
    if message.time_limit is not None or message.soft_time_limit is not None:
        headers[TIME_LIMIT] = [message.time_limit, message.soft_time_limit]


def _add_extra(extra: Mapping[str, Any], headers: dict[str, Any], moved: dict[str, Any]) -> None:
    for name, value in extra.items():
        if name in RESERVED:
            raise EncodeError(f"headers[{name!r}]: the name is taken by the task protocol")
        if name not in BROKER_HEADERS and name != COMPRESSION:
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


def _quick_size(headers: Mapping[str, Any]) -> int:
    """Return the table's size where it is plain ASCII, which it nearly always is, else -1."""
    size = 4
    for name, value in headers.items():
        if type(value) is str:
            if not value.isascii():
                return -1
            size += len(value)
        elif type(value) in _CONTAINERS and name != TIME_LIMIT:
            return -1
        size += len(name) + _FIELD_COST
    return size if all(map(str.isascii, headers)) else -1


_CONTAINERS: Final = frozenset({list, dict, bytearray})
#: A field's own bytes around its name and text; or a time limit, two doubles in an array.
_FIELD_COST: Final = 24


def _fitted(headers: dict[str, Any], moved: dict[str, Any], room: int) -> dict[str, Any]:
    """Return headers of at most ``room`` bytes; what does not fit goes to ``moved``."""
    for name in _STAYS & headers.keys():
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
        if name not in _STAYS:
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


def _embed(message: TaskMessage, moved: Mapping[str, Any], depth: int) -> bytes:
    if not (moved or message.callbacks or message.errbacks or message.chain or message.chord):
        return _NO_EMBED
    parts = []
    for name in _EMBED:
        value = getattr(message, name)
        parts.append(
            b'"%b": %b' % (name.encode(), dumps(value or None, root=name, max_depth=depth))
        )
    if moved:
        headers = dumps(dict(moved), root="headers", max_depth=depth - 1)
        parts.append(b'"%b": {"headers": %b}' % (MOVED.encode(), headers))
    return b"{%b}" % b", ".join(parts)


# -- decode --------------------------------------------------------------------------------


def decode(envelope: Envelope, *, limits: Limits = DEFAULT_LIMITS) -> TaskMessage:
    """Read a task message of protocol 2: ours, Celery's, or another client's.

    Nothing in it is executed, and only JSON is read; pickle, YAML and msgpack never are.

    Raises:
        Undecodable: It is no such message; the message says why, in a sentence.
    """
    headers = envelope.headers
    _check_kind(envelope)
    args, kwargs, embed = _parts(_inflated_body(envelope, limits), headers, limits)
    found: dict[str, Any] = {}
    extra: dict[str, Any] = {}
    _read_headers(headers, found, extra)
    moved = embed.get(MOVED)
    if moved is not None:
        _read_headers(_moved_headers(moved), found, extra)
    for name in ("id", "task"):
        if name not in found:
            raise Undecodable(f"header {name!r} is missing: this is no message of task protocol 2")
    return TaskMessage(
        args=args,
        kwargs=kwargs,
        callbacks=_signatures("callbacks", embed.get("callbacks")),
        errbacks=_signatures("errbacks", embed.get("errbacks")),
        chain=_signatures("chain", embed.get("chain")),
        chord=_chord(embed.get("chord")),
        reply_to=envelope.reply_to or None,
        correlation_id=envelope.correlation_id or None,
        priority=envelope.priority,
        timestamp=None if envelope.timestamp is None else to_seconds(envelope.timestamp),
        extra=extra,
        **found,
    )


def _check_kind(envelope: Envelope) -> None:
    kind = envelope.content_type
    if kind != CONTENT_TYPE and (kind or "").partition(";")[0].strip().lower() != CONTENT_TYPE:
        raise Undecodable(f"content type {kind!r:.80}: only {CONTENT_TYPE} is read here")
    encoding = envelope.content_encoding
    if encoding != ENCODING and (encoding or ENCODING).lower() not in _ENCODINGS:
        raise Undecodable(f"content encoding {encoding!r:.80}: only UTF-8 is read here")


#: Names under which UTF-8 or a part of it travels; kombu hands ``binary`` to JSON as it is.
_ENCODINGS: Final = frozenset({"utf-8", "utf8", "us-ascii", "ascii", "binary"})


def _inflated_body(envelope: Envelope, limits: Limits) -> bytes:
    body = envelope.body
    if len(body) > limits.max_body:
        raise Undecodable(f"the body takes {len(body)} bytes, {limits.max_body} are allowed")
    compression = envelope.headers.get(COMPRESSION)
    if compression is None:
        return body
    if type(compression) is not str:
        raise Undecodable(f"header 'compression' must be text, got {compression!r:.80}")
    return decompress(body, compression, limits.max_inflated)


def _parts(
    body: bytes, headers: Mapping[str, Any], limits: Limits
) -> tuple[list[Any], dict[str, Any], dict[str, Any]]:
    value = loads(body, max_depth=limits.max_depth)
    if type(value) is not list:
        if isinstance(value, dict) and "task" in value and "task" not in headers:
            raise Undecodable(
                "a message of Celery's task protocol 1; set task_protocol = 2 at its sender"
            )
        raise Undecodable(f"the body must be [args, kwargs, embed], got {_kind(value)}")
    if len(value) != 3:  # noqa: PLR2004 - args, kwargs, embed
        raise Undecodable(f"the body must be [args, kwargs, embed], got {len(value)} parts")
    args, kwargs, embed = value
    if type(args) is not list:
        raise Undecodable(f"args must be an array, got {_kind(args)}")
    if type(kwargs) is not dict:
        raise Undecodable(f"kwargs must be an object, got {_kind(kwargs)}")
    if type(embed) is not dict:
        if embed is not None:
            raise Undecodable(f"the third part of the body must be an object, got {_kind(embed)}")
        embed = {}
    return args, kwargs, embed


def _kind(value: Any) -> str:
    return _KINDS.get(type(value), type(value).__name__)


_KINDS: Final[dict[type, str]] = {
    dict: "an object",
    list: "an array",
    str: "text",
    int: "a number",
    float: "a number",
    bool: "true or false",
    type(None): "null",
}


def _read_headers(headers: Mapping[str, Any], found: dict[str, Any], extra: dict[str, Any]) -> None:
    for name, value in headers.items():
        reader = FIELDS.get(name)
        if reader is not None:
            if value is not None:  # Celery writes every header, as None where it says nothing
                found[name] = reader(name, value)
        elif name == TIME_LIMIT:
            if value is not None:
                found["time_limit"], found["soft_time_limit"] = read_limits(name, value)
        else:
            check = CHECKED.get(name)
            extra[name] = value if check is None else check(name, value)


def _moved_headers(moved: Any) -> dict[str, Any]:
    if type(moved) is not dict:
        raise Undecodable(f"{MOVED!r} in the body must be an object, got {_kind(moved)}")
    headers = read_mapping("headers", moved.get("headers") or {})
    if not _STAYS.isdisjoint(headers):
        raise Undecodable("the body holds headers that must travel as headers")
    return headers


def _signatures(name: str, value: Any) -> list[dict[str, Any]] | None:
    if not value:
        return None
    if type(value) is not list:
        raise Undecodable(f"{name} must be an array of signatures, got {_kind(value)}")
    for item in value:
        if type(item) is not dict or type(item.get("task")) is not str:
            raise Undecodable(f"{name} must hold signatures, got {_kind(item)} without a task")
    return value


def _chord(value: Any) -> dict[str, Any] | None:
    if value is None:
        return None
    if type(value) is not dict or type(value.get("task")) is not str:
        raise Undecodable(f"chord must be a signature, got {_kind(value)} without a task")
    return value
