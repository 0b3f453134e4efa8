"""Consumes one queue on a channel of its own, and comes back by itself when it was lost."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any, Final

import pamqp.frame
from pamqp import commands

from amqflow.backoff import Backoff
from amqflow.errors import AmqflowError, BrokerUnavailable, ChannelLost
from amqflow.logs import get_logger
from amqflow.transport.acks import AckBatch
from amqflow.transport.aiopika import methods
from amqflow.transport.aiopika.calls import call
from amqflow.transport.aiopika.content import write_content
from amqflow.transport.aiopika.faults import closed, translate, translated
from amqflow.transport.aiopika.frames import FrameWriter, body_max
from amqflow.transport.aiopika.stream import Tap
from amqflow.transport.names import check_name
from amqflow.transport.seam import CLOSE_TIMEOUT, Delivery

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping

    from aiormq.channel import Channel

    from amqflow.protocol import Envelope
    from amqflow.transport.aiopika.link import Link

log = get_logger("amqflow.transport")

#: Seconds without a delivery after which it is asked whether the broker still counts us among the
#: queue's consumers.
PROOF_INTERVAL: Final = 30.0
#: Times in a row it must say no, and seconds between two of them: a quorum queue whose leader does
#: not answer within 250 ms is said to have no messages and no consumers (``rabbit_quorum_queue``,
#: ``stat``), and a channel closed for that gives tasks back while they run.
PROOFS: Final = 4
PROOF_PAUSE: Final = 1.0

#: What RabbitMQ says when it has waited longer than its consumer_timeout for an ack.
_ACK_TIMED_OUT = "delivery acknowledgement on channel"


class _Session:
    """One channel's life: its outstanding tags (one generation of them) and its subscription."""

    def __init__(
        self,
        channel: Channel,
        queue: str,
        on_delivery: Callable[[Delivery], None],
        on_cancel: Callable[[], None],
        on_settled: Callable[[], None],
        *,
        transactional: bool,
    ) -> None:
        self.channel = channel
        self.tag: str | None = None
        self._subscribed = 0
        self._queue = queue
        self._number = channel.number
        self._transactional = transactional
        self._body_max = body_max(channel)
        self._on_delivery = on_delivery
        self._on_settled = on_settled
        self._open = True
        self._batch = AckBatch()
        #: Whether each flush is a transaction, since no more is consumed (see :meth:`unsubscribe`).
        self._commits = False
        self._uncommitted = False
        #: Whether anything was delivered since the last look.
        self.heard = False
        self._committing = 0
        self.writer = FrameWriter(channel)
        self.writer.collect = self._acks
        self.tap = Tap(
            on_deliver=self._on_deliver, on_close=self._end, on_committed=self._on_committed
        )
        channel.on_consumer_cancel_callbacks.add(lambda _: on_cancel())
        channel.closing.add_done_callback(lambda _: self._end())

    @property
    def live(self) -> bool:
        return self._open and not self.channel.is_closed

    @property
    def unsettled(self) -> int:
        return len(self._batch)

    def _end(self) -> None:
        """Write nothing more: a frame on a closed channel closes the connection (504)."""
        self._open = False
        self.writer.close()

    async def close(self) -> None:
        """Flush what was settled, then close the channel."""
        await self.writer.drain()
        self._end()
        await closed(self.channel)

    async def subscribe(self, *, exclusive: bool, arguments: Mapping[str, Any] | None) -> None:
        # A tag of its own each time: under the old one a quorum queue's client in the broker
        # delivers anew what is unsettled, under fresh delivery tags (``rabbit_fifo_client``).
        self._subscribed += 1
        tag = f"amqflow.{self._number}.{self._subscribed}"
        # aiormq answers a cancel by the broker only for consumers it knows (RabbitMQ 4.3).
        self.channel.consumers[tag] = _unused
        method = methods.BasicConsume(
            queue=self._queue,
            consumer_tag=tag,
            exclusive=exclusive,
            arguments=dict(arguments) if arguments else None,
        )
        await call(self.channel, method)
        self.tag = tag

    async def unsubscribe(self) -> None:
        """End the subscription, after the acks that are out; later ones go in transactions.

        A quorum queue's client in the broker keeps settlements back while 32 are on their way to
        the queue, and drops what it keeps when the channel closes (``rabbit_fifo_client``): acked
        messages came back. A cancel waits for the queue, and so for what went before it. After it
        nothing does; but a transaction, however much it settles, is one settlement.
        """
        await self.writer.drain()
        tag, self.tag = self.tag, None
        if tag is None:
            return
        await call(self.channel, commands.Basic.Cancel(consumer_tag=tag))
        if self.unsettled and not self._transactional and not self._commits:
            await call(self.channel, commands.Tx.Select())
            self._commits = True
            # What was settled while that was asked is in the transaction already.
            self._uncommitted = True
            self.writer.schedule()

    async def counted(self) -> bool:
        """Whether the broker counts a consumer on the queue; asked on the consumer's channel."""
        method = methods.QueueDeclare(queue=self._queue, passive=True)
        with translated(f"asking for the consumers of queue {self._queue!r}"):
            answer = await call(self.channel, method)
        return bool(answer.consumer_count)

    def _on_deliver(
        self, tag: int, redelivered: bool, exchange: str, routing_key: str, envelope: Envelope
    ) -> None:
        if not self._open:
            return  # the channel is closing: the broker takes it back
        self._batch.delivered(tag)
        self.heard = True
        delivery = Delivery(
            self,
            tag,
            envelope,
            queue=self._queue,
            exchange=exchange,
            routing_key=routing_key,
            redelivered=redelivered,
        )
        try:
            self._on_delivery(delivery)
        except Exception:
            # Raised on, it would close the connection, and the redelivery the next one.
            log.exception("taking a delivery failed, it stays unsettled", queue=self._queue)

    def ack(self, tag: int) -> None:
        if self.live and self._batch.ack(tag):
            self.writer.schedule()

    def nack(self, tag: int, *, requeue: bool) -> None:
        if self.live and self._batch.drop(tag):
            frame = commands.Basic.Nack(delivery_tag=tag, multiple=False, requeue=requeue)
            self._uncommitted = True
            self.writer.write(pamqp.frame.marshal(frame, self._number))

    async def commit(
        self, deliveries: Iterable[Delivery], envelope: Envelope, exchange: str, routing_key: str
    ) -> None:
        publish = methods.BasicPublish(exchange=exchange, routing_key=routing_key)
        content = write_content(envelope, self._number, self._body_max)
        acked = list(deliveries)
        if not self.live or not all(delivery.live for delivery in acked):
            message = "the channel closed"
            raise ChannelLost(message)
        self.writer.write(pamqp.frame.marshal(publish, self._number), content)
        for delivery in acked:
            delivery.ack()
        await self.writer.drain()
        await call(self.channel, commands.Tx.Commit())

    def _acks(self) -> bytes:
        frames = [
            pamqp.frame.marshal(
                commands.Basic.Ack(delivery_tag=tag, multiple=multiple), self._number
            )
            for tag, multiple in self._batch.take()
        ]
        if self._commits and (frames or self._uncommitted):
            frames.append(pamqp.frame.marshal(commands.Tx.Commit(), self._number))
            self._committing += 1
        self._uncommitted = False
        if self.tag is None:
            self._on_settled()
        return b"".join(frames)

    def _on_committed(self) -> bool:
        """Take the answer to a commit of a flush; others are answers to calls."""
        if not self._committing:
            return False
        self._committing -= 1
        return True


