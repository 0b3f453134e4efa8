"""Schedules as data, for the store, YAML and ``--json``: one mapping with one leading key."""

from __future__ import annotations

import re
from collections.abc import Mapping
from datetime import date, datetime
from typing import TYPE_CHECKING, Any, Final

from amqflow.errors import ScheduleError
from amqflow.schedules.clocked import clocked
from amqflow.schedules.crontab import crontab
from amqflow.schedules.interval import schedule

if TYPE_CHECKING:
    from amqflow.schedules.base import Schedule

_DURATION: Final = re.compile(r"(\d+(?:\.\d+)?)\s*(ms|s|m|min|h|d)?")
_UNITS: Final = {"ms": 0.001, "s": 1.0, "m": 60.0, "min": 60.0, "h": 3600.0, "d": 86400.0}
_CRONTAB_FIELDS: Final = frozenset(
    {"minute", "hour", "day_of_week", "day_of_month", "month_of_year"}
)

#: The keys a schedule is written under, one of them.
KINDS: Final = ("crontab", "every", "at")


def to_form(known: Schedule) -> dict[str, Any]:
    """Return a schedule as JSON holds it.

    Raises:
        ScheduleError: It is none of ours; only code can hold it.
    """
    match known:
        case crontab():
            zone = {} if known.zone is None else {"timezone": str(known.zone)}
            return {"crontab": known.text, **zone}
        case schedule():
            anchor = {} if known.anchor is None else {"anchor": known.anchor}
            return {"every": known.every / 1000, **anchor}
        case clocked():
            return {"at": known.moment.isoformat()}
    raise ScheduleError(f"a {type(known).__name__} cannot be kept in the store")


def from_form(form: Mapping[str, Any]) -> Schedule:
    """Return the schedule of a mapping with ``crontab``, ``every`` or ``at``.

    ``crontab`` is cron's text, or a mapping of Celery's fields; ``every`` takes seconds or a text
    such as ``5m``; beside them may stand ``timezone``, and ``anchor`` beside ``every``.

    Raises:
        ScheduleError: It cannot be read.
    """
    kinds = [kind for kind in KINDS if form.get(kind) is not None]
    if len(kinds) != 1:
        said = " and ".join(kinds) if kinds else "none of them"
        raise ScheduleError(f"give one of crontab, every, at; here is {said}")
    zone = form.get("timezone")
    if zone is not None and not isinstance(zone, str):
        raise ScheduleError(f"timezone is the name of a zone, got {zone!r}")
    if form.get("anchor") is not None and kinds != ["every"]:
        raise ScheduleError("an anchor belongs to every")
    match kinds[0]:
        case "crontab":
            return _crontab(form["crontab"], zone)
        case "every":
            return schedule(duration(form["every"], "every"), anchor=_anchor(form.get("anchor")))
        case _:
            return clocked(_moment(form["at"]))


def duration(value: Any, name: str) -> float:
    """Return seconds of a number or a text such as ``90``, ``500ms``, ``5m``, ``2h``, ``1d``.

    Raises:
        ScheduleError: It is neither.
    """
    if isinstance(value, int | float) and not isinstance(value, bool):
        return float(value)
    if isinstance(value, str) and (match := _DURATION.fullmatch(value.strip())):
        return float(match[1]) * _UNITS[match[2] or "s"]
    raise ScheduleError(f"{name}={value!r}: write seconds, or a text such as '30s', '5m', '2h'")


def _crontab(given: Any, zone: str | None) -> crontab:
    if isinstance(given, str):
        return crontab.from_string(given, zone)
    if not isinstance(given, Mapping):
        raise ScheduleError(f"a crontab is a text such as '0 2 * * *', got {given!r}")
    unknown = sorted(map(str, given.keys() - _CRONTAB_FIELDS))
    if unknown:
        raise ScheduleError(f"a crontab has no field {unknown[0]!r}; it has {_names()}")
    return crontab(**given, timezone=zone)


def _names() -> str:
    return ", ".join(sorted(_CRONTAB_FIELDS))


def _anchor(given: Any) -> datetime | float | None:
    if isinstance(given, str):
        return clocked(given).moment
    if isinstance(given, date) and not isinstance(given, datetime):
        return datetime(given.year, given.month, given.day)  # noqa: DTZ001 - naive is UTC
    if given is None or isinstance(given, datetime):
        return given
    if isinstance(given, int | float) and not isinstance(given, bool):
        return float(given)
    raise ScheduleError(f"anchor={given!r}: write a moment such as 2027-01-01T00:00:00Z")


def _moment(given: Any) -> datetime | str:
    """Return what YAML made of a moment; a date alone is its midnight."""
    if isinstance(given, date) and not isinstance(given, datetime):
        return datetime(given.year, given.month, given.day)  # noqa: DTZ001 - the entry's zone
    if isinstance(given, datetime | str):
        return given
    raise ScheduleError(f"at={given!r}: write a moment such as 2027-03-01T09:30:00")
