"""From what a task returned or raised to the outcome of the attempt. Pure."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from amqflow.abc import FAILURE, RETRY, REVOKED, SUCCESS, DeadReason, ExceptionInfo, Outcome
from amqflow.errors import AmqflowError, InvalidResult, Replaced, Retry, TaskRevoked
from amqflow.results.exceptions import describe
from amqflow.tracebacks import format_error
from amqflow.workflow.completion import children_after
from amqflow.workflow.replace import REPLACEMENT

if TYPE_CHECKING:
    from collections.abc import Mapping

    from amqflow.abc import Child
    from amqflow.worker.job import Job

#: Characters of a traceback kept, its end: where the error was raised.
LONGEST_TRACEBACK = 16 * 1024


def conclude(job: Job, result: object, error: BaseException | None, *, now: float) -> Outcome:
    """Return how an attempt ended.

    Args:
        job: what ran.
        result: what it returned.
        error: what it raised; None where it returned.
        now: Unix seconds.
    """
    if error is None:
        try:
            value = job.task.encode_result(result)
        except InvalidResult as wrong:
            return _failure(job, wrong, now, park=True)
        return _outcome(job, SUCCESS, now, result=value, children=_children(job))
    if isinstance(error, Retry | Replaced):
        return _retry(job, error, now)
    if isinstance(error, TaskRevoked):
        return _outcome(job, REVOKED, now, reason=str(error) or "revoked", park=DeadReason.REVOKED)
    decision = job.task.decide(error, job.request)
    if decision.again:
        return _outcome(
            job,
            RETRY,
            now,
            exception=describe(error),
            traceback=_traceback(error),
            retry_at=now + decision.delay,
            reason=decision.reason,
            replaced_by=_kept(job.task.options.retry_kwargs),
        )
    return _failure(job, error, now, park=decision.park, reason=decision.reason)


def left(job: Job, now: float) -> Outcome:
    """Return how a task that raised Ignore ends for those who wait for it: without a result."""
    return _outcome(job, REVOKED, now, reason="it ended itself without a result (Ignore)")


def rejected(job: Job, text: str, now: float) -> Outcome:
    """Return how a task that raised Reject ends for those who wait for it."""
    error = ExceptionInfo("Reject", "amqflow.errors", (text,), text)
    return _outcome(job, FAILURE, now, exception=error, reason=text)


def _retry(job: Job, retry: Retry | Replaced, now: float) -> Outcome:
    if isinstance(retry, Replaced):
        return _outcome(
            job, RETRY, now, reason=str(retry), replaced_by={REPLACEMENT: retry.signature}
        )
    cause = retry.exc if retry.exc is not None else retry
    return _outcome(
        job,
        RETRY,
        now,
        exception=describe(cause),
        traceback=_traceback(cause),
        retry_at=retry.when if retry.when is not None else now,
        reason=str(retry),
        replaced_by=_changes(retry),
    )


def _changes(retry: Retry) -> dict[str, Any] | None:
    """Return what the next attempt has otherwise than this one."""
    changes: dict[str, Any] = {}
    if retry.new_args is not None:
        changes["args"] = list(retry.new_args)
    if retry.new_kwargs is not None:
        changes["kwargs"] = dict(retry.new_kwargs)
    if retry.options:
        changes["options"] = dict(retry.options)
    return changes or None


def _kept(retry_kwargs: Mapping[str, Any]) -> dict[str, Any] | None:
    """Return what ``retry_kwargs`` says of the next attempt, beside whether and when."""
    options = {
        name: value
        for name, value in retry_kwargs.items()
        if name not in {"max_retries", "countdown"}
    }
    return {"options": options} if options else None


def _failure(
    job: Job, error: BaseException, now: float, *, park: bool, reason: str = ""
) -> Outcome:
    return _outcome(
        job,
        FAILURE,
        now,
        exception=describe(error),
        traceback=_traceback(error),
        park=DeadReason.FAILED if park else None,
        reason=reason or None,
    )


def _children(job: Job) -> tuple[Child, ...]:
    """Return what the task has sent, and what is sent when it has succeeded."""
    try:
        return (*job.request.children, *children_after(job.message))
    except (AmqflowError, TypeError, ValueError):
        return job.request.children  # what follows is no signature: settling says so


def _outcome(
    job: Job, state: str, now: float, *, children: tuple[Child, ...] | None = None, **fields: Any
) -> Outcome:
    message = job.message
    return Outcome(
        message.id,
        state,
        epoch=message.epoch,
        attempt=message.attempt,
        children=job.request.children if children is None else children,
        parent_id=message.parent_id,
        group_id=message.group,
        date_done=now,
        **fields,
    )


def _traceback(error: BaseException) -> str:
    try:
        text = format_error(error)
    except Exception as worse:  # noqa: BLE001 - an exception whose __str__ raises is still one
        text = f"{type(error).__name__} (its traceback cannot be written: {worse!r})"
    return text if len(text) <= LONGEST_TRACEBACK else "…" + text[-LONGEST_TRACEBACK:]
