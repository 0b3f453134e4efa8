"""Why a message died: what a worker writes on what it parks, and reading it back.

A message dies in a worker, which parks it with headers of ours, or in the broker, which writes
``x-death`` (https://www.rabbitmq.com/docs/dlx). Both read the same here.
"""

from __future__ import annotations

import hashlib
import re
from dataclasses import dataclass
from datetime import datetime
from pathlib import PurePath
from typing import TYPE_CHECKING, Any, Final

from amqflow.abc import DeadReason
from amqflow.clock import to_seconds
from amqflow.errors import Undecodable
from amqflow.protocol.fields import read_moment, write_moment
from amqflow.protocol.frame import shortened
from amqflow.protocol.headers import (
    ATTEMPTS,
    DEAD_REASON,
    EXCEPTION,
    EXCEPTION_MESSAGE,
    EXCHANGE,
    FINGERPRINT,
    QUEUE,
    ROUTING_KEY,
    TIME,
    TRACEBACK,
    WORKER,
)

if TYPE_CHECKING:
    from collections.abc import Mapping

    from amqflow.abc import ExceptionInfo

#: Queues of the delay ladder: dying there is how a delay passes, not a death.
DELAY_QUEUES: Final = "amqflow.delay."

#: Bytes of a traceback's end, and of an exception's text, that a dead letter keeps.
LONGEST_TRACEBACK: Final = 16 * 1024
LONGEST_MESSAGE: Final = 2 * 1024

_FRAME: Final = re.compile(r'^\s*File "([^"]*)", line \d+, in (.+)$', re.MULTILINE)
_SECTION: Final = "Traceback (most recent call last):"
#: Innermost frames that make two failures the same one.
_FRAMES: Final = 3
_DIGITS: Final = 16

#: The broker's reasons in our words; ``maxlen`` and ``rejected`` have none and stay.
_BROKER_REASONS: Final = {
    "delivery_limit": DeadReason.POISON.value,
    "expired": DeadReason.EXPIRED.value,
}


# -- writing -------------------------------------------------------------------------------


def dead_headers(
    reason: DeadReason,
    *,
    time: float,
    worker: str,
    queue: str,
    exchange: str = "",
    routing_key: str = "",
    attempts: int = 0,
    task: str = "",
    exception: ExceptionInfo | None = None,
    traceback: str | None = None,
) -> dict[str, Any]:
    """Return the headers a worker sets on a message it parks (design 7).

    Args:
        reason: Why.
        time: Unix seconds.
        worker: The name of the worker.
        queue: The queue the message came from.
        exchange: The exchange it was first published to.
        routing_key: The key it was first published with.
        attempts: How often the task was run.
        task: The task's name as far as it is known; a part of the fingerprint.
        exception: What the last run raised, or what was wrong with the message.
        traceback: Its traceback; the end of it is kept.
    """
    headers: dict[str, Any] = {
        DEAD_REASON: str(reason),
        WORKER: worker,
        TIME: write_moment(time),
        ATTEMPTS: attempts,
        EXCHANGE: exchange,
        ROUTING_KEY: routing_key,
        QUEUE: queue,
    }
    kind = str(reason)
    if exception is not None:
        kind = f"{exception.module}.{exception.type}" if exception.module else exception.type
        headers[EXCEPTION] = kind
        headers[EXCEPTION_MESSAGE] = shortened(exception.text, LONGEST_MESSAGE)
    if traceback:
        headers[TRACEBACK] = shortened(traceback, LONGEST_TRACEBACK, tail=True)
    headers[FINGERPRINT] = fingerprint(task, kind, traceback)
    return headers


def fingerprint(task: str, exception_type: str, traceback: str | None = None) -> str:
    """Return a short text that is equal for failures with the same cause.

    Made of the task, the type and the innermost frames by file and function: neither line
    numbers nor folders nor values count, so it survives edits elsewhere in the file, another
    machine and other arguments. Frames that repeat (recursion) count once.
    """
    frames: list[str] = []
    innermost = (traceback or "").rpartition(_SECTION)[2]
    for path, function in reversed(_FRAME.findall(innermost)):
        frame = f"{PurePath(path).name}:{function}"
        if not frames or frames[-1] != frame:
            frames.append(frame)
        if len(frames) == _FRAMES:
            break
    parts = "\n".join((task, exception_type, *frames))
    return hashlib.sha256(parts.encode("utf-8", "replace")).hexdigest()[:_DIGITS]


