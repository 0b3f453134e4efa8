"""Publishes pipelined: many messages in flight, each with its own confirm, return and deadline."""

from __future__ import annotations

import asyncio
from collections import deque
from typing import TYPE_CHECKING, Any, Final, cast

import pamqp.frame
from pamqp import commands

from amqflow.backoff import Backoff
from amqflow.errors import (
    AccessRefused,
    BrokerUnavailable,
    ChannelLost,
    NotFound,
    PublishError,
    PublishNacked,
    PublishTimeout,
    Unroutable,
)
from amqflow.logs import get_logger
from amqflow.transport.aiopika.content import write_content
from amqflow.transport.aiopika.faults import translate, translated
from amqflow.transport.aiopika.frames import FrameWriter
from amqflow.transport.aiopika.stream import Tap
from amqflow.transport.seam import CALL_TIMEOUT

if TYPE_CHECKING:
    from aiormq.abc import AbstractChannel
    from aiormq.channel import Channel

    from amqflow.protocol import Envelope
    from amqflow.transport.aiopika.link import Link

log = get_logger("amqflow.transport")

#: Unconfirmed messages at one time; further publishes wait. It bounds memory while the broker
#: is slow, and is far above what one connection keeps in flight at full speed.
WINDOW: Final = 4096
#: Prepared ``basic.publish`` frames kept, by address.
ADDRESSES: Final = 1024


class _Session:
    """The life of one publishing channel: tags, what is in flight, what is known to exist."""

    def __init__(self, channel: AbstractChannel) -> None:
        self.channel = channel
        self.loop = asyncio.get_running_loop()
        self.writer = FrameWriter(channel)
        self.exchanges: set[str] = {""}
        self.in_flight: dict[int, asyncio.Future[None]] = {}
        self._tag = 0
        self._number = channel.number
        self._body_max = max(4096, channel.connection.connection_tune.frame_max or 131072) - 8
        self._by_id: dict[str, tuple[int, asyncio.Future[None]]] = {}
        self._addresses: dict[tuple[str, str], bytes] = {}
        self.tap = Tap(on_return=self._on_return, on_confirm=self._on_confirm)
        channel.closing.add_done_callback(self._on_closed)

    @property
    def live(self) -> bool:
        return not self.channel.is_closed

    def holder(self, message_id: str | None) -> asyncio.Future[None] | None:
        """Return the future of the message with this id that is in flight, if one is."""
        entry = self._by_id.get(message_id) if message_id else None
        return entry[1] if entry else None

    def send(
        self, envelope: Envelope, exchange: str, routing_key: str
    ) -> tuple[int, asyncio.Future[None]]:
        """Queue the frames of one message. No await between the tag and the frames."""
        number = self._number
        address = (exchange, routing_key)
        publish = self._addresses.get(address)
        if publish is None:
            publish = pamqp.frame.marshal(
                commands.Basic.Publish(exchange=exchange, routing_key=routing_key, mandatory=True),
                number,
            )
            if len(self._addresses) >= ADDRESSES:
                self._addresses.clear()
            self._addresses[address] = publish
        content = write_content(envelope, number, self._body_max)
        self._tag += 1
        tag = self._tag
        future: asyncio.Future[None] = self.loop.create_future()
        self.in_flight[tag] = future
        if envelope.message_id:
            self._by_id[envelope.message_id] = (tag, future)
        self.writer.write(publish, content)
        return tag, future

    def forget(self, tag: int, message_id: str | None) -> None:
        """Drop what is kept of a message that was confirmed, refused or given up."""
        self.in_flight.pop(tag, None)
        if message_id and (entry := self._by_id.get(message_id)) and entry[0] == tag:
            del self._by_id[message_id]

    def _on_return(
        self, reply_text: str, exchange: str, routing_key: str, envelope: Envelope
    ) -> None:
        entry = self._by_id.get(envelope.message_id or "")
        if entry is None or entry[1].done():
            return
        where = f"exchange {exchange!r}" if exchange else "the default exchange"
        entry[1].set_exception(
            Unroutable(
                f"no queue took the message: {where} has no binding for routing key "
                f"{routing_key!r} ({reply_text}); declare the queue or start a "
                "worker that does"
            )
        )

    def _on_confirm(self, tag: int, multiple: bool, /, *, ack: bool) -> None:
        if multiple:
            # Tags are inserted in order, so the confirmed ones come first.
            tags = []
            for known in self.in_flight:
                if known > tag:
                    break
                tags.append(known)
        else:
            tags = [tag]
        for known in tags:
            future = self.in_flight.pop(known, None)
            if future is None or future.done():
                continue
            if ack:
                future.set_result(None)
            else:
                future.set_exception(
                    PublishNacked(
                        "the broker refused the message (basic.nack): the queue is full with "
                        "overflow reject-publish, or lost its leader"
                    )
                )

    def _on_closed(self, closing: asyncio.Future[Any]) -> None:
        self.writer.close()
        error: BaseException | None = None if closing.cancelled() else closing.exception()
        reason = f"the publishing channel closed: {error}" if error else "the channel closed"
        for future in self.in_flight.values():
            if not future.done():
                future.set_exception(ChannelLost(reason))
        self.in_flight.clear()


