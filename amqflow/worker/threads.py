"""Runs ``def`` tasks in threads, handing jobs over without a trip through the loop for each."""

from __future__ import annotations

import queue
import threading
from collections import deque
from typing import TYPE_CHECKING

from amqflow.errors import SoftTimeLimitExceeded, TimeLimitExceeded
from amqflow.logs import get_logger
from amqflow.worker.soft import raise_in_thread

if TYPE_CHECKING:
    import asyncio
    from collections.abc import Callable

    from amqflow.worker.job import Job

log = get_logger("amqflow.worker")


class _Runner:
    """One pool thread and the job it runs."""

    __slots__ = ("abandoned", "ident", "job", "lock", "thread")

    def __init__(self) -> None:
        self.thread: threading.Thread | None = None
        self.ident = 0
        self.job: Job | None = None
        self.abandoned = False
        # Guards `job` against a limit that fires while the job ends.
        self.lock = threading.Lock()


class ThreadPool:
    """Pool threads that take the next job themselves when they have finished one.

    ``execute`` runs a job in the thread and never raises; ``take`` returns the next job for a
    thread if it is the highest of all that wait, keeping the slot, or None to give it back.
    Finished jobs reach ``on_done`` in the loop, many in one wake-up.
    """

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        *,
        size: int,
        execute: Callable[[Job], BaseException | object],
        take: Callable[[], Job | None],
        on_done: Callable[[list[tuple[Job, object, BaseException | None]], int], None],
    ) -> None:
        """Start no thread yet; they start as jobs come, at most ``size``."""
        self._loop = loop
        self._size = size
        self._execute = execute
        self._take = take
        self._on_done = on_done
        self._inbox: queue.SimpleQueue[Job | None] = queue.SimpleQueue()
        self._runners: set[_Runner] = set()
        self._idle = 0
        self._finished: deque[tuple[Job, object, BaseException | None]] = deque()
        self._freed = 0
        self._waking = False
        self._lock = threading.Lock()
        #: Threads given up at a hard limit that may still run: they cannot be killed.
        self.abandoned = 0

    def submit(self, job: Job) -> None:
        """Run a job in a free thread; the caller holds a slot for it."""
        with self._lock:
            start = self._idle <= self._inbox.qsize() and len(self._runners) < self._size
        if start:
            self._start()
        self._inbox.put(job)

    def _start(self) -> None:
        runner = _Runner()
        thread = threading.Thread(
            target=self._serve, args=(runner,), name=f"amqflow-{len(self._runners)}", daemon=True
        )
        runner.thread = thread
        with self._lock:
            self._runners.add(runner)
        thread.start()

    def _serve(self, runner: _Runner) -> None:
        runner.ident = threading.get_ident()
        while True:
            with self._lock:
                self._idle += 1
            job = self._inbox.get()
            with self._lock:
                self._idle -= 1
            if job is None:
                break
            current: Job | None = job
            while current is not None:
                if not self._run(runner, current):
                    return
                current = self._take()
                self._report(freed=0 if current is not None else 1)
        with self._lock:
            self._runners.discard(runner)

    def _run(self, runner: _Runner, job: Job) -> bool:
        """Run one job; False when this thread was given up meanwhile."""
        runner.job = job
        if job.soft_time_limit or job.time_limit:
            self._loop.call_soon_threadsafe(self._arm, runner, job)
        result: object = None
        error: BaseException | None = None
        try:
            try:
                result = self._execute(job)
            except BaseException as raised:  # noqa: BLE001 - a task may raise SystemExit: contained
                error = raised
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
            log.warning("an abandoned thread has ended at last", task_id=job.message.id)
            return False
        self._finished.append((job, result, error))
        return True

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
        self._on_done(finished, freed)

    # -- limits (in the loop) --------------------------------------------------------------

    def _arm(self, runner: _Runner, job: Job) -> None:
        if runner.job is not job:
            return
        if job.soft_time_limit:
            self._loop.call_later(job.soft_time_limit, self._soft, runner, job)
        if job.time_limit:
            self._loop.call_later(job.time_limit, self._hard, runner, job)

    def _soft(self, runner: _Runner, job: Job) -> None:
        with runner.lock:
            if runner.job is job:
                raise_in_thread(runner.ident, SoftTimeLimitExceeded)

    def _hard(self, runner: _Runner, job: Job) -> None:
        with runner.lock:
            if runner.job is not job:
                return
            runner.abandoned = True
        with self._lock:
            self._runners.discard(runner)
            self.abandoned += 1
        log.error(
            "hard time limit: the task is failed; its thread cannot be killed and is abandoned",
            task_id=job.message.id,
            task=job.message.task,
            time_limit=job.time_limit,
            abandoned_threads=self.abandoned,
        )
        self._on_done([(job, None, TimeLimitExceeded(job.time_limit))], 1)

    def close(self) -> None:
        """Let idle threads end; running ones are daemons and end with the process."""
        for _ in self._runners:
            self._inbox.put(None)
