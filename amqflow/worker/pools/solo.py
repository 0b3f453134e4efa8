"""Runs one task at a time, in the program's main thread where that is lent: for debuggers.

A breakpoint then has the terminal, and a task may set signal handlers; the worker's loop runs in
a thread beside it, so that heartbeats go on while a task stands still.
"""

from __future__ import annotations

import queue
import signal
import threading
from typing import TYPE_CHECKING, Any, Final

from amqflow.errors import SoftTimeLimitExceeded
from amqflow.worker.pools.seam import PoolCapabilities
from amqflow.worker.pools.soft import keep_handler
from amqflow.worker.pools.threads import ThreadPool

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine

    from amqflow.worker.job import Job
    from amqflow.worker.pools.seam import Hooks
    from amqflow.worker.pools.threads import Runner

#: What wakes the main thread from a system call at a soft limit.
_WAKE: Final = signal.SIGUSR1


class MainThread:
    """The main thread of a program, lent to a worker whose loop runs in another one."""

    def __init__(self) -> None:
        """Be made in any thread; :meth:`serve` is called in the main one."""
        self._work: queue.SimpleQueue[Callable[[], None] | None] = queue.SimpleQueue()
        self._due: Callable[[], bool] | None = None
        self._signals: dict[int, Callable[[], object]] = {}
        #: Something runs in it.
        self.busy = False

    def serve(self) -> None:
        """Run what is lent to, until :meth:`release`."""
        signal.signal(_WAKE, self._woken)
        while (work := self._work.get()) is not None:
            self.busy = True
            work()
            self.busy = False

    def on_signal(self, number: int, act: Callable[[], object]) -> None:
        """Call ``act`` in the main thread when a signal comes; asked from another thread."""
        self._signals[number] = act
        self._work.put(self._set_signals)

    def _set_signals(self) -> None:
        for number, act in self._signals.items():
            signal.signal(number, lambda *_, act=act: act())

    def release(self) -> None:
        """Let :meth:`serve` return."""
        self._work.put(None)

    def run(self, work: Callable[[], None]) -> None:
        """Run ``work`` in the main thread, after what it is running."""
        self._work.put(work)

    def heed(self, before: Job | None) -> None:
        """Be able to be interrupted, whatever the job ``before`` has done to the signal."""
        keep_handler(_WAKE, self._woken, before)

    def interrupt(self, due: Callable[[], bool]) -> None:
        """Raise SoftTimeLimitExceeded in the main thread if it is still ``due`` there."""
        self._due = due
        ident = threading.main_thread().ident
        if ident is not None:
            signal.pthread_kill(ident, _WAKE)

    def _woken(self, *_: object) -> None:
        due, self._due = self._due, None
        if due is not None and due():
            raise SoftTimeLimitExceeded


class SoloPool(ThreadPool):
    """A thread pool of one, whose thread is the main one where there is one to be had."""

    def __init__(
        self,
        hooks: Hooks,
        main: MainThread | None,
        *,
        close_loop: Callable[[], Coroutine[Any, Any, None]],
    ) -> None:
        """Run in the running loop, which is not the main thread's where ``main`` is given."""
        super().__init__(hooks, 1, close_loop=close_loop)
        self._main = main
        self._in_main: Runner | None = None
        #: The last job that had the main thread.
        self._before: Job | None = None

    @property
    def capabilities(self) -> PoolCapabilities:
        """One at a time; the main thread can be woken, no thread can be killed."""
        awake = self._main is not None
        return PoolCapabilities(parallel=False, kills=False, isolates=False, interrupts=awake)

    def _begin(self, runner: Runner) -> None:
        if self._main is not None and self._in_main is None:
            self._in_main = runner
            self._main.run(self._serve_in_main)
        else:  # a task that was given up still has the main thread
            super()._begin(runner)

    def _serve_in_main(self) -> None:
        runner = self._in_main
        if runner is not None:
            self._serve(runner)
            self._in_main = None

    def _run(self, runner: Runner, job: Job) -> bool:
        if self._main is not None and runner is self._in_main:
            before, self._before = self._before, job
            if job.soft_time_limit:
                self._main.heed(before)
        return super()._run(runner, job)

    def _soft(self, runner: Runner, job: Job) -> None:
        if self._main is not None and runner is self._in_main:
            self._main.interrupt(lambda: runner.job is job)
        else:
            super()._soft(runner, job)
