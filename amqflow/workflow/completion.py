"""What an outcome leads to: the next step of a chain, links, errbacks, a chord's count. Pure.

Ids are derived from the parent's id, the kind and the place, unless the caller set one, so that a
settlement done twice sends the same ids twice (design 4); and they travel with ``amqflow-once``,
so that the second copy does not run (design 5.4).
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any, Final

from amqflow.abc import FAILURE, REVOKED, SUCCESS, DeadReason, ExceptionInfo
from amqflow.errors import Undecodable
from amqflow.protocol import derived_id
from amqflow.protocol import headers as h
from amqflow.workflow.freeze import DerivedIds, chosen_id, freeze, kind_of, result_id
from amqflow.workflow.records import Ending, Failure, Membership
from amqflow.workflow.unfold import Completion, Launch, Place, ends_of

if TYPE_CHECKING:
    from collections.abc import Sequence

    from amqflow.abc import Child, Outcome
    from amqflow.protocol import Envelope, TaskMessage
    from amqflow.workflow.freeze import Step
    from amqflow.workflow.unfold import Unfolder


#: Members of a group that are named among a task's children; of a larger one only its id is.
MOST_CHILDREN: Final = 1000


def following(message: TaskMessage, outcome: Outcome, unfolder: Unfolder, *, now: float) -> Launch:
    """Return what a terminal outcome leads to.

    Args:
        message: The task's.
        outcome: The one that stands.
        unfolder: Unfolds compositions for the application of this worker.
        now: Unix seconds.

    Raises:
        ConfigurationError, TypeError, ValueError: What follows is no signature.
        Undecodable: The membership in a chord cannot be read.
    """
    if outcome.state == SUCCESS:
        return _succeeded(message, outcome, unfolder)
    if outcome.state in (FAILURE, REVOKED):
        return _failed(message, outcome, unfolder, now)
    return Launch()


def membership(message: TaskMessage) -> Membership | None:
    """Return the chord a message's task counts in, and its place there."""
    return Membership.of(message.extra.get(h.CHORD))


def place_after(message: TaskMessage, unfolder: Unfolder, later: Sequence[Step] = ()) -> Place:
    """Return the place of what follows a task in its chain."""
    heritage = unfolder.inherits.heritage(
        message.extra,
        traceparent=message.traceparent,
        tracestate=message.tracestate,
        expires=message.expires,
        priority=message.priority,
    )
    return Place(
        root_id=message.root_id or message.id,
        parent_id=message.id,
        later=tuple(later),
        member=membership(message),
        once=True,
        epoch=message.epoch,
        priority=message.priority,
        heritage=heritage,
    )


def _succeeded(message: TaskMessage, outcome: Outcome, unfolder: Unfolder) -> Launch:
    place = place_after(message, unfolder)
    launch = Launch()
    if message.chain:
        step, *later = steps_after(message)
        launch = unfolder.unfold(step, replace(place, later=tuple(later)), (outcome.result,))
    elif place.member is not None:
        ending = Ending.of(place.member.index, outcome, message.task)
        launch.completions.append(Completion(place.member, ending))
    unfolder.follow(message.callbacks or (), "link", message.id, place, (outcome.result,), launch)
    return launch


def children_after(message: TaskMessage) -> tuple[Child, ...]:
    """Return what a success leads to, as Celery's ``children``: the next step, and the links."""
    if not message.chain and not message.callbacks:
        return ()
    after: list[Child] = []
    if message.chain:
        after.append(_child(steps_after(message)[0]))
    after += [
        chosen_id(link) or derived_id(message.id, "link", ordinal)
        for ordinal, link in enumerate(message.callbacks or ())
    ]
    return tuple(after)


def _child(frozen: Step) -> Child:
    if kind_of(frozen) != "group":
        return result_id(frozen)
    members = frozen["kwargs"]["tasks"]
    shown = members if len(members) <= MOST_CHILDREN else ()
    return result_id(frozen), tuple(map(_child, shown))


def steps_after(message: TaskMessage) -> list[Step]:
    """Return the steps that follow a task in its chain, frozen, first first.

    Those of a message of ours are frozen already; a foreign client's may not be.
    """
    steps = (message.chain or [])[::-1]
    return [
        step
        if step.get("subtask_type") is None and chosen_id(step)
        else freeze(
            step,
            DerivedIds(message.id, f"chain.{ordinal}"),
            result={"task_id": chosen_id(step) or derived_id(message.id, "chain", ordinal)},
        )
        for ordinal, step in enumerate(steps)
    ]


def _failed(message: TaskMessage, outcome: Outcome, unfolder: Unfolder, now: float) -> Launch:
    launch = Launch()
    place = place_after(message, unfolder)
    cause = Failure.of(outcome, message.task)
    if message.chain:
        launch.outcomes += [
            cause.outcome_of(end, epoch=message.epoch, now=now)
            for end in ends_of(steps_after(message))
        ]
    if message.errbacks:
        call_errbacks(
            launch,
            message.errbacks,
            request_of(message),
            cause,
            parent_id=message.id,
            place=place,
            unfolder=unfolder,
        )
    if place.member is not None:
        ending = Ending.of(place.member.index, outcome, message.task)
        launch.completions.append(Completion(place.member, ending))
    return launch


def call_errbacks(
    launch: Launch,
    errbacks: Sequence[Step],
    request: dict[str, Any],
    cause: Failure,
    *,
    parent_id: str,
    place: Place,
    unfolder: Unfolder,
) -> None:
    """Add the calls of errbacks: Celery's new style (request, exc, traceback), as data.

    The worker that runs one makes a request and an exception of it again.
    """
    error = cause.described()
    described = {
        "exc_type": error.type,
        "exc_module": error.module,
        "exc_message": error.text,
        "exc_args": list(error.args),
    }
    before = len(launch.calls)
    place = replace(place, heritage=place.heritage.without_deadline())
    unfolder.follow(
        errbacks, "errback", parent_id, place, (request, described, cause.traceback), launch
    )
    for call in launch.calls[before:]:
        call.headers = {**(call.headers or {}), h.ERRBACK: True}


def request_of(message: TaskMessage) -> dict[str, Any]:
    """Return what an errback is told of the task that failed."""
    return {
        "id": message.id,
        "task": message.task,
        "args": message.args,
        "kwargs": message.kwargs,
        "root_id": message.root_id,
        "parent_id": message.parent_id,
        "group": message.group,
        "group_index": message.group_index,
        "retries": message.retries,
    }


def lost_member(envelope: Envelope, why: DeadReason, text: str) -> Completion | None:
    """Return the failure of a member whose message is parked without being read to its end."""
    headers = envelope.headers
    try:
        member = Membership.of(headers.get(h.CHORD))
    except Undecodable:
        return None
    if member is None:
        return None
    task_id, task, epoch = headers.get("id"), headers.get("task"), headers.get(h.EPOCH)
    cause = Failure(
        task_id if isinstance(task_id, str) else member.task_id,
        task if isinstance(task, str) else "",
        FAILURE,
        ExceptionInfo(_ERRORS.get(why, "AmqflowError"), "amqflow.errors", (text,), text),
        None,
        text,
    )
    ending = Ending(
        member.index,
        succeeded=False,
        value=cause.to_json(),
        epoch=epoch if isinstance(epoch, int) and epoch > 0 else 0,
    )
    return Completion(member, ending)


_ERRORS = {DeadReason.UNDECODABLE: "Undecodable"}