class Publisher:
    """Confirmed, mandatory publishes on a connection of their own (design 5.1)."""

    def __init__(self, link: Link) -> None:
        """Publish over ``link``; the channel opens with the first message."""
        self._link = link
        self._session: _Session | None = None
        self._opening = asyncio.Lock()
        self._checking: dict[str, asyncio.Task[None]] = {}
        self._room: deque[asyncio.Future[None]] = deque()

    async def publish(
        self,
        envelope: Envelope,
        exchange: str,
        routing_key: str,
        *,
        timeout: float,
        retry: bool,
    ) -> None:
        """See :meth:`amqflow.transport.seam.Transport.publish`."""
        if len(routing_key.encode()) > 255:  # noqa: PLR2004 - AMQP's short string
            message = f"the routing key is longer than 255 bytes: {routing_key[:60]!r}…"
            raise Unroutable(message)
        loop = asyncio.get_running_loop()
        deadline = loop.time() + timeout
        backoff: Backoff | None = None
        while True:
            try:
                session = self._session
                if session is None or not session.live or exchange not in session.exchanges:
                    session = await self._prepared(exchange, deadline)
                return await self._send(session, envelope, exchange, routing_key, deadline)
            except (ChannelLost, BrokerUnavailable) as error:
                backoff = backoff or Backoff(first=0.02, most=1.0)
                pause = backoff.next()
                if not retry:
                    raise
                if loop.time() + pause >= deadline:
                    message = f"not confirmed within {timeout:g} s: {error}"
                    raise PublishTimeout(message) from error
                await asyncio.sleep(pause)

    async def _send(
        self,
        session: _Session,
        envelope: Envelope,
        exchange: str,
        routing_key: str,
        deadline: float,
    ) -> None:
        message_id = envelope.message_id
        while (holder := session.holder(message_id)) is not None or len(
            session.in_flight
        ) >= WINDOW:
            # One id is in flight once: returns are matched by message id. A full window waits
            # for any confirm.
            waited = holder or next(iter(session.in_flight.values()))
            await asyncio.wait([waited], timeout=max(0.0, deadline - session.loop.time()))
            if not waited.done():
                raise await self._late(deadline)
            await asyncio.sleep(0)  # lets the holder's own publisher forget it
            if not session.live:
                message = "the publishing channel closed"
                raise ChannelLost(message)
        tag, future = session.send(envelope, exchange, routing_key)
        timer = session.loop.call_at(deadline, _expire, future)
        try:
            await future
        except TimeoutError:
            raise await self._late(deadline) from None
        finally:
            timer.cancel()
            session.forget(tag, message_id)

    async def _late(self, deadline: float) -> PublishError:
        del deadline
        if await self._link.blocked():
            return PublishTimeout(
                "the broker has blocked publishers (memory or disk alarm) and did not confirm in "
                "time; free memory or disk on the broker, consuming goes on meanwhile"
            )
        return PublishTimeout(
            f"the broker at {self._link.address} did not confirm in time; the message may or may "
            "not be there"
        )

    async def _prepared(self, exchange: str, deadline: float) -> _Session:
        """Return a live session that knows the exchange, within the deadline."""
        try:
            async with asyncio.timeout_at(deadline):
                session = await self._open()
                if exchange not in session.exchanges:
                    await self._check(session, exchange)
                return session
        except TimeoutError:
            message = (
                self._link.problem
                or f"opening a channel to the broker at {self._link.address} took too long"
            )
            raise BrokerUnavailable(message) from None

    async def _open(self) -> _Session:
        async with self._opening:
            if self._session is not None and self._session.live:
                return self._session
            session = await self._link.tapped_channel(_make_session)
            with translated("asking for publisher confirms"):
                # On aiormq's Channel, not on its abstract face; open() would switch on aiormq's
                # own bookkeeping of confirms.
                channel = cast("Channel", session.channel)
                await channel.rpc(commands.Confirm.Select(), timeout=CALL_TIMEOUT)
            self._session = session
            return session

    async def _check(self, session: _Session, exchange: str) -> None:
        """Ask once, on a channel of its own, whether the exchange exists.

        Publishing to a missing exchange closes the channel, and pipelined the connection,
        under everybody else's messages (tried on 3.10.8).
        """
        task = self._checking.get(exchange)
        if task is None:
            task = asyncio.get_running_loop().create_task(self._ask(exchange))
            self._checking[exchange] = task
            task.add_done_callback(lambda _: self._checking.pop(exchange, None))
        await asyncio.shield(task)
        session.exchanges.add(exchange)

    async def _ask(self, exchange: str) -> None:
        channel = await self._link.channel()
        try:
            await channel.exchange_declare(exchange, passive=True, timeout=CALL_TIMEOUT)
        except Exception as error:
            known = translate(error, f"publishing to exchange {exchange!r}")
            if isinstance(known, NotFound):
                message = (
                    f"exchange {exchange!r} does not exist on the broker; declare it, or start a "
                    "worker that does"
                )
                raise NotFound(message) from error
            if isinstance(known, AccessRefused):
                raise known from error
            raise ChannelLost(str(known)) from error
        else:
            await channel.close()

    async def close(self) -> None:
        """Close the channel; messages in flight fail with ChannelLost."""
        session, self._session = self._session, None
        if session is not None and session.live:
            await session.writer.drain()
            await session.channel.close()


def _make_session(channel: AbstractChannel) -> tuple[_Session, Tap]:
    session = _Session(channel)
    return session, session.tap


def _expire(future: asyncio.Future[None]) -> None:
    if not future.done():
        future.set_exception(TimeoutError())
