"""Intervals: every so many seconds, from an anchor or from the entry's start."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Final

from amqflow.clock import to_datetime, to_seconds
from amqflow.errors import ScheduleError
from amqflow.schedules.base import to_ms

if TYPE_CHECKING:
    from datetime import tzinfo

#: The shortest interval, in milliseconds.
SHORTEST: Final = 100
_LONGEST: Final = 100 * 366 * 86_400_000
_UNITS: Final = ((86400, "d"), (3600, "h"), (60, "min"))


@dataclass(frozen=True, slots=True, init=False, repr=False)
class schedule:  # noqa: N801 - Celery's name
    """Due every ``run_every`` seconds (Celery's ``schedule``).

    Slots are ``base + k * run_every``, so any number of schedulers means the same instants. The
    base is, in this order: ``anchor``; with ``relative=True`` the Unix epoch, so that 10 minutes
    are :00, :10, :20 in UTC; else the moment the entry came into force, which the store remembers
    over restarts (Celery counts anew from each start of its beat).
    """

    #: Milliseconds.
    every: int
    #: Unix seconds, or None.
    anchor: float | None
    run_every: timedelta = field(compare=False)

    def __init__(
        self,
        run_every: float | timedelta,
        relative: bool = False,
        *,
        anchor: datetime | float | None = None,
    ) -> None:
        """Check the interval.

        Args:
            run_every: Seconds, or a timedelta; 0.1 s at least, kept to the millisecond.
            relative: Count from the Unix epoch.
            anchor: Count from this moment, before and after it; a naive datetime is UTC.

        Raises:
            ScheduleError: The interval or anchor is not possible.
        """
        if isinstance(run_every, bool) or not isinstance(run_every, int | float | timedelta):
            raise ScheduleError(f"run_every is seconds or a timedelta, got {run_every!r}")
        seconds = run_every.total_seconds() if isinstance(run_every, timedelta) else run_every
        every = to_ms(seconds) if -1e12 < seconds < 1e12 else 0  # noqa: PLR2004 - also NaN
        if not SHORTEST <= every <= _LONGEST:
            raise ScheduleError(
                f"run_every={run_every!r}: an interval takes 0.1 s at least and 100 years at most"
            )
        if anchor is not None and relative:
            raise ScheduleError("give relative or anchor, not both: relative means the Unix epoch")
        base = to_seconds(anchor) if isinstance(anchor, datetime) else anchor
        put = object.__setattr__
        put(self, "every", every)
        put(self, "run_every", timedelta(milliseconds=every))
        put(self, "anchor", 0.0 if relative else None if base is None else to_ms(base) / 1000)

    @property
    def relative(self) -> bool:
        """Whether slots count from the Unix epoch."""
        return self.anchor == 0.0

    def next_after(self, instant: float, *, start: float = 0.0) -> float | None:
        """Return the first slot after ``instant``."""
        base = to_ms(start if self.anchor is None else self.anchor)
        # Down to the millisecond: what lies between two of them is after the lower one.
        steps = (int(instant * 1000 // 1) - base) // self.every + 1
        if self.anchor is None:
            steps = max(steps, 1)
        slot = base + steps * self.every
        if slot / 1000 <= instant:  # the float lay a hair below its own millisecond
            slot += self.every
        return slot / 1000

    def latest(self, after: float, until: float, *, start: float = 0.0) -> float | None:
        """Return the last slot in ``(after, until]``."""
        first = self.next_after(after, start=start)
        if first is None or first > until:
            return None
        steps = (to_ms(until) - to_ms(first)) // self.every
        slot = (to_ms(first) + steps * self.every) / 1000
        return slot if slot <= until else slot - self.every / 1000

    def in_zone(self, zone: tzinfo) -> schedule:  # noqa: ARG002 - the Protocol's
        """Return itself: an interval has no zone."""
        return self

    def __str__(self) -> str:
        since = "" if self.anchor is None or self.relative else f" from {_moment(self.anchor)}"
        return f"every {shown_seconds(self.every / 1000)}{since}"

    def __repr__(self) -> str:
        given = f"{self.every / 1000:g}"
        if self.relative:
            return f"schedule({given}, relative=True)"
        return f"schedule({given})" if self.anchor is None else (
            f"schedule({given}, anchor={self.anchor!r})"
        )  # fmt: skip


def shown_seconds(seconds: float) -> str:
    """Return seconds as people write them: ``90 s``, ``5 min``, ``2 h``."""
    for size, unit in _UNITS:
        if seconds >= size and seconds % size == 0:
            return f"{seconds // size:g} {unit}"
    return f"{seconds:g} s"


def _moment(instant: float) -> str:
    return to_datetime(instant).strftime("%Y-%m-%dT%H:%M:%SZ")
