"""What the tests of the seam do with a transport, whichever it is."""

import asyncio
from collections.abc import Callable
from dataclasses import dataclass, field
from itertools import count

from amqflow.protocol import Envelope
from amqflow.transport import Consumer, Delivery, Transport
from tests.servers.toxic import Direction, TcpProxy
from tests.servers.wait import until
from tests.transport.implementations import Implementation

# Class and method ids, as a method frame begins with them (AMQP 0-9-1, 2.3.5).
PUBLISH = b"\x00\x3c\x00\x28"
ACK = b"\x00\x3c\x00\x50"

_numbers = count()


def message(body: bytes = b"{}", **properties) -> Envelope:
    """Return a message with an id of its own, unless one is given (None: none)."""
    properties.setdefault("message_id", f"message-{next(_numbers)}")
    return Envelope(body, **properties)


@dataclass
class Inbox:
    """What a consumer was given, in order; the deliveries are settled by the test."""

    deliveries: list[Delivery] = field(default_factory=list)
    consumer: Consumer | None = None

    def __call__(self, delivery: Delivery) -> None:
        self.deliveries.append(delivery)

    def __len__(self) -> int:
        return len(self.deliveries)

    @property
    def bodies(self) -> list[bytes]:
        return [delivery.envelope.body for delivery in self.deliveries]

    @property
    def ids(self) -> list[str | None]:
        return [delivery.envelope.message_id for delivery in self.deliveries]

    async def holds(self, number: int, *, deadline: float = 10) -> None:
        await until(lambda: len(self) >= number, deadline=deadline, message=f"{number} deliveries")

    def ack_all(self) -> None:
        for delivery in self.deliveries:
            delivery.ack()
        self.deliveries.clear()


class Seam:
    """A transport under test, with the verbs the tests share."""

    def __init__(self, transport: Transport, implementation: Implementation) -> None:
        self.transport = transport
        self.implementation = implementation

    async def publish(self, queue: str, *bodies: bytes, timeout: float = 10) -> None:
        await asyncio.gather(
            *(
                self.transport.publish(message(body), "", queue, timeout=timeout)
                for body in bodies or (b"{}",)
            )
        )

    async def ready(self, queue: str) -> int:
        return (await self.transport.declare_queue(queue, passive=True)).messages

    async def becomes_ready(self, queue: str, number: int) -> None:
        async def counted():
            return await self.ready(queue) == number

        await until(counted, message=f"{number} ready in {queue}")

    async def consume(self, queue: str, *, prefetch: int = 100, **options) -> Inbox:
        """Return the inbox of a consumer that is active."""
        inbox = Inbox()
        inbox.consumer = self.transport.consume(queue, inbox, prefetch=prefetch, **options)
        await inbox.consumer.wait_active(10)
        return inbox

    async def comes_back(self, inbox: Inbox, *, deadline: float = 15) -> None:
        """Prove that the consumer works: a message published now reaches it."""
        body = f"proof {next(_numbers)}".encode()
        await inbox.consumer.wait_active(deadline)
        await self.publish(inbox.consumer.queue, body, timeout=deadline)
        await until(lambda: body in inbox.bodies, deadline=deadline, message="the proof arrives")


class Wire:
    """A transport behind a proxy that cuts the stream into AMQP frames."""

    def __init__(self, proxy: TcpProxy, seam: Seam) -> None:
        self.proxy = proxy
        self.seam = seam

    def change(self, method: bytes, change: Callable[[bytes], bytes | None]) -> None:
        """Pass the next frame of a method (its class and method id) through `change`, once."""

        def passed(_: Direction, frame: bytes) -> bytes | None:
            if frame[7:11] == method:
                self.proxy.filter = None
                return change(frame)
            return frame

        self.proxy.filter = passed
