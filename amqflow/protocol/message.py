"""A task as it travels, decoded: Celery's protocol 2 with every field under one name."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Final

from amqflow.protocol.headers import (
    COMPRESSION,
    EPOCH,
    ERRBACK,
    EXCHANGE,
    ONCE,
    REDELIVERED,
    ROUTING_KEY,
)

#: Attempts of a task that took another's place (``self.replace``) are counted from a multiple of
#: this on: they stand above all retries of the one before.
NESTING: Final = 1 << 20


@dataclass(slots=True)
class TaskMessage:
    """One call of one task, as the wire carries it (``celery/app/amqp.py: as_task_v2``).

    Times are Unix seconds, limits seconds. ``callbacks``, ``errbacks``, ``chain`` (last step
    first) and ``chord`` hold Celery's dict form of signatures. ``extra`` holds every header that
    has no field of its own, all of ours included; it is kept and passed on.
    """

    id: str
    task: str
    args: list[Any] = field(default_factory=list)
    kwargs: dict[str, Any] = field(default_factory=dict)
    root_id: str | None = None
    parent_id: str | None = None
    callbacks: list[dict[str, Any]] | None = None
    errbacks: list[dict[str, Any]] | None = None
    chain: list[dict[str, Any]] | None = None
    chord: dict[str, Any] | None = None
    group: str | None = None
    group_index: int | None = None
    retries: int = 0
    eta: float | None = None
    expires: float | None = None
    time_limit: float | None = None
    soft_time_limit: float | None = None
    origin: str | None = None
    ignore_result: bool | None = None
    argsrepr: str | None = None
    kwargsrepr: str | None = None
    stamps: dict[str, Any] | None = None
    stamped_headers: list[str] | None = None
    replaced_task_nesting: int = 0
    shadow: str | None = None
    traceparent: str | None = None
    tracestate: str | None = None
    lang: str = "py"
    reply_to: str | None = None
    correlation_id: str | None = None
    priority: int | None = None
    #: When it was published; the wire keeps whole seconds.
    timestamp: float | None = None
    extra: dict[str, Any] = field(default_factory=dict)

    @property
    def epoch(self) -> int:
        """Which life of the task this is; each replay raises it."""
        return int(self.extra.get(EPOCH, 0))

    @property
    def attempt(self) -> int:
        """Which attempt this is, as results are fenced: retries, above those of replaced tasks.

        ``self.replace`` gives a task's id to another one, whose retries begin anew.
        """
        return self.retries + self.replaced_task_nesting * NESTING

    @property
    def errback(self) -> bool:
        """Whether it is called with a failure as data."""
        return bool(self.extra.get(ERRBACK, False))

    @property
    def once(self) -> bool:
        """Whether the worker must claim the id before it runs the task."""
        return bool(self.extra.get(ONCE, False))

    @property
    def redelivered_marker(self) -> int:
        """How many deliveries went before this one that the queue did not count."""
        return int(self.extra.get(REDELIVERED, 0))

    @property
    def original_exchange(self) -> str | None:
        """The exchange the caller published to, if the message was republished since."""
        return self.extra.get(EXCHANGE)

    @property
    def original_routing_key(self) -> str | None:
        """The routing key the caller used, if the message was republished since."""
        return self.extra.get(ROUTING_KEY)

    @property
    def compression(self) -> str | None:
        """How the body was compressed; encoding the message again compresses it so again."""
        return self.extra.get(COMPRESSION)
