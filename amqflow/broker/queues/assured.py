"""At-least-once dead-lettering: a message leaves its queue when its dead letter has arrived.

What cannot be routed, or is refused by its target, is kept and tried again; a few such letters
hold up all behind them, as in RabbitMQ (``rabbit_fifo_dlx_worker``).
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

from amqflow.broker.deadletter import Reason, letter, without_cycles

if TYPE_CHECKING:
    from collections.abc import Iterable

    from amqflow.broker.message import Message
    from amqflow.broker.queues.entry import Entry
    from amqflow.broker.queues.queue import Queue
    from amqflow.broker.timers import Timer

#: RabbitMQ's ``dead_letter_worker_consumer_prefetch``: so many may be under way.
PREFETCH: Final = 32

#: RabbitMQ's ``dead_letter_worker_publisher_confirm_timeout``, in seconds.
RETRY_AFTER: Final = 180.0


@dataclass(eq=False, slots=True)
class _Letter:
    """A dead letter on its way: who has taken it, and who has not."""

    message: Message
    reason: Reason
    sent: bool = False
    taken_by: set[str] = field(default_factory=set)


class AssuredLetters:
    """The dead letters a quorum queue still answers for."""

    def __init__(self, queue: Queue) -> None:
        """Begin with none."""
        self._queue = queue
        self._waiting: deque[tuple[Entry, Reason]] = deque()
        self._stuck: dict[_Letter, None] = {}
        self._timer: Timer | None = None
        self._busy = False
        #: Octets of the bodies held.
        self.size = 0

    def __len__(self) -> int:
        return len(self._waiting) + len(self._stuck)

    def add(self, entries: Iterable[Entry], reason: Reason) -> None:
        """Send messages that died, or keep them until they can be sent."""
        for entry in entries:
            self._waiting.append((entry, reason))
            self.size += entry.size
        self._queue.vhost.later(self.resume)

    def resume(self) -> None:
        """Send what waits, as far as those that are stuck leave room."""
        if self._busy or self._queue.deleted:
            return
        self._busy = True
        try:
            while self._waiting and len(self._stuck) < PREFETCH:
                self._forward(*self._waiting.popleft())
        finally:
            self._busy = False
        if self._stuck and self._timer is None:
            timers = self._queue.vhost.node.timers
            self._timer = timers.at(timers.now() + RETRY_AFTER, self._retry)

    def _forward(self, entry: Entry, reason: Reason) -> None:
        queue = self._queue
        settings = queue.settings
        exchange = settings.dead_letter_exchange or ""
        now = queue.vhost.node.clock.now()
        message = letter(entry.message, reason, queue.name, exchange, settings.dead_letter_key, now)
        self._send(_Letter(message, reason))

    def _send(self, dead: _Letter) -> None:
        vhost = self._queue.vhost
        targets = vhost.route_name(dead.message.exchange, dead.message) or []
        if not dead.sent:
            targets = without_cycles(dead.reason, dead.message, targets)
        missing = [queue for queue in targets if queue.name not in dead.taken_by]
        dead.sent = dead.sent or bool(targets)
        refused = False
        for queue in missing:
            if queue.publish(dead.message):
                dead.taken_by.add(queue.name)
            else:
                refused = True
        if dead.taken_by and not refused:
            self._stuck.pop(dead, None)
            self.size -= len(dead.message.body)
        else:
            self._stuck[dead] = None

    def _retry(self) -> None:
        self._timer = None
        if self._queue.deleted:
            return
        for dead in list(self._stuck):
            self._send(dead)
        self.resume()

    def close(self) -> None:
        """Forget them: the queue is gone."""
        if self._timer is not None:
            self._timer.cancel()
