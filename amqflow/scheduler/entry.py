"""One entry: a task, when it is due, and what happens to slots that could not run in time."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import timedelta
from difflib import get_close_matches
from enum import StrEnum
from typing import TYPE_CHECKING, Any, Final, TypeVar

from amqflow.canvas.call import build_call
from amqflow.errors import AmqflowError, ScheduleError
from amqflow.protocol.ids import derived_id
from amqflow.schedules import Schedule, from_form, schedule, to_form, zone_named
from amqflow.schedules.form import KINDS, duration

if TYPE_CHECKING:
    from datetime import tzinfo


#: Characters of an entry's name.
LONGEST_NAME: Final = 200


class CatchUp(StrEnum):
    """Which slots that passed while nobody could publish are made up for."""

    NONE = "none"
    LAST = "last"
    ALL = "all"


class Overlap(StrEnum):
    """What a slot does while the entry's run before it has not ended."""

    ALLOW = "allow"
    SKIP = "skip"
    QUEUE = "queue"


Choice = TypeVar("Choice", CatchUp, Overlap)

#: Options of ``apply_async`` that mean nothing in an entry, each with the reason.
_REFUSED: Final = {
    "task_id": "each slot has an id of its own",
    "eta": "the schedule says when",
    "reply_to": "nobody waits for a slot's reply",
}
#: Options that may stand in the entry itself, beside ``options``.
_SHORT: Final = ("queue", "priority", "expires", "headers")
_KEYS: Final = (
    *("task", "schedule", "args", "kwargs", "options", "relative"),
    *("timezone", "catch_up", "max_lateness", "jitter", "overlap", "foreign"),
    *_SHORT,
    *KINDS,
    "anchor",
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Entry:
    """What the scheduler runs, checked. Durations are seconds."""

    name: str
    task: str
    #: With its zone.
    schedule: Schedule
    args: Sequence[Any] = ()
    kwargs: Mapping[str, Any] = field(default_factory=dict)
    #: Options of ``apply_async``.
    options: Mapping[str, Any] = field(default_factory=dict)
    catch_up: CatchUp = CatchUp.LAST
    #: Slots later than this are not run but recorded as missed; None: no bound.
    max_lateness: float | None = None
    #: Each slot is published up to this much later, by a draw that every scheduler makes alike.
    jitter: float = 0.0
    overlap: Overlap = Overlap.ALLOW
    #: The task runs in another application's workers; it need not be known here.
    foreign: bool = False
    #: Where it is declared, for people.
    source: str = ""
    #: What tells one schedule from another: an entry whose schedule changed starts anew.
    print: str = ""

    @classmethod
    def read(cls, name: str, given: Mapping[str, Any], zone: tzinfo, source: str) -> Entry:
        """Read Celery's form of an entry, or the same as YAML and the store hold it.

        Args:
            name: The entry's.
            given: ``task``, ``schedule``, ``args``, ``kwargs``, ``options``, ``relative`` as in
                Celery's ``beat_schedule``; our own keys beside them (docs/scheduler.md).
            zone: The application's; the entry's ``timezone`` wins.
            source: Where it stands, for errors.

        Raises:
            ScheduleError: Something in it is wrong; the message names the entry.
        """
        known: object = name  # YAML's keys may be anything
        if not isinstance(known, str) or not 0 < len(known) <= LONGEST_NAME:
            raise ScheduleError(
                f"{source}: the name of an entry is a text of at most {LONGEST_NAME} characters, "
                f"got {known!r:.80}"
            )
        try:
            return _read(cls, name, given, zone, source)
        except (AmqflowError, TypeError, ValueError) as error:
            text = str(error).removeprefix(f"{name}: ")
            raise ScheduleError(f"{source}: entry {name!r}: {text}") from error

    def data(self) -> dict[str, Any]:
        """Return the entry as JSON holds it, for the store.

        Raises:
            ScheduleError: The schedule is of the user's own making.
        """
        known: dict[str, Any] = {"task": self.task, **to_form(self.schedule)}
        plain = ("args", "kwargs", "options", "jitter", "foreign")
        known |= {key: value for key in plain if (value := getattr(self, key))}
        if self.max_lateness is not None:
            known["max_lateness"] = self.max_lateness
        if self.catch_up is not CatchUp.LAST:
            known["catch_up"] = str(self.catch_up)
        if self.overlap is not Overlap.ALLOW:
            known["overlap"] = str(self.overlap)
        return known

    def delay_of(self, slot: int) -> float:
        """Return how many seconds after its instant a slot (milliseconds) is published.

        Drawn from the name and the slot, so that all schedulers agree.
        """
        if not self.jitter:
            return 0.0
        digest = hashlib.blake2b(f"{self.name}\n{slot}".encode(), digest_size=8).digest()
        return self.jitter * int.from_bytes(digest, "big") / 2**64


def task_id_of(app_name: str, name: str, slot: int) -> str:
    """Return the id of a slot's task: whoever publishes it, and however often, it is the same."""
    return derived_id(f"{app_name}\n{name}\n{slot}", "slot")


def _read(
    kind: type[Entry], name: str, given: Mapping[str, Any], zone: tzinfo, source: str
) -> Entry:
    if not isinstance(given, Mapping):
        raise ScheduleError(f"is a mapping with task and schedule, got {given!r:.80}")
    _check_keys(given)
    task = given.get("task")
    if not isinstance(task, str) or not task:
        raise ScheduleError(f"task is the name of a task, got {task!r:.80}")
    own = given.get("timezone")
    if own is not None:
        if not isinstance(own, str):
            raise ScheduleError(f"timezone is the name of a zone, got {own!r:.80}")
        zone = zone_named(own)
    options = _options(given)
    args, kwargs = given.get("args") or (), given.get("kwargs") or {}
    build_call(task, args, kwargs, options)
    found = _schedule(given).in_zone(zone)
    entry = kind(
        name=name,
        task=task,
        schedule=found,
        args=tuple(args),
        kwargs=dict(kwargs),
        options=options,
        catch_up=_choice(CatchUp, given.get("catch_up"), CatchUp.LAST, "catch_up"),
        max_lateness=_seconds(given, "max_lateness"),
        jitter=_seconds(given, "jitter") or 0.0,
        overlap=_choice(Overlap, given.get("overlap"), Overlap.ALLOW, "overlap"),
        foreign=bool(given.get("foreign", False)),
        source=source,
        print=_fingerprint(found),
    )
    if entry.overlap is Overlap.QUEUE and entry.catch_up is CatchUp.NONE:
        raise ScheduleError(
            "overlap: queue makes slots wait, catch_up: none drops those that waited; choose "
            "catch_up: last or all, or overlap: skip"
        )
    return entry


def _check_keys(given: Mapping[str, Any]) -> None:
    for key in given:
        if key not in _KEYS:
            near = get_close_matches(str(key), _KEYS, n=1)
            hint = f"did you mean {near[0]!r}?" if near else f"it may have {', '.join(_KEYS)}"
            raise ScheduleError(f"has no key {key!r}; {hint}")


def _options(given: Mapping[str, Any]) -> dict[str, Any]:
    inner = given.get("options") or {}
    if not isinstance(inner, Mapping):
        raise ScheduleError(f"options are a mapping of apply_async's, got {inner!r:.80}")
    options = dict(inner)
    for name in _SHORT:
        if given.get(name) is not None:
            if options.get(name) is not None:
                raise ScheduleError(f"{name} is given twice, in the entry and in its options")
            options[name] = given[name]
    for name, why in _REFUSED.items():
        if options.get(name) is not None:
            raise ScheduleError(f"option {name!r} has no place in an entry: {why}")
    for name in ("expires", "countdown"):
        if isinstance(options.get(name), str) and options[name][:1].isdigit():
            options[name] = _duration_or_moment(options[name], name)
    return options


def _duration_or_moment(text: str, name: str) -> float | str:
    """Return seconds of ``5m``; ``2027-01-01T00:00`` stays the moment it is."""
    try:
        return duration(text, name)
    except ScheduleError:
        return text


def _schedule(given: Mapping[str, Any]) -> Schedule:
    known = given.get("schedule")
    if any(given.get(kind) is not None for kind in KINDS):
        if known is not None:
            raise ScheduleError("give schedule, or one of crontab, every, at beside the task")
        return from_form({key: given.get(key) for key in (*KINDS, "anchor")})
    match known:
        case None:
            raise ScheduleError("has no schedule: seconds, a timedelta, a crontab(...)")
        case bool():
            raise ScheduleError(f"schedule is seconds or a schedule, got {known!r}")
        case int() | float() | timedelta():
            return schedule(known, relative=bool(given.get("relative", False)))
        case Mapping():
            return from_form(known)
        case Schedule():
            return known
    module = type(known).__module__
    if module.startswith("celery."):
        raise ScheduleError(
            f"schedule is {module}.{type(known).__name__}; write "
            f"'from amqflow.schedules import {type(known).__name__}' instead"
        )
    raise ScheduleError(
        f"schedule is seconds, a timedelta or a schedule such as crontab(hour=2), got {known!r:.80}"
    )


def _choice(kind: type[Choice], value: Any, default: Choice, name: str) -> Choice:
    if value is None:
        return default
    try:
        return kind(value)
    except ValueError:
        allowed = ", ".join(kind)
        raise ScheduleError(f"{name} is one of {allowed}, got {value!r:.80}") from None


def _seconds(given: Mapping[str, Any], name: str) -> float | None:
    value = given.get(name)
    if value is None:
        return None
    found = value.total_seconds() if isinstance(value, timedelta) else duration(value, name)
    if not 0 <= found < float("inf"):
        raise ScheduleError(f"{name} is 0 seconds or more, got {value!r}")
    return found


def _fingerprint(known: Schedule) -> str:
    try:
        text = json.dumps(to_form(known), sort_keys=True)
    except ScheduleError:
        text = repr(known)
    return hashlib.blake2b(text.encode(), digest_size=8).hexdigest()
