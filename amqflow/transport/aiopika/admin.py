"""Declares and questions to the broker, each on a channel that no other call can close."""

from __future__ import annotations

import asyncio
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any, Final

from amqflow.transport.aiopika.faults import translated
from amqflow.transport.seam import CALL_TIMEOUT, QueueCounts

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Mapping

    from aiormq.abc import AbstractChannel

    from amqflow.transport.aiopika.link import Link

#: Channels used at the same time; a 404 or 406 closes one, so calls never share.
CHANNELS: Final = 8


class AioPikaAdmin:
    """See :class:`amqflow.transport.seam.Admin`."""

    def __init__(self, link: Link) -> None:
        """Ask over ``link``."""
        self._link = link
        self._idle: list[AbstractChannel] = []
        self._slots = asyncio.Semaphore(CHANNELS)

    @asynccontextmanager
    async def _channel(self, doing: str) -> AsyncIterator[AbstractChannel]:
        async with self._slots:
            channel: AbstractChannel | None = None
            while self._idle and channel is None:
                candidate = self._idle.pop()
                channel = None if candidate.is_closed else candidate
            if channel is None:
                channel = await self._link.channel()
            with translated(doing):
                yield channel
            if not channel.is_closed:
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
        async with self._channel(f"declaring exchange {name!r}") as channel:
            await channel.exchange_declare(
                name,
                exchange_type=type,
                durable=durable,
                auto_delete=auto_delete,
                internal=internal,
                passive=passive,
                arguments=dict(arguments or {}),
                timeout=CALL_TIMEOUT,
            )

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
        async with self._channel(f"declaring queue {name!r}") as channel:
            answer = await channel.queue_declare(
                name,
                durable=durable,
                exclusive=exclusive,
                auto_delete=auto_delete,
                passive=passive,
                arguments=dict(arguments or {}),
                timeout=CALL_TIMEOUT,
            )
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
        async with self._channel(f"binding queue {queue!r} to {exchange!r}") as channel:
            await channel.queue_bind(
                queue,
                exchange,
                routing_key,
                arguments=dict(arguments or {}),
                timeout=CALL_TIMEOUT,
            )

    async def bind_exchange(
        self,
        destination: str,
        source: str,
        routing_key: str = "",
        arguments: Mapping[str, Any] | None = None,
    ) -> None:
        """Bind an exchange to another one."""
        async with self._channel(f"binding exchange {destination!r} to {source!r}") as channel:
            await channel.exchange_bind(
                destination,
                source,
                routing_key,
                arguments=dict(arguments or {}),
                timeout=CALL_TIMEOUT,
            )

    async def delete_queue(self, name: str) -> int:
        """Delete a queue; returns how many messages went with it."""
        async with self._channel(f"deleting queue {name!r}") as channel:
            answer = await channel.queue_delete(name, timeout=CALL_TIMEOUT)
        return int(answer.message_count or 0)

    async def delete_exchange(self, name: str) -> None:
        """Delete an exchange."""
        async with self._channel(f"deleting exchange {name!r}") as channel:
            await channel.exchange_delete(name, timeout=CALL_TIMEOUT)

    async def purge_queue(self, name: str) -> int:
        """Drop the ready messages of a queue; returns how many."""
        async with self._channel(f"purging queue {name!r}") as channel:
            answer = await channel.queue_purge(name, timeout=CALL_TIMEOUT)
        return int(answer.message_count or 0)
