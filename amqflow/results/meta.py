"""Celery's result JSON: an Outcome as ``celery/backends/base.py`` (5.7) writes it, and back.

``{"status", "result", "traceback", "children", "date_done", ["group_id"], ["parent_id"],
"task_id"}`` in this order. What Celery's JSON has no place for (why it is parked, when it is
retried) travels beside it, see :func:`extra_of`.
"""

from __future__ import annotations

import time
from dataclasses import replace
from datetime import UTC, datetime
from json.encoder import encode_basestring_ascii as quoted
from typing import TYPE_CHECKING, Any, Final

from amqflow.abc import (
    FAILURE,
    RETRY,
    REVOKED,
    TERMINAL_STATES,
    DeadReason,
    ExceptionInfo,
    Outcome,
)
from amqflow.clock import to_seconds
from amqflow.errors import EncodeError, StoreError, Undecodable
from amqflow.protocol.codec import dumps, loads
from amqflow.protocol.limits import DEFAULT_LIMITS
from amqflow.results.exceptions import (
    REVOKED_MODULE,
    REVOKED_TYPE,
    from_celery,
    text_of,
    to_celery,
)

if TYPE_CHECKING:
    from collections.abc import Mapping

    from amqflow.abc import Child

#: States whose ``result`` is an exception (Celery's EXCEPTION_STATES).
EXCEPTION_STATES: Final = frozenset({RETRY, FAILURE, REVOKED})

#: What ``result_extended`` adds, by Celery's names.
EXTENDED: Final = ("name", "args", "kwargs", "worker", "retries", "queue")

#: Levels of nesting in what is read: a result's own, and the object it lies in.
_DEEPEST: Final = DEFAULT_LIMITS.max_depth + 1
#: What Celery 5.7 puts before a compressed result starts with this (``result_compression``).
_COMPRESSED: Final = b"\x00"


def encode_meta(outcome: Outcome) -> bytes:
    """Write an outcome as Celery's result JSON.

    Raises:
        EncodeError: Its result cannot be written as JSON.
    """
    state = outcome.state
    result = dumps(to_celery(_exception(outcome))) if state in EXCEPTION_STATES else None
    if result is None:
        result = b"null" if outcome.result is None else dumps(outcome.result, root="result")
    done = "null"
    if state in TERMINAL_STATES:
        done = f'"{_iso(time.time() if outcome.date_done is None else outcome.date_done)}"'
    trace = "null" if outcome.traceback is None else quoted(outcome.traceback)
    children = ", ".join(map(_written_child, outcome.children)) if outcome.children else ""
    place = ""
    if outcome.group_id:
        place = f', "group_id": {quoted(outcome.group_id)}'
    if outcome.parent_id:
        place = f'{place}, "parent_id": {quoted(outcome.parent_id)}'
    more = b"" if outcome.extended is None else _written_call(outcome.extended)
    return b'{"status": %b, "result": %b%b%b' % (
        quoted(state).encode(),
        result,
        f', "traceback": {trace}, "children": [{children}], "date_done": {done}{place}, '
        f'"task_id": {quoted(outcome.id)}'.encode(),
        more + b"}",
    )


def decode_meta(data: bytes, task_id: str) -> Outcome:
    """Read Celery's result JSON, whoever wrote it.

    Raises:
        StoreError: It is not Celery's JSON (another serializer, compressed).
    """
    meta = _loaded(data, f"the result of {task_id}")
    if not isinstance(meta, dict) or not isinstance(meta.get("status"), str):
        raise StoreError(f"the result of {task_id} is JSON, but not Celery's result")
    return _outcome(meta, task_id)


def decode_group(data: bytes, group_id: str) -> Any:
    """Return the tuple form of a group that ours or Celery's ``GroupResult.save`` wrote.

    Raises:
        StoreError: It is not Celery's JSON.
    """
    meta = _loaded(data, f"the saved group {group_id}")
    if not isinstance(meta, dict) or "result" not in meta:
        raise StoreError(f"the saved group {group_id} is JSON, but not Celery's")
    return meta["result"]


def _loaded(data: bytes, what: str) -> Any:
    if data.startswith(_COMPRESSED):
        raise StoreError(f"{what} is compressed; unset Celery's result_compression")
    try:
        return loads(data, max_depth=_DEEPEST)
    except Undecodable as exc:
        raise StoreError(
            f"{what} is not Celery's JSON ({exc}); set Celery's result_serializer to 'json'"
        ) from exc


