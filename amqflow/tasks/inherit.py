"""What follows from a task takes over from it: its trace, its tenant, its deadline.

What a task sends itself, and what a workflow sends when it has ended, take over the same.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, Final

from amqflow.canvas.call import parse_moment

if TYPE_CHECKING:
    from collections.abc import Mapping

    from amqflow.abc import Call
    from amqflow.settings import Settings
    from amqflow.tasks.context import Request

#: W3C Trace Context: always taken over.
TRACE: Final = ("traceparent", "tracestate")


@dataclass(frozen=True, slots=True)
class Heritage:
    """What the calls that follow from a task take over; ``expires`` is in Unix seconds."""

    headers: Mapping[str, Any] = field(default_factory=dict)
    expires: float | None = None
    priority: int | None = None

    def complete(self, call: Call) -> None:
        """Complete a call: what it says itself stands, a deadline can only come nearer."""
        if call.priority is None:
            call.priority = self.priority
        if self.expires is not None:
            call.expires = self.expires if call.expires is None else min(self.expires, call.expires)
        if self.headers:
            call.headers = {**self.headers, **(call.headers or {})}

    def without_deadline(self) -> Heritage:
        """Return what an errback takes over: it has to run, the later the more."""
        return replace(self, expires=None)


#: Of what no task has sent.
NOTHING: Final = Heritage()


@dataclass(frozen=True, slots=True)
class Inheritance:
    """The settings ``task_inherit_parent_priority``, ``…_expires`` and ``task_inherit_headers``."""

    priority: bool = False
    expires: bool = False
    headers: tuple[str, ...] = ()

    @classmethod
    def of(cls, settings: Settings) -> Inheritance:
        """Read them."""
        return cls(
            settings.task_inherit_parent_priority,
            settings.task_inherit_parent_expires,
            tuple(settings.task_inherit_headers),
        )

    def heritage(
        self,
        headers: Mapping[str, Any],
        *,
        traceparent: str | None,
        tracestate: str | None,
        expires: float | None,
        priority: int | None,
    ) -> Heritage:
        """Return what follows from a task takes over, of what its own message said."""
        trace = zip(TRACE, (traceparent, tracestate), strict=True)
        taken = {name: headers[name] for name in self.headers if name in headers}
        taken |= {name: value for name, value in trace if value is not None}
        deadline = expires if self.expires else None
        if not taken and deadline is None and not (self.priority and priority is not None):
            return NOTHING
        return Heritage(taken, deadline, priority if self.priority else None)

    def from_request(self, parent: Request) -> Heritage:
        """Return what follows from a running task takes over."""
        return self.heritage(
            parent.headers or {},
            traceparent=parent.traceparent,
            tracestate=parent.tracestate,
            expires=None if parent.expires is None else parse_moment(parent.expires),
            priority=(parent.delivery_info or {}).get("priority"),
        )


def inherit(call: Call, parent: Request, settings: Settings) -> None:
    """Complete a call with what it takes over from the task that sends it."""
    call.root_id = call.root_id or parent.root_id or parent.id
    call.parent_id = call.parent_id or parent.id
    Inheritance.of(settings).from_request(parent).complete(call)
