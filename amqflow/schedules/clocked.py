"""A single moment: due once."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from amqflow.errors import ScheduleError
from amqflow.schedules.base import to_ms
from amqflow.schedules.zones import resolve

if TYPE_CHECKING:
    from datetime import tzinfo


@dataclass(frozen=True, slots=True, init=False, repr=False)
class clocked:  # noqa: N801 - the name django-celery-beat has for it, beside Celery's own two
    """Due once, at a moment; one that has passed when the entry comes into force never is."""

    moment: datetime

    def __init__(self, moment: datetime | str) -> None:
        """Take a datetime or ISO 8601 text; a naive one is read in the entry's zone.

        Raises:
            ScheduleError: It is no moment.
        """
        if isinstance(moment, str):
            try:
                moment = datetime.fromisoformat(moment)
            except ValueError as error:
                raise ScheduleError(
                    f"{moment!r} is no moment; write one such as 2027-03-01T09:30:00+01:00"
                ) from error
        if not isinstance(moment, datetime):
            raise ScheduleError(f"a moment is a datetime or its ISO 8601 text, got {moment!r}")
        object.__setattr__(self, "moment", moment)

    @property
    def instant(self) -> float:
        """The moment in Unix seconds, to the millisecond."""
        moment = self.moment.replace(tzinfo=UTC) if self.moment.tzinfo is None else self.moment
        return to_ms(moment.timestamp()) / 1000

    def next_after(self, instant: float, *, start: float = 0.0) -> float | None:  # noqa: ARG002
        """Return the moment while it is ahead."""
        return self.instant if self.instant > instant else None

    def latest(self, after: float, until: float, *, start: float = 0.0) -> float | None:  # noqa: ARG002
        """Return the moment where it lies in ``(after, until]``."""
        return self.instant if after < self.instant <= until else None

    def in_zone(self, zone: tzinfo) -> clocked:
        """Return the moment with its zone; Debian's rules where the zone skips or repeats it."""
        if self.moment.tzinfo is not None:
            return self
        whole = self.moment.replace(microsecond=0, fold=0)
        instant = resolve(whole, zone) + self.moment.microsecond / 1_000_000
        return clocked(datetime.fromtimestamp(instant, zone))

    def __str__(self) -> str:
        return f"once at {self.moment.isoformat(timespec='seconds')}"

    def __repr__(self) -> str:
        return f"clocked({self.moment.isoformat()!r})"
