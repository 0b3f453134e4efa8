"""Holds more of a quorum queue while its tasks are short: the wait for the log, not the task.

A quorum queue gives the next message for an ack once that ack is on disk, a few milliseconds
later. A small worker with short tasks would spend its time waiting for that (eight messages in
hand, an ack that takes 3 ms: 2,700 tasks a second and an idle processor). So while its tasks take
next to nothing a worker subscribes a second time to such a queue, and holds more (:func:`wide`).
When tasks turn longer the second subscription ends at once, and what is beyond the worker's own
budget goes back to its queue.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Final, Protocol

from amqflow.logs import get_logger
from amqflow.topology.model import QueueType

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from amqflow.topology import Queue
    from amqflow.transport import Consumer
    from amqflow.worker.job import Job
    from amqflow.worker.lanes import Lane

log = get_logger("amqflow.worker")

#: Messages a slot holds while tasks are short, of all queues together: the work of 0.16 s.
PER_SLOT: Final = 16
#: A worker of one slot needs as many to keep it busy; more than these gain nothing.
NARROWEST: Final = 32
WIDEST: Final = 128
#: Seconds between two looks.
PERIOD: Final = 0.1
#: Seconds of a slot that a short task takes, on average over a period.
SHORT: Final = 0.01
#: Tasks that must have ended in a period for their average to mean something.
ENOUGH: Final = 8
#: Periods it takes to try again at most, where short and long tasks take turns.
LONGEST_CALM: Final = 256


class Slots(Protocol):
    """What is asked of the executor."""

    def lap(self) -> tuple[int, float]:
        """Return how many tasks ended since the last call, and the seconds slots were taken."""
        ...

    def surplus(self, lane: Lane, keep: int) -> list[Job]:
        """Take out what waits of a lane beyond the first ``keep`` jobs."""
        ...


class Window:
    """The second subscriptions of a worker's quorum queues; everything happens in its loop."""

    def __init__(
        self,
        extra: Mapping[Lane, int],
        *,
        slots: Slots,
        subscribe: Callable[[Lane, int], Consumer],
        give_back: Callable[[Job], None],
        stuck: Callable[[], bool],
    ) -> None:
        """Wire the parts.

        Args:
            extra: what may be held beyond each lane's own prefetch (see :func:`extras`).
            slots: the executor.
            subscribe: subscribes to a lane, with a prefetch.
            give_back: sends a job that has not begun back to its queue.
            stuck: whether a message can be sent nowhere, so that nothing more is wanted.
        """
        self._extra = dict(extra)
        self._slots = slots
        self._subscribe = subscribe
        self._give_back = give_back
        self._stuck = stuck
        self._consumers: dict[Lane, Consumer] = {}
        self._open = True
        #: Periods of short tasks before it widens; doubled whenever that was a mistake.
        self._calm = 1
        self._short = 0
        #: Whether the second subscriptions are wanted now.
        self.wide = False

    @property
    def consumers(self) -> Sequence[Consumer]:
        """The second subscriptions there are, active or paused."""
        return tuple(self._consumers.values())

    async def run(self) -> None:
        """Look again and again, until :meth:`stop`."""
        while self._open and self._extra:
            await asyncio.sleep(PERIOD)
            await self.look()

    def stop(self) -> None:
        """Widen no more: the worker stops."""
        self._open = False

    async def look(self) -> None:
        """Judge the time since the last look, and hold more or less from now on."""
        ended, busy = self._slots.lap()
        long = busy > SHORT * max(ended, ENOUGH)
        short = ended >= ENOUGH and not long and not self._stuck()
        self._short = self._short + 1 if short else 0
        if not self._open:
            return
        if self._short >= self._calm and not self.wide:
            self.wide = True
            await self._widen()
        elif not short and self.wide:
            self.wide = False
            if long:
                self._calm = min(self._calm * 2, LONGEST_CALM)
            await self._narrow()
        if long and not self.wide:
            self._return_surplus()

    async def _widen(self) -> None:
        more = sum(self._extra.values())
        log.debug("tasks are short: holding more of quorum queues", more=more)
        for lane, extra in self._extra.items():
            if not self._open:
                return
            consumer = self._consumers.get(lane)
            if consumer is None:
                self._consumers[lane] = self._subscribe(lane, extra)
            else:
                await consumer.resume()

    async def _narrow(self) -> None:
        log.debug("tasks are not so short any more, or few: holding what the budget says")
        await asyncio.gather(*(consumer.pause() for consumer in self._consumers.values()))

    def _return_surplus(self) -> None:
        for lane in self._consumers:
            for job in self._slots.surplus(lane, lane.prefetch):
                self._give_back(job)


def wide(slots: int) -> int:
    """Return how many messages a worker of so many slots holds while its tasks are short."""
    return min(max(NARROWEST, PER_SLOT * slots), WIDEST)


def extras(
    lanes: Sequence[Lane], declared: Mapping[str, Queue], *, slots: int, multiplier: int
) -> dict[Lane, int]:
    """Return what may be held beyond the prefetch of each lane that a quorum queue stands behind.

    A queue with a ``prefetch`` of its own, and a worker that was told to hold nothing ahead
    (a multiplier of 1), keep to that.
    """
    held = sum(lane.prefetch for lane in lanes)
    most = wide(slots)
    if multiplier <= 1 or held >= most:
        return {}
    return {
        lane: extra
        for lane in lanes
        if (queue := declared.get(lane.queue)) is not None
        and queue.type is QueueType.QUORUM
        and queue.prefetch is None
        and not queue.single_active_consumer
        and (extra := (most - held) * lane.prefetch // held) > 0
    }
