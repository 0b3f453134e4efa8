"""What runs around a task's body, in the same thread or coroutine: middleware and base classes.

A hook of a base class (Celery's ``before_start``, ``on_success``, ``on_failure``, ``on_retry``,
``after_return``) that fails is logged; only ``before_start`` and ``before_execute`` can keep the
body from running, and their error is then the attempt's.
"""

from __future__ import annotations

import traceback as tracebacks
from typing import TYPE_CHECKING, Any, Final

from amqflow.abc import FAILURE, RETRY, SUCCESS
from amqflow.errors import Ignore, Reject, Replaced, Retry, ShutdownInProgress

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine

    from amqflow.middleware import Stack
    from amqflow.worker.job import Job


#: What ends a run and is no end of its task, for hooks.
WITHOUT_END: Final = (Ignore, Reject, Replaced, ShutdownInProgress)


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
            self._after(job, result, job.cut or error)
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
            self._after(job, result, job.cut or error)
        return result

    def _before(self, job: Job) -> None:
        if self._middleware.executes:
            self._middleware.before_execute(job.request)
        if job.task.has_hooks:
            job.task.before_start(job.message.id, job.args, job.kwargs)

    def _after(self, job: Job, result: object, error: BaseException | None) -> None:
        if self._middleware.executes:
            self._middleware.after_execute(job.request, result, error)
        if not job.task.has_hooks or isinstance(error, WITHOUT_END):
            return
        task, request = job.task, job.request
        if error is None:
            task.run_hooks(SUCCESS, result, request, None)
            return
        text = "".join(tracebacks.format_exception(error))
        if isinstance(error, Retry) or task.decide(error, request).again:
            cause = error.exc if isinstance(error, Retry) and error.exc is not None else error
            task.run_hooks(RETRY, cause, request, text)
        else:
            task.run_hooks(FAILURE, error, request, text)
