"""How a chord ends: its body with the list, or its failure, with all that depends on it. Pure."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

from amqflow.abc import FAILURE, SUCCESS, ExceptionInfo, Outcome
from amqflow.tasks.inherit import Heritage
from amqflow.workflow.completion import call_errbacks
from amqflow.workflow.records import Ending, Failure
from amqflow.workflow.unfold import Completion, Launch, Place

if TYPE_CHECKING:
    from amqflow.workflow.records import Fate, Known, Spec
    from amqflow.workflow.unfold import Unfolder


def fired(known: Known, spec: Spec, unfolder: Unfolder, *, now: float) -> Launch:
    """Return what a complete chord leads to: its body, or the list as a result.

    Args:
        known: The chord with its endings.
        spec: What it is for.
        unfolder: Unfolds compositions for its application.
        now: Unix seconds.
    """
    results = known.results()
    fate = spec.fate
    last = max(known.endings, default=None)
    place = replace(_place(fate, known.epoch), parent_id=fate.parent_id)
    if last is not None:
        place = replace(place, parent_id=known.added.get(last) or spec.member_id(known.id, last))
    if spec.body is not None:
        launch = unfolder.unfold(spec.body, place, (results,))
    else:
        launch = Launch()
        end = fate.result
        outcome = Outcome(
            end.id, SUCCESS, result=results, epoch=known.epoch, attempt=end.attempt, date_done=now
        )
        launch.outcomes.append(outcome)
        if fate.member is not None:
            launch.completions.append(
                Completion(fate.member, Ending.of(fate.member.index, outcome))
            )
    unfolder.follow(spec.links, "link", known.id, place, (results,), launch)
    return launch


def failed(
    chord: str, fate: Fate, cause: Failure, unfolder: Unfolder, *, epoch: int, now: float
) -> Launch:
    """Return what a chord's failure leads to.

    Every id that waited for it fails with the member's error, errbacks run once, and the whole
    counts as failed in the enclosing chord.

    Args:
        chord: Its id.
        fate: Who depends on it.
        cause: What failed.
        unfolder: Unfolds compositions for its application.
        epoch: The chord's.
        now: Unix seconds.
    """
    launch = Launch()
    launch.outcomes += [cause.outcome_of(end, epoch=epoch, now=now) for end in fate.ends]
    request: dict[str, Any] = {
        "id": fate.result.id,
        "task": fate.result.task or "celery.group",
        "args": [],
        "kwargs": {},
        "root_id": fate.root_id,
        "parent_id": cause.id,
        "group": chord,
        "retries": 0,
    }
    place = _place(fate, epoch)
    call_errbacks(
        launch, fate.errbacks, request, cause, parent_id=chord, place=place, unfolder=unfolder
    )
    if fate.member is not None:
        ending = Ending.of(
            fate.member.index,
            Outcome(
                cause.id,
                cause.state,
                exception=cause.exception,
                traceback=cause.traceback,
                reason=cause.reason,
                epoch=epoch,
            ),
            cause.task,
        )
        launch.completions.append(Completion(fate.member, ending))
    return launch


def own_failure(chord: str, kind: str, text: str) -> Failure:
    """Return the failure of a chord that no member caused.

    Args:
        chord: Its id.
        kind: The name of an error of :mod:`amqflow.errors`.
        text: What happened.
    """
    error = ExceptionInfo(kind, "amqflow.errors", (text,), text)
    return Failure(chord, "", FAILURE, error, None, text)


def _place(fate: Fate, epoch: int) -> Place:
    return Place(
        root_id=fate.root_id,
        parent_id=fate.parent_id,
        member=fate.member,
        once=True,
        epoch=epoch,
        priority=fate.priority,
        heritage=Heritage(fate.headers, fate.expires),
    )
