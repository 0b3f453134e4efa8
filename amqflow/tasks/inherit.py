"""What a task that is sent from a task takes over from it: its trace, its tenant, its deadline."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from amqflow.canvas.call import parse_moment

if TYPE_CHECKING:
    from amqflow.abc import Call
    from amqflow.settings import Settings
    from amqflow.tasks.context import Request

#: W3C Trace Context: always taken over.
TRACE: Final = ("traceparent", "tracestate")


def inherit(call: Call, parent: Request, settings: Settings) -> None:
    """Complete a call with what it takes over from the task that sends it.

    What the call says itself stands; a deadline can only come nearer.

    Args:
        call: of the task that is sent.
        parent: the request of the task that sends it.
        settings: ``task_inherit_parent_priority``, ``task_inherit_parent_expires``,
            ``task_inherit_headers``.
    """
    call.root_id = call.root_id or parent.root_id or parent.id
    call.parent_id = call.parent_id or parent.id
    if call.priority is None and parent.delivery_info and settings.task_inherit_parent_priority:
        call.priority = parent.delivery_info.get("priority")
    if settings.task_inherit_parent_expires and parent.expires is not None:
        expires = parse_moment(parent.expires)
        call.expires = expires if call.expires is None else min(expires, call.expires)
    known = parent.headers or {}
    taken = {name: known[name] for name in settings.task_inherit_headers if name in known}
    for name in TRACE:
        value = parent.get(name)
        if value is not None:
            taken[name] = value
    if taken:
        call.headers = {**taken, **(call.headers or {})}
