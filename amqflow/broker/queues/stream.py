"""A stream: a log that every consumer reads from where it asks, and nobody empties.

What AMQP 0-9-1 clients see of RabbitMQ's streams (https://www.rabbitmq.com/docs/streams):
acknowledging gives credit and nothing else. The retention by size and age is exact here, where
RabbitMQ drops whole segments; a stream is kept in memory like all else.
"""

from __future__ import annotations

import re
from bisect import bisect_left
from collections import deque
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from amqflow.broker.queues.consumers import park
from amqflow.broker.queues.entry import Entry
from amqflow.broker.queues.queue import Queue
from amqflow.broker.replies import Refusal, Reply, precondition_failed, resource
from amqflow.broker.tables import Field

if TYPE_CHECKING:
    from collections.abc import Sequence

    from amqflow.broker.message import Message
    from amqflow.broker.queues.consumers import Consumer

OFFSET: Final = "x-stream-offset"

_UNITS: Final = {
    "Y": 365 * 86400,
    "M": 30 * 86400,
    "D": 86400,
    "h": 3600,
    "m": 60,
    "s": 1,
}
_AGE: Final = re.compile(r"(\d+)([YMDhms])")


class _Record(NamedTuple):
    message: Message
    written: float  # Unix seconds


class Stream(Queue):
    """A queue of type ``stream``."""

    def __init__(self, *args: Any, **options: Any) -> None:
        """Begin empty."""
        super().__init__(*args, **options)
        self._log: deque[_Record] = deque()
        self._first = 0  # the offset of the oldest record
        self._next_of: dict[Consumer, int] = {}
        size, age = self.arguments.get("x-max-length-bytes"), self.arguments.get("x-max-age")
        self._most_bytes: int | None = None if size is None else int(size.value)
        self._oldest = None if age is None else seconds(str(age.value))

    @property
    def length(self) -> int:
        """How many messages it holds."""
        return len(self._log)

    def publish(self, message: Message) -> bool:
        """Append a message; every consumer that has read all before gets it."""
        self._log.append(_Record(message, self.vhost.node.clock.now()))
        self.ready_bytes += len(message.body)
        self._retain()
        self.dispatch()
        return True

    def _retain(self) -> None:
        log = self._log
        now = self.vhost.node.clock.now()
        while len(log) > 1 and (
            (self._most_bytes is not None and self.ready_bytes > self._most_bytes)
            or (self._oldest is not None and log[0].written < now - self._oldest)
        ):
            self.ready_bytes -= len(log.popleft().message.body)
            self._first += 1

    def subscribe(self, consumer: Consumer) -> None:
        """Let a consumer read from the offset it names; without one, what comes from now on."""
        self._next_of[consumer] = self._offset(consumer.arguments.get(OFFSET))
        super().subscribe(consumer)

    def _offset(self, wanted: Field | None) -> int:
        end = self._first + len(self._log)
        value = "next" if wanted is None else wanted.value
        if value == "next":
            return end
        if value == "first":
            return self._first
        if value == "last":
            return max(self._first, end - 1)
        if wanted is not None and wanted.type == "longstr":
            return self._since(self.vhost.node.clock.now() - (seconds(str(value)) or 0))
        if wanted is not None and wanted.type == "timestamp":
            return self._since(float(value))
        return min(max(int(value), self._first), end)

    def _since(self, moment: float) -> int:
        """Return the first offset written at or after a moment."""
        return self._first + bisect_left(self._log, moment, key=lambda record: record.written)

    def dispatch(self) -> None:
        """Send every consumer what it has not read, as far as it has room."""
        for consumer in list(self.consumers):
            if not consumer.parked:
                self._feed(consumer)

    def _feed(self, consumer: Consumer) -> None:
        at = max(self._next_of.get(consumer, 0), self._first)
        end = self._first + len(self._log)
        while at < end:
            if not consumer.can_take():
                park(consumer)
                break
            # By place: the ends of a deque, where consumers mostly are, are near.
            record = self._log[at - self._first]
            self._next_of[consumer] = at + 1
            self._deliver(Entry(record.message, at, 0, None), consumer)
            at += 1

    def wake(self, consumer: Consumer) -> None:
        """Go on with a consumer that had no room."""
        consumer.parked = False
        self._feed(consumer)

    def left(self) -> None:
        """Forget where consumers were that are gone."""
        for consumer in [one for one in self._next_of if one not in self.consumers]:
            del self._next_of[consumer]

    def get(self, *, no_ack: bool) -> Entry | None:  # noqa: ARG002 - a queue's
        """Refuse: a stream is consumed, not emptied."""
        place = resource("queue", self.name, self.vhost.name)
        raise Refusal(Reply.NOT_IMPLEMENTED, f"basic.get not supported by stream queues {place}")

    def purge(self) -> int:
        """Refuse: a stream keeps what it was given."""
        place = resource("queue", self.name, self.vhost.name)
        raise Refusal(Reply.NOT_IMPLEMENTED, f"queue.purge not supported by stream queues {place}")

    def reject(self, entries: Sequence[Entry]) -> None:
        """Refuse: there is nothing to take back."""
        self._refuse_returns(entries)

    def requeue(self, entries: Sequence[Entry], *, lost: bool = False) -> None:
        """Refuse, unless the channel is gone: then nobody asks."""
        if not lost:
            self._refuse_returns(entries)
        for entry in entries:
            self._release(entry)

    def _refuse_returns(self, entries: Sequence[Entry]) -> None:
        for entry in entries:
            self._release(entry)
        place = resource("queue", self.name, self.vhost.name)
        raise Refusal(
            Reply.NOT_IMPLEMENTED,
            f"basic.nack and basic.reject not supported by stream queues {place}",
        )

    def as_given(self, entry: Entry, *, always: bool = True) -> Message:  # noqa: ARG002 - a queue's
        """Return a message with its offset."""
        return entry.message.with_headers({OFFSET: Field("long", entry.position)})

    def expire(self) -> None:
        """Do nothing: retention is looked at when something is written."""

    def survive(self) -> None:
        """Live through a restart with every message."""
        self.unacked.clear()
        self.unacked_bytes = 0
        self._next_of.clear()


def check_stream_consumer(place: str, consumer_prefetch: int, *, no_ack: bool) -> None:
    """Refuse a consumer that does not say how much it takes at a time, or does not acknowledge.

    Raises:
        Refusal: 406 or 540.
    """
    if not consumer_prefetch:
        raise precondition_failed(f"consumer prefetch count is not set for '{place}'")
    if no_ack:
        raise Refusal(
            Reply.NOT_IMPLEMENTED,
            f"automatic acknowledgement not supported by stream queues {place}",
        )


def seconds(age: str) -> int | None:
    """Return the seconds of an age as streams write it, ``7D``; None: it is none."""
    found = _AGE.fullmatch(age)
    return None if found is None else int(found[1]) * _UNITS[found[2]]
