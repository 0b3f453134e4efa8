"""Dead letters of every kind, made by real failures and by hand."""

import asyncio
from datetime import UTC, datetime

import pytest

from amqflow.abc import DeadReason, ExceptionInfo
from amqflow.deadletters import DeadLetterDesk
from amqflow.protocol import Envelope, TaskMessage, dead_headers, encode, new_id
from amqflow.provision import apply
from amqflow.topology import BrokerFacts
from tests.servers.wait import until


class Corner:
    """A desk on an application's broker, and ways to fill its queues."""

    def __init__(self, bench) -> None:
        self.bench = bench
        self.app = bench.app

    @property
    def transport(self):
        return self.app.runtime().transport

    async def declare(self, *queues: str) -> None:
        """Declare the derived topology of these queues, as a worker would."""
        server = await self.transport.server()
        topology = self.app.derived_topology(BrokerFacts(server.version), queues or None)
        await apply(topology, self.transport)

    async def desk(self, **options) -> DeadLetterDesk:
        return await DeadLetterDesk.of(self.app, **options)

    async def publish(self, queue: str, *envelopes: Envelope) -> None:
        await asyncio.gather(
            *(self.transport.publish(envelope, "", queue, timeout=60) for envelope in envelopes)
        )

    async def park(self, count: int, *, queue: str = "default", **options) -> list[str]:
        """Put dead letters as a worker parks them into a queue's home; return their ids."""
        envelopes = [parked(number, queue=queue, **options) for number in range(count)]
        await self.publish(f"{queue}.dead", *envelopes)
        return [envelope.headers["id"] for envelope in envelopes]

    async def bodies(self, queue: str) -> list[bytes]:
        """Return all bodies of a queue in order; they stay."""
        count = await self.bench.count(queue)
        return [one.body for one in await self.bench.look(queue, count)] if count else []

    async def ids(self, queue: str) -> list[str]:
        count = await self.bench.count(queue)
        found = await self.bench.look(queue, count) if count else []
        await self.holds(queue, count)
        return [one.headers.get("id") for one in found]

    async def holds(self, queue: str, count: int) -> None:
        async def there():
            return await self.bench.count(queue) == count

        await until(there, message=f"{queue} holds {count}")


def parked(
    number: int = 0,
    *,
    queue: str = "default",
    task: str = "t.fail",
    reason: DeadReason = DeadReason.FAILED,
    exception: str = "ValueError",
    text: str | None = None,
    time: float | None = None,
    body: bytes | None = None,
    size: int = 0,
    **headers,
) -> Envelope:
    """Return a message as a worker parks it."""
    message = TaskMessage(id=new_id(), task=task, args=[number, "x" * size], retries=2)
    envelope = encode(message)
    if body is not None:
        envelope.body = body
    envelope.headers |= dead_headers(
        reason,
        time=datetime.now(UTC).timestamp() if time is None else time,
        worker="w1",
        queue=queue,
        exchange="",
        routing_key=queue,
        attempts=3,
        task=task,
        exception=ExceptionInfo(exception, "builtins", (), text or f"no {number}"),
        traceback=f'Traceback (most recent call last):\n  File "/app/t.py", line {number}, in go\n'
        f"    raise {exception}\n{exception}: no {number}",
    )
    envelope.headers |= headers
    return envelope


@pytest.fixture
async def corner(bench):
    return Corner(bench)
