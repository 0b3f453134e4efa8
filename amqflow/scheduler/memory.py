"""Slots claimed in this process's memory: one scheduler, and the rules of Redis in tests."""

from __future__ import annotations

import time
from collections import deque
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final

from amqflow.scheduler.words import (
    CORRECTION,
    OVERDUE,
    Adoption,
    Answer,
    Claim,
    Lease,
    Mark,
    Pulse,
    Record,
    ScheduleStoreCapabilities,
    Standing,
    What,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

_CAPABILITIES: Final = ScheduleStoreCapabilities(shared=False, durable=False)


@dataclass(slots=True)
class _State:
    cursor: int
    start: int
    print: str
    last_id: str | None = None
    last_slot: int | None = None
    counts: dict[str, int] = field(default_factory=dict)


class MemoryScheduleStore:
    """A :class:`~amqflow.scheduler.store.ScheduleStore` that nobody else sees."""

    def __init__(self, *, history: int = 50, now: Callable[[], float] = time.time) -> None:
        """Know nothing yet.

        Args:
            history: Lines kept of each entry.
            now: The store's clock, Unix seconds.
        """
        self._keep = history
        self._now = now
        self._states: dict[str, _State] = {}
        self._paused: dict[str, int] = {}
        self._entries: dict[str, Mapping[str, Any]] = {}
        self._leases: dict[tuple[str, int], int] = {}
        self._histories: dict[str, deque[Record]] = {}
        self._owners: dict[str, int] = {}
        self._version = 0

    @property
    def capabilities(self) -> ScheduleStoreCapabilities:
        """Neither shared nor durable."""
        return _CAPABILITIES

    async def open(self) -> None:
        """Do nothing: memory is there."""

    async def close(self) -> None:
        """Do nothing: what is known stays as long as the store."""

    def _time(self) -> int:
        return round(self._now() * 1000)

    async def adopt(self, adoptions: Sequence[Adoption], now: int) -> list[Standing]:
        """Return where entries stand; see the Protocol."""
        return [self._adopt(adoption, now) for adoption in adoptions]

    def _adopt(self, adoption: Adoption, now: int) -> Standing:
        state = self._states.get(adoption.name)
        if state is None:
            state = self._states[adoption.name] = _State(now, now, adoption.print)
        elif state.print != adoption.print:
            state.print, state.start = adoption.print, now
            state.cursor = max(state.cursor, now)
        if state.cursor > max(now, self._time()) + CORRECTION:
            state.cursor = now
            state.start = min(state.start, now)
        return self._standing(adoption.name, state)

    def _standing(self, name: str, state: _State) -> Standing:
        return Standing(
            state.cursor,
            state.start,
            state.last_id,
            state.last_slot,
            self._paused.get(name),
            tuple(sorted(state.counts.items())),
        )

    async def standings(self, names: Sequence[str]) -> list[Standing | None]:
        """Return where entries stand."""
        return [self._known(name) for name in names]

    def _known(self, name: str) -> Standing | None:
        state = self._states.get(name)
        if state is None:
            paused = self._paused.get(name)
            return None if paused is None else Standing(0, 0, paused_at=paused)
        return self._standing(name, state)

    async def claim(self, claims: Sequence[Claim], owner: str, lease: int) -> list[Answer]:  # noqa: ARG002
        """Move cursors."""
        return [self._claim(claim, lease) for claim in claims]

    def _claim(self, claim: Claim, lease: int) -> Answer:
        state = self._states.get(claim.name)
        if state is None:
            return Answer(won=False)
        if state.cursor != claim.expected or claim.name in self._paused:
            return Answer(won=False, standing=self._standing(claim.name, state))
        state.cursor = claim.cursor
        if claim.run:
            state.last_id, state.last_slot = claim.last_id, claim.run[-1]
        until = self._time() + lease
        self._leases.update(dict.fromkeys(((claim.name, slot) for slot in claim.run), until))
        if claim.record is not None:
            self._write(claim.name, claim.record)
        return Answer(won=True)

    async def mark(self, marks: Sequence[Mark]) -> None:
        """End leases."""
        for mark in marks:
            if self._leases.pop((mark.name, mark.slot), None) is None:
                continue
            self._write(mark.name, mark.record)
            state = self._states.get(mark.name)
            if mark.record.what is What.FAILED and state and state.last_slot == mark.slot:
                state.last_id = None

    def _write(self, name: str, record: Record) -> None:
        history = self._histories.setdefault(name, deque(maxlen=self._keep))
        history.appendleft(record)
        if (state := self._states.get(name)) is not None:
            state.counts[record.what] = state.counts.get(record.what, 0) + record.count

    async def beat(self, owner: str, ttl: int) -> Pulse:
        """Say that ``owner`` lives."""
        now = self._time()
        self._owners[owner] = now + ttl
        self._owners = {name: until for name, until in self._owners.items() if until > now}
        return Pulse(self._version, now, len(self._owners), await self.overdue(0))

    async def overdue(self, skip: int) -> tuple[Lease, ...]:
        """Return leases that have ended."""
        now = self._time()
        ended = sorted((until, *key) for key, until in self._leases.items() if until <= now)
        page = ended[skip : skip + OVERDUE]
        return tuple(Lease(name, slot, until) for until, name, slot in page)

    async def take(self, leases: Sequence[Lease], lease: int) -> list[bool]:
        """Take over leases."""
        until, taken = self._time() + lease, []
        for known in leases:
            same = self._leases.get((known.name, known.slot)) == known.until
            if same:
                self._leases[known.name, known.slot] = until
            taken.append(same)
        return taken

    async def renew(self, slots: Sequence[tuple[str, int]], lease: int) -> None:
        """Extend leases."""
        until = self._time() + lease
        self._leases.update({slot: until for slot in slots if slot in self._leases})

    async def entries(self) -> dict[str, Mapping[str, Any]]:
        """Return the run-time entries."""
        return dict(self._entries)

    async def add(self, name: str, data: Mapping[str, Any], *, replace: bool) -> bool:
        """Keep an entry."""
        if name in self._entries and not replace:
            return False
        self._entries[name] = dict(data)
        self._states.pop(name, None)
        self._version += 1
        return True

    async def remove(self, name: str) -> bool:
        """Drop an entry."""
        known = name in self._entries or name in self._states
        self._entries.pop(name, None)
        self._states.pop(name, None)
        self._paused.pop(name, None)
        self._histories.pop(name, None)
        self._version += 1
        return known

    async def pause(self, name: str, now: int) -> bool:
        """Pause an entry."""
        if name in self._paused:
            return False
        self._paused[name] = now
        self._version += 1
        return True

    async def resume(self, name: str, now: int) -> bool:
        """End a pause."""
        if self._paused.pop(name, None) is None:
            return False
        if (state := self._states.get(name)) is not None:
            state.cursor = max(state.cursor, now)
        self._version += 1
        return True

    async def note(self, name: str, record: Record) -> None:
        """Write one line of history."""
        self._write(name, record)

    async def history(self, name: str, limit: int) -> list[Record]:
        """Return an entry's history, newest first."""
        return list(self._histories.get(name, ()))[:limit]
