"""Tells signals how a run began and ended, in the thread or coroutine it ran in.

As in Celery, receivers run where the task ran: they may block, send tasks, and clean up what
belongs to the thread. Those of an ``async def`` task run in its loop and must not block.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from amqflow import signals
from amqflow.abc import SUCCESS
from amqflow.errors import Ignore, Reject, Replaced, rebuild_exception
from amqflow.tracebacks import format_error

if TYPE_CHECKING:
    from amqflow.abc import Outcome
    from amqflow.tasks import Task
    from amqflow.worker.job import Job

_ENDS: Final = (
    signals.task_success,
    signals.task_failure,
    signals.task_retry,
    signals.task_revoked,
    signals.task_postrun,
)

#: Celery's states of runs that end without an outcome.
IGNORED: Final = "IGNORED"
REJECTED: Final = "REJECTED"


@dataclass(frozen=True, slots=True)
class ErrorInfo:
    """An exception for signal receivers: the part of Celery's ``ExceptionInfo`` that is used."""

    exception: BaseException
    traceback: str

    @property
    def type(self) -> type[BaseException]:
        """The exception's class."""
        return type(self.exception)

    def __str__(self) -> str:
        return self.traceback


def wanted(task: Task[..., Any]) -> bool:
    """Whether anybody listens to how runs of a task end."""
    return any(signal.has_receivers(task) for signal in _ENDS)


def began(job: Job) -> None:
    """Send ``task_prerun``."""
    if signals.task_prerun.has_receivers(job.task):
        signals.task_prerun.send(
            sender=job.task,
            task_id=job.message.id,
            task=job.task,
            args=job.args,
            kwargs=job.kwargs,
        )


def ended(job: Job, outcome: Outcome, error: BaseException | None = None) -> None:
    """Send the signal of an outcome, and ``task_postrun``.

    Args:
        job: what ran.
        outcome: how it ended.
        error: what it raised; where it is not at hand it is rebuilt, without a traceback.
    """
    task = job.task
    if error is None and outcome.exception is not None:
        error = rebuild_exception(outcome.exception)
    info = None if error is None else ErrorInfo(error, outcome.traceback or _text(error))
    match outcome.state:
        case "SUCCESS":
            signals.task_success.send(sender=task, result=outcome.result)
        case "FAILURE":
            signals.task_failure.send(
                sender=task,
                task_id=outcome.id,
                exception=error,
                args=job.args,
                kwargs=job.kwargs,
                traceback=None if error is None else error.__traceback__,
                einfo=info,
            )
        case "RETRY" if outcome.exception is not None:
            signals.task_retry.send(sender=task, request=job.request, reason=error, einfo=info)
        case "REVOKED":
            signals.task_revoked.send(
                sender=task,
                request=job.request,
                terminated=(outcome.reason or "").startswith("terminated"),
                signum=None,
                expired=outcome.reason == "expired",
            )
    postrun(job, outcome.result if outcome.state == SUCCESS else error, outcome.state)


def aside(job: Job, error: BaseException) -> None:
    """Send ``task_postrun`` for a run that ended without an outcome."""
    if isinstance(error, Ignore | Replaced):
        postrun(job, error, IGNORED)
    elif isinstance(error, Reject):
        postrun(job, error, REJECTED)


def postrun(job: Job, retval: object, state: str) -> None:
    """Send ``task_postrun``."""
    signals.task_postrun.send(
        sender=job.task,
        task_id=job.message.id,
        task=job.task,
        args=job.args,
        kwargs=job.kwargs,
        retval=retval,
        state=state,
    )


def _text(error: BaseException) -> str:
    return format_error(error)
