"""Runs tasks in threads, handing jobs over without a trip through the loop for each.

``def`` tasks run in the thread itself, ``async def`` ones in an event loop of the thread's own.
"""

from __future__ import annotations

import asyncio
import os
import queue
import threading
from collections import deque
from typing import TYPE_CHECKING, Any

from amqflow.errors import SoftTimeLimitExceeded, TimeLimitExceeded
from amqflow.logs import get_logger
from amqflow.worker.pools import body, where
from amqflow.worker.pools.seam import PoolCapabilities
from amqflow.worker.pools.soft import raise_in_thread

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine, Mapping

    from amqflow.worker.job import Job
    from amqflow.worker.pools.seam import Ended, Hooks

log = get_logger("amqflow.worker")


class Runner:
    """One pool thread, the job it runs, and its event loop once it has had a use for one."""

    __slots__ = ("abandoned", "coroutine", "ident", "job", "lock", "loop", "thread")

    def __init__(self) -> None:
        self.thread: threading.Thread | None = None
        self.ident = 0
        self.job: Job | None = None
        self.abandoned = False
        self.loop: asyncio.Runner | None = None
        self.coroutine: asyncio.Task[object] | None = None
        # Guards `job` against a limit that fires while the job ends.
        self.lock = threading.Lock()


