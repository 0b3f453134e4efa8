"""The values a schedule store takes and gives; instants are whole milliseconds."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import Any, Final

#: A cursor further ahead of the clock than this was left behind by a clock that was wrong. Debian
#: cron takes a change of three hours or more for a correction, too.
CORRECTION: Final = 3 * 3600 * 1000

#: Overdue leases told at one time.
OVERDUE: Final = 500


@dataclass(frozen=True, slots=True)
class ScheduleStoreCapabilities:
    """What a schedule store can do, declared; the conformance suite holds it to this."""

    #: Schedulers of other processes see the same.
    shared: bool
    #: It outlives the processes that use it.
    durable: bool


class What(StrEnum):
    """What became of a slot."""

    RAN = "ran"
    MISSED = "missed"
    SKIPPED = "skipped"
    FAILED = "failed"
    #: A run somebody asked for (``run-now``); no slot.
    MANUAL = "manual"


@dataclass(frozen=True, slots=True)
class Record:
    """One line of an entry's history."""

    what: What
    #: The slot; of several the first.
    slot: int
    #: When this was written.
    at: int
    #: The task's id, where one was published.
    id: str | None = None
    #: The scheduler that wrote it.
    by: str | None = None
    #: The last slot and the number of them, where the line is about several.
    last: int | None = None
    count: int = 1
    why: str | None = None

    def data(self) -> dict[str, Any]:
        """Return it as JSON holds it, without what says nothing."""
        known = {key: value for key in self.__slots__ if (value := getattr(self, key)) is not None}
        if self.count == 1:
            del known["count"]
        return known

    @classmethod
    def read(cls, data: dict[str, Any]) -> Record:
        """Return the record of such data; keys of a later version are left out."""
        known = {key: data[key] for key in cls.__slots__ if key in data}
        return cls(**{**known, "what": What(known["what"])})


@dataclass(frozen=True, slots=True)
class Adoption:
    """An entry that a scheduler is about to serve, and its schedule's fingerprint."""

    name: str
    print: str


@dataclass(frozen=True, slots=True)
class Standing:
    """Where an entry stands."""

    #: All slots up to here are decided.
    cursor: int
    #: Since when the entry is in force with this schedule.
    start: int
    #: The task of the latest slot that was claimed, and the slot.
    last_id: str | None = None
    last_slot: int | None = None
    paused_at: int | None = None
    #: Slots by what became of them.
    counts: tuple[tuple[str, int], ...] = ()


@dataclass(frozen=True, slots=True)
class Claim:
    """A wish to move an entry's cursor from ``expected`` to ``cursor``."""

    name: str
    expected: int
    cursor: int
    #: Slots to lease.
    run: tuple[int, ...] = ()
    #: The id of the last of them.
    last_id: str | None = None
    #: What to record of the slots between that are not run.
    record: Record | None = None


@dataclass(frozen=True, slots=True)
class Answer:
    """The answer to a claim: it was won, or where the entry stands instead."""

    won: bool
    standing: Standing | None = None


@dataclass(frozen=True, slots=True)
class Mark:
    """The end of a leased slot."""

    name: str
    slot: int
    record: Record


@dataclass(frozen=True, slots=True)
class Lease:
    """A leased slot and when its lease ends, by the store's clock."""

    name: str
    slot: int
    until: int


@dataclass(frozen=True, slots=True)
class Pulse:
    """What a scheduler learns twice a second."""

    #: Changes with every change of the run-time entries and pauses.
    version: int
    #: The store's own clock.
    now: int
    #: How many schedulers live.
    schedulers: int
    #: The first of the leases that have ended: their owners are dead, or cannot reach the broker.
    overdue: tuple[Lease, ...] = ()
