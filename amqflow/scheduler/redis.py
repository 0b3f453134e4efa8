"""Slots claimed in Redis: what any number of schedulers share.

Layout and rules: see :mod:`amqflow.scheduler.scripts`.
"""

from __future__ import annotations

import asyncio
import json
from typing import TYPE_CHECKING, Any, Final

from amqflow.errors import StoreError
from amqflow.scheduler import scripts
from amqflow.scheduler.words import (
    CORRECTION,
    OVERDUE,
    Answer,
    Lease,
    Pulse,
    Record,
    ScheduleStoreCapabilities,
    Standing,
    What,
)
from amqflow.stores.redis import RedisClient

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from amqflow.scheduler.words import Adoption, Claim, Mark

_CAPABILITIES: Final = ScheduleStoreCapabilities(shared=True, durable=True)
#: Entries of one script call: a script holds up everybody else on the server.
_BATCH: Final = 250
_COUNTS: Final = tuple(map(str, What))
_WON: Final = Answer(won=True)

Argument = str | bytes | int


class RedisScheduleStore:
    """A :class:`~amqflow.scheduler.store.ScheduleStore` in Redis, for one event loop."""

    def __init__(
        self, url: str, app_name: str, *, history: int = 50, deadline: float = 5.0
    ) -> None:
        """Check the URL; :meth:`open` connects.

        Args:
            url: ``redis://``, ``rediss://`` or ``unix://``.
            app_name: Schedulers of one name share entries and slots.
            history: Lines kept of each entry.
            deadline: Seconds any one exchange may take.
        """
        self._client = RedisClient(url, deadline=deadline)
        # One hash tag: a script's keys must lie in one slot of a cluster.
        self._prefix = f"{{amqflow-beat:{app_name}}}"
        self._keep = history
        self._version = f"{self._prefix}:version"
        self._entries = f"{self._prefix}:entries"
        self._leases = f"{self._prefix}:leases"
        self._schedulers = f"{self._prefix}:schedulers"

    @property
    def capabilities(self) -> ScheduleStoreCapabilities:
        """Shared, durable."""
        return _CAPABILITIES

    async def open(self) -> None:
        """Prove that Redis answers.

        Raises:
            StoreUnavailable: It does not, or takes no writes now.
            StoreError: It refused us (wrong password, no permission).
        """
        await self._client.command("PING")

    async def close(self) -> None:
        """Close the connections."""
        await self._client.close()

    def _entry(self, name: str) -> str:
        return f"{self._prefix}:entry:{name}"

    def _history(self, name: str) -> str:
        return f"{self._prefix}:history:{name}"

    # -- slots -----------------------------------------------------------------------------

    async def adopt(self, adoptions: Sequence[Adoption], now: int) -> list[Standing]:
        """Return where entries stand; see the Protocol."""
        found: list[Standing] = []
        for start in range(0, len(adoptions), _BATCH):
            batch = adoptions[start : start + _BATCH]
            answers = await self._client.run(
                scripts.ADOPT,
                [self._entry(adoption.name) for adoption in batch],
                (now, CORRECTION, *(adoption.print for adoption in batch)),
            )
            found += [standing for row in answers if (standing := _standing(row)) is not None]
        return found

    async def standings(self, names: Sequence[str]) -> list[Standing | None]:
        """Return where entries stand."""
        found: list[Standing | None] = []
        for start in range(0, len(names), _BATCH):
            batch = names[start : start + _BATCH]
            rows = await self._client.run(scripts.STANDINGS, [*map(self._entry, batch)], ())
            found += map(_standing, rows)
        return found

    async def claim(self, claims: Sequence[Claim], owner: str, lease: int) -> list[Answer]:  # noqa: ARG002
        """Move cursors, in batches that are under way together."""
        batches = [claims[start : start + _BATCH] for start in range(0, len(claims), _BATCH)]
        answers = await asyncio.gather(*(self._claim(batch, lease) for batch in batches))
        return [answer for batch in answers for answer in batch]

    async def _claim(self, claims: Sequence[Claim], lease: int) -> list[Answer]:
        keys = [self._leases]
        arguments: list[Argument] = [lease, self._keep]
        for claim in claims:
            keys += (self._entry(claim.name), self._history(claim.name))
            arguments += (claim.name, claim.expected, claim.cursor, claim.last_id or "")
            arguments.append(" ".join(map(str, claim.run)))
            record = claim.record
            if record is None:
                arguments += ("", 0, "")
            else:
                arguments += (record.what, record.count, _written(record))
        return [_answer(row) for row in await self._client.run(scripts.CLAIM, keys, arguments)]

    async def mark(self, marks: Sequence[Mark]) -> None:
        """End leases."""
        for start in range(0, len(marks), _BATCH):
            keys = [self._leases]
            arguments: list[Argument] = [self._keep]
            for mark in marks[start : start + _BATCH]:
                keys += (self._entry(mark.name), self._history(mark.name))
                arguments += (mark.name, mark.slot, mark.record.what, _written(mark.record))
            await self._client.run(scripts.MARK, keys, arguments)

    async def beat(self, owner: str, ttl: int) -> Pulse:
        """Say that ``owner`` lives."""
        version, now, schedulers, overdue = await self._client.run(
            scripts.BEAT,
            (self._version, self._leases, self._schedulers),
            (owner, ttl, OVERDUE),
        )
        return Pulse(int(version), int(now), schedulers, _leases(overdue))

    async def overdue(self, skip: int) -> tuple[Lease, ...]:
        """Return leases that have ended."""
        return _leases(await self._client.run(scripts.ENDED, (self._leases,), (skip, OVERDUE)))

    async def take(self, leases: Sequence[Lease], lease: int) -> list[bool]:
        """Take over leases."""
        arguments: list[Argument] = [lease]
        for known in leases:
            arguments += (_member(known.name, known.slot), known.until)
        answer = await self._client.run(scripts.TAKE, (self._leases,), arguments)
        return [taken == 1 for taken in answer]

    async def renew(self, slots: Sequence[tuple[str, int]], lease: int) -> None:
        """Extend leases."""
        for start in range(0, len(slots), _BATCH):
            members = [_member(*slot) for slot in slots[start : start + _BATCH]]
            await self._client.run(scripts.RENEW, (self._leases,), (lease, *members))

    # -- entries ---------------------------------------------------------------------------

    async def entries(self) -> dict[str, Mapping[str, Any]]:
        """Return the run-time entries.

        Raises:
            StoreError: What is kept there is no entry.
        """
        answer = await self._client.command("HGETALL", self._entries)
        return {
            name.decode(): _read(name.decode(), data)
            for name, data in zip(answer[::2], answer[1::2], strict=True)
        }

    async def add(self, name: str, data: Mapping[str, Any], *, replace: bool) -> bool:
        """Keep an entry."""
        keys = (self._version, self._entries, self._entry(name))
        arguments = (name, json.dumps(data), int(replace))
        return bool(await self._client.run(scripts.ADD, keys, arguments))

    async def remove(self, name: str) -> bool:
        """Drop an entry and all that is known of it."""
        keys = (self._version, self._entries, self._entry(name), self._history(name))
        return bool(await self._client.run(scripts.REMOVE, keys, (name,)))

    async def pause(self, name: str, now: int) -> bool:
        """Pause an entry."""
        keys = (self._version, self._entry(name))
        return bool(await self._client.run(scripts.PAUSE, keys, (now,)))

    async def resume(self, name: str, now: int) -> bool:
        """End a pause."""
        keys = (self._version, self._entry(name))
        return bool(await self._client.run(scripts.RESUME, keys, (now,)))

    async def note(self, name: str, record: Record) -> None:
        """Write one line of history."""
        await self._client.run(
            scripts.NOTE,
            (self._entry(name), self._history(name)),
            (record.what, record.count, _written(record), self._keep),
        )

    async def history(self, name: str, limit: int) -> list[Record]:
        """Return an entry's history, newest first."""
        lines = await self._client.command("LRANGE", self._history(name), 0, limit - 1)
        return [Record.read(json.loads(line)) for line in lines]


