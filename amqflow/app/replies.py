"""The reply queue of a process, for stores that answer by message (``rpc://``)."""

from __future__ import annotations

import asyncio
import contextlib
from typing import TYPE_CHECKING

from amqflow.errors import BrokerError
from amqflow.protocol import Envelope, new_id

if TYPE_CHECKING:
    from collections.abc import Callable

    from amqflow.transport import Consumer, Delivery, Transport

#: Seconds between two looks whether the reply queue is still consumed.
KEEP_REPLIES = 5.0


class Replies:
    """The reply queue of this process, for stores that answer by message (``rpc://``)."""

    def __init__(self, transport: Transport, timeout: float) -> None:
        """Answer and listen over ``transport``; ``timeout`` in seconds bounds each publish."""
        self._transport = transport
        self._timeout = timeout
        self._consumer: Consumer | None = None
        self._keeping: asyncio.Task[None] | None = None

    async def publish(
        self,
        exchange: str,
        routing_key: str,
        body: bytes,
        *,
        content_type: str,
        content_encoding: str,
        correlation_id: str,
        delivery_mode: int,
    ) -> None:
        """Send one reply under confirm."""
        envelope = Envelope(
            body,
            {},
            content_type,
            content_encoding,
            delivery_mode,
            correlation_id=correlation_id,
            message_id=new_id(),
        )
        await self._transport.publish(envelope, exchange, routing_key, timeout=self._timeout)

    async def consume_replies(self, on_reply: Callable[[str, bytes], None]) -> str:
        """Declare the queue, consume it, return its name.

        Durable and expiring after five idle minutes rather than exclusive: an exclusive queue
        dies with its connection, and with it every reply that was on its way.
        """
        queue = f"amqflow.reply.{new_id()}"
        await self._declare(queue)

        def receive(delivery: Delivery) -> None:
            on_reply(delivery.envelope.correlation_id or "", delivery.envelope.body)
            delivery.ack()

        consumer = self._transport.consume(queue, receive, prefetch=1000)
        try:
            await consumer.wait_active(self._timeout)
        except BaseException:
            await consumer.close()
            raise
        self._consumer = consumer
        self._keeping = asyncio.get_running_loop().create_task(self._keep(queue, consumer))
        return queue

    async def _declare(self, queue: str) -> None:
        await self._transport.declare_queue(
            queue, arguments={"x-expires": 300_000, "x-queue-type": "classic"}
        )

    async def _keep(self, queue: str, consumer: Consumer) -> None:
        """Declare the queue again where it has expired: its name is in messages under way."""
        while True:
            await asyncio.sleep(KEEP_REPLIES)
            if not consumer.active:
                with contextlib.suppress(BrokerError):  # away: the next look
                    await self._declare(queue)

    async def close(self) -> None:
        """Keep the queue no longer."""
        if self._keeping is not None:
            self._keeping.cancel()
            await asyncio.gather(self._keeping, return_exceptions=True)
