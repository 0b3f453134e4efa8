"""What every schedule answers, and walking its slots."""

from __future__ import annotations

from itertools import takewhile
from typing import TYPE_CHECKING, Final, Protocol, runtime_checkable

from amqflow.errors import ScheduleError

if TYPE_CHECKING:
    from collections.abc import Iterator
    from datetime import tzinfo

#: How far ahead a slot is looked for, in seconds: 29 February on a given weekday may be 40 years
#: away (over the year 2100).
HORIZON: Final = 45 * 366 * 86400

#: Windows before an instant in which its latest slot is looked for, in seconds.
_WINDOWS: Final = (120, 7200, 2 * 86400, 40 * 86400, 400 * 86400)


@runtime_checkable
class Schedule(Protocol):
    """Which instants something is due at: its slots.

    ``start`` is the instant from which an entry is in force; only intervals without an anchor
    look at it.
    """

    def next_after(self, instant: float, *, start: float = 0.0) -> float | None:
        """Return the first slot after ``instant`` (Unix seconds), never that instant itself."""
        ...

    def latest(self, after: float, until: float, *, start: float = 0.0) -> float | None:
        """Return the last slot in ``(after, until]``; None where there is none."""
        ...

    def in_zone(self, zone: tzinfo) -> Schedule:
        """Return the same schedule read in ``zone``, unless it names a zone of its own."""
        ...


def to_ms(instant: float) -> int:
    """Return an instant in whole milliseconds: what slots are told apart by."""
    return round(instant * 1000)


def to_instant(milliseconds: int) -> float:
    """Return the instant of whole milliseconds."""
    return milliseconds / 1000


def slots_after(schedule: Schedule, after: float, *, start: float = 0.0) -> Iterator[float]:
    """Yield the slots after an instant, oldest first.

    Raises:
        ScheduleError: The schedule, one of the user's own making, does not go forward.
    """
    slot = schedule.next_after(after, start=start)
    while slot is not None:
        if not slot > after:
            raise ScheduleError(
                f"{type(schedule).__name__}.next_after({after!r}) answered {slot!r}, which is not "
                "after it"
            )
        yield slot
        after, slot = slot, schedule.next_after(slot, start=start)


def slots_until(
    schedule: Schedule, after: float, until: float, *, start: float = 0.0
) -> Iterator[float]:
    """Yield the slots in ``(after, until]``, oldest first."""
    return takewhile(lambda slot: slot <= until, slots_after(schedule, after, start=start))


def latest_by_search(
    schedule: Schedule, after: float, until: float, *, start: float
) -> float | None:
    """Return the last slot in ``(after, until]`` of a schedule that only goes forward.

    Looks at a short time before ``until`` first: years may lie between both ends.
    """
    for window in (*_WINDOWS, until - after):
        low = max(after, until - window)
        found = None
        for slot in slots_until(schedule, low, until, start=start):
            found = slot
        if found is not None or low == after:
            return found
    return None
