"""Moves messages from a queue to an exchange: published, confirmed, then acked."""

from __future__ import annotations

import asyncio
import hashlib
from collections import Counter
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Final

from amqflow.errors import (
    AmqflowError,
    BrokerUnavailable,
    ChannelLost,
    NotFound,
    PublishTimeout,
)
from amqflow.logs import get_logger
from amqflow.protocol import headers as h
from amqflow.protocol import new_id
from amqflow.topology.names import MOVING

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping

    from amqflow.protocol import Envelope
    from amqflow.transport import Consumer, Delivery, Transport

log = get_logger("amqflow.provision")

#: Messages under way at one time.
WINDOW: Final = 1000
#: Seconds one publish may take before its outcome is looked up.
TIMEOUT: Final = 60.0
#: Seconds between two tries of what was refused.
PAUSE: Final = 1.0

#: After these nobody can say whether the message is there.
_UNSURE: Final = (BrokerUnavailable, ChannelLost, PublishTimeout)

#: The time to live a message itself asked for, kept while it waits where it must not die.
_EXPIRATION: Final = "amqflow-moving-expiration"
#: What the broker writes anew with each delivery.
_VOLATILE: Final = frozenset({"x-delivery-count"})


def outbound(delivery: Delivery) -> Envelope:
    """Return a message as it waits beside its queue: it does not expire, and knows its origin."""
    old = delivery.envelope
    headers = {key: value for key, value in old.headers.items() if key not in _VOLATILE}
    if old.expiration is not None:
        headers[_EXPIRATION] = old.expiration
    if "x-death" not in headers and not delivery.exchange.startswith(MOVING):
        headers.setdefault(h.EXCHANGE, delivery.exchange)
        headers.setdefault(h.ROUTING_KEY, delivery.routing_key)
    return replace(
        old,
        headers=headers,
        expiration=None,
        user_id=None,  # the broker refuses a name that is not the publisher's own
        message_id=old.message_id or new_id(),  # one without is in flight alone
    )


def inbound(delivery: Delivery) -> Envelope:
    """Return a message as it goes back to its queue."""
    old = delivery.envelope
    headers = {key: value for key, value in old.headers.items() if key not in _VOLATILE}
    expiration = headers.pop(_EXPIRATION, None)
    return replace(
        old, headers=headers, expiration=expiration, message_id=old.message_id or new_id()
    )


def digest(delivery: Delivery) -> bytes:
    """Return what tells a message that was moved from every other one."""
    return _digest(delivery.envelope, delivery.routing_key)


def _digest(envelope: Envelope, routing_key: str) -> bytes:
    shown = repr(
        (
            envelope.message_id,
            routing_key,
            envelope.correlation_id,
            envelope.expiration,
            sorted((key, value) for key, value in envelope.headers.items() if key not in _VOLATILE),
        )
    )
    made = hashlib.blake2b(shown.encode("utf-8", "surrogatepass"), digest_size=16)
    made.update(envelope.body)
    return made.digest()


class Mover:
    """Takes what comes from one queue to one exchange, each message by its own routing key.

    ``moved`` counts what left the queue; ``full_at`` and ``arrived_at`` are loop times at which
    the window was full, and a message came, for the last time.

    A publish whose outcome nobody knows ends the run (``broken``): the receipts tell the next one
    what became of it. With ``insist`` it is published again instead, because what it was taken
    from is no more.
    """

    def __init__(
        self,
        transport: Transport,
        queue: str,
        exchange: str,
        change: Callable[[Delivery], Envelope],
        receipts: Iterable[bytes],
        *,
        arguments: Mapping[str, Any],
    ) -> None:
        """Prepare it.

        Args:
            transport: The door to the broker.
            queue: Where from.
            exchange: Where to.
            change: Returns what is published in a delivery's place.
            receipts: Digests of what was published before and may still lie in the queue.
            arguments: Of the subscription.
        """
        self._transport = transport
        self._queue = queue
        self._exchange = exchange
        self._change = change
        self._receipts = Counter(receipts)
        self._arguments = arguments
        self._under_way: set[asyncio.Task[None]] = set()
        #: What is being published, so that one which comes again meanwhile waits for its outcome.
        self._flying: dict[bytes, asyncio.Future[None]] = {}
        self._consumer: Consumer | None = None
        self.moved = 0
        self.full_at = self.arrived_at = float("-inf")
        self.problem: str | None = None
        self.broken: AmqflowError | None = None
        self.insist = False

    @property
    def under_way(self) -> int:
        """Messages taken and not settled."""
        return len(self._under_way)

    async def start(self, timeout: float) -> None:
        """Subscribe; raises BrokerUnavailable with the problem after ``timeout`` seconds."""
        self._consumer = self._transport.consume(
            self._queue, self._take, prefetch=WINDOW, arguments=self._arguments
        )
        try:
            await self._consumer.wait_active(timeout)
        except BaseException:
            await self._consumer.close()
            raise

    async def settled(self) -> None:
        """Wait until all that was taken is published."""
        while self._under_way:
            await asyncio.wait(self._under_way)

    async def close(self) -> None:
        """Unsubscribe; what is not confirmed yet stays in its queue."""
        for task in self._under_way:
            task.cancel()
        if self._consumer is not None:
            await self._consumer.close()

    def _take(self, delivery: Delivery) -> None:
        loop = asyncio.get_running_loop()
        self.arrived_at = loop.time()
        if self.broken is not None:
            return  # it goes back to its queue when the run is closed
        task = loop.create_task(self._one(delivery))
        self._under_way.add(task)
        task.add_done_callback(self._under_way.discard)
        if len(self._under_way) >= WINDOW:
            self.full_at = loop.time()

    async def _one(self, delivery: Delivery) -> None:
        envelope = self._change(delivery)
        key = _digest(envelope, delivery.routing_key)
        while (flying := self._flying.get(key)) is not None:
            await asyncio.wait([flying])
        if self.broken is not None:
            return
        # A message that had no id of its own gets another one each time: it cannot be told.
        if self._receipts[key] > 0:
            self._receipts[key] -= 1
        else:
            landed = self._flying[key] = asyncio.get_running_loop().create_future()
            try:
                if not await self._published(envelope, delivery.routing_key):
                    return
                if not delivery.live:
                    self._receipts[key] += 1  # it comes again, and is there already
            finally:
                del self._flying[key]
                landed.set_result(None)
        delivery.ack()
        self.moved += 1

    async def _published(self, envelope: Envelope, routing_key: str) -> bool:
        """Publish one message; False: the run ends, and this one stays where it is."""
        while self.broken is None:
            try:
                await self._transport.publish(
                    envelope, self._exchange, routing_key, timeout=TIMEOUT, retry=False
                )
            except AmqflowError as error:
                self.problem = str(error)
                log.debug("moving a message failed", error=str(error))
                if isinstance(error, NotFound) or (isinstance(error, _UNSURE) and not self.insist):
                    self._break(error)
                    break
                await asyncio.sleep(PAUSE)
            else:
                self.problem = None
                return True
        return False

    def _break(self, error: AmqflowError) -> None:
        """End the run; a missing exchange is why the others lost their channel."""
        if not isinstance(self.broken, NotFound):
            self.broken = error
