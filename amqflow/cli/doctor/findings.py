"""What the doctor finds: a sentence, how grave it is, and the command that mends it."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum


class Level(StrEnum):
    """How grave a finding is."""

    #: As it should be.
    OK = "ok"
    #: Works now, and will hurt some day.
    WARNING = "warning"
    #: Something does not work, or loses what it should keep.
    ERROR = "error"


@dataclass(frozen=True, slots=True)
class Finding:
    """One answer of one check.

    Args:
        check: The check's name, stable: ``"redis-durability"``.
        level: How grave it is.
        text: A sentence for people.
        mend: The command or setting that mends it; None where nothing is wrong.
    """

    check: str
    level: Level
    text: str
    mend: str | None = None


def ok(check: str, text: str) -> Finding:
    """Return that all is well."""
    return Finding(check, Level.OK, text)


def warning(check: str, text: str, mend: str) -> Finding:
    """Return what will hurt some day."""
    return Finding(check, Level.WARNING, text, mend)


def error(check: str, text: str, mend: str) -> Finding:
    """Return what does not work."""
    return Finding(check, Level.ERROR, text, mend)