# -- reading -------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class DeadLetter:
    """Why, where and when a message died. None is what nobody wrote down.

    ``reason`` is a :class:`~amqflow.abc.DeadReason`, or ``maxlen`` or ``rejected`` of the
    broker. ``time`` is Unix seconds. ``exchange`` and ``routing_key`` are where the message was
    first published, ``queue`` is where it died.
    """

    reason: str
    by_broker: bool
    task_id: str | None = None
    task: str | None = None
    queue: str | None = None
    exchange: str | None = None
    routing_key: str | None = None
    time: float | None = None
    attempts: int | None = None
    worker: str | None = None
    exception: str | None = None
    exception_message: str | None = None
    traceback: str | None = None
    fingerprint: str | None = None

    @classmethod
    def read(cls, headers: Mapping[str, Any] | None) -> DeadLetter | None:
        """Return what ``headers`` tell of a death, or None if they tell of none.

        Never raises: a dead letter is exactly where headers may be broken. What has a wrong
        shape counts as not written down. Where a worker and the broker both wrote, the worker
        knows more.
        """
        if not headers:
            return None
        if DEAD_REASON in headers:
            return cls._of_worker(headers)
        death = last_death(headers)
        return None if death is None else cls._of_broker(headers, death)

    @classmethod
    def _of_worker(cls, headers: Mapping[str, Any]) -> DeadLetter:
        return cls(
            reason=_text(headers, DEAD_REASON) or "unknown",
            by_broker=False,
            task_id=_text(headers, "id"),
            task=_text(headers, "task"),
            queue=_text(headers, QUEUE),
            exchange=_text(headers, EXCHANGE),
            routing_key=_text(headers, ROUTING_KEY),
            time=_moment(headers.get(TIME)),
            attempts=_count(headers.get(ATTEMPTS)),
            worker=_text(headers, WORKER),
            exception=_text(headers, EXCEPTION),
            exception_message=_text(headers, EXCEPTION_MESSAGE),
            traceback=_text(headers, TRACEBACK),
            fingerprint=_text(headers, FINGERPRINT),
        )

    @classmethod
    def _of_broker(cls, headers: Mapping[str, Any], death: Mapping[str, Any]) -> DeadLetter:
        raw = _text(death, "reason") or "unknown"
        reason = _BROKER_REASONS.get(raw, raw)
        task = _text(headers, "task")
        retries = _count(headers.get("retries"))
        exchange, routing_key = _text(headers, EXCHANGE), _text(headers, ROUTING_KEY)
        return cls(
            reason=reason,
            by_broker=True,
            task_id=_text(headers, "id"),
            task=task,
            queue=_text(death, "queue"),
            exchange=_text(death, "exchange") if exchange is None else exchange,
            routing_key=_first_key(death) if routing_key is None else routing_key,
            time=_moment(death.get("time")),
            attempts=retries or 0,
            fingerprint=fingerprint(task or "", reason),
        )


def last_death(headers: Mapping[str, Any]) -> Mapping[str, Any] | None:
    """Return the newest entry of ``x-death`` outside the delay ladder, if there is one.

    RabbitMQ keeps one entry per queue and reason, newest first.
    """
    deaths = headers.get("x-death")
    if not isinstance(deaths, list):
        return None
    for death in deaths:
        if isinstance(death, dict):
            queue = _text(death, "queue")
            if queue is not None and not queue.startswith(DELAY_QUEUES):
                return death
    return None


def _text(table: Mapping[str, Any], name: str) -> str | None:
    value = table.get(name)
    return value if isinstance(value, str) else None


def _count(value: Any) -> int | None:
    return value if type(value) is int else None


def _moment(value: Any) -> float | None:
    if isinstance(value, datetime):
        return to_seconds(value)
    try:
        return read_moment(TIME, value)
    except Undecodable:
        return None


def _first_key(death: Mapping[str, Any]) -> str | None:
    keys = death.get("routing-keys")
    return keys[0] if isinstance(keys, list) and keys and isinstance(keys[0], str) else None
