"""Publishes pipelined: many messages in flight, each with its own confirm, return and deadline."""

from __future__ import annotations

import asyncio
from collections import deque
from typing import TYPE_CHECKING, Any, Final

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
from amqflow.transport.aiopika import methods
from amqflow.transport.aiopika.blame import blame
from amqflow.transport.aiopika.calls import call
from amqflow.transport.aiopika.content import write_content
from amqflow.transport.aiopika.faults import closed, translate, translated, words
from amqflow.transport.aiopika.frames import FrameWriter, body_max
from amqflow.transport.aiopika.stream import Tap
from amqflow.transport.detour import Detours
from amqflow.transport.names import check_name
from amqflow.transport.seam import NACK_PATIENCE

if TYPE_CHECKING:
    from aiormq.channel import Channel

    from amqflow.abc import Gate
    from amqflow.protocol import Envelope
    from amqflow.transport.aiopika.link import Link

log = get_logger("amqflow.transport")

#: Unconfirmed messages at one time; further publishes wait. It bounds memory while the broker
#: is slow, and is far above what one connection keeps in flight at full speed.
WINDOW: Final = 4096
#: Bytes of unconfirmed bodies at one time; a single larger message goes alone.
WINDOW_BYTES: Final = 64 * 2**20
#: Seconds after which is asked again what leads to a queue, where the exchange named is missing.
_ASK_AGAIN: Final = 0.05
#: Prepared ``basic.publish`` frames kept, by address.
ADDRESSES: Final = 1024


class _Session:
    """The life of one publishing channel: tags, what is in flight, what is known to exist."""

    def __init__(self, channel: Channel) -> None:
        self.channel = channel
        self.loop = asyncio.get_running_loop()
        self.writer = FrameWriter(channel)
        self.exchanges: set[str] = {""}
        self.in_flight: dict[int, asyncio.Future[None]] = {}
        self._open = True
        self._tag = 0
        self._number = channel.number
        self._body_max = body_max(channel)
        self._by_id: dict[str, tuple[int, asyncio.Future[None]]] = {}
        self._sent: dict[int, tuple[Envelope, str, str]] = {}
        self._bytes = 0
        self._waiting: deque[asyncio.Future[None]] = deque()
        self._addresses: dict[tuple[str, str], bytes] = {}
        self.tap = Tap(
            on_return=self._on_return, on_confirm=self._on_confirm, on_close=self._on_close
        )
        channel.closing.add_done_callback(self._on_closed)

    @property
    def live(self) -> bool:
        return self._open and not self.channel.is_closed

    @property
    def full(self) -> bool:
        """Whether the window is full."""
        return len(self._sent) >= WINDOW or self._bytes >= WINDOW_BYTES

    def holder(self, message_id: str | None) -> asyncio.Future[None] | None:
        """Return the future of the message with this id that is in flight, if one is."""
        entry = self._by_id.get(message_id or "")
        return entry[1] if entry else None

    async def room(self, deadline: float) -> None:
        """Wait for a place in the window, first come, first served.

        Raises:
            TimeoutError: there was none before the deadline (loop time).
        """
        place: asyncio.Future[None] = self.loop.create_future()
        self._waiting.append(place)
        timer = self.loop.call_at(deadline, _expire, place)
        try:
            await place
        except BaseException:
            self._next()  # the place, if one was given already, is the next one's
            raise
        finally:
            timer.cancel()

    def _next(self) -> None:
        """Wake the first that waits for room, if there is room."""
        while self._waiting and not self.full:
            place = self._waiting.popleft()
            if not place.done():
                place.set_result(None)
                return

    def frames(self, envelope: Envelope, exchange: str, routing_key: str) -> tuple[bytes, bytes]:
        """Return one message as this channel's frames: its method, its content."""
        number = self._number
        address = (exchange, routing_key)
        publish = self._addresses.get(address)
        if publish is None:
            publish = pamqp.frame.marshal(
                methods.BasicPublish(exchange=exchange, routing_key=routing_key, mandatory=True),
                number,
            )
            if len(self._addresses) >= ADDRESSES:
                self._addresses.clear()
            self._addresses[address] = publish
        return publish, write_content(envelope, number, self._body_max)

    def send(
        self,
        envelope: Envelope,
        exchange: str,
        routing_key: str,
        frames: tuple[bytes, bytes],
        future: asyncio.Future[None],
    ) -> int:
        """Queue the frames of one message, whose confirm ``future`` waits for; return its tag."""
        self._tag += 1
        tag = self._tag
        self.in_flight[tag] = future
        self._by_id[envelope.message_id or ""] = (tag, future)
        self._sent[tag] = (envelope, exchange, routing_key)
        self._bytes += len(envelope.body)
        self.writer.write(*frames)
        if self._waiting:
            self._next()
        return tag

    def forget(self, tag: int, message_id: str | None) -> None:
        """Drop what is kept of a message that was confirmed, refused or given up."""
        self.in_flight.pop(tag, None)
        self._bytes -= len(self._sent.pop(tag)[0].body)
        if (entry := self._by_id.get(message_id or "")) and entry[0] == tag:
            del self._by_id[message_id or ""]
        if self._waiting:
            self._next()

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
                        "overflow reject-publish, or has no leader"
                    )
                )

    def _on_close(self) -> None:
        """Write nothing more: a frame on a closed channel closes the connection (504)."""
        self._open = False
        self.writer.close()

    def _on_closed(self, closing: asyncio.Future[Any]) -> None:
        self._on_close()
        self._fail(None if closing.cancelled() else closing.exception())

    def _fail(self, error: BaseException | None) -> None:
        reason = f"the publishing channel closed: {words(error)}" if error else "the channel closed"
        for tag, future in self.in_flight.items():
            if not future.done():
                refusal = blame(error, *self._sent[tag]) if error else None
                future.set_exception(refusal or ChannelLost(reason))
        self.in_flight.clear()
        for place in self._waiting:
            if not place.done():
                place.set_result(None)
        self._waiting.clear()

    def abandon(self) -> None:
        """Fail what is in flight; the connection is about to be closed."""
        self._on_close()
        self._fail(None)


