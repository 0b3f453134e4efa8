"""Chords in this process's memory, for tests and scripts: the rules of Redis, without a server."""

from __future__ import annotations

import threading
import time
from dataclasses import dataclass, field
from itertools import islice
from typing import TYPE_CHECKING

from amqflow.workflow.records import ADDED, Counted, Known, State, Verdict

if TYPE_CHECKING:
    from collections.abc import Sequence

    from amqflow.workflow.records import Counting, Ending, Record, Seal, Spec
    from amqflow.workflow.stores.open import Lifetimes


@dataclass(slots=True)
class _Chord:
    """One record; times are of the monotonic clock."""

    size: int | None
    spec: Spec | None
    base: int
    epoch: int
    until: float
    created: float
    state: State = State.OPEN
    fence: int = 0
    lease: float = 0.0
    why: int | None = None
    endings: dict[int, Ending] = field(default_factory=dict)
    added: dict[str, int] = field(default_factory=dict)

    @property
    def failed(self) -> int:
        """How many members have failed."""
        return sum(not ending.succeeded for ending in self.endings.values())

    @property
    def complete(self) -> bool:
        """Whether every member has ended."""
        return self.size is not None and len(self.endings) >= self.size + len(self.added)

    def take(self, ending: Ending) -> None:
        """Add one member's ending, the first of its epoch."""
        index = ending.index
        if index < ADDED:
            known = self.size is None or index < self.size
        else:
            known = index < ADDED + len(self.added)
        before = self.endings.get(index)
        if not known or (before is not None and ending.epoch <= before.epoch):
            return
        self.endings[index] = ending
        if not ending.succeeded:
            self.why = index
        elif self.why == index:
            self.why = None


class Chords:
    """The chords of one name, shared by every event loop and thread of the process."""

    def __init__(self) -> None:
        """Keep nothing yet."""
        self.lock = threading.Lock()
        self.chords: dict[str, _Chord] = {}

    def get(self, chord: str, now: float) -> _Chord | None:
        """Return a record that has not expired."""
        found = self.chords.get(chord)
        if found is not None and found.until <= now:
            del self.chords[chord]
            return None
        return found

    def sweep(self, now: float) -> None:
        """Drop what has expired, from the oldest on."""
        while self.chords:
            oldest = next(iter(self.chords))
            if self.chords[oldest].until > now:
                return
            del self.chords[oldest]


class MemoryChords:
    """A :class:`~amqflow.workflow.stores.seam.ChordStore` over :class:`Chords`."""

    def __init__(self, lifetimes: Lifetimes, chords: Chords | None = None) -> None:
        """Share ``chords`` with the process's other loops, or keep some of its own."""
        self._chords = Chords() if chords is None else chords
        self._lifetimes = lifetimes

    @property
    def kind(self) -> str:
        """The kind members name."""
        return "memory"

    async def open(self) -> None:
        """Do nothing: memory is there."""

    async def close(self) -> None:
        """Do nothing: the records stay."""

    async def create(self, records: Sequence[Record]) -> list[State]:
        """Write records that are not there."""
        return [self._create(record) for record in records]

    def _create(self, record: Record) -> State:
        now, epoch = time.monotonic(), record.spec.epoch
        with self._chords.lock:
            old = self._chords.get(record.id, now)
            if old is not None and old.base >= epoch:
                return old.state
            self._chords.sweep(now)
            until = now + self._lifetimes.record
            made = _Chord(record.size, record.spec, epoch, epoch, until, time.time())
            self._chords.chords[record.id] = made
            return made.state

    async def seal(self, seals: Sequence[Seal]) -> list[bool]:
        """Tell the sizes of chords."""
        return [self._seal(seal) for seal in seals]

    def _seal(self, seal: Seal) -> bool:
        with self._chords.lock:
            found = self._chords.get(seal.chord, time.monotonic())
            if found is None or found.state is State.FIRED:
                return False
            if found.size is None:
                found.size, found.spec = seal.size, seal.spec or found.spec
            return found.state is State.OPEN and found.complete

    async def extend(self, chord: str, task_id: str) -> int | None:
        """Add a member."""
        with self._chords.lock:
            found = self._chords.get(chord, time.monotonic())
            if found is None or (task_id not in found.added and found.state is not State.OPEN):
                return None
            return found.added.setdefault(task_id, ADDED + len(found.added))

    async def count(self, batch: Sequence[Counting]) -> list[Counted]:
        """Add endings to chords."""
        return [self._count(counting) for counting in batch]

    def _count(self, counting: Counting) -> Counted:
        now = time.monotonic()
        with self._chords.lock:
            chord = self._chords.get(counting.chord, now)
            if chord is None:
                return Counted(Verdict.GONE)
            if chord.state is State.FIRED:
                return Counted(Verdict.DONE)
            for ending in counting.endings:
                chord.take(ending)
            if chord.state is State.FAILED:
                if chord.failed:
                    return Counted(Verdict.DONE)
                chord.state, chord.lease, chord.epoch = State.OPEN, 0.0, chord.epoch + 1
                chord.until = now + self._lifetimes.record
            if chord.failed:
                verdict = Verdict.FAILED
            elif chord.complete:
                verdict = Verdict.READY
            else:
                return Counted(Verdict.WAITING)
            if chord.lease > now:
                return Counted(Verdict.BUSY)
            chord.lease = now + self._lifetimes.lease
            chord.fence += 1
            return Counted(verdict, chord.fence)

    async def load(self, chord: str, *, endings: bool) -> Known | None:
        """Return what is known of a chord."""
        with self._chords.lock:
            found = self._chords.get(chord, time.monotonic())
            return None if found is None else _known(chord, found, endings=endings)

    async def end(self, chord: str, fence: int, state: State, spec: Spec) -> bool:
        """Write that a chord has fired or failed."""
        now = time.monotonic()
        with self._chords.lock:
            found = self._chords.get(chord, now)
            if found is None or found.fence != fence:
                return False
            found.state, found.lease = state, 0.0
            found.until = now + self._lifetimes.tombstone
            if state is State.FIRED:
                found.endings, found.spec = {}, spec
            return True

    async def prolong(self, chords: Sequence[str]) -> None:
        """Keep records for another deadline."""
        now = time.monotonic()
        with self._chords.lock:
            for chord in chords:
                found = self._chords.get(chord, now)
                if found is not None:
                    found.until = now + self._lifetimes.record

    async def kept(self, limit: int, *, fired: bool = True) -> list[Known]:
        """Return chords that are kept."""
        now = time.monotonic()
        with self._chords.lock:
            found = (
                _known(chord, found, endings=False)
                for chord, found in reversed(self._chords.chords.items())
                if found.until > now and (fired or found.state is not State.FIRED)
            )
            return list(islice(found, limit))


def _known(chord: str, found: _Chord, *, endings: bool) -> Known:
    return Known(
        chord,
        found.state,
        found.spec,
        found.size,
        len(found.endings),
        found.failed,
        found.epoch,
        found.created,
        found.why,
        {index: task_id for task_id, index in found.added.items()},
        dict(found.endings) if endings else {},
    )
