"""Runs coroutines for blocking callers: one background event loop per process and application."""

from __future__ import annotations

import asyncio
import concurrent.futures
import os
import threading
from typing import TYPE_CHECKING, TypeVar

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
        future = asyncio.run_coroutine_threadsafe(coroutine, loop)
        try:
            return future.result()
        except concurrent.futures.CancelledError as error:
            if loop in {self._loop, self._adopted}:
                raise
            message = "the application was closed while this call was under way"
            raise AppClosed(message) from error
        except BaseException:
            future.cancel()
            raise

    def stop(self) -> None:
        """End the background loop of this process, if it runs, and wait until it has."""
        with self._lock:
            self._notice_fork()
            loop, thread = self._loop, self._thread
            self._loop = self._thread = None
        if loop is not None and thread is not None:
            loop.call_soon_threadsafe(loop.stop)
            thread.join()


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
