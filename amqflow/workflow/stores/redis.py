"""Chords in Redis: two keys each, in one cluster slot; rules in :mod:`.scripts`."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any, Final

from amqflow.stores.redis import RedisClient
from amqflow.workflow.records import (
    ADDED,
    Counted,
    Ending,
    Known,
    Spec,
    State,
    Verdict,
)
from amqflow.workflow.stores.scripts import COUNT, CREATE, END, EXTEND, SEAL

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from amqflow.workflow.records import Counting, Record, Seal
    from amqflow.workflow.stores.open import Lifetimes

PREFIX: Final = "amqflow-chord-"
#: Sorted sets of chords by when they were made: all, and those that have not fired. Hints for
#: people and for revokes, apart from the chords' own slots; what counts is in the records.
EVERY: Final = "amqflow-chords"
OPEN: Final = "amqflow-chords-open"
#: How many chords one call creates, counts or reads.
_BATCH: Final = 256
_FIELDS: Final = ("state", "size", "failed", "epoch", "created", "why", "spec")
_VERDICTS: Final = {
    b"W": Verdict.WAITING,
    b"R": Verdict.READY,
    b"F": Verdict.FAILED,
    b"B": Verdict.BUSY,
    b"D": Verdict.DONE,
    b"G": Verdict.GONE,
}


def keys_of(chord: str) -> tuple[str, str]:
    """Return the keys of a record and of its members; the braces put both into one slot."""
    record = f"{PREFIX}{{{chord}}}"
    return record, f"{record}-members"


class RedisChords:
    """A :class:`~amqflow.workflow.stores.seam.ChordStore` in Redis."""

    def __init__(self, url: str, lifetimes: Lifetimes, *, deadline: float = 5.0) -> None:
        """Check the URL; :meth:`open` connects.

        Args:
            url: ``redis://``, ``rediss://`` or ``unix://``.
            lifetimes: How long records and leases live.
            deadline: Seconds any one exchange with Redis may take.
        """
        self._client = RedisClient(url, deadline=deadline)
        self._lease = round(lifetimes.lease * 1000)
        self._alive = round(lifetimes.record * 1000)
        self._after = round(lifetimes.tombstone * 1000)

    @property
    def kind(self) -> str:
        """The kind members name."""
        return "redis"

    async def open(self) -> None:
        """Prove that Redis answers."""
        await self._client.command("PING")

    async def close(self) -> None:
        """Close the connections."""
        await self._client.close()

    async def create(self, records: Sequence[Record]) -> list[State]:
        """Write records that are not there."""
        states: list[State] = []
        for start in range(0, len(records), _BATCH):
            answers = await self._client.run_each(
                CREATE,
                [
                    (
                        keys_of(record.id),
                        (
                            "" if record.size is None else record.size,
                            record.spec.epoch,
                            self._alive,
                            record.spec.to_json(),
                        ),
                    )
                    for record in records[start : start + _BATCH]
                ],
            )
            states += [State(answer.decode()) for answer in answers]
        if records:
            scored = [part for record in records for part in (f"{time.time():.3f}", record.id)]
            await self._client.pipeline(
                [("ZADD", key, "NX", *scored) for key in (EVERY, OPEN)]
                + [("PEXPIRE", key, self._alive) for key in (EVERY, OPEN)]
            )
        return states

    async def seal(self, seals: Sequence[Seal]) -> list[bool]:
        """Tell the sizes of chords."""
        answers = await self._client.run_each(
            SEAL,
            [
                (
                    keys_of(seal.chord),
                    (seal.size, b"" if seal.spec is None else seal.spec.to_json()),
                )
                for seal in seals
            ],
        )
        return [bool(answer) for answer in answers]

    async def extend(self, chord: str, task_id: str) -> int | None:
        """Add a member."""
        index = int(await self._client.run(EXTEND, keys_of(chord), (task_id,)))
        return None if index < 0 else index

    async def count(self, batch: Sequence[Counting]) -> list[Counted]:
        """Add endings to chords."""
        calls = []
        for counting in batch:
            arguments: list[str | bytes | int] = [self._lease, self._alive]
            for ending in counting.endings:
                arguments += (ending.index, ending.to_bytes())
            calls.append((keys_of(counting.chord), arguments))
        counted: list[Counted] = []
        for start in range(0, len(calls), _BATCH):
            answers = await self._client.run_each(COUNT, calls[start : start + _BATCH])
            counted += [Counted(_VERDICTS[answer[:1]], int(answer[1:] or 0)) for answer in answers]
        return counted

    async def load(self, chord: str, *, endings: bool) -> Known | None:
        """Return what is known of a chord."""
        record, members = keys_of(chord)
        last = ("HGETALL", members) if endings else ("HLEN", members)
        fields, found = await self._client.pipeline((("HGETALL", record), last))
        if not fields:
            return None
        known = {name.decode(): value for name, value in _pairs(fields)}
        if not endings:
            return _known(chord, known, ended=found)
        ended = {
            int(index): Ending.from_bytes(int(index), ending) for index, ending in _pairs(found)
        }
        return _known(chord, known, ended=len(ended), endings=ended)

    async def end(self, chord: str, fence: int, state: State, spec: Spec) -> bool:
        """Write that a chord has fired or failed."""
        arguments = (fence, state, self._after, spec.to_json())
        ended = bool(await self._client.run(END, keys_of(chord), arguments))
        if ended and state is State.FIRED:
            await self._client.command("ZREM", OPEN, chord)
        return ended

    async def prolong(self, chords: Sequence[str]) -> None:
        """Keep records for another deadline."""
        await self._client.pipeline(
            [("PEXPIRE", key, self._alive) for chord in chords for key in keys_of(chord)]
        )

    async def kept(self, limit: int, *, fired: bool = True) -> list[Known]:
        """Return chords that are kept, by the indices; what they name and is gone is left out."""
        key = EVERY if fired else OPEN
        _, found = await self._client.pipeline(
            (
                ("ZREMRANGEBYSCORE", key, "-inf", f"{time.time() - self._alive / 1000:.3f}"),
                ("ZREVRANGE", key, 0, limit - 1),
            )
        )
        chords = [chord.decode() for chord in found]
        loaded: list[Known] = []
        for start in range(0, len(chords), _BATCH):
            loaded += await self._looked_at(chords[start : start + _BATCH])
        return loaded

    async def _looked_at(self, chords: Sequence[str]) -> list[Known]:
        commands: list[tuple[str, str]] = []
        for chord in chords:
            record, members = keys_of(chord)
            commands += (("HGETALL", record), ("HLEN", members))
        answers = await self._client.pipeline(commands)
        return [
            _known(chord, {name.decode(): value for name, value in _pairs(fields)}, ended=ended)
            for chord, fields, ended in zip(chords, answers[::2], answers[1::2], strict=True)
            if fields
        ]


def _pairs(flat: Sequence[Any]) -> list[tuple[Any, Any]]:
    """Return fields and values of the flat list that RESP2 answers for a hash."""
    return list(zip(flat[::2], flat[1::2], strict=True))


def _known(
    chord: str,
    fields: Mapping[str, bytes],
    *,
    ended: int,
    endings: Mapping[int, Ending] | None = None,
) -> Known:
    state, size, failed, epoch, created, why, spec = (fields.get(name, b"") for name in _FIELDS)
    added = {
        int(value): name[1:]
        for name, value in fields.items()
        if name.startswith("+") and int(value) >= ADDED
    }
    return Known(
        chord,
        State(state.decode()),
        Spec.from_json(spec) if spec else None,
        int(size) if size else None,
        ended,
        int(failed),
        int(epoch),
        int(created) / 1000,
        int(why) if why else None,
        added,
        endings or {},
    )