class AioPikaConsumer:
    """A supervised consumer (see :class:`amqflow.transport.seam.Consumer`)."""

    def __init__(
        self,
        link: Link,
        queue: str,
        on_delivery: Callable[[Delivery], None],
        *,
        prefetch: int,
        exclusive: bool = False,
        transactional: bool = False,
        arguments: Mapping[str, Any] | None = None,
    ) -> None:
        """Start to subscribe at once, in the running loop."""
        check_name(queue, "queue name")
        self._link = link
        self._queue = queue
        self._on_delivery = on_delivery
        self._prefetch = prefetch
        self._exclusive = exclusive
        self._transactional = transactional
        self._committing = asyncio.Lock()
        self._arguments = arguments
        self._active = asyncio.Event()
        self._wake = asyncio.Event()
        self._wanted = True
        self._closing = False
        self._session: _Session | None = None
        self._changing = asyncio.Lock()
        self._reopening: asyncio.Task[None] | None = None
        self.generation = 0
        self.problem: str | None = "not subscribed yet"
        self._task = asyncio.get_running_loop().create_task(self._supervise())

    @property
    def queue(self) -> str:
        """The queue consumed."""
        return self._queue

    @property
    def active(self) -> bool:
        """Whether the broker counts us among the queue's consumers, as far as we know."""
        return self._active.is_set()

    async def wait_active(self, timeout: float) -> None:
        """Wait until subscribed; raises BrokerUnavailable with the problem after ``timeout``."""
        try:
            async with asyncio.timeout(timeout):
                await self._active.wait()
        except TimeoutError:
            message = f"queue {self._queue!r} is not consumed after {timeout:g} s: {self.problem}"
            raise BrokerUnavailable(message) from None

    async def commit(
        self, deliveries: Iterable[Delivery], envelope: Envelope, exchange: str, routing_key: str
    ) -> None:
        """See :meth:`amqflow.transport.seam.Consumer.commit`."""
        session = self._session
        if session is None:
            raise ChannelLost(f"queue {self._queue!r} is not consumed")
        async with self._committing:
            with translated(f"acking messages of queue {self._queue!r}"):
                await session.commit(deliveries, envelope, exchange, routing_key)

    async def _supervise(self) -> None:
        backoff = Backoff(first=0.05, most=5.0)
        while not self._closing:
            try:
                with translated(f"consuming queue {self._queue!r}"):
                    await self._serve(backoff)
            except AmqflowError as error:
                self._lost(str(error))
            if not self._closing:
                await asyncio.sleep(backoff.next())

    async def _serve(self, backoff: Backoff) -> None:
        """Open a channel, subscribe, and stay until it is lost."""
        session = await self._link.tapped_channel(self._make_session)
        closing = session.channel.closing
        self._session = session
        try:
            await call(session.channel, commands.Basic.Qos(prefetch_count=self._prefetch))
            if self._transactional:
                await call(session.channel, commands.Tx.Select())
            await self._apply(session)
            backoff.reset()
            while not closing.done() and not self._closing:
                self._wake.clear()
                woken = await self._next_event(closing, PROOF_INTERVAL)
                if closing.done() or self._closing:
                    break
                await self._apply(session)
                if not woken:
                    await self._prove(session, closing)
        finally:
            self._active.clear()
            if not self._closing and session.live:
                # What is unsettled goes back to the queue; a half-open channel keeps nothing.
                await session.close()
        if not self._closing:
            error = None if closing.cancelled() else closing.exception()
            raise self._reason(error)

    def _reason(self, error: BaseException | None) -> AmqflowError:
        doing = f"consuming queue {self._queue!r}"
        if error is None or isinstance(error, asyncio.CancelledError):
            return ChannelLost(f"{doing}: the channel closed")
        if _ACK_TIMED_OUT in str(error):
            return ChannelLost(
                f"{doing}: the broker closed the channel because a task took longer than its "
                f"consumer_timeout, and delivers its message again ({error}); give the task a "
                "time_limit below that, or raise consumer_timeout in rabbitmq.conf and in the "
                "settings"
            )
        return translate(error, doing)

    def _make_session(self, channel: Channel) -> tuple[_Session, Tap]:
        self.generation += 1
        session = _Session(
            channel,
            self._queue,
            self._on_delivery,
            self._cancelled,
            self._on_settled,
            transactional=self._transactional,
        )
        return session, session.tap

    async def _next_event(self, closing: asyncio.Future[Any], timeout: float) -> bool:
        """Wait until something happens; False where ``timeout`` seconds passed first."""
        wake = asyncio.ensure_future(self._wake.wait())
        try:
            done, _ = await asyncio.wait(
                [closing, wake], timeout=timeout, return_when=asyncio.FIRST_COMPLETED
            )
        finally:
            wake.cancel()
        return bool(done)

    async def _prove(self, session: _Session, closing: asyncio.Future[Any]) -> None:
        """Make sure that a silent subscription is one.

        Raises:
            ChannelLost: The broker does not count it, however often it is asked.
        """
        session.heard = False
        for number in range(PROOFS):
            if number and await self._next_event(closing, PROOF_PAUSE):
                return  # the loop of who calls this looks at what happened
            if not self.active or session.heard or await session.counted():
                return
        message = "the broker does not count this consumer any more"
        raise ChannelLost(message)

    async def _apply(self, session: _Session) -> None:
        """Bring the subscription to what is wanted."""
        async with self._changing:
            if self._wanted and session.tag is None:
                if self._prefetch and session.unsettled >= self._prefetch:
                    self.problem = f"{session.unsettled} deliveries from before are unsettled"
                    return
                await session.subscribe(exclusive=self._exclusive, arguments=self._arguments)
                if self.problem not in {"not subscribed yet", "paused"}:  # else it was wanted so
                    log.info("consuming again", queue=self._queue)
                self.problem = None
                self._active.set()
            elif not self._wanted and session.tag is not None:
                self._active.clear()
                self.problem = "paused"
                await session.unsubscribe()

    def _on_settled(self) -> None:
        """Look again whether there is room to subscribe."""
        if self._wanted:
            self._wake.set()

    def _cancelled(self) -> None:
        """Note that the broker took the subscription away (the queue was deleted or moved)."""
        if self._session is not None:
            self._session.tag = None
            self._lost("the broker cancelled the consumer: the queue was deleted or moved")
            # A fresh channel, after the backoff; what it had delivered is still settled there
            # first, as far as it can be.
            self._reopening = asyncio.get_running_loop().create_task(self._session.close())

    def _lost(self, problem: str) -> None:
        was = self._active.is_set() or self.problem in (None, "not subscribed yet")
        self._active.clear()
        self.problem = problem
        (log.warning if was else log.debug)(
            "not consuming, will try again", queue=self._queue, problem=problem
        )

    async def pause(self) -> None:
        """Unsubscribe, keep the channel."""
        await self._want(wanted=False)

    async def resume(self) -> None:
        """Subscribe again."""
        await self._want(wanted=True)

    async def _want(self, *, wanted: bool) -> None:
        self._wanted = wanted
        session = self._session
        if session is not None and session.live:
            try:
                with translated(f"consuming queue {self._queue!r}"):
                    await self._apply(session)
            except AmqflowError as error:
                log.debug("the supervisor will bring it about", error=str(error))
        self._wake.set()

    async def close(self) -> None:
        """Flush what was settled, then close the channel: the rest goes back to the queue."""
        self._closing = True
        self._wanted = False
        self._wake.set()
        session = self._session
        try:
            async with asyncio.timeout(CLOSE_TIMEOUT):
                if session is not None and session.live:
                    with translated("unsubscribing"):
                        await session.unsubscribe()
                    await session.close()
        except (AmqflowError, TimeoutError) as error:
            log.debug("closing a consumer failed", queue=self._queue, error=str(error))
        self._active.clear()
        self.problem = "closed"
        self._task.cancel()
        await asyncio.gather(self._task, return_exceptions=True)


async def _unused(_: object) -> None:
    """Stand where aiormq wants a callback; the tap takes the deliveries before it."""
