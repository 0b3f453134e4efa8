"""Declares and questions to the broker, each on a channel that no other call can close."""

from __future__ import annotations

import asyncio
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any, Final

from amqflow.transport.aiopika import methods
from amqflow.transport.aiopika.calls import call
from amqflow.transport.aiopika.faults import closed, translated
from amqflow.transport.names import check_name
from amqflow.transport.seam import QueueCounts

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Mapping

    from aiormq.channel import Channel

    from amqflow.transport.aiopika.link import Link

#: Channels used at the same time; a 404 or 406 closes one, so calls never share.
CHANNELS: Final = 8
#: Seconds after which an answer of "nothing" may be that of a queue that did not answer, and times
#: it is asked in all.
SILENT: Final = 0.2
ASKED: Final = 10


class AioPikaAdmin:
    """See :class:`amqflow.transport.seam.Admin`."""

    def __init__(self, link: Link) -> None:
        """Ask over ``link``, which nothing else may use: some refusals close the connection."""
        self._link = link
        self._idle: list[Channel] = []
        self._slots = asyncio.Semaphore(CHANNELS)

    @asynccontextmanager
    async def _channel(self, doing: str) -> AsyncIterator[Channel]:
        async with self._slots:
            channel: Channel | None = None
            while self._idle and channel is None:
                candidate = self._idle.pop()
                channel = None if candidate.is_closed else candidate
            if channel is None:
                channel = await self._link.channel()
            try:
                with translated(doing):
                    yield channel
            except BaseException:
                # Refused, timed out or never sent: it is not known to be usable.
                await closed(channel)
                raise
            self._idle.append(channel)

    async def declare_exchange(
        self,
        name: str,
        type: str = "direct",  # noqa: A002 - AMQP's word
        *,
        durable: bool = True,
        auto_delete: bool = False,
        internal: bool = False,
        arguments: Mapping[str, Any] | None = None,
        passive: bool = False,
    ) -> None:
        """Declare an exchange, or ask whether it exists."""
        check_name(name, "exchange name")
        check_name(type, "exchange type")
        async with self._channel(f"declaring exchange {name!r}") as channel:
            method = methods.ExchangeDeclare(
                exchange=name,
                exchange_type=type,
                durable=durable,
                auto_delete=auto_delete,
                internal=internal,
                passive=passive,
                arguments=dict(arguments or {}),
            )
            await call(channel, method)

    async def declare_queue(
        self,
        name: str,
        *,
        durable: bool = True,
        exclusive: bool = False,
        auto_delete: bool = False,
        arguments: Mapping[str, Any] | None = None,
        passive: bool = False,
    ) -> QueueCounts:
        """Declare a queue, or ask for its counts."""
        check_name(name, "queue name")
        async with self._channel(f"declaring queue {name!r}") as channel:
            method = methods.QueueDeclare(
                queue=name,
                durable=durable,
                exclusive=exclusive,
                auto_delete=auto_delete,
                passive=passive,
                arguments=dict(arguments or {}),
            )
            answer = await _answered(channel, method)
        return QueueCounts(
            str(answer.queue), int(answer.message_count or 0), int(answer.consumer_count or 0)
        )

    async def bind_queue(
        self,
        queue: str,
        exchange: str,
        routing_key: str = "",
        arguments: Mapping[str, Any] | None = None,
    ) -> None:
        """Bind a queue to an exchange."""
        _check_binding(queue, exchange, routing_key)
        async with self._channel(f"binding queue {queue!r} to {exchange!r}") as channel:
            method = methods.QueueBind(
                queue=queue,
                exchange=exchange,
                routing_key=routing_key,
                arguments=dict(arguments or {}),
            )
            await call(channel, method)

    async def unbind_queue(
        self,
        queue: str,
        exchange: str,
        routing_key: str = "",
        arguments: Mapping[str, Any] | None = None,
    ) -> None:
        """Take a binding of a queue away."""
        _check_binding(queue, exchange, routing_key)
        async with self._channel(f"unbinding queue {queue!r} from {exchange!r}") as channel:
            method = methods.QueueUnbind(
                queue=queue,
                exchange=exchange,
                routing_key=routing_key,
                arguments=dict(arguments or {}),
            )
            await call(channel, method)

    async def bind_exchange(
        self,
        destination: str,
        source: str,
        routing_key: str = "",
        arguments: Mapping[str, Any] | None = None,
    ) -> None:
        """Bind an exchange to another one."""
        _check_binding("", source, routing_key, destination)
        async with self._channel(f"binding exchange {destination!r} to {source!r}") as channel:
            method = methods.ExchangeBind(
                destination=destination,
                source=source,
                routing_key=routing_key,
                arguments=dict(arguments or {}),
            )
            await call(channel, method)

    async def unbind_exchange(
        self,
        destination: str,
        source: str,
        routing_key: str = "",
        arguments: Mapping[str, Any] | None = None,
    ) -> None:
        """Take a binding between two exchanges away."""
        _check_binding("", source, routing_key, destination)
        async with self._channel(f"unbinding exchange {destination!r} from {source!r}") as channel:
            method = methods.ExchangeUnbind(
                destination=destination,
                source=source,
                routing_key=routing_key,
                arguments=dict(arguments or {}),
            )
            await call(channel, method)

    async def delete_queue(
        self, name: str, *, if_empty: bool = False, if_unused: bool = False
    ) -> int:
        """Delete a queue; returns how many messages went with it."""
        check_name(name, "queue name")
        async with self._channel(f"deleting queue {name!r}") as channel:
            method = methods.QueueDelete(queue=name, if_empty=if_empty, if_unused=if_unused)
            answer = await call(channel, method)
        return int(answer.message_count or 0)

    async def delete_exchange(self, name: str, *, if_unused: bool = False) -> None:
        """Delete an exchange."""
        check_name(name, "exchange name")
        async with self._channel(f"deleting exchange {name!r}") as channel:
            method = methods.ExchangeDelete(exchange=name, if_unused=if_unused)
            await call(channel, method)

    async def purge_queue(self, name: str) -> int:
        """Drop the ready messages of a queue; returns how many."""
        check_name(name, "queue name")
        async with self._channel(f"purging queue {name!r}") as channel:
            answer = await call(channel, methods.QueuePurge(queue=name))
        return int(answer.message_count or 0)


def _check_binding(queue: str, exchange: str, routing_key: str, destination: str = "") -> None:
    check_name(queue, "queue name")
    check_name(exchange, "exchange name")
    check_name(destination, "exchange name")
    check_name(routing_key, "routing key")


async def _answered(channel: Channel, method: methods.QueueDeclare) -> Any:
    """Declare, and ask again where the counts are those of a queue that did not answer.

    A quorum queue whose leader does not answer within 250 ms is said to have no messages and no
    consumers (RabbitMQ 3.10, ``rabbit_quorum_queue:stat/2``).
    """
    loop = asyncio.get_running_loop()
    left = ASKED
    while True:
        began, left = loop.time(), left - 1
        answer = await call(channel, method)
        counted = answer.message_count or answer.consumer_count
        if counted or not method.passive or not left or loop.time() - began < SILENT:
            return answer
