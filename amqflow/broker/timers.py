"""Everything that happens later, in one heap over one clock.

Nothing here waits: whoever drives the broker asks when the next timer is due and runs it. With a
clock that a test steps, hours pass in no time.
"""

from __future__ import annotations

from heapq import heapify, heappop, heappush
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Callable

    from amqflow.clock import Clock

#: So many timers that were taken back are no matter.
_SPARE: Final = 256


class Timer:
    """One thing to be done; ``cancel`` takes it back."""

    __slots__ = ("_timers", "action", "due")

    def __init__(self, timers: Timers, due: float, action: Callable[[], None]) -> None:
        """Keep what to do and when (monotonic seconds)."""
        self._timers = timers
        self.due = due
        self.action: Callable[[], None] | None = action

    def cancel(self) -> None:
        """Do it no more."""
        if self.action is not None:
            self.action = None
            self._timers.cancelled += 1


class Timers:
    """The timers of a broker."""

    def __init__(self, clock: Clock) -> None:
        """Begin with none; ``clock`` says what time it is."""
        self._clock = clock
        self._heap: list[tuple[float, int, Timer]] = []
        self._number = 0
        #: Timers in the heap that were taken back.
        self.cancelled = 0
        #: Called when an earlier timer than all before was set.
        self.on_earlier: Callable[[], None] | None = None

    def now(self) -> float:
        """Return the clock's monotonic seconds."""
        return self._clock.monotonic()

    def at(self, due: float, action: Callable[[], None]) -> Timer:
        """Do something when it is ``due``."""
        if self.cancelled > _SPARE and self.cancelled > len(self._heap) // 2:
            self._sweep()
        timer = Timer(self, due, action)
        self._number += 1
        heappush(self._heap, (due, self._number, timer))
        if self._heap[0][2] is timer and self.on_earlier is not None:
            self.on_earlier()
        return timer

    def next_due(self) -> float | None:
        """Return when the next timer is due; None where there is none."""
        heap = self._heap
        while heap and heap[0][2].action is None:
            heappop(heap)
            self.cancelled -= 1
        return heap[0][0] if heap else None

    def run_due(self) -> int:
        """Do everything that is due, in order; return how much it was."""
        done = 0
        while (due := self.next_due()) is not None and due <= self.now():
            timer = heappop(self._heap)[2]
            action, timer.action = timer.action, None
            if action is not None:
                action()
                done += 1
        return done

    def _sweep(self) -> None:
        """Forget those taken back: half-hour time-outs of channels would else pile up."""
        self._heap = [item for item in self._heap if item[2].action is not None]
        heapify(self._heap)
        self.cancelled = 0
