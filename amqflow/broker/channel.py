"""A channel: what is out for acknowledgement, what is to be confirmed, and who consumes here."""

from __future__ import annotations

from collections import deque
from enum import Enum
from typing import TYPE_CHECKING, Any, NamedTuple

from pamqp import commands

from amqflow.broker.methods import encode, frame
from amqflow.broker.replies import precondition_failed

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from pamqp.base import Frame

    from amqflow.broker.connection import Connection
    from amqflow.broker.message import Message
    from amqflow.broker.queues import Entry, Queue
    from amqflow.broker.queues.consumers import Consumer
    from amqflow.broker.replies import Refusal
    from amqflow.broker.timers import Timer
    from amqflow.broker.transactions import Transaction

#: So many tags of settled deliveries are no matter.
_SPARE = 256

_DELIVER = b"\x00\x3c\x00\x3c"


class Phase(Enum):
    """How far a channel is."""

    STARTING = "starting"
    RUNNING = "running"
    CLOSING = "closing"


class Pending(NamedTuple):
    """A delivery that is not acknowledged.

    ``consumer`` is None for one of basic.get; ``since`` is monotonic.
    """

    tag: int
    entry: Entry
    queue: Queue
    consumer: Consumer | None
    since: float


class Channel:
    """One channel of a connection.

    Attributes:
        prefetch: the limit of all consumers here together (``global`` of basic.qos), 0: none.
        consumer_prefetch: the limit that the next consumer gets.
        consumed_unacked: deliveries to consumers that are not acknowledged.
        last_queue: the queue declared last, which an empty name means.
        parked: consumers that had no room when it was their turn.
    """

    def __init__(self, connection: Connection, number: int) -> None:
        """Begin, not opened."""
        self.connection = connection
        self.number = number
        self.phase = Phase.STARTING
        self.prefetch = 0
        self.consumer_prefetch = 0
        self.consumed_unacked = 0
        self.last_queue = ""
        self.consumers: dict[str, Consumer] = {}
        self.parked: dict[Consumer, None] = {}
        self.reply_consumer: tuple[str, str] | None = None
        self.transaction: Transaction | None = None
        self.confirms = False
        self._unacked: dict[int, Pending] = {}
        self._tags: deque[int] = deque()
        self._next_tag = 1
        self._next_publish = 1
        self._held: set[int] = set()
        self._timers = connection.node.timers
        self._timeout: Timer | None = None
        self._confirmed: list[int] = []
        self._refused: list[int] = []

    @property
    def running(self) -> bool:
        """Whether it was opened and is not being closed."""
        return self.phase is Phase.RUNNING

    @property
    def unacked(self) -> int:
        """How many deliveries are not acknowledged."""
        return len(self._unacked)

    def send(self, kind: type[Frame], **values: Any) -> None:
        """Send a method to the client."""
        if self.phase is not Phase.CLOSING:
            self.connection.write(encode(self.number, kind, **values))

    # -- deliveries ------------------------------------------------------------------------

    def deliver(self, consumer: Consumer, entry: Entry) -> None:
        """Send a message to a consumer."""
        tag = self._next_tag
        self._next_tag = tag + 1
        if not consumer.no_ack:
            consumer.unacked += 1
            self.consumed_unacked += 1
            self._remember(tag, entry, consumer.queue, consumer)
        message = consumer.queue.as_given(entry, always=False)
        start = b"".join(
            (
                _DELIVER,
                consumer.wire_tag,
                tag.to_bytes(8, "big"),
                b"\x01" if entry.returned else b"\x00",
                message.address,
            )
        )
        self.connection.write(
            frame(1, self.number, start) + message.content(self.number, self.connection.body_limit)
        )

    def give(self, queue: Queue, entry: Entry, *, no_ack: bool) -> None:
        """Send a message in answer to basic.get."""
        tag = self._next_tag
        self._next_tag = tag + 1
        if not no_ack:
            self._remember(tag, entry, queue, None)
        start = encode(
            self.number,
            commands.Basic.GetOk,
            delivery_tag=tag,
            redelivered=entry.returned > 0,
            exchange=entry.message.exchange,
            routing_key=entry.message.routing_key,
            message_count=queue.length,
        )
        content = queue.as_given(entry).content(self.number, self.connection.body_limit)
        self.connection.write(start + content)

    def deliver_reply(self, message: Message) -> None:
        """Send a message to the consumer of amq.rabbitmq.reply-to."""
        if self.reply_consumer is None or not self.running:
            return
        if self.connection.flooded:
            return  # no queue holds replies back: others would fill our memory with them
        start = encode(
            self.number,
            commands.Basic.Deliver,
            consumer_tag=self.reply_consumer[0],
            delivery_tag=self._next_tag,
            exchange=message.exchange,
            routing_key=message.routing_key,
        )
        content = message.content(self.number, self.connection.body_limit)
        self.connection.write(start + content)

    def return_message(self, message: Message) -> None:
        """Send an unroutable message back."""
        start = encode(
            self.number,
            commands.Basic.Return,
            reply_code=312,
            reply_text="NO_ROUTE",
            exchange=message.exchange,
            routing_key=message.routing_key,
        )
        content = message.content(self.number, self.connection.body_limit)
        self.connection.write(start + content)

    def _remember(self, tag: int, entry: Entry, queue: Queue, consumer: Consumer | None) -> None:
        now = self._timers.now()
        self._unacked[tag] = Pending(tag, entry, queue, consumer, now)
        self._tags.append(tag)
        if self._timeout is None:
            self._expect_ack(now)

    def _expect_ack(self, since: float) -> None:
        """Have the oldest delivery acknowledged in time (RabbitMQ's ``consumer_timeout``)."""
        limit = self.connection.node.limits.consumer_timeout
        if limit is not None:
            self._timeout = self._timers.at(since + limit, self._ack_late)

    def _ack_late(self) -> None:
        self._timeout = None
        limit = self.connection.node.limits.consumer_timeout
        oldest = next((self._unacked[tag] for tag in self._tags if tag in self._unacked), None)
        if not self.running or oldest is None or limit is None:
            return
        if oldest.since + limit > self._timers.now():
            self._expect_ack(oldest.since)
            return
        text = (
            f"delivery acknowledgement on channel {self.number} timed out. Timeout value used: "
            f"{int(limit * 1000)} ms. This timeout value can be configured, see consumers doc "
            "guide to learn more"
        )
        self.fail(precondition_failed(text), 0)
        self.connection.flush()

    # -- settling --------------------------------------------------------------------------

    def take(self, tag: int, *, multiple: bool) -> list[Pending]:
        """Return the deliveries an acknowledgement means, oldest first; they are no longer out.

        Raises:
            Refusal: 406: there is no such delivery.
        """
        unacked, tags = self._unacked, self._tags
        if multiple and tag == 0:
            return self.take_all()
        if tag not in unacked:
            raise precondition_failed(f"unknown delivery tag {tag}")
        if not multiple:
            found = [unacked.pop(tag)]
        else:
            found = []
            while tags and tags[0] <= tag:
                pending = unacked.pop(tags.popleft(), None)
                if pending is not None:
                    found.append(pending)
        while tags and tags[0] not in unacked:
            tags.popleft()
        if len(tags) > _SPARE + 2 * len(unacked):
            # One that stays out must not keep the tags of all that come and go after it.
            self._tags = deque(tag for tag in tags if tag in unacked)
        return found

    def take_all(self) -> list[Pending]:
        """Return every delivery that is out, oldest first; none is out any more."""
        found = [self._unacked[tag] for tag in self._tags if tag in self._unacked]
        self._unacked.clear()
        self._tags.clear()
        return found

    def put_back(self, pending: Iterable[Pending]) -> None:
        """Have deliveries out again: a transaction was rolled back."""
        for one in pending:
            self._unacked[one.tag] = one
        self._tags = deque(sorted(self._unacked))

    def ack(self, settled: Sequence[Pending]) -> None:
        """Acknowledge deliveries that were taken."""
        for pending in settled:
            pending.queue.ack(pending.entry)
        self.made_room(settled)

    def reject(self, settled: Sequence[Pending], *, requeue: bool) -> None:
        """Give deliveries that were taken back to their queues, or to their dead letters."""
        self._forget(settled)
        for queue, entries in _by_queue(settled).items():
            if requeue:
                queue.requeue(entries)
            else:
                queue.reject(entries)
        self._wake(settled)

    def made_room(self, settled: Sequence[Pending]) -> None:
        """Let consumers go on that waited for these."""
        self._forget(settled)
        self._wake(settled)

    def _forget(self, settled: Sequence[Pending]) -> None:
        for pending in settled:
            if pending.consumer is not None:
                pending.consumer.unacked -= 1
                self.consumed_unacked -= 1

    def _wake(self, settled: Sequence[Pending]) -> None:
        if not self.parked:
            return
        if self.prefetch:
            self.wake_all()
            return
        for pending in settled:
            consumer = pending.consumer
            if consumer is not None and consumer.parked:
                self._wake_one(consumer)

    def wake_all(self) -> None:
        """Ask every consumer that had no room again."""
        for consumer in list(self.parked):
            self._wake_one(consumer)

    def _wake_one(self, consumer: Consumer) -> None:
        if consumer in self.parked and consumer.can_take():
            del self.parked[consumer]
            consumer.queue.wake(consumer)

    # -- confirms --------------------------------------------------------------------------

    def next_publish(self) -> int:
        """Return the number of a publish under confirm."""
        number = self._next_publish
        self._next_publish = number + 1
        return number

    def confirm(self, number: int) -> None:
        """Confirm a publish with the next flush."""
        if not self._confirmed and not self._refused:
            self.connection.to_confirm[self] = None
        self._held.discard(number)
        self._confirmed.append(number)

    def confirm_late(self, number: int) -> None:
        """Confirm a publish that was held."""
        if self.running:
            self.confirm(number)
            self.connection.flush()

    def refuse(self, number: int) -> None:
        """Refuse a publish with the next flush."""
        if not self._confirmed and not self._refused:
            self.connection.to_confirm[self] = None
        self._refused.append(number)

    def hold(self, number: int) -> None:
        """Do not confirm a publish: no later confirm may speak for it."""
        self._held.add(number)

    def flush_confirms(self) -> None:
        """Send the confirms that have come together: one for a run from the lowest on."""
        confirmed, refused = sorted(self._confirmed), sorted(self._refused)
        self._confirmed, self._refused = [], []
        if not self.running:
            return
        _send_together(self, commands.Basic.Ack, confirmed, [*refused, *self._held])
        _send_together(self, commands.Basic.Nack, refused, [*confirmed, *self._held])

    # -- consumers -------------------------------------------------------------------------

    def consumer_lost(self, consumer: Consumer) -> None:
        """Tell the client that a consumer's queue is gone."""
        self.forget_consumer(consumer)
        if self.connection.knows("consumer_cancel_notify"):
            self.send(commands.Basic.Cancel, consumer_tag=consumer.tag, nowait=True)

    def forget_consumer(self, consumer: Consumer) -> None:
        """Let a consumer go; its queue is told by the caller."""
        self.consumers.pop(consumer.tag, None)
        self.parked.pop(consumer, None)

    # -- ending ----------------------------------------------------------------------------

    def fail(self, refusal: Refusal, method: int) -> None:
        """End the channel with an error; ``method`` is the index of the one that failed."""
        self.flush_confirms()
        self.send(
            commands.Channel.Close,
            reply_code=refusal.reply.code,
            reply_text=refusal.text,
            class_id=method >> 16,
            method_id=method & 0xFFFF,
        )
        self.release()

    def release(self) -> None:
        """Give back everything: consumers leave, deliveries return to their queues."""
        if self.phase is Phase.CLOSING:
            return
        self.phase = Phase.CLOSING
        if self._timeout is not None:
            self._timeout.cancel()
        self.connection.to_confirm.pop(self, None)
        if self.reply_consumer is not None:
            self.connection.node.reply_consumers.pop(self.reply_consumer[1], None)
        pending = self.take_all()
        if self.transaction is not None:
            pending = sorted([*pending, *self.transaction.settled()], key=lambda one: one.tag)
        consumers = list(self.consumers.values())
        self.consumers.clear()
        self.parked.clear()
        self._forget(pending)
        returned = _by_queue(pending)
        # All consumers leave before anything is handed out again: none gets its own back.
        queues = dict.fromkeys(returned)
        for consumer in consumers:
            queues[consumer.queue] = None
            consumer.queue.consumers.remove(consumer)
        for queue in queues:
            queue.requeue(returned.get(queue, ()), lost=True)
        for queue in {consumer.queue for consumer in consumers}:
            queue.left()


def _by_queue(settled: Sequence[Pending]) -> dict[Queue, list[Entry]]:
    found: dict[Queue, list[Entry]] = {}
    for pending in settled:
        found.setdefault(pending.queue, []).append(pending.entry)
    return found


def _send_together(
    channel: Channel, kind: type[Frame], numbers: Sequence[int], others: Sequence[int]
) -> None:
    """Send confirms; those below every other number go as one."""
    if not numbers:
        return
    lowest_other = min(others, default=numbers[-1] + 1)
    together = [number for number in numbers if number < lowest_other]
    if together:
        channel.send(kind, delivery_tag=together[-1], multiple=len(together) > 1)
    for number in numbers[len(together) :]:
        channel.send(kind, delivery_tag=number)
