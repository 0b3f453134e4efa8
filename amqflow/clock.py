"""Where time comes from: one Protocol, so that a test can step it.

Wall-clock time (Unix seconds, UTC) is for what travels in messages; monotonic time for waits.
"""

from __future__ import annotations

import time
from datetime import UTC, datetime
from typing import Final, Protocol

#: Seconds of the longest time limit, a leap year. What is beyond it is a mistake, and what is far
#: beyond it fits into no timer.
LONGEST_LIMIT: Final = 366 * 86400.0


class Clock(Protocol):
    """A source of wall-clock and monotonic time, both in seconds."""

    def now(self) -> float:
        """Return Unix time in seconds."""
        ...

    def monotonic(self) -> float:
        """Return a time in seconds that never goes back."""
        ...


class SystemClock:
    """The machine's own clock."""

    def now(self) -> float:
        """Return Unix time in seconds."""
        return time.time()

    def monotonic(self) -> float:
        """Return a time in seconds that never goes back."""
        return time.monotonic()


SYSTEM_CLOCK = SystemClock()


def to_datetime(seconds: float) -> datetime:
    """Return the aware UTC datetime of a Unix time in seconds."""
    return datetime.fromtimestamp(seconds, UTC)


def to_seconds(moment: datetime) -> float:
    """Return the Unix time in seconds of a datetime; a naive one is read as UTC, as Celery does."""
    if moment.tzinfo is None:
        moment = moment.replace(tzinfo=UTC)
    return moment.timestamp()
