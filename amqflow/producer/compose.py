"""Turns a call into the message that carries it, with what the task and settings say."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from amqflow.protocol import TaskMessage, new_id

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from amqflow.abc import Call
    from amqflow.tasks import TaskOptions


def compose(
    call: Call,
    options: TaskOptions | None,
    *,
    now: float,
    priority: int | None,
    origin: str,
    reply_to: str | None,
) -> TaskMessage:
    """Return the message of a call.

    Args:
        call: what the caller wants.
        options: the task's own options, where the task is known here.
        now: Unix seconds.
        priority: as routed.
        origin: names this process.
        reply_to: the queue replies come to, for stores that answer by message.
    """
    task_id = call.task_id or new_id()
    expires = call.expires
    time_limit, soft_time_limit = call.time_limit, call.soft_time_limit
    ignore_result = call.ignore_result
    if options is not None:
        if expires is None and options.expires is not None:
            expires = now + options.expires
        if ignore_result is None:
            ignore_result = options.ignore_result
    message = TaskMessage(
        task_id,
        call.task,
        list(call.args),
        dict(call.kwargs),
        root_id=call.root_id or task_id,
        parent_id=call.parent_id,
        callbacks=_dicts(call.callbacks),
        errbacks=_dicts(call.errbacks),
        chain=_dicts(call.chain),
        group=call.group,
        group_index=call.group_index,
        retries=call.retries,
        replaced_task_nesting=call.replaced_task_nesting,
        eta=call.eta,
        expires=expires,
        time_limit=time_limit,
        soft_time_limit=soft_time_limit,
        origin=origin,
        ignore_result=ignore_result,
        shadow=call.shadow,
        reply_to=call.reply_to or reply_to,
        correlation_id=task_id,
        priority=priority,
        timestamp=now,
    )
    if call.stamps:
        message.stamps, message.stamped_headers = dict(call.stamps), list(call.stamps)
    if call.headers:
        message.extra.update(call.headers)
        # Headers of the protocol's own that a caller, or a task's parent, may give.
        message.traceparent = message.extra.pop("traceparent", message.traceparent)
        message.tracestate = message.extra.pop("tracestate", message.tracestate)
    return message


def _dicts(signatures: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]] | None:
    return [dict(signature) for signature in signatures] or None