class _DetourChanged(Exception):
    """The exchange that leads to a queue is another one by now."""


class _NotFree(Exception):
    """A message cannot be written in the turn of the loop its gate opens in."""


class Publisher:
    """Confirmed, mandatory publishes on a connection of their own (design 5.1)."""

    def __init__(self, link: Link) -> None:
        """Publish over ``link``; the channel opens with the first message."""
        self._link = link
        self._session: _Session | None = None
        self._opening = asyncio.Lock()
        self._checking: dict[str, asyncio.Task[None]] = {}
        self._detours = Detours(self._exists)

    async def publish(
        self,
        envelope: Envelope,
        exchange: str,
        routing_key: str,
        *,
        timeout: float,
        retry: bool,
        gate: Gate | None = None,
    ) -> None:
        """See :meth:`amqflow.transport.seam.Transport.publish`."""
        check_name(routing_key, "routing key")
        check_name(exchange, "exchange name")
        loop = asyncio.get_running_loop()
        deadline = loop.time() + timeout + (gate.left() if gate is not None else 0.0)
        backoff: Backoff | None = None
        refused: tuple[float, int] | None = None
        while True:
            try:
                return await self._once(envelope, exchange, routing_key, deadline, gate)
            except (ChannelLost, BrokerUnavailable) as error:
                backoff = backoff or Backoff(first=0.02, most=1.0)
                pause = backoff.next()
                if not retry:
                    raise
                if loop.time() + pause >= deadline:
                    message = f"not confirmed within {timeout:g} s: {error}"
                    raise PublishTimeout(message) from error
            except PublishNacked as error:
                if not retry:
                    raise
                backoff = backoff or Backoff(first=0.05, most=1.0)
                pause = backoff.next()
                since, times = refused or (loop.time(), 0)
                refused = (since, times + 1)
                if loop.time() + pause >= min(deadline, since + NACK_PATIENCE):
                    message = f"{error}; refused {times + 1} times in {loop.time() - since:.1f} s"
                    raise PublishNacked(message) from None
            await asyncio.sleep(pause)

    async def _once(
        self,
        envelope: Envelope,
        exchange: str,
        routing_key: str,
        deadline: float,
        gate: Gate | None,
    ) -> None:
        """Send a message and wait for its confirm, by the way that leads to its queue now."""
        while True:
            through = exchange or await self._through(routing_key, deadline)
            try:
                session = self._session
                if session is None or not session.live or through not in session.exchanges:
                    session = await self._prepared(through, deadline)
                by_name = not exchange
                if gate is not None and gate.left() > 0:
                    return await self._send_at(
                        gate, session, envelope, through, routing_key, deadline, by_name=by_name
                    )
                return await self._send(
                    session, envelope, through, routing_key, deadline, by_name=by_name
                )
            except (_DetourChanged, _NotFree):
                pass
            except NotFound:
                if through == exchange or asyncio.get_running_loop().time() >= deadline:
                    raise
                self._detours.forget(routing_key)  # the replacement is done
                await asyncio.sleep(_ASK_AGAIN)

    async def _send(
        self,
        session: _Session,
        envelope: Envelope,
        exchange: str,
        routing_key: str,
        deadline: float,
        *,
        by_name: bool,
    ) -> None:
        message_id = envelope.message_id
        while (holder := session.holder(message_id)) is not None or session.full:
            # One id is in flight once: returns are matched by message id.
            if holder is not None:
                await asyncio.wait([holder], timeout=max(0.0, deadline - session.loop.time()))
                if not holder.done():
                    raise await self._late()
                await asyncio.sleep(0)  # lets the holder's own publisher forget it
            else:
                try:
                    await session.room(deadline)
                except TimeoutError:
                    raise await self._late() from None
            if not session.live:
                message = "the publishing channel closed"
                raise ChannelLost(message)
        # No await between this look and the frames: a queue being replaced counts on it.
        if by_name and self._detours.fresh(routing_key, session.loop.time()) != exchange:
            raise _DetourChanged
        frames = session.frames(envelope, exchange, routing_key)
        future: asyncio.Future[None] = session.loop.create_future()
        tag = session.send(envelope, exchange, routing_key, frames, future)
        timer = session.loop.call_at(deadline, _expire, future)
        try:
            await future
        except TimeoutError:
            raise await self._late() from None
        finally:
            timer.cancel()
            session.forget(tag, message_id)

    async def _send_at(
        self,
        gate: Gate,
        session: _Session,
        envelope: Envelope,
        exchange: str,
        routing_key: str,
        deadline: float,
        *,
        by_name: bool,
    ) -> None:
        """Make a message ready, and write it in the very turn of the loop its gate opens in.

        Of a thousand messages for one instant the last is written two milliseconds after it, where
        waking a task for each and encoding it then takes twenty and more.

        Raises:
            _NotFree: Something else must be waited for first; the gate is open by now.
        """
        frames = session.frames(envelope, exchange, routing_key)
        future: asyncio.Future[None] = session.loop.create_future()
        tag: int | None = None

        def go() -> None:
            nonlocal tag
            if future.done():  # given up meanwhile
                return
            if (
                not session.live
                or session.full
                or session.holder(envelope.message_id) is not None
                or (by_name and self._detours.fresh(routing_key, session.loop.time()) != exchange)
            ):
                future.set_exception(_NotFree())
            else:
                tag = session.send(envelope, exchange, routing_key, frames, future)

        timer = session.loop.call_at(deadline, _expire, future)
        gate.add(go)
        try:
            await future
        except TimeoutError:
            raise await self._late() from None
        finally:
            timer.cancel()
            if tag is not None:
                session.forget(tag, envelope.message_id)

    async def _late(self) -> PublishError:
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
            if await self._link.blocked():
                raise await self._late() from None
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
                # By hand: open() would switch on aiormq's own bookkeeping of confirms.
                await call(session.channel, commands.Confirm.Select())
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
            task.add_done_callback(lambda done: self._checked(exchange, done))
        await asyncio.shield(task)
        session.exchanges.add(exchange)

    def _checked(self, exchange: str, task: asyncio.Task[None]) -> None:
        self._checking.pop(exchange, None)
        if not task.cancelled():
            task.exception()  # whoever waits for it has it; after their deadline, nobody does

    async def _through(self, queue: str, deadline: float) -> str:
        """Return the exchange that leads to a queue: the default one, but while it is replaced."""
        found = self._detours.fresh(queue, asyncio.get_running_loop().time())
        if found is not None:
            return found
        try:
            async with asyncio.timeout_at(deadline):
                return await self._detours.exchange(queue)
        except TimeoutError:
            if await self._link.blocked():
                raise await self._late() from None
            message = (
                self._link.problem
                or f"asking the broker at {self._link.address} for queue {queue!r} took too long"
            )
            raise BrokerUnavailable(message) from None

    async def _exists(self, exchange: str) -> bool:
        try:
            await self._ask(exchange)
        except (NotFound, AccessRefused):
            return False
        return True

    async def _ask(self, exchange: str) -> None:
        channel = await self._link.channel()
        try:
            method = methods.ExchangeDeclare(exchange=exchange, passive=True)
            await call(channel, method)
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
        finally:
            await closed(channel)

    def close(self) -> None:
        """Fail the messages in flight with ChannelLost; the channel goes with its link."""
        self._detours.close()
        session, self._session = self._session, None
        if session is not None:
            session.abandon()


def _make_session(channel: Channel) -> tuple[_Session, Tap]:
    session = _Session(channel)
    return session, session.tap


def _expire(future: asyncio.Future[None]) -> None:
    if not future.done():
        future.set_exception(TimeoutError())
