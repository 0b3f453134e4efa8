"""Moves messages from a queue to an exchange: published, confirmed, then acked.

Where a mover dies between a copy's confirm and the original's ack, the original goes back to its
queue. Nobody else takes messages from a queue of ours, so the next run meets it there and drops it,
as its receipt says. Of a work queue a worker may take it meanwhile. So there each ack is one step
of the broker's with a *note* that names the copy: a copy with a receipt and no note is void, for
its original was given back.
"""

from __future__ import annotations

import asyncio
import hashlib
from collections import Counter
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Final

from amqflow.errors import (
    AmqflowError,
    BrokerUnavailable,
    ChannelLost,
    NotFound,
    PublishTimeout,
)
from amqflow.logs import get_logger
from amqflow.protocol import Envelope, new_id
from amqflow.protocol import headers as h
from amqflow.topology.names import MOVING

if TYPE_CHECKING:
    from collections.abc import Callable, Container, Iterable, Mapping

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
#: Which run of a mover wrote a copy: that of a later one is another copy.
_RUN: Final = "amqflow-moving-run"
#: Marks a message whose body is a list of digests.
_DIGESTS: Final = "amqflow-moving-digests"
_DIGEST_SIZE: Final = 16
#: What the broker writes anew with each delivery.
_VOLATILE: Final = frozenset({"x-delivery-count"})


def outbound(delivery: Delivery, run: str) -> Envelope:
    """Return a message as it waits beside its queue: it does not expire, and knows its origin.

    ``run`` is like no other copy's, so that the copies of equal messages can be told apart.
    """
    old = delivery.envelope
    headers = {key: value for key, value in old.headers.items() if key not in _VOLATILE}
    headers[_RUN] = run
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
    headers.pop(_RUN, None)
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
    made = hashlib.blake2b(shown.encode("utf-8", "surrogatepass"), digest_size=_DIGEST_SIZE)
    made.update(envelope.body)
    return made.digest()


def listed(digests: Iterable[bytes]) -> Envelope:
    """Return the message that names copies by their digests."""
    return Envelope(b"".join(digests), {_DIGESTS: True}, message_id=new_id())


def read_list(delivery: Delivery) -> list[bytes] | None:
    """Return the digests that a message names; None where it is no such list."""
    if _DIGESTS not in delivery.envelope.headers:
        return None
    body = delivery.envelope.body
    return [body[at : at + _DIGEST_SIZE] for at in range(0, len(body), _DIGEST_SIZE)]


@dataclass(frozen=True, slots=True)
class Past:
    """What earlier runs have left: digests of copies.

    Attributes:
        there: copies of what may still lie in the queue; that is dropped.
        void: copies that lie in the queue themselves and are dropped.
    """

    there: Iterable[bytes] = ()
    void: Container[bytes] = ()


