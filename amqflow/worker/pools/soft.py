"""How a soft time limit reaches the task: into a coroutine, or into a thread."""

from __future__ import annotations

import asyncio
import ctypes
import signal
from types import coroutine
from typing import TYPE_CHECKING, Any

from amqflow.errors import SoftTimeLimitExceeded
from amqflow.logs import get_logger

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine, Generator

    from amqflow.worker.job import Job

log = get_logger("amqflow.worker")


class SoftLimit:
    """A soft limit on one coroutine: when it fires, the coroutine sees SoftTimeLimitExceeded.

    asyncio can only cancel a task. So the limit cancels, and the driver below, which stands
    between the task and the coroutine, turns that one cancellation into the exception; the
    coroutine may catch it and return a value.
    """

    def __init__(self, seconds: float) -> None:
        """Fire ``seconds`` after the coroutine starts."""
        self._seconds = seconds
        self._fired = False
        self._task: asyncio.Task[Any] | None = None

    def _fire(self) -> None:
        if self._task is not None and not self._task.done():
            self._fired = True
            self._task.cancel()

    async def run(self, work: Coroutine[Any, Any, object]) -> object:
        """Await ``work`` under the limit."""
        self._task = asyncio.current_task()
        timer = asyncio.get_running_loop().call_later(self._seconds, self._fire)
        try:
            return await self._drive(work)
        finally:
            timer.cancel()

    @coroutine
    def _drive(self, work: Coroutine[Any, Any, object]) -> Generator[Any, Any, object]:
        error: BaseException | None = None
        while True:
            try:
                waiting = work.throw(error) if error is not None else work.send(None)
            except StopIteration as end:
                return end.value
            error = None
            try:
                yield waiting
            except asyncio.CancelledError as cancelled:
                if self._fired and self._task is not None:
                    self._fired = False
                    self._task.uncancel()
                    error = SoftTimeLimitExceeded(self._seconds)
                else:
                    error = cancelled
            except BaseException as thrown:  # noqa: BLE001 - handed on to the coroutine as it is
                error = thrown


def raise_in_thread(thread_id: int, error: type[BaseException] | None) -> bool:
    """Raise ``error`` in a thread at its next bytecode (None takes a pending one back).

    CPython's ``PyThreadState_SetAsyncExc``: a thread inside a C call sees it when it returns.
    """
    set_async = ctypes.pythonapi.PyThreadState_SetAsyncExc
    target = ctypes.py_object(error) if error is not None else None
    return bool(set_async(ctypes.c_ulong(thread_id), target))


def keep_handler(number: int, handler: Callable[..., None], before: Job | None) -> None:
    """Put the handler of soft limits back where a task has set its own; in the main thread.

    Args:
        number: the signal.
        handler: what must be called when it comes.
        before: the job that ran last, which the log names.
    """
    if signal.getsignal(number) == handler:
        return
    signal.signal(number, handler)
    log.warning(
        "a task has taken the signal of soft time limits, which no task would have seen any more: "
        "its handler is put back",
        signal=signal.Signals(number).name,
        ran_before=before.message.task if before is not None else None,
        ran_before_id=before.message.id if before is not None else None,
    )
