"""An application on fresh servers, and a worker for it in the test's own loop."""

import asyncio
from collections import Counter
from contextlib import asynccontextmanager

import pytest

from amqflow import AmqFlow
from amqflow.protocol import DeadLetter
from amqflow.worker import Worker, WorkerOptions
from tests.servers.wait import until


class Bench:
    """What a test does with an application: run a worker, look at queues and dead letters."""

    def __init__(self, app: AmqFlow) -> None:
        self.app = app

    @asynccontextmanager
    async def working(self, *queues: str, slots: int = 4, multiplier: int | None = None):
        options = WorkerOptions(
            queues=dict.fromkeys(queues, 1),
            concurrency=slots,
            prefetch_multiplier=multiplier,
            hostname="test",
        )
        worker = Worker(self.app, options)
        running = asyncio.create_task(worker.run())
        ready = asyncio.create_task(worker.ready.wait())
        try:
            async with asyncio.timeout(60):
                await asyncio.wait([running, ready], return_when=asyncio.FIRST_COMPLETED)
            if running.done():
                running.result()
            yield worker
        finally:
            ready.cancel()
            worker.stop()
            async with asyncio.timeout(60):
                await running

    async def count(self, queue: str) -> int:
        transport = self.app.runtime().transport
        return (await transport.declare_queue(queue, passive=True)).messages

    async def look(self, queue: str, expected: int):
        """Return the messages of a queue, left where they are."""
        found = []
        enough = asyncio.Event()

        def take(delivery):
            found.append(delivery.envelope)
            if len(found) >= expected:
                enough.set()

        # Not 0: a quorum queue reads "no bound" as 2,000.
        consumer = self.app.runtime().transport.consume(queue, take, prefetch=65_535)
        async with asyncio.timeout(30):
            await enough.wait()
        await consumer.close()

        async def returned():
            return await self.count(queue) >= len(found)

        # A quorum queue takes back what a closed channel held a moment after the close.
        await until(returned, deadline=30)
        return found

    async def dead(self, queue: str = "default", expected: int = 1):
        envelopes = await self.look(f"{queue}.dead", expected)
        return [(envelope, DeadLetter.read(envelope.headers)) for envelope in envelopes]


@pytest.fixture
async def bench(amqp_url, redis_url):
    app = AmqFlow("spine", broker=amqp_url, backend=redis_url)
    yield Bench(app)
    await app.aclose()


@pytest.fixture
def runs():
    """How often each thing ran."""
    return Counter()
