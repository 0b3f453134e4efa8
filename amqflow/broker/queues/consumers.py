"""Who takes a queue's messages, and whose turn it is."""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING

from amqflow.broker.methods import short_string

if TYPE_CHECKING:
    from collections.abc import Iterator

    from amqflow.broker.channel import Channel
    from amqflow.broker.queues.queue import Queue
    from amqflow.broker.tables import Table


class Consumer:
    """A subscription of a channel to a queue.

    ``prefetch`` 0 is unlimited. ``parked``: it could take nothing when its turn came, and is not
    asked again until its channel says that it can.
    """

    __slots__ = (
        "arguments",
        "channel",
        "exclusive",
        "no_ack",
        "parked",
        "prefetch",
        "priority",
        "queue",
        "tag",
        "unacked",
        "wire_tag",
    )

    def __init__(
        self,
        channel: Channel,
        queue: Queue,
        tag: str,
        *,
        no_ack: bool,
        prefetch: int,
        exclusive: bool,
        arguments: Table,
    ) -> None:
        """Subscribe; the queue and the channel are told by the caller."""
        self.channel = channel
        self.queue = queue
        self.tag = tag
        self.no_ack = no_ack
        self.prefetch = prefetch
        self.exclusive = exclusive
        self.arguments = arguments
        priority = arguments.get("x-priority")
        self.priority = int(priority.value) if priority else 0
        self.unacked = 0
        #: The tag as it stands in every delivery.
        self.wire_tag = short_string(tag)
        self.parked = False

    def can_take(self) -> bool:
        """Whether a delivery may be sent now: the prefetches and the connection have room."""
        channel = self.channel
        if channel.connection.congested:
            return False
        if self.no_ack:
            return True
        if self.prefetch and self.unacked >= self.prefetch:
            return False
        return not channel.prefetch or channel.consumed_unacked < channel.prefetch


def park(consumer: Consumer) -> None:
    """Ask a consumer no more until its channel wakes it."""
    consumer.parked = True
    consumer.channel.parked[consumer] = None


class Roster:
    """A queue's consumers: the highest priority that can take first, among equals in turn."""

    def __init__(self, *, single_active: bool, by_priority: bool) -> None:
        """Keep the rule.

        Args:
            single_active: one consumer at a time, the others wait.
            by_priority: whether the next single active one is that of the highest priority, as
                in classic queues, or the one that waits longest, as in quorum queues of 3.10.
        """
        self._lanes: dict[int, deque[Consumer]] = {}
        self._order: list[int] = []
        self._all: dict[Consumer, None] = {}
        self._single_active = single_active
        self._by_priority = by_priority
        self.active: Consumer | None = None
        self.exclusive: Consumer | None = None

    def __len__(self) -> int:
        return len(self._all)

    def __contains__(self, consumer: object) -> bool:
        return consumer in self._all

    def __iter__(self) -> Iterator[Consumer]:
        return iter(self._all)

    def add(self, consumer: Consumer) -> None:
        """Let a consumer take part."""
        self._all[consumer] = None
        if consumer.exclusive:
            self.exclusive = consumer
        if not self._single_active:
            self._line_up(consumer)
        elif self.active is None:
            self.active = consumer

    def remove(self, consumer: Consumer) -> None:
        """Let a consumer go; a waiting one may become active."""
        self._all.pop(consumer, None)
        if self.exclusive is consumer:
            self.exclusive = None
        if self.active is consumer:
            self.active = self._successor()
        lane = self._lanes.get(consumer.priority)
        if lane is not None and consumer in lane:
            lane.remove(consumer)
            if not lane:
                self._drop_lane(consumer.priority)

    def unpark(self, consumer: Consumer) -> None:
        """Ask a consumer again: it may have room now."""
        consumer.parked = False
        if not self._single_active and consumer in self._all:
            self._line_up(consumer)

    def next(self) -> Consumer | None:
        """Return the consumer whose turn it is, None where nobody can take a message."""
        if self._single_active:
            active = self.active
            if active is None or active.can_take():
                return active
            park(active)
            return None
        for priority in self._order:
            lane = self._lanes[priority]
            for _ in range(len(lane)):
                consumer = lane[0]
                if consumer.can_take():
                    lane.rotate(-1)
                    return consumer
                lane.popleft()
                park(consumer)
        return None

    def is_active(self, consumer: Consumer) -> bool:
        """Whether a consumer is one that gets messages, not one that waits."""
        return not self._single_active or consumer is self.active

    def _line_up(self, consumer: Consumer) -> None:
        lane = self._lanes.get(consumer.priority)
        if lane is None:
            lane = self._lanes[consumer.priority] = deque()
            self._order = sorted(self._lanes, reverse=True)
        lane.append(consumer)

    def _drop_lane(self, priority: int) -> None:
        del self._lanes[priority]
        self._order = sorted(self._lanes, reverse=True)

    def _successor(self) -> Consumer | None:
        if not self._all:
            return None
        if self._by_priority:
            return max(self._all, key=lambda consumer: consumer.priority)
        return next(iter(self._all))
