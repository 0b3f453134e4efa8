"""Envelopes to task messages: ours, Celery's and other clients', or one sentence on why not."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from amqflow.clock import to_seconds
from amqflow.errors import Undecodable
from amqflow.protocol.claimcheck import looks_referred
from amqflow.protocol.codec import loads
from amqflow.protocol.compression import decompress
from amqflow.protocol.fields import (
    CHECKED,
    CONTENT_TYPE,
    ENCODING,
    FIELDS,
    MOVED,
    STAYS,
    TIME_LIMIT,
    read_limits,
    read_mapping,
)
from amqflow.protocol.headers import BLOB, COMPRESSION
from amqflow.protocol.limits import DEFAULT_LIMITS, Limits
from amqflow.protocol.message import TaskMessage

if TYPE_CHECKING:
    from collections.abc import Mapping

    from amqflow.protocol.envelope import Envelope


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
    if compression is None or BLOB in envelope.headers:
        return body
    if type(compression) is not str:
        raise Undecodable(f"header 'compression' must be text, got {compression!r:.80}")
    return decompress(body, compression, limits.max_inflated)


def _parts(
    body: bytes, headers: Mapping[str, Any], limits: Limits
) -> tuple[list[Any], dict[str, Any], dict[str, Any]]:
    value = loads(body, max_depth=limits.max_depth)
    if type(value) is not list:
        if BLOB in headers and looks_referred(value):
            return [], {}, {}  # what it carries is kept elsewhere
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
    if not STAYS.isdisjoint(headers):
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
