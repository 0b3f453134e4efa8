"""The one way out: route, middleware, encode, address, publish under confirm."""

from __future__ import annotations

import asyncio
import os
import socket
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any, Final, Protocol

from amqflow import signals
from amqflow.abc import Call, Sent
from amqflow.backoff import Backoff
from amqflow.errors import (
    BrokerUnavailable,
    ChannelLost,
    NotFound,
    PublishGroupError,
    PublishTimeout,
    Unroutable,
)
from amqflow.logs import get_logger
from amqflow.producer.address import to_exchange, to_queue
from amqflow.producer.compose import compose
from amqflow.producer.outgoing import Outgoing
from amqflow.protocol import Limits, encode
from amqflow.topology import AppNames, BrokerFacts, Ladder
from amqflow.topology.ladder import PREFIX
from amqflow.topology.routes import Address, Destination, Routes

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Sequence

    from amqflow.abc import Gate
    from amqflow.clock import Clock
    from amqflow.middleware import Stack
    from amqflow.protocol import Envelope, TaskMessage
    from amqflow.settings import Settings
    from amqflow.tasks import TaskOptions
    from amqflow.topology import Delays
    from amqflow.transport import Transport

log = get_logger("amqflow.producer")


#: Delayed messages under way to the broker at one time. A message's delay is worked out when it
#: is sent; in a burst of thousands the last would reach the broker half a second later than that.
#: Of 3,000 at once, 128 cost 75 ms each and 16 cost 5, at 5,500 a second either way.
ENTERING: Final = 16
#: Calls of one batch that a turn of the loop encodes.
AT_ONCE: Final = 128
#: Seconds for which a queue that was there is taken to be there, and how many are remembered.
KNOWN_FOR: Final = 60.0
MOST_KNOWN: Final = 1024


class Claims(Protocol):
    """The claim check on the way out (``guards/blobs``)."""

    async def out(self, envelope: Envelope) -> Envelope:
        """Return an envelope as it is to travel: a large one by reference."""
        ...


