"""Time zones by name, and the instants of local readings around their transitions."""

from __future__ import annotations

from datetime import UTC, datetime
from difflib import get_close_matches
from functools import lru_cache
from typing import TYPE_CHECKING, Final
from zoneinfo import ZoneInfo, available_timezones

from amqflow.errors import ScheduleError

if TYPE_CHECKING:
    from datetime import tzinfo

_EPOCH: Final = datetime(1970, 1, 1)  # noqa: DTZ001 - local readings are naive until resolved


@lru_cache(maxsize=256)
def zone_named(name: str) -> ZoneInfo:
    """Return the zone of an IANA name such as ``Asia/Shanghai``.

    Raises:
        ScheduleError: There is none; the message suggests the nearest.
    """
    try:
        return ZoneInfo(name)
    except (KeyError, ValueError, OSError) as error:
        raise ScheduleError(f"there is no time zone {name!r}{_suggested(name)}") from error


def _suggested(name: str) -> str:
    """Return what was probably meant: by the whole name, or by the city alone."""
    lowered = {zone.lower(): zone for zone in available_timezones()}
    wanted = name.strip().lower().replace(" ", "_")
    by_city = {zone.rpartition("/")[2].lower(): zone for zone in sorted(lowered.values())}
    near = get_close_matches(wanted, lowered, n=1, cutoff=0.7)
    if near:
        return f"; did you mean {lowered[near[0]]!r}?"
    near = get_close_matches(wanted.rpartition("/")[2], by_city, n=1, cutoff=0.75)
    if near:
        return f"; did you mean {by_city[near[0]]!r}?"
    return "; use a name of the IANA database, such as 'Europe/Berlin'"


def local(instant: float, zone: tzinfo) -> datetime:
    """Return the zone's reading of an instant."""
    return datetime.fromtimestamp(instant, zone)


def offset(instant: float, zone: tzinfo) -> int:
    """Return the zone's distance from UTC at an instant, in seconds."""
    if zone is UTC:
        return 0
    return _seconds(local(instant, zone))


def resolve(reading: datetime, zone: tzinfo) -> int:
    """Return the instant of a naive local reading.

    One that occurs twice is the first of both; one that is skipped is the first instant after
    the gap. These are Debian cron's rules for jobs at a fixed time (its cron(8), "daylight saving
    time and other time changes").
    """
    since = int((reading - _EPOCH).total_seconds())
    before = _seconds(reading.replace(tzinfo=zone, fold=0))
    after = _seconds(reading.replace(tzinfo=zone, fold=1))
    if before >= after:  # plain, or ambiguous: fold=0 is the first occurrence (PEP 495)
        return since - before
    # A gap: the reading lies between both offsets' ideas of it, and so does the transition.
    low, high = since - after, since - before
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (low, middle) if offset(middle, zone) == after else (middle, high)
    return high


def _seconds(moment: datetime) -> int:
    found = moment.utcoffset()
    assert found is not None
    return int(found.total_seconds())
