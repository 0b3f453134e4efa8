"""Runs a task's body with what belongs around it; shared by the pools of this process."""

from __future__ import annotations

import os
from functools import partial
from typing import TYPE_CHECKING, Any

from amqflow.logs import bind_task, get_logger
from amqflow.tasks import running
from amqflow.worker.pools.soft import SoftLimit

if TYPE_CHECKING:
    from collections.abc import Coroutine

    from amqflow.worker.job import Job
    from amqflow.worker.pools.seam import Hooks

log = get_logger("amqflow.worker")


def call(job: Job, hooks: Hooks) -> object:
    """Run a ``def`` body; what it raises goes through."""
    with bound(job), running(job.task, job.request):
        hooks.admit(job)
        hooks.began(job)
        try:
            if hooks.around.wanted(job):
                result = hooks.around.call(job)
            else:
                result = job.task.execute(*job.args, **job.kwargs)
        except BaseException as error:
            hooks.concluded(job, None, error)
            raise
        hooks.concluded(job, result, None)
        return result


def coroutine_of(job: Job, hooks: Hooks) -> Coroutine[Any, Any, object]:
    """Return the coroutine of an ``async def`` body with the hooks around it."""
    if not hooks.around.wanted(job):
        return job.task.run_async(*job.args, **job.kwargs)
    return hooks.around.acall(job, partial(job.task.run_async, *job.args, **job.kwargs))


def limited(job: Job, work: Coroutine[Any, Any, object]) -> Coroutine[Any, Any, object]:
    """Return ``work`` under the job's soft limit."""
    return SoftLimit(job.soft_time_limit).run(work) if job.soft_time_limit else work


async def acall(job: Job, hooks: Hooks) -> object:
    """Run an ``async def`` body in a loop that is not the worker's."""
    with bound(job), running(job.task, job.request):
        hooks.admit(job)
        hooks.began(job)
        try:
            result = await limited(job, coroutine_of(job, hooks))
        except Exception as error:
            hooks.concluded(job, None, error)
            raise
        hooks.concluded(job, result, None)
        return result


def bound(job: Job) -> bind_task:
    """Name the task on every line it logs."""
    message = job.message
    return bind_task(
        message.id,
        message.task,
        root_id=message.root_id or message.id,
        queue=job.lane.queue,
        attempt=message.retries,
    )


def end_copy(job: Job, error: BaseException | None) -> None:
    """End a process that is a copy of the worker, made by a task's ``os.fork``.

    It has come back from the task's body with the worker's sockets in its hands; going on it
    would run the worker's tasks a second time.
    """
    code = error.code if isinstance(error, SystemExit) else int(error is not None)
    log.warning(
        "a copy of this process, forked by the task, came back from it and is ended",
        task_id=job.message.id,
        task=job.message.task,
        pid=os.getpid(),
    )
    os._exit(code if isinstance(code, int) else int(code is not None))
