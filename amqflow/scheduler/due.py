"""Which slots of an entry run now, and which are given up: the policies, as arithmetic."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import islice, takewhile
from typing import TYPE_CHECKING, Final

from amqflow.scheduler.entry import CatchUp, Overlap
from amqflow.schedules import slots_until, to_instant, to_ms

if TYPE_CHECKING:
    from amqflow.scheduler.entry import Entry

#: Seconds a slot may be late in normal operation: what a takeover, a reconnect or a busy machine
#: costs. Within them every slot runs, whatever ``catch_up`` says.
GRACE: Final = 5.0
#: Slots decided on at one time; what is left is decided right after.
MOST: Final = 500


@dataclass(frozen=True, slots=True)
class Gap:
    """Slots that are not run: from the first to the last, both milliseconds."""

    first: int
    last: int
    #: How many; the count stops at :data:`MOST`.
    count: int
    why: str
    #: ``missed`` or ``skipped``.
    what: str = "missed"


@dataclass(frozen=True, slots=True)
class Due:
    """What becomes of an entry's slots up to :attr:`cursor`; all in milliseconds."""

    run: tuple[int, ...]
    missed: Gap | None
    cursor: int


def due(entry: Entry, cursor: int, start: int, now: float, *, ahead: float = 0.0) -> Due | None:
    """Decide what becomes of the slots after ``cursor``, as of ``now``; None where none is due.

    Args:
        entry: The entry.
        cursor: Up to where all slots are decided, in milliseconds.
        start: Since when the entry is in force, in milliseconds.
        now: Unix seconds.
        ahead: Seconds after ``now`` whose slots are decided along with it.
    """
    since, begun, until = to_instant(cursor), to_instant(start), now + ahead
    slots = map(to_ms, slots_until(entry.schedule, since, until, start=begun))
    # With jitter a slot is due when its own delay is over; none goes before an earlier one.
    known = list(islice(takewhile(lambda slot: fires_at(entry, slot) <= until, slots), MOST))
    if not known:
        return None
    if len(known) < MOST or any(_wanted(entry, slot, now) for slot in known):
        return _judged(entry, known, now)
    return _many(entry, known, begun, now, until)


def fires_at(entry: Entry, slot: int) -> float:
    """Return when a slot is published, in Unix seconds: its instant and its share of jitter."""
    return to_instant(slot) + entry.delay_of(slot)


def _judged(entry: Entry, slots: list[int], now: float) -> Due:
    cursor = slots[-1]
    run = [slot for slot in slots if _wanted(entry, slot, now)]
    if not run and entry.catch_up is CatchUp.LAST and _in_time(entry, cursor, now):
        run = [cursor]
    if entry.overlap is Overlap.QUEUE and run:
        # One at a time: the next is decided when this one's task has ended.
        run = run[:1] if entry.catch_up is CatchUp.ALL else run[-1:]
        cursor = run[0]
    given_up = [slot for slot in slots if slot <= cursor and slot not in run]
    return Due(tuple(run), _gap(entry, given_up, now), cursor)


def _many(entry: Entry, slots: list[int], begun: float, now: float, until: float) -> Due:
    """Give up the slots of a long absence in one step, as far as none of them runs."""
    first = to_instant(slots[0])
    lateness = GRACE if entry.catch_up is not CatchUp.ALL else entry.max_lateness or 0.0
    # A slot that is late by just as much still runs.
    edge = now - entry.jitter - min(lateness, _bound(entry)) - 0.001
    latest = entry.schedule.latest(first, edge, start=begun)
    end = slots[0] if latest is None else to_ms(latest)
    if entry.catch_up is CatchUp.LAST and _in_time(entry, end, now):
        following = entry.schedule.next_after(to_instant(end), start=begun)
        if following is None or following > until:  # nothing fresh comes after it: it is the last
            before = entry.schedule.latest(first, to_instant(end - 1), start=begun)
            end_of_gap = slots[0] if before is None else to_ms(before)
            return Due((end,), Gap(slots[0], end_of_gap, MOST, _why(entry, end_of_gap, now)), end)
    return Due((), Gap(slots[0], end, MOST, _why(entry, end, now)), end)


def _bound(entry: Entry) -> float:
    return float("inf") if entry.max_lateness is None else entry.max_lateness


def _wanted(entry: Entry, slot: int, now: float) -> bool:
    """Whether a slot runs for itself, not as the last of many."""
    fresh = now - fires_at(entry, slot) <= GRACE
    return _in_time(entry, slot, now) and (fresh or entry.catch_up is CatchUp.ALL)


def _in_time(entry: Entry, slot: int, now: float) -> bool:
    return now - fires_at(entry, slot) <= _bound(entry)


def _gap(entry: Entry, slots: list[int], now: float) -> Gap | None:
    if not slots:
        return None
    return Gap(slots[0], slots[-1], len(slots), _why(entry, slots[-1], now))


def _why(entry: Entry, slot: int, now: float) -> str:
    if not _in_time(entry, slot, now):
        return f"later than max_lateness ({entry.max_lateness:g} s)"
    if entry.catch_up is CatchUp.NONE:
        return "passed while no scheduler could run it (catch_up: none)"
    return "a later slot runs in its place (catch_up: last)"
