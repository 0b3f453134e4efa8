"""What a worker and its pool children say to each other over their socket pair.

A frame is four bytes of length, one byte of kind, and kombu's JSON: the one writer of values that
is exact here. Nothing on this wire is executed either.
"""

from __future__ import annotations

import struct
from dataclasses import asdict, fields
from typing import TYPE_CHECKING, Any, Final

from amqflow.abc import DeadReason, ExceptionInfo, Outcome
from amqflow.protocol import TaskMessage, dumps, loads
from amqflow.protocol import headers as h

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from amqflow.worker.job import Job

#: From the worker: how to become a child, a job, the end.
SETUP: Final = b"S"
JOB: Final = b"J"
QUIT: Final = b"Q"
#: From a child: warm, unable to start, a job's end, an own state of a job, a job that was taken
#: back before it began, where the task is.
READY: Final = b"R"
UNABLE: Final = b"U"
DONE: Final = b"D"
STATE: Final = b"T"
SKIPPED: Final = b"K"
WHERE: Final = b"W"

_HEAD: Final = struct.Struct("!IB")
#: Nesting of a task's values is bounded where its message was read; ours come on top.
_DEPTH: Final = 256
#: Fields of a request that are said otherwise, or belong to the worker's process.
_NOT_SENT: Final = frozenset({"args", "kwargs", "set_state", "_children", "_outer"})

#: Fields of an outcome that the worker knows by itself, or that are written otherwise.
_KNOWN: Final = frozenset({"id", "epoch", "attempt", "parent_id", "group_id"})
_WRITTEN: Final = frozenset({"exception", "children"})
_PLAIN: Final = tuple(
    (one.name, one.default) for one in fields(Outcome) if one.name not in _KNOWN | _WRITTEN
)


def frame(kind: bytes, body: Any = None) -> bytes:
    """Return one frame.

    Raises:
        EncodeError: a value in it cannot be written as JSON.
    """
    data = dumps(body, max_depth=_DEPTH)
    return _HEAD.pack(len(data), kind[0]) + data


class Frames:
    """Cuts a stream of bytes into frames."""

    __slots__ = ("_buffer",)

    def __init__(self) -> None:
        """Start with nothing read."""
        self._buffer = bytearray()

    def feed(self, data: bytes) -> Iterator[tuple[bytes, Any]]:
        """Take bytes and yield each whole frame as (kind, body)."""
        buffer = self._buffer
        buffer += data
        start = 0
        try:
            while len(buffer) - start >= _HEAD.size:
                size, kind = _HEAD.unpack_from(buffer, start)
                end = start + _HEAD.size + size
                if len(buffer) < end:
                    break
                body = bytes(memoryview(buffer)[start + _HEAD.size : end])
                start = end
                yield bytes((kind,)), loads(body, max_depth=_DEPTH)
        finally:
            del buffer[:start]


def job_body(job: Job, number: int) -> dict[str, Any]:
    """Return a job as a child is told it; arguments travel as they came and are checked there."""
    message = job.message
    request = {
        name: value
        for name, value in vars(job.request).items()
        if value is not None and name not in _NOT_SENT
    }
    return {
        "n": number,
        "task": message.task,
        "args": message.args,
        "kwargs": message.kwargs,
        "request": request,
        "queue": job.lane.queue,
        "states": job.request.set_state is not None,
        "soft": job.soft_time_limit,
    }


def message_of(body: Mapping[str, Any]) -> TaskMessage:
    """Return the message of a job, as far as a child needs one."""
    request = body["request"]
    return TaskMessage(
        id=request["id"],
        task=body["task"],
        args=body["args"],
        kwargs=body["kwargs"],
        root_id=request.get("root_id"),
        parent_id=request.get("parent_id"),
        group=request.get("group"),
        group_index=request.get("group_index"),
        retries=request.get("retries", 0),
        extra={
            h.EPOCH: request.get("epoch", 0),
            h.ERRBACK: bool((request.get("headers") or {}).get(h.ERRBACK, False)),
        },
    )


def outcome_body(outcome: Outcome) -> dict[str, Any]:
    """Return an outcome without what the worker knows of it already."""
    body: dict[str, Any] = {
        name: value
        for name, default in _PLAIN
        if (value := getattr(outcome, name)) is not default and value != default
    }
    if outcome.exception is not None:
        body["exception"] = asdict(outcome.exception)
    if outcome.children:
        body["children"] = outcome.children
    return body


def _tuples(value: Any) -> Any:
    """Return lists as the tuples they were: a child may be a group of an id and its members."""
    return tuple(map(_tuples, value)) if isinstance(value, list | tuple) else value


def outcome_of(body: dict[str, Any], job: Job) -> Outcome:
    """Return the outcome of a job as its child said it."""
    message = job.message
    error, park = body.pop("exception", None), body.pop("park", None)
    return Outcome(
        id=message.id,
        epoch=message.epoch,
        attempt=message.attempt,
        parent_id=message.parent_id,
        group_id=message.group,
        exception=ExceptionInfo(**{**error, "args": tuple(error["args"])}) if error else None,
        park=DeadReason(park) if park else None,
        children=_tuples(body.pop("children", ())),
        **body,
    )