class ThreadPool:
    """Pool threads that take the next job themselves when they have finished one.

    ``Hooks.take`` returns the next job for a thread if it is the highest of all that wait,
    keeping the slot, or None to give it back. Finished jobs reach ``Hooks.ended`` in the loop,
    many in one wake-up.
    """

    def __init__(
        self,
        hooks: Hooks,
        size: int,
        *,
        close_loop: Callable[[], Coroutine[Any, Any, None]],
    ) -> None:
        """Start no thread yet; they start as jobs come, at most ``size``.

        ``close_loop`` lets go of what the application has opened in a thread's event loop.
        """
        self._loop = asyncio.get_running_loop()
        self._size = size
        self._hooks = hooks
        self._close_loop = close_loop
        self._pid = os.getpid()
        self._inbox: queue.SimpleQueue[Job | None] = queue.SimpleQueue()
        self._runners: set[Runner] = set()
        #: Threads that ask for a job, less the jobs submitted: counted where both are decided, so
        #: that a thread which has just taken a job is never taken for a free one.
        self._idle = 0
        self._finished: deque[Ended] = deque()
        self._freed = 0
        #: The limits of jobs that run: a timer left behind would hold its job until the limit.
        self._timers: dict[Job, list[asyncio.TimerHandle]] = {}
        self._waking = False
        self._lock = threading.Lock()
        #: Threads given up at a hard limit that may still run: they cannot be killed.
        self.abandoned = 0

    @property
    def capabilities(self) -> PoolCapabilities:
        """Threads of this process: nothing ends one, nothing wakes one that waits."""
        return PoolCapabilities(parallel=True, kills=False, isolates=False, interrupts=False)

    async def start(self) -> None:
        """Do nothing: threads start as jobs come."""

    def submit(self, job: Job) -> None:
        """Run a job in a free thread."""
        with self._lock:
            self._idle -= 1
            start = self._idle < 0 and len(self._runners) < self._size
        if start:
            self._start()
        self._inbox.put(job)

    def _start(self) -> None:
        runner = Runner()
        with self._lock:
            self._runners.add(runner)
        self._begin(runner)

    def _begin(self, runner: Runner) -> None:
        """Let a runner serve in a thread of its own."""
        runner.thread = threading.Thread(
            target=self._serve, args=(runner,), name=f"amqflow-{len(self._runners)}", daemon=True
        )
        runner.thread.start()

    def _serve(self, runner: Runner) -> None:
        runner.ident = threading.get_ident()
        while True:
            with self._lock:
                self._idle += 1
            job = self._inbox.get()
            if job is None:
                break
            current: Job | None = job
            while current is not None:
                if not self._run(runner, current):
                    return
                current = self._hooks.take(None)
                self._report(freed=0 if current is not None else 1)
        if runner.loop is not None:
            runner.loop.run(self._close_loop())
            runner.loop.close()
        with self._lock:
            self._runners.discard(runner)

    def _run(self, runner: Runner, job: Job) -> bool:
        """Run one job; False when this thread was given up meanwhile."""
        runner.job = job
        if job.soft_time_limit or job.time_limit:
            self._loop.call_soon_threadsafe(self._arm, runner, job)
        result: object = None
        error: BaseException | None = None
        try:
            try:
                result = self._execute(runner, job)
            except BaseException as raised:  # noqa: BLE001 - a task may raise SystemExit: contained
                error = raised
            if os.getpid() != self._pid:
                body.end_copy(job, error)
            with runner.lock:
                runner.job = None
                abandoned = runner.abandoned
        except SoftTimeLimitExceeded as late:
            # The limit fired between the task's end and the lock: the task had ended.
            error = error or (late if result is None else None)
            with runner.lock:
                runner.job = None
                abandoned = runner.abandoned
        if abandoned:
            with self._lock:
                self.abandoned -= 1
            if not self._loop.is_closed():  # else the worker has left, and its log is closed
                log.warning("an abandoned thread has ended at last", task_id=job.message.id)
            return False
        self._finished.append((job, result, error))
        return True

    def _execute(self, runner: Runner, job: Job) -> object:
        if not job.task.is_async:
            return body.call(job, self._hooks)
        if runner.loop is None:
            runner.loop = asyncio.Runner()
        return runner.loop.run(self._cancellable(runner, job))

    async def _cancellable(self, runner: Runner, job: Job) -> object:
        runner.coroutine = asyncio.current_task()
        try:
            return await body.acall(job, self._hooks)
        finally:
            runner.coroutine = None

    def _report(self, *, freed: int) -> None:
        with self._lock:
            self._freed += freed
            if self._waking:
                return
            self._waking = True
        try:
            self._loop.call_soon_threadsafe(self._collect)
        except RuntimeError:  # the loop is closed: the process ends
            log.debug("a task ended after its worker", pending=len(self._finished))

    def _collect(self) -> None:
        with self._lock:
            self._waking = False
            freed, self._freed = self._freed, 0
            finished = list(self._finished)
            self._finished.clear()
        for job, _, _ in finished:
            for timer in self._timers.pop(job, ()):
                timer.cancel()
        self._hooks.ended(finished, freed)

    # -- limits (in the loop) --------------------------------------------------------------

    def _arm(self, runner: Runner, job: Job) -> None:
        if runner.job is not job:
            return
        timers = self._timers[job] = []
        if job.soft_time_limit and not job.task.is_async:
            timers.append(self._loop.call_later(job.soft_time_limit, self._soft, runner, job))
        if job.time_limit:
            timers.append(self._loop.call_later(job.time_limit, self._hard, runner, job))

    def _soft(self, runner: Runner, job: Job) -> None:
        with runner.lock:
            if runner.job is job:
                raise_in_thread(runner.ident, SoftTimeLimitExceeded)

    def _hard(self, runner: Runner, job: Job) -> None:
        coroutine = runner.coroutine
        if coroutine is not None:
            stack = where.of_coroutine(coroutine.get_coro())
        else:
            stack = where.of_thread(runner.ident)
        why = where.noted(TimeLimitExceeded(job.time_limit), stack)
        if self._give_up(runner, job, why):
            log.error(
                "hard time limit: the task is failed; its thread cannot be killed and is abandoned",
                task_id=job.message.id,
                task=job.message.task,
                time_limit=job.time_limit,
                abandoned_threads=self.abandoned,
            )
            self._hooks.ended([(job, None, why)], 1)

    def _give_up(self, runner: Runner, job: Job, why: BaseException) -> bool:
        """Leave a thread to itself; False where the job had just ended."""
        with runner.lock:
            if runner.job is not job:
                return False
            runner.abandoned = True
            job.cut = why
        for timer in self._timers.pop(job, ()):
            timer.cancel()
        with self._lock:
            self._runners.discard(runner)
            self.abandoned += 1
        loop, coroutine = runner.loop, runner.coroutine
        if loop is not None and coroutine is not None:
            # A coroutine heeds this where it waits; its thread ends with it.
            loop.get_loop().call_soon_threadsafe(coroutine.cancel)
        return True

    def terminate(self, job: Job, why: BaseException) -> bool:
        """End a job; its thread cannot be killed and is abandoned."""
        with self._lock:
            runner = next((one for one in self._runners if one.job is job), None)
        if runner is None or not self._give_up(runner, job, why):
            return False
        log.error(
            "a running task is ended; its thread cannot be killed and is abandoned",
            task_id=job.message.id,
            task=job.message.task,
            abandoned_threads=self.abandoned,
        )
        self._hooks.ended([(job, None, why)], 1)
        return True

    def cut_off(self, why: BaseException) -> None:
        """Give up every job, with ``why`` as its end; the threads end with the process."""
        given_up: list[Ended] = []
        while not self._inbox.empty():
            job = self._inbox.get()
            if job is not None:
                given_up.append((job, None, why))
        with self._lock:
            runners = list(self._runners)
        for runner in runners:
            current = runner.job
            if current is not None and self._give_up(runner, current, why):
                given_up.append((current, None, why))
        self._hooks.ended(given_up, len(given_up))

    def halt(self) -> None:
        """Do nothing: nothing is replaced here."""

    async def close(self) -> None:
        """Let idle threads end; running ones are daemons and end with the process."""
        with self._lock:
            runners = list(self._runners)
        for _ in runners:
            self._inbox.put(None)
        for runner in runners:
            if runner.loop is not None and runner.thread is not None and runner.job is None:
                # It closes the connections of its loop first.
                await asyncio.to_thread(runner.thread.join, 2.0)

    def describe(self) -> Mapping[str, Any]:
        """Return how many threads there are, and how many were given up."""
        return {"threads": len(self._runners), "threads_abandoned": self.abandoned}
