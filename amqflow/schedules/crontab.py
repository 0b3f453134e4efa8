"""Crontabs: Celery's fields and its AND of both day fields, Debian cron's rules for DST.

The rules (Debian's cron(8), as the cronsim library reads it): a crontab whose minute or hour
begins with ``*`` is due at every instant whose local reading matches: it does not see a change of
the clocks. Any other is due once for each local reading: one that is skipped, right after the
gap; one that occurs twice, the first time only.
"""

from __future__ import annotations

from datetime import UTC, date, datetime, timedelta, tzinfo
from typing import TYPE_CHECKING, Final

from amqflow.errors import ScheduleError
from amqflow.schedules.base import HORIZON, latest_by_search
from amqflow.schedules.fields import (
    DAY_OF_MONTH,
    DAY_OF_WEEK,
    HOUR,
    MINUTE,
    MONTH_OF_YEAR,
    Cronspec,
    written,
)
from amqflow.schedules.zones import local, offset, resolve, zone_named

if TYPE_CHECKING:
    from collections.abc import Iterator

_MONTH_DAYS: Final = (0, 31, 29, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31)
_FIELDS: Final = 5
_DAY: Final = timedelta(days=1)
_MIDNIGHT: Final = 24 * 60


class crontab:  # noqa: N801 - Celery's name
    """Due at the minutes that all five fields name, in a time zone."""

    __slots__ = ("_days", "_hours", "_minutes", "_months", "_texts", "_weekdays", "zone")

    def __init__(
        self,
        minute: Cronspec = "*",
        hour: Cronspec = "*",
        day_of_week: Cronspec = "*",
        day_of_month: Cronspec = "*",
        month_of_year: Cronspec = "*",
        timezone: str | tzinfo | None = None,
    ) -> None:
        """Take Celery's fields, in Celery's order.

        A field is a number, several numbers, or a pattern: ``*``, ``*/15``, ``1-5``, ``22-5``
        (round midnight), ``1-9/2``, ``mon-fri``, ``jan,jul``, and lists of these. As in Celery,
        a day must match both ``day_of_week`` (Sunday is 0) and ``day_of_month``.

        Args:
            minute: 0 to 59.
            hour: 0 to 23.
            day_of_week: 0 to 6, or names; 7 is Sunday too.
            day_of_month: 1 to 31.
            month_of_year: 1 to 12, or names.
            timezone: The zone the fields are read in; None: the entry's, else the application's.

        Raises:
            ScheduleError: A field or the zone cannot be read, or no such day exists.
        """
        self._minutes = tuple(sorted(MINUTE.read(minute)))
        self._hours = tuple(sorted(HOUR.read(hour)))
        self._weekdays = DAY_OF_WEEK.read(day_of_week)
        self._days = tuple(sorted(DAY_OF_MONTH.read(day_of_month)))
        self._months = tuple(sorted(MONTH_OF_YEAR.read(month_of_year)))
        self._texts = tuple(map(written, (minute, hour, day_of_week, day_of_month, month_of_year)))
        self.zone = zone_named(timezone) if isinstance(timezone, str) else timezone
        if self._days[0] > max(_MONTH_DAYS[month] for month in self._months):
            raise ScheduleError(
                f"day_of_month={self._texts[3]!r} does not occur in "
                f"month_of_year={self._texts[4]!r}: this would never be due"
            )

    @classmethod
    def from_string(cls, text: str, timezone: str | tzinfo | None = None) -> crontab:
        """Read cron's own order: minute, hour, day of month, month, day of week.

        Raises:
            ScheduleError: It has not five fields, or one cannot be read.
        """
        parts = text.split()
        if len(parts) != _FIELDS:
            raise ScheduleError(
                f"a crontab has five fields (minute, hour, day of month, month, day of week), "
                f"{text!r} has {len(parts)}"
            )
        minute, hour, day_of_month, month_of_year, day_of_week = parts
        return cls(minute, hour, day_of_week, day_of_month, month_of_year, timezone)

    # -- asking ----------------------------------------------------------------------------

    def next_after(self, instant: float, *, start: float = 0.0) -> float | None:  # noqa: ARG002
        """Return the first slot after ``instant``; None where the next 45 years have none."""
        zone = UTC if self.zone is None else self.zone
        found = self._walking(instant, zone) if self._starred else self._fixed(instant, zone)
        return None if found is None else float(found)

    def latest(self, after: float, until: float, *, start: float = 0.0) -> float | None:
        """Return the last slot in ``(after, until]``."""
        return latest_by_search(self, after, until, start=start)

    def in_zone(self, zone: tzinfo) -> crontab:
        """Return the same fields read in ``zone``, unless they have a zone already."""
        if self.zone is not None:
            return self
        copy = object.__new__(crontab)
        for name in self.__slots__:
            setattr(copy, name, getattr(self, name))
        copy.zone = zone
        return copy

    @property
    def _starred(self) -> bool:
        return self._texts[0].startswith("*") or self._texts[1].startswith("*")

    # -- both ways of walking --------------------------------------------------------------

    def _fixed(self, instant: float, zone: tzinfo) -> int | None:
        """Walk local readings; each is one instant, whatever the clocks do."""
        now = local(instant, zone).replace(tzinfo=None, fold=0)
        for day in self._dates(now.date()):
            for hour in self._hours:
                for minute in self._minutes:
                    reading = datetime(day.year, day.month, day.day, hour, minute)  # noqa: DTZ001
                    # A reading before now's is past, and so is one that has its second turn now.
                    if reading > now and (found := resolve(reading, zone)) > instant:
                        return found
        return None

    def _walking(self, instant: float, zone: tzinfo) -> int | None:
        """Walk instants; each is judged by its own local reading."""
        at = int(instant // 60) * 60 + 60
        end = at + HORIZON
        while at <= end:
            reading = local(at, zone)
            wait = self._wait(reading)
            if wait == 0:
                return at
            ahead = at + wait * 60
            # A change of the clocks on the way may bring a match: then every minute is looked at.
            steady = offset(ahead - 60, zone) == offset(at, zone)
            at = ahead if steady else at + 60
            if steady and not self._matches_day(reading.date()):
                following = next(self._dates(reading.date()), None)
                if following is None:
                    return None
                at = max(at, resolve(datetime.combine(following - _DAY, datetime.min.time()), zone))
        return None

    def _wait(self, reading: datetime) -> int:
        """Return for how many minutes, by the clock on the wall, nothing can match."""
        minute = reading.minute
        if not self._matches_day(reading.date()):
            return _MIDNIGHT - reading.hour * 60 - minute
        if reading.hour not in self._hours:
            return 60 - minute
        return next((known - minute for known in self._minutes if known >= minute), 60 - minute)

    def _matches_day(self, day: date) -> bool:
        return (
            day.month in self._months
            and day.day in self._days
            and day.isoweekday() % 7 in self._weekdays
        )

    def _dates(self, first: date) -> Iterator[date]:
        """Yield the matching dates from ``first`` on, as far as the horizon."""
        last = first.year + HORIZON // (366 * 86400)
        for year in range(first.year, min(last, date.max.year - 1) + 1):
            for month in self._months:
                if (year, month) < (first.year, first.month):
                    continue
                for number in self._days:
                    if number > _days_of(year, month):
                        break
                    day = date(year, month, number)
                    if day >= first and day.isoweekday() % 7 in self._weekdays:
                        yield day

    # -- as a value ------------------------------------------------------------------------

    @property
    def text(self) -> str:
        """The fields in cron's order, for :meth:`from_string`."""
        minute, hour, day_of_week, day_of_month, month_of_year = self._texts
        return f"{minute} {hour} {day_of_month} {month_of_year} {day_of_week}"

    def __str__(self) -> str:
        return self.text if self.zone is None else f"{self.text} {self.zone}"

    def __repr__(self) -> str:
        names = ("minute", "hour", "day_of_week", "day_of_month", "month_of_year")
        given = [
            f"{name}={text!r}" for name, text in zip(names, self._texts, strict=True) if text != "*"
        ]
        if self.zone is not None:
            given.append(f"timezone={str(self.zone)!r}")
        return f"crontab({', '.join(given)})"

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, crontab):
            return NotImplemented
        return self._key == other._key

    def __hash__(self) -> int:
        return hash(self._key)

    @property
    def _key(self) -> tuple[object, ...]:
        # Both stars are of the meaning: `*` and `0-23` name the same hours but not the same slots.
        return (
            *(self._minutes, self._hours, self._weekdays, self._days, self._months),
            *(self._starred, str(self.zone)),
        )


def _days_of(year: int, month: int) -> int:
    if month == 2 and (year % 4 or (year % 100 == 0 and year % 400)):  # noqa: PLR2004 - February
        return 28
    return _MONTH_DAYS[month]