class Mover:
    """Takes what comes from one queue to one exchange, each message by its own routing key.

    ``moved`` counts what left the queue; ``full_at`` and ``arrived_at`` are loop times at which
    the window was full, and a message came, for the last time.

    A publish whose outcome nobody knows, or a lost channel, ends the run (``broken``): receipts and
    notes tell the next one what became of it. With ``insist`` a message is published again instead,
    because the queue it was taken from is no more.
    """

    def __init__(
        self,
        transport: Transport,
        queue: str,
        exchange: str,
        change: Callable[[Delivery], Envelope],
        past: Past,
        *,
        notes: str | None,
        arguments: Mapping[str, Any],
    ) -> None:
        """Prepare it.

        Args:
            transport: The door to the broker.
            queue: Where from.
            exchange: Where to.
            change: Returns what is published in a delivery's place.
            past: What earlier runs have left.
            notes: The exchange that takes the notes; None: nobody else consumes the queue.
            arguments: Of the subscription.
        """
        self._transport = transport
        self._queue = queue
        self._exchange = exchange
        self._change = change
        self._there = Counter(past.there)
        self._void = past.void
        self._notes = notes
        self._arguments = arguments
        self._under_way: set[asyncio.Task[None]] = set()
        self._taken: list[tuple[Delivery, bytes]] = []
        self._committed = 0
        self._ending: asyncio.Task[None] | None = None
        self._consumer: Consumer | None = None
        self._generation = 0
        self.moved = 0
        self.full_at = self.arrived_at = float("-inf")
        self.problem: str | None = None
        self.broken: AmqflowError | None = None
        self.insist = False

    @property
    def under_way(self) -> int:
        """Messages taken and not settled."""
        return len(self._under_way) + len(self._taken) + self._committed

    async def start(self, timeout: float) -> None:
        """Subscribe; raises BrokerUnavailable with the problem after ``timeout`` seconds."""
        self._consumer = self._transport.consume(
            self._queue,
            self._take,
            prefetch=WINDOW,
            # Where nobody else consumes, a dead run's consumer is waited for, with what it holds.
            exclusive=self._notes is None,
            transactional=self._notes is not None,
            arguments=self._arguments,
        )
        try:
            await self._consumer.wait_active(timeout)
        except BaseException:
            await self._consumer.close()
            raise

    async def settled(self) -> None:
        """Wait until all that was taken is published and acked."""
        while self._under_way:
            await asyncio.wait(self._under_way)
        if self._ending is not None:
            await self._ending

    async def close(self) -> None:
        """Unsubscribe; what is not confirmed yet stays in its queue."""
        for task in self._under_way:
            task.cancel()
        if self._ending is not None:
            self._ending.cancel()
            await asyncio.gather(self._ending, return_exceptions=True)
        if self._consumer is not None:
            await self._consumer.close()

    def _take(self, delivery: Delivery) -> None:
        loop = asyncio.get_running_loop()
        self.arrived_at = loop.time()
        generation = self._consumer.generation if self._consumer is not None else 0
        self._generation = self._generation or generation
        if generation != self._generation and not self.insist:
            self._break(ChannelLost(f"the channel that consumed queue {self._queue!r} was lost"))
        if self.broken is not None:
            return  # it goes back to its queue when the run is closed
        task = loop.create_task(self._one(delivery))
        self._under_way.add(task)
        task.add_done_callback(self._under_way.discard)
        if len(self._under_way) >= WINDOW:
            self.full_at = loop.time()

    async def _one(self, delivery: Delivery) -> None:
        if digest(delivery) in self._void:
            self._end(delivery)
            return
        envelope = self._change(delivery)
        # A message that had no id of its own gets another one each time: it cannot be told.
        key = _digest(envelope, delivery.routing_key)
        if self._there[key] > 0:
            self._there[key] -= 1
            self._end(delivery)
        elif await self._published(envelope, delivery.routing_key):
            self._taken.append((delivery, key))
            if self._ending is None or self._ending.done():
                # All that is confirmed until the one before has answered shares a step.
                self._ending = asyncio.create_task(self._end_taken())

    async def _end_taken(self) -> None:
        """Ack what is published, together with a note that says so."""
        while self._taken:
            taken, self._taken = self._taken, []
            if self._notes is None or self._consumer is None:
                for delivery, _ in taken:
                    self._end(delivery)
                continue
            self._committed = len(taken)
            note = listed(key for _, key in taken)
            try:
                await self._consumer.commit([one for one, _ in taken], note, self._notes, "")
            except AmqflowError as error:
                if not self.insist:
                    self._break(error)
                    return
            finally:
                self._committed = 0
            self.moved += len(taken)

    def _end(self, delivery: Delivery) -> None:
        if not delivery.live:
            self._break(ChannelLost(f"the channel that consumed queue {self._queue!r} was lost"))
            return
        delivery.ack()
        self.moved += 1

    async def _published(self, envelope: Envelope, routing_key: str) -> bool:
        """Publish one message; False: the run ends, and this one stays where it is."""
        while self.broken is None or self.insist:
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
