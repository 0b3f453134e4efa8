"""Runs coroutines for blocking callers: one background event loop per process and application."""

from __future__ import annotations

import asyncio
import concurrent.futures
import os
import threading
from typing import TYPE_CHECKING, Generic, TypeVar

from amqflow.errors import AppClosed, SyncInLoop

if TYPE_CHECKING:
    from collections.abc import Coroutine

T = TypeVar("T")

#: Set to 1 where blocking inside a loop is meant, as in notebooks.
ALLOW_SYNC_IN_LOOP = "AMQFLOW_ALLOW_SYNC_IN_LOOP"
#: Tasks that are cancelled start others to clean up (aio-pika's callbacks); how often to look.
ROUNDS = 5


class LoopThread:
    """A daemon thread with an event loop, started at the first blocking call.

    A child made by ``os.fork`` has no threads of its parent's, and must not use its sockets: the
    process id is compared at each use and a new loop started in the child.
    """

    def __init__(self) -> None:
        """Start nothing yet."""
        self._loop: asyncio.AbstractEventLoop | None = None
        self._thread: threading.Thread | None = None
        self._pid = 0
        self._lock = threading.Lock()
        self._adopted: asyncio.AbstractEventLoop | None = None

    def adopt(self, loop: asyncio.AbstractEventLoop | None) -> None:
        """Use a worker's loop for the blocking calls its tasks make in threads."""
        with self._lock:
            self._notice_fork()
            self._adopted = loop

    @property
    def loop(self) -> asyncio.AbstractEventLoop:
        """The loop, started when there is none in this process."""
        with self._lock:
            self._notice_fork()
            if self._adopted is not None and not self._adopted.is_closed():
                return self._adopted
            if self._loop is None or self._loop.is_closed():
                self._loop = new_loop()
                self._thread = threading.Thread(
                    target=_run, args=(self._loop,), name="amqflow-loop", daemon=True
                )
                self._thread.start()
            return self._loop

    def _notice_fork(self) -> None:
        """Forget what belongs to the parent, in a child it has forked."""
        if self._pid != os.getpid():
            self._loop = self._adopted = self._thread = None
            self._pid = os.getpid()

    def run(self, coroutine: Coroutine[object, object, T], *, twin: str) -> T:
        """Run a coroutine to its end and return its result, blocking this thread.

        Raises:
            SyncInLoop: this thread runs an event loop, which blocking would stop.
            AppClosed: another thread closed the application meanwhile.
        """
        running = asyncio._get_running_loop()  # noqa: SLF001 - public, and free of exceptions
        if running is not None and (
            os.environ.get(ALLOW_SYNC_IN_LOOP) != "1" or running is self.loop
        ):
            coroutine.close()
            message = (
                f"a blocking call inside a running event loop would stop it: use 'await "
                f"{twin}(…)' here, or set {ALLOW_SYNC_IN_LOOP}=1 in a notebook"
            )
            raise SyncInLoop(message)
        loop = self.loop
        call = _Call(loop, coroutine)
        try:
            return call.result()
        except asyncio.CancelledError as error:
            if loop in {self._loop, self._adopted}:
                raise concurrent.futures.CancelledError from error
            message = "the application was closed while this call was under way"
            raise AppClosed(message) from error

    def stop(self) -> None:
        """End the background loop of this process, if it runs, and wait until it has."""
        with self._lock:
            self._notice_fork()
            loop, thread = self._loop, self._thread
            self._loop = self._thread = None
        if loop is not None and thread is not None:
            loop.call_soon_threadsafe(loop.stop)
            thread.join()


class _Call(Generic[T]):
    """A coroutine that a thread waits for.

    ``run_coroutine_threadsafe`` does the same by two futures that are chained, a condition and a
    turn of the loop more: a tenth of what a caller's process has to do for a call.
    """

    __slots__ = ("_coroutine", "_ended", "_loop", "_task")

    def __init__(
        self, loop: asyncio.AbstractEventLoop, coroutine: Coroutine[object, object, T]
    ) -> None:
        self._loop = loop
        self._coroutine = coroutine
        self._task: asyncio.Task[T] | None = None
        self._ended = threading.Lock()
        self._ended.acquire()
        try:
            loop.call_soon_threadsafe(self._start)  # in a copy of this thread's context
        except BaseException:
            coroutine.close()
            raise

    def _start(self) -> None:
        self._task = self._loop.create_task(self._coroutine)
        self._task.add_done_callback(self._end)

    def _end(self, _: asyncio.Task[T]) -> None:
        self._ended.release()

    def result(self) -> T:
        """Wait for its end; what interrupts the wait cancels it."""
        try:
            self._ended.acquire()
        except BaseException:
            self._loop.call_soon_threadsafe(self._cancel)
            raise
        if self._task is None:  # pragma: no cover - it has ended, so it had begun
            raise RuntimeError("a call ended that had not begun")
        return self._task.result()

    def _cancel(self) -> None:
        if self._task is not None:
            self._task.cancel()


def _run(loop: asyncio.AbstractEventLoop) -> None:
    """Run a loop until it is stopped, and give back its sockets."""
    try:
        loop.run_forever()
    finally:
        loop.run_until_complete(_cancel_the_rest())
        loop.close()


async def _cancel_the_rest() -> None:
    """Cancel what still runs, so that nobody waits for it in vain."""
    for _ in range(ROUNDS):
        rest = asyncio.all_tasks() - {asyncio.current_task()}
        if not rest:
            return
        for task in rest:
            task.cancel()
        await asyncio.gather(*rest, return_exceptions=True)


def new_loop() -> asyncio.AbstractEventLoop:
    """Return a new event loop, uvloop's where it exists."""
    try:
        import uvloop  # noqa: PLC0415 - exists on CPython outside Windows only
    except ImportError:
        return asyncio.new_event_loop()
    return uvloop.new_event_loop()
