"""The aio-pika implementation of the seam: a link each to publish, to consume and to ask."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

from amqflow.transport.aiopika.admin import AioPikaAdmin
from amqflow.transport.aiopika.consumer import AioPikaConsumer
from amqflow.transport.aiopika.link import Link
from amqflow.transport.aiopika.publisher import Publisher

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from amqflow.abc import Gate
    from amqflow.protocol import Envelope
    from amqflow.transport.seam import Delivery, ServerInfo


class AioPikaTransport(AioPikaAdmin):
    """See :class:`amqflow.transport.seam.Transport`.

    Publishers have a connection of their own: a broker that is short of memory blocks
    connections that publish, and consuming and asking must go on. Admin calls have one because
    the broker answers some of them (an unknown exchange type) by closing the connection.
    """

    def __init__(
        self,
        url: str,
        *,
        name: str = "amqflow",
        connect_timeout: float = 10.0,
        heartbeat: int = 30,
        locate: Callable[[], str] | None = None,
    ) -> None:
        """Keep the address; nothing connects yet.

        Args:
            url: ``amqp://`` or ``amqps://``.
            name: shown by the broker as the connection's name.
            connect_timeout: seconds for one attempt.
            heartbeat: seconds; a silent peer is given up within two to three of them; 0: never.
            locate: returns the ``amqp://`` URL behind ``url``, asked before every attempt to
                connect: what serves an ``embedded://`` name may come back on another port.
        """

        def link(purpose: str) -> Link:
            return Link(
                url,
                name=f"{name} ({purpose})",
                timeout=connect_timeout,
                heartbeat=heartbeat,
                locate=locate,
            )

        self._out, self._in, self._ask = link("publish"), link("consume"), link("admin")
        super().__init__(self._ask)
        self._publisher = Publisher(self._out)
        self._consumers: set[AioPikaConsumer] = set()

    @property
    def address(self) -> str:
        """The broker's address without the password."""
        return self._out.address

    async def server(self) -> ServerInfo:
        """Return what the broker says of itself, connecting when needed."""
        return await self._out.server()

    async def publish(
        self,
        envelope: Envelope,
        exchange: str,
        routing_key: str,
        *,
        timeout: float,
        retry: bool = True,
        gate: Gate | None = None,
    ) -> None:
        """Publish persistent, mandatory and confirmed."""
        await self._publisher.publish(
            envelope, exchange, routing_key, timeout=timeout, retry=retry, gate=gate
        )

    def consume(
        self,
        queue: str,
        on_delivery: Callable[[Delivery], None],
        *,
        prefetch: int,
        exclusive: bool = False,
        transactional: bool = False,
        arguments: Mapping[str, Any] | None = None,
    ) -> AioPikaConsumer:
        """Subscribe to a queue; supervised until closed."""
        consumer = AioPikaConsumer(
            self._in,
            queue,
            on_delivery,
            prefetch=prefetch,
            exclusive=exclusive,
            transactional=transactional,
            arguments=arguments,
        )
        self._consumers.add(consumer)
        return consumer

    async def close(self) -> None:
        """Close consumers, publisher and connections."""
        consumers, self._consumers = self._consumers, set()
        await asyncio.gather(*(consumer.close() for consumer in consumers), return_exceptions=True)
        self._publisher.close()
        await asyncio.gather(
            self._in.close(), self._out.close(), self._ask.close(), return_exceptions=True
        )
