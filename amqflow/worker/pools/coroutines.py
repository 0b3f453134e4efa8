"""Runs ``async def`` tasks in the worker's own loop."""

from __future__ import annotations

import asyncio
import os
from contextvars import copy_context
from functools import partial
from typing import TYPE_CHECKING, Any, Final

from amqflow.errors import TimeLimitExceeded
from amqflow.logs import get_logger
from amqflow.tasks import running
from amqflow.worker.pools import body, where
from amqflow.worker.pools.seam import PoolCapabilities

if TYPE_CHECKING:
    from collections.abc import Coroutine, Mapping
    from contextvars import Context

    from amqflow.worker.job import Job
    from amqflow.worker.pools.seam import Hooks

log = get_logger("amqflow.worker")

#: Seconds a cancelled coroutine has to clean up before it is closed where it waits.
CANCEL_GRACE: Final = 0.1
#: Seconds it has where the worker leaves.
CUT_GRACE: Final = 1.0


class CoroutinePool:
    """One coroutine per job; a hard limit cancels it, and closes it where it does not heed that."""

    def __init__(self, hooks: Hooks) -> None:
        """Run in the running loop."""
        self._loop = asyncio.get_running_loop()
        self._hooks = hooks
        self._pid = os.getpid()
        #: A coroutine is closed in the context it runs in: its context variables belong there.
        self._running: dict[Job, tuple[asyncio.Task[None], Context]] = {}
        self._bodies: dict[Job, Coroutine[Any, Any, object]] = {}
        #: Why this pool cancelled what it cancelled.
        self._cancelled: dict[Job, BaseException] = {}
        #: Coroutines that nothing stops; how they end is nobody's business any more.
        self._given_up: set[Job] = set()

    @property
    def capabilities(self) -> PoolCapabilities:
        """Of ``async def`` tasks: all at once, each cancellable, all in this process."""
        return PoolCapabilities(parallel=True, kills=True, isolates=False, interrupts=True)

    async def start(self) -> None:
        """Do nothing: the loop runs."""

    def submit(self, job: Job) -> None:
        """Start a coroutine."""
        context = copy_context()
        task = self._loop.create_task(self._run(job), context=context)
        self._running[job] = (task, context)
        task.add_done_callback(partial(self._task_done, job))

    async def _run(self, job: Job) -> None:
        result: object = None
        error: BaseException | None = None
        timer = self._loop.call_later(job.time_limit, self._hard, job) if job.time_limit else None
        try:
            with body.bound(job), running(job.task, job.request):
                self._hooks.admit(job)
                self._hooks.began(job)
                result = await self._limited(job)
        except asyncio.CancelledError:
            error = asyncio.CancelledError("the task cancelled itself")
        except BaseException as raised:  # noqa: BLE001 - whatever a task raises is its outcome
            error = raised
        if os.getpid() != self._pid:
            body.end_copy(job, error)
        if timer is not None:
            timer.cancel()
        self._bodies.pop(job, None)
        if job in self._given_up:
            self._given_up.discard(job)
            log.warning("a task given up has ended at last", task_id=job.message.id)
            return
        # What was cancelled has ended so, whatever the task made of it.
        self._hooks.ended([(job, result, self._cancelled.pop(job, error))], 0)

    async def _limited(self, job: Job) -> object:
        work = body.coroutine_of(job, self._hooks)
        if job.time_limit:
            self._bodies[job] = work
        try:
            result = await body.limited(job, work)
        except Exception as error:
            if job not in self._cancelled:
                self._hooks.concluded(job, None, error)
            raise
        if job not in self._cancelled:
            self._hooks.concluded(job, result, None)
        return result

    # -- ending ----------------------------------------------------------------------------

    def _hard(self, job: Job) -> None:
        """Cancel a coroutine at its hard limit; it has a moment to clean up."""
        if job in self._running:
            why = TimeLimitExceeded(job.time_limit)
            self.terminate(job, where.noted(why, where.of_coroutine(self._bodies.get(job))))

    def terminate(self, job: Job, why: BaseException) -> bool:
        """Cancel a coroutine, and close it where it waits if it does not heed that."""
        if job not in self._running:
            return False
        self._cancel(job, why)
        self._loop.call_later(CANCEL_GRACE, self._close_by_force, job)
        return True

    def _cancel(self, job: Job, why: BaseException) -> None:
        job.cut = self._cancelled.setdefault(job, why)
        self._running[job][0].cancel()

    def _close_by_force(self, job: Job) -> None:
        """End a coroutine that swallows its cancellation: it sees GeneratorExit where it waits."""
        if job not in self._running or self._running[job][0].done():
            return
        task, context = self._running.pop(job)
        log.error(
            "the task swallows its cancellation: it is closed where it waits",
            task_id=job.message.id,
            task=job.task.name,
        )
        try:
            context.run(_close, task)
        except RuntimeError:
            # It waits again, even now: asyncio knows nothing stronger.
            log.exception("the task cannot be stopped and goes on", task_id=job.message.id)
            self._given_up.add(job)
            self._hooks.ended([(job, None, self._cancelled.pop(job))], 0)
        task.cancel()  # what it waited for
        self._hooks.ended([], 1)

    def _task_done(self, job: Job, task: asyncio.Task[None]) -> None:
        error = None if task.cancelled() else task.exception()
        if self._running.pop(job, None) is None:
            return  # closed by force: its task has met a coroutine that had ended
        if error is not None:
            log.error("settling failed", task_id=job.message.id, exc_info=error)
        self._hooks.ended([], 1)

    def cut_off(self, why: BaseException) -> None:
        """Cancel every coroutine; those that do not heed it are closed a second later."""
        for job in list(self._running):
            self._cancel(job, why)
            self._loop.call_later(CUT_GRACE, self._close_by_force, job)

    def halt(self) -> None:
        """Do nothing: nothing is replaced here."""

    async def close(self) -> None:
        """Do nothing: what still runs ends with the loop."""

    def describe(self) -> Mapping[str, Any]:
        """Return how many coroutines run, and how many cannot be stopped."""
        return {"coroutines": len(self._running), "coroutines_given_up": len(self._given_up)}


def _close(task: asyncio.Task[None]) -> None:
    coroutine = task.get_coro()
    if coroutine is not None:  # a task that began eagerly and ended at once has none
        coroutine.close()