def _member(name: str, slot: int) -> str:
    return f"{slot} {name}"


def _leases(told: Sequence[bytes]) -> tuple[Lease, ...]:
    return tuple(map(_lease, told[::2], told[1::2]))


def _lease(member: bytes, until: bytes) -> Lease:
    slot, _, name = member.decode().partition(" ")
    return Lease(name, int(slot), int(float(until)))


def _written(record: Record) -> str:
    return json.dumps(record.data(), separators=(",", ":"))


def _answer(row: Any) -> Answer:
    return _WON if row == b"1" else Answer(won=False, standing=_standing(row))


def _standing(row: Any) -> Standing | None:
    if row is None or (row[0] is None and row[4] is None):
        return None
    cursor, start, last_id, last_slot, paused, *counts = row
    return Standing(
        int(cursor or 0),
        int(start or 0),
        last_id.decode() if last_id else None,
        int(last_slot) if last_slot else None,
        int(paused) if paused else None,
        tuple(sorted((what, int(n)) for what, n in zip(_COUNTS, counts, strict=True) if n)),
    )


def _read(name: str, data: bytes) -> Mapping[str, Any]:
    try:
        found = json.loads(data)
    except ValueError as error:
        raise StoreError(f"what the store keeps as entry {name!r} is no JSON: {error}") from error
    if not isinstance(found, dict):
        raise StoreError(f"what the store keeps as entry {name!r} is no entry")
    return found
