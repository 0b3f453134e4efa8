"""A scheduler inside a worker's loop: ``worker -B``."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from amqflow.logs import get_logger
from amqflow.scheduler.declared import check_entries, declared_entries
from amqflow.scheduler.scheduler import Scheduler

if TYPE_CHECKING:
    from collections.abc import Callable

    from amqflow.app import App

log = get_logger("amqflow.scheduler")


class Embedded:
    """Runs a scheduler beside a worker, from when the worker is ready until it is told to stop."""

    def __init__(self, app: App) -> None:
        """Check the application's entries, in or outside a loop; nothing connects yet.

        Raises:
            ScheduleError: An entry is wrong.
        """
        check_entries(app, declared_entries(app).values())
        self._app = app
        self._scheduler: Scheduler | None = None
        self._running: asyncio.Task[None] | None = None

    def start(self, ready: asyncio.Event, on_broken: Callable[[], None]) -> None:
        """Schedule in the running loop as soon as ``ready`` is set: queues exist by then.

        Args:
            ready: The worker's.
            on_broken: Called where the scheduler ends by an error: a worker that was to schedule
                and does not must not look alive.
        """
        self._scheduler = Scheduler(self._app, embedded=True)
        self._running = asyncio.get_running_loop().create_task(self._run(self._scheduler, ready))
        self._running.add_done_callback(lambda task: self._ended(task, on_broken))

    async def _run(self, scheduler: Scheduler, ready: asyncio.Event) -> None:
        await ready.wait()
        await scheduler.run()

    def stop(self, then: Callable[[], None]) -> bool:
        """Stop scheduling and call ``then`` when all that was claimed is out.

        Returns:
            False where nothing was to be stopped, or it was told already: ``then`` is not called.
        """
        scheduler, running = self._scheduler, self._running
        self._scheduler = None
        if scheduler is None or running is None or running.done():
            return False
        if scheduler.ready.is_set():
            scheduler.stop()
        else:
            running.cancel()
        running.add_done_callback(lambda _: then())
        return True

    def _ended(self, task: asyncio.Task[None], on_broken: Callable[[], None]) -> None:
        if task.cancelled() or (error := task.exception()) is None:
            return
        if self._scheduler is None:  # told to stop: who told it goes on, and is not told twice
            log.error("the scheduler did not stop in order", error=str(error))
        else:
            log.critical("the scheduler ended, and the worker with it", error=str(error))
            on_broken()
