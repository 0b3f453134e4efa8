"""Runs ready jobs, at most ``slots`` at a time: coroutines in the loop, functions in threads."""

from __future__ import annotations

import asyncio
from functools import partial
from typing import TYPE_CHECKING, Any

from amqflow.errors import ShutdownInProgress, TimeLimitExceeded
from amqflow.logs import bind_task, get_logger
from amqflow.tasks import running
from amqflow.worker.ready import ReadyHeap
from amqflow.worker.soft import SoftLimit
from amqflow.worker.threads import ThreadPool

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine

    from amqflow.worker.hooks import Around
    from amqflow.worker.job import Job

log = get_logger("amqflow.worker")


class Executor:
    """One budget of slots over both pools; ``on_done`` gets (job, result, error) in the loop.

    ``on_dropped`` is told of jobs whose channel closed before they started: they do not run.
    """

    def __init__(
        self,
        *,
        slots: int,
        on_done: Callable[[list[tuple[Job, object, BaseException | None]]], None],
        on_start: Callable[[Job], None],
        on_dropped: Callable[[Job], None],
        around: Around,
    ) -> None:
        """Run in the running loop."""
        self._loop = asyncio.get_running_loop()
        self._free = slots
        self._slots = slots
        self._on_done = on_done
        self._on_start = on_start
        self._on_dropped = on_dropped
        self._around = around
        self._ready = ReadyHeap()
        self._open = True
        self._tasks: dict[asyncio.Task[None], Job] = {}
        self._in_threads: set[Job] = set()
        self._idle = asyncio.Event()
        self._idle.set()
        self._threads = ThreadPool(
            self._loop,
            size=slots,
            execute=self._in_thread,
            take=self._take_for_thread,
            on_done=self._threads_done,
        )

    @property
    def running(self) -> int:
        """How many jobs run now."""
        return self._slots - self._free

    @property
    def waiting(self) -> int:
        """How many jobs wait for a slot."""
        return len(self._ready)

    @property
    def abandoned_threads(self) -> int:
        """How many threads were given up at a hard limit and still run."""
        return self._threads.abandoned

    def push(self, job: Job) -> None:
        """Add a job; call :meth:`pump` when all of this turn are added."""
        self._ready.push(job)

    def pump(self) -> None:
        """Start waiting jobs while slots are free, highest priority first."""
        while self._open and self._free > 0 and (job := self._ready.pop()) is not None:
            if job.abandoned:
                self._on_dropped(job)
                continue
            self._free -= 1
            self._idle.clear()
            if job.task.is_async:
                task = self._loop.create_task(self._in_loop(job))
                self._tasks[task] = job
                task.add_done_callback(self._task_done)
            else:
                self._threads.submit(job)

    # -- coroutines ------------------------------------------------------------------------

    async def _in_loop(self, job: Job) -> None:
        result: object = None
        error: BaseException | None = None
        try:
            with _bound(job):
                self._on_start(job)
                with running(job.task, job.request):
                    work = self._work(job)
                    if job.soft_time_limit:
                        work = SoftLimit(job.soft_time_limit).run(work)
                    if job.time_limit:
                        result = await self._hard(work, job.time_limit)
                    else:
                        result = await work
        except asyncio.CancelledError:
            task = asyncio.current_task()
            error = (
                ShutdownInProgress("the worker was told twice to stop")
                if task is not None and task.cancelling()
                else asyncio.CancelledError("the task cancelled itself")
            )
        except BaseException as raised:  # noqa: BLE001 - whatever a task raises is its outcome
            error = raised
        self._on_done([(job, result, error)])

    def _work(self, job: Job) -> Coroutine[Any, Any, object]:
        if not self._around.wanted(job):
            return job.task.run_async(*job.args, **job.kwargs)
        return self._around.acall(job, partial(job.task.run_async, *job.args, **job.kwargs))

    @staticmethod
    async def _hard(work: Any, seconds: float) -> object:
        limit = asyncio.timeout(seconds)
        try:
            async with limit:
                return await work
        except TimeoutError:
            if limit.expired():
                raise TimeLimitExceeded(seconds) from None
            raise

    def _task_done(self, task: asyncio.Task[None]) -> None:
        job = self._tasks.pop(task)
        self._release(1)
        if not task.cancelled() and (error := task.exception()) is not None:
            log.error("settling failed", task_id=job.message.id, exc_info=error)
        self.pump()

    # -- threads ---------------------------------------------------------------------------

    def _in_thread(self, job: Job) -> object:
        with _bound(job):
            self._on_start(job)
            with running(job.task, job.request):
                if self._around.wanted(job):
                    return self._around.call(job)
                return job.task.execute(*job.args, **job.kwargs)

    def _take_for_thread(self) -> Job | None:
        if not self._open:
            return None
        job = self._ready.pop_if(_for_threads)
        while job is not None and job.abandoned:
            self._loop.call_soon_threadsafe(self._on_dropped, job)
            job = self._ready.pop_if(_for_threads)
        return job

    def _threads_done(
        self, finished: list[tuple[Job, object, BaseException | None]], freed: int
    ) -> None:
        self._on_done(finished)
        self._release(freed)
        self.pump()

    def _release(self, slots: int) -> None:
        self._free += slots
        if self._free >= self._slots:
            self._idle.set()

    # -- stopping --------------------------------------------------------------------------

    def halt(self) -> None:
        """Start nothing more."""
        self._open = False

    def drain(self) -> list[Job]:
        """Take out the jobs that have not started."""
        return self._ready.drain()

    async def wait_idle(self, timeout: float | None) -> bool:
        """Wait until nothing runs; False when ``timeout`` seconds passed first."""
        try:
            async with asyncio.timeout(timeout):
                await self._idle.wait()
        except TimeoutError:
            return False
        return True

    def cut_off(self) -> None:
        """Cancel what runs in the loop (second signal); threads end with the process."""
        for task in list(self._tasks):
            task.cancel()

    def close(self) -> None:
        """Let the threads end."""
        self._threads.close()


def _for_threads(job: Job) -> bool:
    return not job.task.is_async


def _bound(job: Job) -> bind_task:
    """Name the task on every line it logs."""
    message = job.message
    return bind_task(
        message.id,
        message.task,
        root_id=message.root_id or message.id,
        queue=job.lane.queue,
        attempt=message.retries,
    )