def _outcome(meta: dict[str, Any], task_id: str) -> Outcome:
    state = meta["status"]
    result = meta.get("result")
    exception = from_celery(result) if state in EXCEPTION_STATES else None
    return Outcome(
        id=task_id,
        state=state,
        result=None if exception is not None else result,
        exception=exception,
        traceback=_text(meta.get("traceback")),
        children=read_children(meta.get("children")),
        parent_id=_text(meta.get("parent_id")),
        group_id=_text(meta.get("group_id")),
        date_done=_seconds(meta.get("date_done")),
        reason=exception.text if exception is not None and state == REVOKED else None,
        extended={key: meta[key] for key in EXTENDED if key in meta} if "args" in meta else None,
    )


def extra_of(outcome: Outcome) -> bytes:
    """Return as JSON what Celery's has no place for; empty where there is nothing of it."""
    exception = outcome.exception
    text = exception.text if exception is not None else None
    if exception is not None and text == text_of(exception.args):
        text = None
    reason = outcome.reason
    if outcome.state == REVOKED and reason == _exception(outcome).text:
        reason = None
    if (
        outcome.park is None
        and reason is None
        and outcome.retry_at is None
        and outcome.replaced_by is None
        and text is None
    ):
        return b""
    extra = {
        "park": None if outcome.park is None else outcome.park.value,
        "reason": reason,
        "retry_at": outcome.retry_at,
        "replaced_by": outcome.replaced_by,
        "text": text,
    }
    return dumps({key: value for key, value in extra.items() if value is not None}, root="outcome")


def with_extra(outcome: Outcome, extra: bytes, *, epoch: int, attempt: int) -> Outcome:
    """Return ``outcome`` with what our own record knows beside Celery's JSON."""
    if not extra:
        return replace(outcome, epoch=epoch, attempt=attempt)
    more = loads(extra)
    exception = outcome.exception
    if exception is not None and "text" in more:
        exception = replace(exception, text=more["text"])
    park = more.get("park")
    return replace(
        outcome,
        epoch=epoch,
        attempt=attempt,
        exception=exception,
        park=None if park is None else DeadReason(park),
        reason=more.get("reason", outcome.reason),
        retry_at=more.get("retry_at"),
        replaced_by=more.get("replaced_by"),
    )


def _exception(outcome: Outcome) -> ExceptionInfo:
    """Return the exception to store; a Celery caller needs one in each of these states."""
    if outcome.exception is not None:
        return outcome.exception
    text = outcome.reason or ""
    if outcome.state == REVOKED:
        return ExceptionInfo(REVOKED_TYPE, REVOKED_MODULE, (text,), text)
    return ExceptionInfo("Exception", "builtins", (text,), text)


def _iso(seconds: float) -> str:
    return datetime.fromtimestamp(seconds, UTC).isoformat()


def _seconds(text: Any) -> float | None:
    try:
        return to_seconds(datetime.fromisoformat(text))
    except (TypeError, ValueError):
        return None


def _text(value: Any) -> str | None:
    return value if isinstance(value, str) else None


def _written_call(extended: Mapping[str, Any]) -> bytes:
    """Return what ``result_extended`` adds, each part as text where JSON cannot hold it."""
    parts = []
    for key in EXTENDED:
        value = extended.get(key)
        try:
            written = dumps(value, root=key)
        except EncodeError:
            written = dumps(repr(value))
        parts.append(b', "%b": %b' % (key.encode(), written))
    return b"".join(parts)


def _written_child(child: Child) -> str:
    """Return a child as Celery's ``as_tuple()``: ``[[id, parent], members]``."""
    if isinstance(child, str):
        return f"[[{quoted(child)}, null], null]"
    group_id, members = child
    return f"[[{quoted(group_id)}, null], [{', '.join(map(_written_child, members))}]]"


def read_children(value: Any) -> tuple[Child, ...]:
    """Return Celery's children; what is none is left out."""
    if not isinstance(value, list):
        return ()
    return tuple(child for child in map(_child, value) if child is not None)


def _child(value: Any) -> Child | None:
    """Return a child of Celery's ``as_tuple()``, written by whatever version."""
    if not isinstance(value, list) or not value:
        return None
    head = value[0]
    task_id = head[0] if isinstance(head, list) and head else head
    if not isinstance(task_id, str):
        return None
    members = value[1] if len(value) > 1 else None
    return task_id if members is None else (task_id, read_children(members))
