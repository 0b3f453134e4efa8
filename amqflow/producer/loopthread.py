"""Runs coroutines for blocking callers: one background event loop per process and application."""

from __future__ import annotations

import asyncio
import concurrent.futures
import os
import threading
from typing import TYPE_CHECKING, TypeVar

from amqflow.errors import SyncInLoop

if TYPE_CHECKING:
    from collections.abc import Coroutine

T = TypeVar("T")

#: Set to 1 where blocking inside a loop is meant, as in notebooks.
ALLOW_SYNC_IN_LOOP = "AMQFLOW_ALLOW_SYNC_IN_LOOP"


class LoopThread:
    """A daemon thread with an event loop, started at the first blocking call.

    A child made by ``os.fork`` has no threads of its parent's, and must not use its sockets: the
    process id is compared at each use and a new loop started in the child.
    """

    def __init__(self) -> None:
        """Start nothing yet."""
        self._loop: asyncio.AbstractEventLoop | None = None
        self._pid = 0
        self._lock = threading.Lock()
        self._adopted: asyncio.AbstractEventLoop | None = None

    def adopt(self, loop: asyncio.AbstractEventLoop | None) -> None:
        """Use a worker's loop for the blocking calls its tasks make in threads."""
        self._adopted = loop
        self._pid = os.getpid()

    @property
    def loop(self) -> asyncio.AbstractEventLoop:
        """The loop, started when there is none in this process."""
        with self._lock:
            if self._pid != os.getpid():
                self._loop = self._adopted = None
                self._pid = os.getpid()
            if self._adopted is not None and not self._adopted.is_closed():
                return self._adopted
            if self._loop is None or self._loop.is_closed():
                self._loop = _new_loop()
                threading.Thread(
                    target=self._loop.run_forever, name="amqflow-loop", daemon=True
                ).start()
            return self._loop

    def run(self, coroutine: Coroutine[object, object, T], *, twin: str) -> T:
        """Run a coroutine to its end and return its result, blocking this thread.

        Raises:
            SyncInLoop: this thread runs an event loop, which blocking would stop.
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
        future = asyncio.run_coroutine_threadsafe(coroutine, self.loop)
        try:
            return future.result()
        except concurrent.futures.CancelledError:
            raise
        except BaseException:
            future.cancel()
            raise

    def stop(self) -> None:
        """End the background loop of this process, if it runs."""
        with self._lock:
            loop, self._loop = self._loop, None
        if loop is not None and not loop.is_closed() and self._pid == os.getpid():
            loop.call_soon_threadsafe(loop.stop)


def _new_loop() -> asyncio.AbstractEventLoop:
    try:
        import uvloop  # noqa: PLC0415 - exists on CPython outside Windows only
    except ImportError:
        return asyncio.new_event_loop()
    return uvloop.new_event_loop()
