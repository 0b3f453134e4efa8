"""What runs around a task's body, in the same thread or coroutine: middleware and base classes.

A hook of a base class (Celery's ``before_start``, ``on_success``, ``on_failure``, ``on_retry``,
``after_return``) that fails is logged; only ``before_start`` and ``before_execute`` can keep the
body from running, and their error is then the attempt's.
"""

from __future__ import annotations

import traceback as tracebacks
from typing import TYPE_CHECKING, Any

from amqflow.abc import FAILURE, RETRY, SUCCESS
from amqflow.errors import Ignore, Reject, Retry, ShutdownInProgress
from amqflow.logs import get_logger

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine

    from amqflow.middleware import Stack
    from amqflow.worker.job import Job

log = get_logger("amqflow.worker")


class Around:
    """Calls bodies with their hooks; where there are none, a call costs one comparison."""

    __slots__ = ("_middleware",)

    def __init__(self, middleware: Stack) -> None:
        """Use the application's middleware."""
        self._middleware = middleware

    def wanted(self, job: Job) -> bool:
        """Whether anything runs around this job's body."""
        return self._middleware.executes or job.task.has_hooks

    def call(self, job: Job) -> object:
        """Run a ``def`` body with its hooks."""
        result: object = None
        error: BaseException | None = None
        try:
            self._before(job)
            result = job.task.execute(*job.args, **job.kwargs)
        except BaseException as raised:
            error = raised
            raise
        finally:
            self._after(job, result, error)
        return result

    async def acall(self, job: Job, work: Callable[[], Coroutine[Any, Any, object]]) -> object:
        """Run an ``async def`` body with its hooks."""
        result: object = None
        error: BaseException | None = None
        try:
            self._before(job)
            result = await work()
        except BaseException as raised:
            error = raised
            raise
        finally:
            self._after(job, result, error)
        return result

    def _before(self, job: Job) -> None:
        if self._middleware.executes:
            self._middleware.before_execute(job.request)
        if job.task.has_hooks:
            job.task.before_start(job.message.id, job.args, job.kwargs)

    def _after(self, job: Job, result: object, error: BaseException | None) -> None:
        if self._middleware.executes:
            self._middleware.after_execute(job.request, result, error)
        if not job.task.has_hooks or isinstance(error, Ignore | Reject | ShutdownInProgress):
            return
        try:
            self._tell_base(job, result, error)
        except Exception:
            log.exception("a hook of the task's base class failed", task=job.task.name)

    @staticmethod
    def _tell_base(job: Job, result: object, error: BaseException | None) -> None:
        task, task_id, args, kwargs = job.task, job.message.id, job.args, job.kwargs
        if error is None:
            task.on_success(result, task_id, args, kwargs)
            task.after_return(SUCCESS, result, task_id, args, kwargs, None)
            return
        text = "".join(tracebacks.format_exception(error))
        if isinstance(error, Retry) or task.decide(error, job.request).again:
            cause = error.exc if isinstance(error, Retry) and error.exc is not None else error
            task.on_retry(cause, task_id, args, kwargs, text)
            task.after_return(RETRY, cause, task_id, args, kwargs, text)
        else:
            task.on_failure(error, task_id, args, kwargs, text)
            task.after_return(FAILURE, error, task_id, args, kwargs, text)
