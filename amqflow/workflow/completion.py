"""The calls an outcome leads to: the next step of a chain, links on success, errbacks. Pure.

Ids are derived from the parent's id, the kind and the place, unless the caller set one, so that a
settlement done twice sends the same ids twice (design 4); and they travel with ``amqflow-once``,
so that the second copy does not run (design 5.4).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from amqflow.abc import FAILURE, REVOKED, SUCCESS, Call
from amqflow.canvas import Signature, signature_to_call
from amqflow.protocol import derived_id
from amqflow.protocol import headers as h

if TYPE_CHECKING:
    from collections.abc import Mapping

    from amqflow.abc import Outcome
    from amqflow.protocol import TaskMessage


def following(message: TaskMessage, outcome: Outcome) -> list[Call]:
    """Return the calls a terminal outcome leads to, in a fixed order."""
    if outcome.state == SUCCESS:
        if not message.chain and not message.callbacks:
            return []
        return [*_next_step(message, outcome), *_links(message, outcome)]
    if outcome.state in (FAILURE, REVOKED) and message.errbacks:
        return _errbacks(message, outcome)
    return []


def _next_step(message: TaskMessage, outcome: Outcome) -> list[Call]:
    """Return the next step of a chain. Protocol 2 keeps the steps last first."""
    if not message.chain:
        return []
    *rest, following_step = message.chain
    call = _call(following_step, message, "chain", 0, (outcome.result,))
    call.chain = rest
    if message.errbacks and not call.errbacks:
        # Celery gives a chain's errbacks to every step when it is sent; a step that came
        # without keeps its predecessor's, so that a later failure is not silent.
        call.errbacks = message.errbacks
    return [call]


def _links(message: TaskMessage, outcome: Outcome) -> list[Call]:
    return [
        _call(link, message, "link", place, (outcome.result,))
        for place, link in enumerate(message.callbacks or ())
    ]


def _errbacks(message: TaskMessage, outcome: Outcome) -> list[Call]:
    request: dict[str, Any] = {
        "id": message.id,
        "task": message.task,
        "args": message.args,
        "kwargs": message.kwargs,
        "root_id": message.root_id,
        "parent_id": message.parent_id,
        "retries": message.retries,
    }
    error = outcome.exception
    described = {
        "exc_type": error.type if error else outcome.state,
        "exc_module": error.module if error else "",
        "exc_message": error.text if error else (outcome.reason or ""),
    }
    return [
        _call(errback, message, "errback", place, (request, described, outcome.traceback))
        for place, errback in enumerate(message.errbacks or ())
    ]


def _call(
    step: Mapping[str, Any],
    message: TaskMessage,
    kind: str,
    place: int,
    leading: tuple[object, ...],
) -> Call:
    call = signature_to_call(Signature.from_dict(step), leading)
    call.task_id = call.task_id or derived_id(message.id, kind, place)
    call.root_id = message.root_id or message.id
    call.parent_id = message.id
    if call.priority is None:
        call.priority = message.priority
    call.headers = {**(call.headers or {}), h.ONCE: True}
    return call
