"""``app.running()``: a worker in this process, and a broker where the application has none."""

from __future__ import annotations

import asyncio
from contextlib import asynccontextmanager, contextmanager
from typing import TYPE_CHECKING

from amqflow.app import Hosted
from amqflow.broker import Broker
from amqflow.protocol import new_id
from amqflow.rendezvous import is_embedded
from amqflow.results.open import open_store
from amqflow.worker import Worker, WorkerOptions, parse_queues

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator

    from amqflow.abc import ResultStore
    from amqflow.app import App


@contextmanager
def running(
    app: App, *, queues: str | None = None, concurrency: int | None = None
) -> Iterator[None]:
    """Run a worker on the background loop for the time of a block.

    Args:
        app: the application.
        queues: what ``amqflow worker -Q`` takes; None: every queue its tasks reach.
        concurrency: tasks that run at once; None: the setting.

    Raises:
        SyncInLoop: this thread runs an event loop: use ``async with app.arunning()``.
    """
    session = Session(app, queues=queues, concurrency=concurrency)
    app.run(session.start(), twin="app.arunning")
    try:
        yield
    finally:
        app.run(session.stop(), twin="app.arunning")


@asynccontextmanager
async def arunning(
    app: App, *, queues: str | None = None, concurrency: int | None = None
) -> AsyncIterator[None]:
    """Run a worker in the running loop for the time of a block (see :func:`running`)."""
    session = Session(app, queues=queues, concurrency=concurrency)
    await session.start()
    try:
        yield
    finally:
        await session.stop()


class Session:
    """A worker, and a broker and store where the application's are not somewhere else."""

    def __init__(
        self, app: App, *, queues: str | None = None, concurrency: int | None = None
    ) -> None:
        """Prepare; :meth:`start` starts."""
        self._app = app
        self._options = WorkerOptions(queues=parse_queues(queues), concurrency=concurrency)
        self._broker: Broker | None = None
        self._store: ResultStore | None = None
        self._work: asyncio.Task[None] | None = None
        self._worker: Worker | None = None

    @property
    def worker(self) -> Worker:
        """The worker, once started."""
        assert self._worker is not None, "not started"
        return self._worker

    async def start(self) -> None:
        """Start, and return when tasks are being taken.

        Raises:
            AmqflowError: it cannot.
        """
        try:
            if self._needs_broker():
                await self._host()
            await self._work_until_ready()
        except BaseException:
            await self.stop()
            raise

    async def stop(self) -> None:
        """Let running tasks end, and stop."""
        if self._worker is not None and self._work is not None:
            self._worker.stop()
            try:
                await self._work
            finally:
                self._worker = self._work = None
        await self._app.aclose()
        if self._broker is not None:
            self._app.hosted = None
            await self._broker.stop()
            self._broker = self._store = None

    def _needs_broker(self) -> bool:
        if self._app.hosted is not None:
            return False
        url = self._app.conf.settings.broker_url
        return url is None or is_embedded(url)

    async def _host(self) -> None:
        app = self._app
        broker = self._broker = Broker(management_port=0)
        await broker.start()
        backend = app.conf.settings.result_backend
        own = None
        if backend is None or is_embedded(backend):
            own = f"memory://running-{new_id()}"
            # Held: the memory of a name lasts as long as somebody uses it.
            self._store = open_store(own, app_name=app.main)
        await app.aclose()
        app.hosted = Hosted(broker.url, own, broker.management_url, broker)

    async def _work_until_ready(self) -> None:
        worker = Worker(self._app, self._options)
        work = asyncio.get_running_loop().create_task(worker.run())
        ready = asyncio.ensure_future(worker.ready.wait())
        try:
            await asyncio.wait([work, ready], return_when=asyncio.FIRST_COMPLETED)
            if work.done():
                work.result()
            self._worker, self._work = worker, work
        finally:
            ready.cancel()
            if self._work is None and not work.done():
                work.cancel()
                await asyncio.gather(work, return_exceptions=True)
