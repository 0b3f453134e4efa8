"""An application whose schedulers and worker run in the test's own loop."""

import asyncio
import time
from collections import Counter
from contextlib import asynccontextmanager

import pytest

from amqflow import AmqFlow
from amqflow.scheduler import Scheduler
from amqflow.scheduler.redis import RedisScheduleStore
from amqflow.scheduler.words import What


class SetClock:
    """The machine's clock, that a test may set."""

    def __init__(self):
        self.ahead = 0.0

    def now(self):
        return time.time() + self.ahead

    def monotonic(self):
        return time.monotonic()


class Stage:
    """An application, what its tasks did, and schedulers for it."""

    def __init__(self, app, url):
        self.app, self.url = app, url
        self.runs = Counter()
        self.store = RedisScheduleStore(url, app.main, history=500)

    @asynccontextmanager
    async def scheduling(self, *, app=None, name=None, store=None):
        scheduler = Scheduler(app or self.app, name=name, store=store, embedded=True)
        running = asyncio.create_task(scheduler.run())
        ready = asyncio.create_task(scheduler.ready.wait())
        try:
            async with asyncio.timeout(30):
                await asyncio.wait([running, ready], return_when=asyncio.FIRST_COMPLETED)
            if running.done():
                running.result()
            yield scheduler
        finally:
            ready.cancel()
            scheduler.stop()
            async with asyncio.timeout(30):
                await running

    async def history(self, name, what=None):
        found = await self.store.history(name, 500)
        return [record for record in found if what is None or record.what == what]

    async def ran(self, name):
        """Return the slots of an entry that were published, in milliseconds, oldest first."""
        return [record.slot for record in await self.history(name, What.RAN)][::-1]


@pytest.fixture
async def stage(amqp_url, redis_url):
    """An application with a task that counts its runs by entry and slot."""
    app = AmqFlow("beats", broker=amqp_url, backend=redis_url, beat_history=500)
    stage = Stage(app, redis_url)

    @app.task(bind=True, name="tick")
    async def tick(self, hold: float = 0.0):
        headers = self.request.headers
        stage.runs[headers["amqflow-schedule"], headers["amqflow-slot"]] += 1
        await asyncio.sleep(hold)

    yield stage
    await stage.store.close()
    await app.aclose()
