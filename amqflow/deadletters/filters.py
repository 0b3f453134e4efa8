"""Which dead letters are meant: one value for every command, and ages in words."""

from __future__ import annotations

import re
from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Iterable

    from amqflow.deadletters.parked import Row


@dataclass(frozen=True, slots=True)
class Filters:
    """What a dead letter must be to be meant; several values of one kind mean any of them.

    Args:
        queues: Work queues whose dead letters are meant; none: all of the application's.
        homes: Dead-letter queues by their own names, also ones that amqflow did not make.
        tasks: Globs on the task's name.
        reasons: As :class:`~amqflow.abc.DeadReason` has them, or the broker's own words.
        exceptions: Globs on the exception's name, with its module or without.
        fingerprints: Fingerprints or their beginnings.
        ids: Task ids.
        before: Unix seconds; died before. What has no time never matches.
        after: Unix seconds; died after.
    """

    queues: tuple[str, ...] = ()
    homes: tuple[str, ...] = ()
    tasks: tuple[str, ...] = ()
    reasons: tuple[str, ...] = ()
    exceptions: tuple[str, ...] = ()
    fingerprints: tuple[str, ...] = ()
    ids: tuple[str, ...] = ()
    before: float | None = None
    after: float | None = None

    @property
    def everything(self) -> bool:
        """Whether all that lies in the queues is meant."""
        chosen = (self.tasks, self.reasons, self.exceptions, self.fingerprints, self.ids)
        return not any(chosen) and self.before is None and self.after is None

    def match(self, row: Row) -> bool:
        """Whether a dead letter is meant; the queues were chosen before."""
        return (
            (not self.ids or row.id in self.ids)
            and (not self.reasons or row.reason in self.reasons)
            and (not self.tasks or _globbed(row.task or "", self.tasks))
            and (not self.exceptions or _is_exception(row.exception, self.exceptions))
            and (not self.fingerprints or row.fingerprint.startswith(self.fingerprints))
            and (self.before is None or (row.time is not None and row.time < self.before))
            and (self.after is None or (row.time is not None and row.time > self.after))
        )


def _globbed(name: str, patterns: Iterable[str]) -> bool:
    return any(fnmatchcase(name, pattern) for pattern in patterns)


def _is_exception(name: str | None, patterns: Iterable[str]) -> bool:
    if name is None:
        return False
    short = name.rpartition(".")[2]
    return any(fnmatchcase(name, one) or fnmatchcase(short, one) for one in patterns)


# -- ages ----------------------------------------------------------------------------------

_UNITS: Final = {"s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0, "w": 604800.0}
_WORDS: Final = {
    "s": "s sec secs second seconds",
    "m": "m min mins minute minutes",
    "h": "h hour hours",
    "d": "d day days",
    "w": "w week weeks",
}
_UNIT_OF: Final = {word: unit for unit, words in _WORDS.items() for word in words.split()}
_PART: Final = re.compile(r"(\d+(?:\.\d+)?)\s*([a-z]+)[\s,]*(?:and\s+)?")


def parse_age(text: str) -> float:
    """Return an age such as ``90s``, ``2h``, ``1d 12h`` or ``3 days`` in seconds.

    Raises:
        ValueError: It is none; the message shows what is one.
    """
    rest = text.strip().lower()
    total = 0.0
    while rest:
        found = _PART.match(rest)
        if found is None or found[2] not in _UNIT_OF:
            break
        total += float(found[1]) * _UNITS[_UNIT_OF[found[2]]]
        rest = rest[found.end() :]
        if not rest:
            return total
    raise ValueError(f"{text!r} is no age; write one like 90s, 15m, 2h, 1d12h or '3 days'")


def age_words(seconds: float) -> str:
    """Return an age as people read it: ``12s``, ``5m``, ``3h``, ``2d``."""
    if seconds < 1:
        return "now"
    for unit in ("w", "d", "h", "m", "s"):
        # Two of a unit before it is used: "90m" says more than "1h".
        if seconds >= 2 * _UNITS[unit] or unit == "s":
            return f"{int(seconds / _UNITS[unit])}{unit}"
    raise AssertionError("seconds always fit")
