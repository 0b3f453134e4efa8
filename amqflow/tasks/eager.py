"""Runs a task here and now (``apply``, ``task_always_eager``), retries included."""

from __future__ import annotations

import time
import uuid
from typing import TYPE_CHECKING, Any, Final

from amqflow import signals
from amqflow.abc import FAILURE, RETRY, SUCCESS
from amqflow.canvas import signature_from
from amqflow.errors import Ignore, Reject, Retry
from amqflow.handles import EagerResult, describe_error
from amqflow.tasks.context import Request, running
from amqflow.tracebacks import format_error

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from amqflow.abc import Call
    from amqflow.tasks.task import Task

#: Celery's states of a task that ended without a result.
IGNORED: Final = "IGNORED"
REJECTED: Final = "REJECTED"


class EagerRun:
    """One eager call: run attempts with :meth:`once` (or :meth:`aonce`) until it has a result.

    Retries follow at once, their delays are not waited for, as in Celery.
    """

    def __init__(self, task: Task[Any, Any], call: Call, *, hostname: str = "eager") -> None:
        """Prepare the first attempt of a validated call."""
        self._task = task
        self._call = call
        self._hostname = hostname
        self._id = call.task_id or str(uuid.uuid4())
        self._args: Sequence[Any] = call.args
        self._kwargs: Mapping[str, Any] = call.kwargs
        self._retries = call.retries
        self._started = 0.0

    def once(self) -> EagerResult[Any] | None:
        """Run one attempt of a ``def`` task; None: it wants another."""
        request = self._begin()
        result, error = None, None
        with running(self._task, request):
            try:
                args, kwargs = self._task.check_arguments(self._args, self._kwargs)
                self._task.before_start(self._id, args, kwargs)
                result = self._carried(self._task.execute(*args, **kwargs))
            except Exception as raised:  # noqa: BLE001 - whatever a task raises is its outcome
                error = raised
            return self._end(request, result, error)

    async def aonce(self) -> EagerResult[Any] | None:
        """Run one attempt of an ``async def`` task; None: it wants another."""
        request = self._begin()
        result, error = None, None
        with running(self._task, request):
            try:
                args, kwargs = self._task.check_arguments(self._args, self._kwargs)
                self._task.before_start(self._id, args, kwargs)
                result = self._carried(await self._task.execute(*args, **kwargs))
            except Exception as raised:  # noqa: BLE001 - whatever a task raises is its outcome
                error = raised
            return self._end(request, result, error)

    def _carried(self, value: Any) -> Any:
        """Return a result as a caller would read it from a store: checked there and back."""
        return self._task.decode_result(self._task.encode_result(value))

    def _begin(self) -> Request:
        call, task = self._call, self._task
        self._started = time.monotonic()
        request = Request(
            id=self._id,
            task=task.name,
            args=self._args,
            kwargs=self._kwargs,
            root_id=call.root_id or self._id,
            parent_id=call.parent_id,
            retries=self._retries,
            headers=call.headers,
            stamps=call.stamps or {},
            stamped_headers=list(call.stamps) if call.stamps else None,
            group=call.group,
            group_index=call.group_index,
            callbacks=call.callbacks,
            errbacks=call.errbacks,
            timelimit=(call.time_limit, call.soft_time_limit),
            delivery_info={
                "is_eager": True,
                "exchange": call.exchange,
                "routing_key": call.routing_key,
                "priority": call.priority,
                "queue": call.queue,
                "redelivered": False,
            },
            hostname=self._hostname,
            correlation_id=self._id,
            is_eager=True,
            called_directly=False,
        )
        if signals.task_prerun.has_receivers(task):
            signals.task_prerun.send(
                sender=task, task_id=self._id, task=task, args=self._args, kwargs=self._kwargs
            )
        return request

    def _end(
        self, request: Request, result: Any, error: Exception | None
    ) -> EagerResult[Any] | None:
        if error is None:
            state, value = SUCCESS, result
        elif isinstance(error, Ignore):
            state, value = IGNORED, None
        elif isinstance(error, Reject):
            state, value = REJECTED, None
        elif isinstance(error, Retry) or self._task.decide(error, request).again:
            state, value = RETRY, error
        else:
            state, value = FAILURE, error
        trace = format_error(error) if error is not None else None
        self._tell(request, state, value, trace)
        if state == RETRY:
            self._next(error)
            return None
        self._follow(request, state, value, trace)
        return EagerResult(self._id, value, state, traceback=trace, task=self._task.name)

    def _next(self, error: Exception | None) -> None:
        self._retries += 1
        if isinstance(error, Retry):
            self._args = self._args if error.new_args is None else error.new_args
            self._kwargs = self._kwargs if error.new_kwargs is None else error.new_kwargs

    def _tell(self, request: Request, state: str, value: Any, trace: str | None) -> None:
        """Call the hooks and send the signals of an ended attempt, as a worker does."""
        task, task_id, args, kwargs = self._task, self._id, request.args, request.kwargs
        if task.has_hooks:
            task.run_hooks(state, value, request, trace)
        if state == SUCCESS:
            runtime = time.monotonic() - self._started
            signals.task_success.send(sender=task, result=value, runtime=runtime)
        elif state == RETRY:
            signals.task_retry.send(sender=task, request=request, reason=value, einfo=trace)
        elif state == FAILURE:
            signals.task_failure.send(
                sender=task,
                task_id=task_id,
                exception=value,
                args=args,
                kwargs=kwargs,
                traceback=value.__traceback__,
                einfo=trace,
            )
        signals.task_postrun.send(
            sender=task,
            task_id=task_id,
            task=task,
            args=args,
            kwargs=kwargs,
            retval=value,
            state=state,
        )

    def _follow(self, request: Request, state: str, value: Any, trace: str | None) -> None:
        """Send links after success and errbacks after failure (eagerly, where everything is)."""
        if state == SUCCESS:
            for callback in self._call.callbacks:
                self._task.sender_of(signature_from(callback)).apply_async((value,))
        elif state == FAILURE:
            described = describe_error(value)
            for errback in self._call.errbacks:
                self._task.sender_of(signature_from(errback)).apply_async(
                    ({"id": request.id, "task": request.task}, described, trace)
                )