class Producer:
    """Sends calls and messages over one transport, in one event loop."""

    def __init__(
        self,
        transport: Transport,
        *,
        app_name: str,
        settings: Settings,
        options_of: Callable[[str], TaskOptions | None],
        routes: Routes,
        middleware: Stack,
        clock: Clock,
        reply_to: Callable[[], str | None],
        delays: Delays,
        reached: Callable[[Destination], Sequence[str]],
        topology_file: str | None = None,
        claims: Claims | None = None,
    ) -> None:
        """Wire the parts; nothing connects before the first message.

        Args:
            transport: the door to the broker.
            app_name: names the application's forward queue.
            settings: the application's.
            options_of: a task's own options by name; None for a task unknown here.
            routes: offline routing.
            middleware: its publish hooks run on every message of a call.
            clock: for delays and expiry.
            reply_to: the queue replies come to, where the store answers by message.
            delays: the shape of the delay ladder.
            reached: the consumed queues a destination leads to, as far as known offline.
            topology_file: what declares the broker's shape, for errors; None: it is derived.
            claims: keeps large bodies elsewhere; None: they travel in their messages.
        """
        self.transport = transport
        self._settings = settings
        self._options_of = options_of
        self._routes = routes
        self._middleware = middleware
        self._clock = clock
        self._reply_to = reply_to
        self._delays = delays
        self._reached = reached
        self._mend = (
            f"run: amqflow topology apply {topology_file}"
            if topology_file
            else "start a worker once, it declares what is missing"
        )
        self._forward = AppNames(app_name).forward
        self._origin = f"{os.getpid()}@{socket.gethostname()}"
        self._claims = claims
        most = settings.max_message_size
        self._limits = Limits(max_body=max(most, settings.blob_max_size) if claims else most)
        self._ladder: Ladder | None = None
        self._frame_max = 131072
        self._entering = asyncio.Semaphore(ENTERING)
        #: Queues that were there, and until when that is believed.
        self._known: dict[str, float] = {}

    async def ladder(self) -> Ladder:
        """Return the delay ladder this broker's version needs."""
        if self._ladder is None:
            server = await self.transport.server()
            self._frame_max = server.frame_max
            self._ladder = Ladder.on(
                BrokerFacts(server.version),
                self._delays.resolution,
                self._delays.levels,
            )
        return self._ladder

    # -- calls -----------------------------------------------------------------------------

    async def send(self, call: Call) -> Sent:
        """Send one call; returns after the broker's confirm (see :class:`amqflow.abc.Call`)."""
        destination = self._destination(call)
        gate = call.gate
        # The times in a message count from when it goes out.
        now = self._clock.now() + (gate.left() if gate is not None else 0.0)
        message = compose(
            call,
            self._options_of(call.task),
            now=now,
            priority=destination.priority,
            origin=self._origin,
            reply_to=self._reply_to(),
        )
        if self._middleware.publishes:
            self._middleware.before_publish(message)
        # As much as one loop turn of encoding happens before anything waits.
        envelope = self.encode(message, compression=call.compression)
        if self._claims is not None:
            envelope = await self._claims.out(envelope)
        timeout = call.timeout if call.timeout is not None else self._settings.publish_timeout
        if message.eta is None or message.eta <= now:
            return await self._confirmed(
                Outgoing(envelope, destination.exchange, destination.routing_key),
                call,
                message,
                destination,
                timeout,
                gate,
            )
        if gate is not None:
            await _opened(gate)
        ladder = await self._prepared(message, call, destination, timeout)
        async with self._entry(message, timeout):
            # Now, not before the wait: a delay counts from when the broker gets the message.
            delay = message.eta - self._clock.now()
            outgoing = self._delayed(envelope, destination, delay, ladder)
            return await self._confirmed(outgoing, call, message, destination, timeout)

    async def _prepared(
        self, message: TaskMessage, call: Call, destination: Destination, timeout: float
    ) -> Ladder:
        """Return the ladder once the broker has answered what a delayed call asks of it.

        A connection lost meanwhile is waited for as one that is lost at the publish itself.
        """
        backoff = Backoff(first=0.05, most=1.0)
        loop = asyncio.get_running_loop()
        end = loop.time() + timeout
        while True:
            try:
                ladder = await self.ladder()
                await self._check_end(message, destination)
            except (BrokerUnavailable, ChannelLost) as error:
                pause = backoff.next()
                if not call.retry:
                    raise
                if loop.time() + pause >= end:
                    text = f"{message.task} was not sent within {timeout:g} s: {error}"
                    raise PublishTimeout(text) from error
                await asyncio.sleep(pause)
            else:
                return ladder

    async def _check_end(self, message: TaskMessage, destination: Destination) -> None:
        """Refuse a delayed call to a queue that is not there, as one without a delay is refused.

        The ladder takes any message; an unknown queue would be found out when the time has come,
        with nobody there to tell.
        """
        queue = self._forward if destination.exchange else destination.queue
        now = self._clock.monotonic()
        if queue is None or self._known.get(queue, 0.0) > now:
            return
        try:
            await self.transport.declare_queue(queue, passive=True)
        except NotFound as error:
            text = f"{message.task} was not sent: its delay would end in {error}; {self._mend}"
            raise Unroutable(text) from error
        if len(self._known) >= MOST_KNOWN:
            self._known.clear()
        self._known[queue] = now + KNOWN_FOR

    @asynccontextmanager
    async def _entry(self, message: TaskMessage, timeout: float) -> AsyncIterator[None]:
        """Wait for a place among the delayed messages under way."""
        try:
            async with asyncio.timeout(timeout):
                await self._entering.acquire()
        except TimeoutError:
            text = f"{message.task}: other delayed calls were not confirmed within {timeout:g} s"
            raise PublishTimeout(text) from None
        try:
            yield
        finally:
            self._entering.release()

    async def _confirmed(
        self,
        outgoing: Outgoing,
        call: Call,
        message: TaskMessage,
        destination: Destination,
        timeout: float,
        gate: Gate | None = None,
    ) -> Sent:
        """Publish one message of a call and tell those who watch."""
        envelope, exchange, key = outgoing.envelope, outgoing.exchange, outgoing.routing_key
        announced = signals.before_task_publish.has_receivers(call.task)
        if announced:
            self._announce(signals.before_task_publish, message, envelope, exchange, key)
        try:
            await self.transport.publish(
                envelope, exchange, key, timeout=timeout, retry=call.retry, gate=gate
            )
        except (NotFound, Unroutable) as error:
            raise self._explained(error, message, exchange, destination) from error
        if signals.after_task_publish.has_receivers(call.task):
            self._announce(signals.after_task_publish, message, envelope, exchange, key)
        if self._middleware.publishes:
            self._middleware.after_publish(message)
        queue = destination.queue
        if queue is None and len(reached := self._reached(destination)) == 1:
            queue = reached[0]
        return Sent(message.id, message.task, queue)

    async def send_many(self, calls: Sequence[Call]) -> list[Sent]:
        """Send calls pipelined; raises PublishGroupError where some were not confirmed.

        A turn of the loop encodes some of them and the next one writes these: broker and workers
        are at the first ones while the last are still encoded.
        """
        loop = asyncio.get_running_loop()
        sending: list[asyncio.Task[Sent]] = []
        try:
            for start in range(0, len(calls), AT_ONCE):
                some = calls[start : start + AT_ONCE]
                sending += [loop.create_task(self.send(call)) for call in some]
                await asyncio.sleep(0)
            answers = await asyncio.gather(*sending, return_exceptions=True)
        except asyncio.CancelledError:
            for task in sending:
                task.cancel()
            await asyncio.gather(*sending, return_exceptions=True)
            raise
        failures = [answer if isinstance(answer, BaseException) else None for answer in answers]
        if any(failures):
            raise PublishGroupError(failures, [call.task for call in calls])
        return [answer for answer in answers if isinstance(answer, Sent)]

    def _destination(self, call: Call) -> Destination:
        name = call.route_name or call.task
        options = self._options_of(name)
        destination = self._routes.resolve(
            name,
            Address(call.queue, call.exchange, call.routing_key, call.priority),
            Address(options.queue, options.exchange, options.routing_key, options.priority)
            if options is not None
            else Address(),
            call.args,
            call.kwargs,
        )
        if destination.priority is None and self._settings.task_default_priority is not None:
            return Destination(
                destination.exchange,
                destination.routing_key,
                destination.queue,
                self._settings.task_default_priority,
            )
        return destination

    def _delayed(
        self, envelope: Envelope, destination: Destination, delay: float, ladder: Ladder
    ) -> Outgoing:
        if destination.queue is not None and not destination.exchange:
            return to_queue(envelope, destination.queue, delay=delay, ladder=ladder)
        return to_exchange(
            envelope,
            destination.exchange,
            destination.routing_key,
            delay=delay,
            ladder=ladder,
            forward=self._forward,
        )

    def _explained(
        self, error: Exception, message: TaskMessage, exchange: str, destination: Destination
    ) -> NotFound | Unroutable:
        """Say which task could not be sent, and what makes it possible."""
        if exchange.startswith(PREFIX):
            return NotFound(
                f"{message.task}: the delay ladder is not on this broker ({error}); {self._mend}"
            )
        where = f"queue {destination.queue!r}" if destination.queue else f"exchange {exchange!r}"
        kind = Unroutable if isinstance(error, Unroutable) else NotFound
        return kind(
            f"{message.task} was not sent, {where} did not take it ({error}); {self._mend}, or "
            "correct the route"
        )

    @staticmethod
    def _announce(
        signal: signals.Signal,
        message: TaskMessage,
        envelope: Envelope,
        exchange: str,
        routing_key: str,
    ) -> None:
        named: dict[str, Any] = {
            "body": (message.args, message.kwargs),
            "exchange": exchange,
            "routing_key": routing_key,
            "headers": envelope.headers,
        }
        if signal is signals.before_task_publish:
            named["properties"] = {
                "correlation_id": envelope.correlation_id,
                "priority": envelope.priority,
                "reply_to": envelope.reply_to,
            }
            named["declare"] = []
            named["retry_policy"] = None
        signal.send(sender=message.task, **named)

    async def unrouted(self, call: Call) -> Outgoing:
        """Return a call's message addressed to nobody yet, for one that could not be routed."""
        return Outgoing(self.encode(self.message_of(call)), "", "")

    def message_of(self, call: Call) -> TaskMessage:
        """Return the message of a call as data, without a route."""
        return compose(
            call,
            self._options_of(call.task),
            now=self._clock.now(),
            priority=call.priority,
            origin=self._origin,
            reply_to=self._reply_to(),
        )

    # -- messages --------------------------------------------------------------------------

    @property
    def rewrites(self) -> bool:
        """Whether a middleware sees messages before they are written, and may change arguments."""
        return self._middleware.publishes

    def encode(self, message: TaskMessage, *, compression: str | None = None) -> Envelope:
        """Write a message with this application's bounds."""
        return encode(
            message,
            limits=self._limits,
            compression=compression or self._settings.task_compression,
            frame_max=self._frame_max,
        )

    async def publish(self, outgoing: Outgoing, *, timeout: float | None = None) -> None:
        """Publish what is encoded and addressed already (retries, next steps, dead letters)."""
        envelope = outgoing.envelope
        if self._claims is not None and not outgoing.whole:
            envelope = await self._claims.out(envelope)
        await self.transport.publish(
            envelope,
            outgoing.exchange,
            outgoing.routing_key,
            timeout=timeout if timeout is not None else self._settings.publish_timeout,
        )


async def _opened(gate: Gate) -> None:
    """Wait until a gate is open."""
    opened = asyncio.Event()
    gate.add(opened.set)
    await opened.wait()
