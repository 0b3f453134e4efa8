"""A queue: it takes messages, hands them to consumers, and gives up those it may not keep.

What classic and quorum queues have in common is here; where they differ, the code says
``self.quorum`` and why. Every operation looks at one message, never at all of them.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from amqflow.broker.deadletter import Reason
from amqflow.broker.queues.arguments import QUORUM
from amqflow.broker.queues.assured import AssuredLetters
from amqflow.broker.queues.consumers import Consumer, Roster
from amqflow.broker.queues.entry import Entry
from amqflow.broker.queues.ready import ByPosition, Ready, ReturnsFirst
from amqflow.broker.queues.settings import DROP_HEAD, REJECT_AND_DEAD_LETTER, Settings
from amqflow.broker.tables import Field

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from amqflow.broker.connection import Connection
    from amqflow.broker.message import Message
    from amqflow.broker.tables import Table
    from amqflow.broker.timers import Timer
    from amqflow.broker.vhost import VirtualHost

#: A quorum queue that refused publishes takes them again below this part of its limit.
_SOFT_LIMIT = 0.8


class Queue:
    """One queue of a virtual host.

    Args:
        vhost: where it lives; it routes the dead letters.
        name: its name.
        kind: ``classic`` or ``quorum``.
        durable: whether a restart keeps it.
        auto_delete: whether it goes with its last consumer.
        owner: the connection it is exclusive to.
        arguments: as declared.
        settings: what follows from arguments and policy.
    """

    def __init__(
        self,
        vhost: VirtualHost,
        name: str,
        *,
        kind: str,
        durable: bool,
        auto_delete: bool,
        owner: Connection | None,
        arguments: Table,
        settings: Settings,
    ) -> None:
        """Begin empty."""
        self.vhost = vhost
        self.name = name
        self.kind = kind
        self.quorum = kind == QUORUM
        self.durable = durable
        self.auto_delete = auto_delete
        self.owner = owner
        self.exclusive = owner is not None
        self.arguments = arguments
        self.settings = settings
        self.policy: str | None = None
        self.deleted = False
        self.consumers = Roster(single_active=settings.single_active, by_priority=not self.quorum)
        self.ready: Ready = (
            ReturnsFirst() if self.quorum else ByPosition(settings.max_priority or 0)
        )
        self.ready_bytes = 0
        self.unacked: dict[Entry, None] = {}
        self.unacked_bytes = 0
        self._got: set[Entry] = set()
        self._over: list[Entry] = []
        self.assured = AssuredLetters(self)
        self._position = 0
        self._had_consumers = False
        self._refuses = False
        self._timers = vhost.node.timers
        self._ttl_timer: Timer | None = None
        self._idle_timer: Timer | None = None
        self._used = self._timers.now()
        self.touch()

    @property
    def length(self) -> int:
        """How many messages are ready."""
        return len(self.ready)

    @property
    def consumer_count(self) -> int:
        """How many consumers it has; a quorum queue counts each basic.get that is out as one."""
        return len(self.consumers) + (len(self._got) if self.quorum else 0)

    # -- taking messages -----------------------------------------------------------------

    def publish(self, message: Message) -> bool:
        """Take a message; False where the queue's limit refuses it.

        A refused one is dead-lettered where ``x-overflow`` says so.
        """
        settings = self.settings
        if settings.limited and settings.overflow != DROP_HEAD and self._is_refused(message):
            if settings.overflow == REJECT_AND_DEAD_LETTER:
                self._dead_letter([self._entry(message)], Reason.MAXLEN)
            return False
        entry = self._entry(message)
        if not self.ready and (consumer := self.consumers.next()) is not None:
            self._deliver(entry, consumer)
            return True
        self.ready.push(entry)
        self.ready_bytes += entry.size
        if self._may_deliver():
            self.dispatch()
        if settings.limited:
            self._drop_heads()
        if entry.deadline is not None:
            self.expire()
        return True

    def _entry(self, message: Message) -> Entry:
        self._position += 1
        settings = self.settings
        ttl = message.ttl
        if settings.ttl is not None and (ttl is None or settings.ttl < ttl):
            ttl = settings.ttl
        deadline = None if ttl is None else self._timers.now() + ttl
        band = min(message.priority, settings.max_priority) if settings.max_priority else 0
        return Entry(message, self._position, band, deadline)

    def _may_deliver(self) -> bool:
        return len(self.consumers) > 0

    def _is_refused(self, message: Message) -> bool:
        settings = self.settings
        length, size = len(self.ready), self.ready_bytes
        if not self.quorum:
            # A classic queue asks whether this message would be one too many.
            length += 1
            size += len(message.body)
            return _over(length, settings.max_length) or _over(size, settings.max_bytes)
        # A quorum queue tells its publishers once it is over, and again when it is well below.
        length += len(self.assured)
        size += self.assured.size
        if self._refuses:
            self._refuses = not (
                _below(length, settings.max_length) and _below(size, settings.max_bytes)
            )
        else:
            self._refuses = _over(length, settings.max_length) or _over(size, settings.max_bytes)
        return self._refuses

    def _drop_heads(self) -> None:
        settings = self.settings
        if settings.overflow != DROP_HEAD:
            return
        while self.ready and (
            _over(len(self.ready), settings.max_length)
            or _over(self.ready_bytes, settings.max_bytes)
        ):
            self._dead_letter([self._pop()], Reason.MAXLEN)
        self._watch_head()

    # -- handing them out ----------------------------------------------------------------

    def dispatch(self) -> None:
        """Hand ready messages to consumers while both are there."""
        while self.ready:
            if self._head_expired():
                self.expire()
                continue
            consumer = self.consumers.next()
            if consumer is None:
                # What was taken may have stood before one that expires.
                self._watch_head()
                return
            self._deliver(self._pop(), consumer)

    def get(self, *, no_ack: bool) -> Entry | None:
        """Take one message for basic.get; None where there is none."""
        self.touch()
        self.expire()
        if not self.ready:
            return None
        entry = self._pop()
        if not no_ack:
            self._hold(entry)
            self._got.add(entry)
        self._watch_head()
        return entry

    def _deliver(self, entry: Entry, consumer: Consumer) -> None:
        if not consumer.no_ack:
            self._hold(entry)
        consumer.channel.deliver(consumer, entry)

    def _hold(self, entry: Entry) -> None:
        self.unacked[entry] = None
        self.unacked_bytes += entry.size

    def _pop(self) -> Entry:
        entry = self.ready.pop()
        self.ready_bytes -= entry.size
        return entry

    # -- having them settled -------------------------------------------------------------

    def ack(self, entry: Entry) -> None:
        """Forget a message that was delivered."""
        self._release(entry)

    def reject(self, entries: Sequence[Entry]) -> None:
        """Dead-letter messages that a consumer refused."""
        self._dead_letter([entry for entry in entries if self._release(entry)], Reason.REJECTED)

    def requeue(self, entries: Sequence[Entry], *, lost: bool = False) -> None:
        """Take messages back.

        Args:
            entries: in the order they were delivered.
            lost: their channel is gone, nobody asked for it.
        """
        back = [entry for entry in entries if self._release(entry)]
        limit = self.settings.delivery_limit
        over: list[Entry] = []
        for entry in back:
            entry.returned += 1
            if limit is not None and entry.returned > limit:
                over.append(entry)
                continue
            if self.quorum and limit is None and not lost:
                # Without a limit RabbitMQ 3.10 writes it to the log anew: behind all others.
                self._position += 1
                entry.position = self._position
                self.ready.push(entry)
            else:
                self.ready.put_back(entry)
            self.ready_bytes += entry.size
        if over:
            self._dead_letter(over, Reason.DELIVERY_LIMIT)
        if self.settings.limited:
            self._drop_heads()
        self.expire()
        self.dispatch()

    def _release(self, entry: Entry) -> bool:
        """Return whether a message was out for delivery; it no longer is."""
        if self.deleted or entry not in self.unacked:
            return False
        del self.unacked[entry]
        self._got.discard(entry)
        self.unacked_bytes -= entry.size
        return True

    def as_given(self, entry: Entry, *, always: bool = True) -> Message:
        """Return a message as it is delivered: from a quorum queue with how often it came back.

        A consumer is told only where it did, basic.get ``always``.
        """
        message = entry.message
        if not self.quorum or not (entry.returned or always):
            return message
        return message.with_headers({"x-delivery-count": Field("long", entry.returned)})

    # -- giving them up ------------------------------------------------------------------

    def expire(self) -> None:
        """Give up the messages at the head that have lived too long; watch the next one."""
        dead: list[Entry] = []
        now = self._timers.now()
        while (head := self.ready.head()) is not None:
            if head.deadline is None or head.deadline > now:
                break
            dead.append(self._pop())
        if dead:
            self._dead_letter(dead, Reason.EXPIRED)
        self._watch_head()

    def _head_expired(self) -> bool:
        head = self.ready.head()
        return (
            head is not None and head.deadline is not None and head.deadline <= self._timers.now()
        )

    def _watch_head(self) -> None:
        head = self.ready.head()
        if head is None or head.deadline is None:
            return
        timer = self._ttl_timer
        if timer is not None and timer.action is not None and timer.due <= head.deadline:
            return
        if timer is not None:
            timer.cancel()
        self._ttl_timer = self._timers.at(head.deadline, self._ttl_passed)

    def _ttl_passed(self) -> None:
        self._ttl_timer = None
        if not self.deleted:
            self.expire()

    def _dead_letter(self, entries: Iterable[Entry], reason: Reason) -> None:
        settings = self.settings
        if settings.dead_letter_exchange is None:
            return
        if settings.at_least_once:
            self.assured.add(entries, reason)
            return
        for entry in entries:
            self.vhost.dead_letter(self, entry.message, reason)

    def purge(self) -> int:
        """Drop every ready message; return how many."""
        count = len(self.ready)
        self.ready.clear()
        self.ready_bytes = 0
        return count

    # -- consumers -----------------------------------------------------------------------

    def subscribe(self, consumer: Consumer) -> None:
        """Let a consumer take part; deliveries begin when :meth:`dispatch` is called."""
        self._had_consumers = True
        self.consumers.add(consumer)

    def unsubscribe(self, consumer: Consumer) -> None:
        """Let a consumer go."""
        self.consumers.remove(consumer)
        self.left()

    def left(self) -> None:
        """Go on without a consumer; a queue that lives by its consumers goes with the last."""
        if self.deleted:
            return
        if self.auto_delete and self._had_consumers and not len(self.consumers):
            self.vhost.delete_queue(self)
            return
        self.touch()
        self.dispatch()

    def wake(self, consumer: Consumer) -> None:
        """Ask a parked consumer again."""
        self.consumers.unpark(consumer)
        self.dispatch()

    # -- living --------------------------------------------------------------------------

    def touch(self) -> None:
        """Note that the queue was used: ``x-expires`` counts from here."""
        self._used = self._timers.now()
        if self.settings.expires is not None and self._idle_timer is None:
            due = self._used + self.settings.expires
            self._idle_timer = self._timers.at(due, self._idle_passed)

    def _idle_passed(self) -> None:
        self._idle_timer = None
        expires = self.settings.expires
        if self.deleted or expires is None:
            return
        due = self._used + expires
        if len(self.consumers):
            self._used = self._timers.now()
            self.touch()
        elif due <= self._timers.now():
            # Its messages are dropped, not dead-lettered (RabbitMQ's documentation of x-expires).
            self.vhost.delete_queue(self)
        else:
            self._idle_timer = self._timers.at(due, self._idle_passed)

    def apply(self, settings: Settings, policy: str | None) -> None:
        """Take new settings, from a policy that came or went."""
        self.policy = policy
        if settings == self.settings:
            return
        self.settings = settings
        self.touch()
        if settings.limited:
            self._drop_heads()
        self.expire()
        self.assured.resume()

    def survive(self) -> None:
        """Live through a restart: persistent messages stay, those out for delivery are back.

        A quorum queue keeps all its messages, whatever their delivery mode.
        """
        waiting = self.ready.all()
        out = list(self.unacked)
        self.ready.clear()
        self.unacked.clear()
        self._got.clear()
        self.ready_bytes = self.unacked_bytes = 0
        for entry in out:
            entry.returned += 1
        limit = self.settings.delivery_limit
        kept = sorted((*waiting, *out), key=lambda entry: entry.position)
        for entry in kept:
            if limit is not None and entry.returned > limit:
                self._over.append(entry)
            elif self.quorum or entry.message.persistent:
                self.ready.push(entry)
                self.ready_bytes += entry.size
        self._had_consumers = False

    def resume(self) -> None:
        """Go on after a restart, when every queue and exchange that lives on is known.

        What was out for delivery has come back: once too often, and it is given up.
        """
        over, self._over = self._over, []
        if over:
            self._dead_letter(over, Reason.DELIVERY_LIMIT)
        self.touch()
        self.expire()

    def close(self) -> None:
        """Forget everything: the queue is deleted or its broker stops."""
        self.deleted = True
        for timer in (self._ttl_timer, self._idle_timer):
            if timer is not None:
                timer.cancel()
        self.assured.close()


def _over(value: int, limit: int | None) -> bool:
    return limit is not None and value > limit


def _below(value: int, limit: int | None) -> bool:
    return limit is None or value <= int(limit * _SOFT_LIMIT)
