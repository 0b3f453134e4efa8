"""Schedules of ``embedded://``: in the memory of the process that serves it, for all that join.

The rules are those of :mod:`.memory`; only the wire is here.
"""

from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING, Any, Final

from amqflow.scheduler.memory import MemoryScheduleStore
from amqflow.scheduler.words import (
    Adoption,
    Answer,
    Claim,
    Lease,
    Mark,
    Pulse,
    Record,
    ScheduleStoreCapabilities,
    Standing,
)
from amqflow.stores.embedded import EmbeddedClient

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Mapping, Sequence

    from amqflow.stores.server import Method

_PREFIX: Final = "schedule."
_CAPABILITIES: Final = ScheduleStoreCapabilities(shared=True, durable=False)


class ServedScheduleStore:
    """A :class:`~amqflow.scheduler.store.ScheduleStore` in the process that serves a name."""

    def __init__(self, name: str, app_name: str, *, history: int = 50) -> None:
        """Keep the name; :meth:`open` connects.

        Args:
            name: Of ``embedded://name``.
            app_name: Schedulers of one application share its entries.
            history: Lines kept of each entry.
        """
        self._client = EmbeddedClient(name)
        self._owner: list[Any] = [app_name, history]

    @property
    def capabilities(self) -> ScheduleStoreCapabilities:
        """Shared; gone with the process that serves it."""
        return _CAPABILITIES

    async def open(self) -> None:
        """Connect, or raise StoreUnavailable."""
        await self._client.open()

    async def close(self) -> None:
        """Disconnect."""
        await self._client.close()

    async def adopt(self, adoptions: Sequence[Adoption], now: int) -> list[Standing]:
        """Return where entries stand."""
        found = await self._call("adopt", [asdict(one) for one in adoptions], now)
        return [_standing(one) for one in found]

    async def standings(self, names: Sequence[str]) -> list[Standing | None]:
        """Return where entries stand, for people."""
        found = await self._call("standings", list(names))
        return [None if one is None else _standing(one) for one in found]

    async def claim(self, claims: Sequence[Claim], owner: str, lease: int) -> list[Answer]:
        """Move cursors."""
        packed = [asdict(one) | {"record": _packed(one.record)} for one in claims]
        answers = await self._call("claim", packed, owner, lease)
        return [
            Answer(won, None if standing is None else _standing(standing))
            for won, standing in answers
        ]

    async def mark(self, marks: Sequence[Mark]) -> None:
        """End leases with what became of each slot."""
        await self._call("mark", [[one.name, one.slot, _packed(one.record)] for one in marks])

    async def beat(self, owner: str, ttl: int) -> Pulse:
        """Say that ``owner`` lives."""
        found = await self._call("beat", owner, ttl)
        return Pulse(**{**found, "overdue": tuple(Lease(**one) for one in found["overdue"])})

    async def overdue(self, skip: int) -> tuple[Lease, ...]:
        """Return leases that have ended."""
        return tuple(Lease(**one) for one in await self._call("overdue", skip))

    async def take(self, leases: Sequence[Lease], lease: int) -> list[bool]:
        """Take over leases that are overdue."""
        return list(await self._call("take", [asdict(one) for one in leases], lease))

    async def renew(self, slots: Sequence[tuple[str, int]], lease: int) -> None:
        """Extend leases."""
        await self._call("renew", list(slots), lease)

    async def entries(self) -> dict[str, Mapping[str, Any]]:
        """Return the entries that were added at run time."""
        return dict(await self._call("entries"))

    async def add(self, name: str, data: Mapping[str, Any], *, replace: bool) -> bool:
        """Keep an entry."""
        return bool(await self._call("add", name, dict(data), replace))

    async def remove(self, name: str) -> bool:
        """Drop an entry."""
        return bool(await self._call("remove", name))

    async def pause(self, name: str, now: int) -> bool:
        """Let no slot of an entry be claimed."""
        return bool(await self._call("pause", name, now))

    async def resume(self, name: str, now: int) -> bool:
        """End a pause."""
        return bool(await self._call("resume", name, now))

    async def note(self, name: str, record: Record) -> None:
        """Write one line into an entry's history."""
        await self._call("note", name, _packed(record))

    async def history(self, name: str, limit: int) -> list[Record]:
        """Return an entry's history, newest first."""
        return [Record.read(one) for one in await self._call("history", name, limit)]

    async def _call(self, method: str, *arguments: Any) -> Any:
        return await self._client.call(_PREFIX + method, [self._owner, *arguments])


def methods() -> dict[str, Method]:
    """Return the other end: what a :class:`~amqflow.stores.server.StoreServer` does for clients.

    One memory per application, made when it is first asked for.
    """
    stores: dict[str, MemoryScheduleStore] = {}

    def with_store(answer: Callable[..., Awaitable[Any]]) -> Method:
        def method(payload: Any) -> Awaitable[Any]:
            (app_name, history), *arguments = payload
            store = stores.setdefault(app_name, MemoryScheduleStore(history=history))
            return answer(store, *arguments)

        return method

    return {_PREFIX + name: with_store(answer) for name, answer in _ANSWERS.items()}


async def _adopt(store: MemoryScheduleStore, adoptions: Any, now: int) -> Any:
    return [asdict(one) for one in await store.adopt([Adoption(**one) for one in adoptions], now)]


async def _standings(store: MemoryScheduleStore, names: Any) -> Any:
    return [None if one is None else asdict(one) for one in await store.standings(names)]


async def _claim(store: MemoryScheduleStore, claims: Any, owner: str, lease: int) -> Any:
    wanted = [
        Claim(**{**one, "run": tuple(one["run"]), "record": _record(one["record"])})
        for one in claims
    ]
    answers = await store.claim(wanted, owner, lease)
    return [[one.won, None if one.standing is None else asdict(one.standing)] for one in answers]


async def _mark(store: MemoryScheduleStore, marks: Any) -> None:
    await store.mark([Mark(name, slot, Record.read(record)) for name, slot, record in marks])


async def _beat(store: MemoryScheduleStore, owner: str, ttl: int) -> Any:
    return asdict(await store.beat(owner, ttl))


async def _overdue(store: MemoryScheduleStore, skip: int) -> Any:
    return [asdict(one) for one in await store.overdue(skip)]


async def _take(store: MemoryScheduleStore, leases: Any, lease: int) -> Any:
    return await store.take([Lease(**one) for one in leases], lease)


async def _renew(store: MemoryScheduleStore, slots: Any, lease: int) -> None:
    await store.renew([(name, slot) for name, slot in slots], lease)


async def _entries(store: MemoryScheduleStore) -> Any:
    return dict(await store.entries())


async def _add(store: MemoryScheduleStore, name: str, data: Any, replace: Any) -> Any:
    return await store.add(name, data, replace=bool(replace))


async def _remove(store: MemoryScheduleStore, name: str) -> Any:
    return await store.remove(name)


async def _pause(store: MemoryScheduleStore, name: str, now: int) -> Any:
    return await store.pause(name, now)


async def _resume(store: MemoryScheduleStore, name: str, now: int) -> Any:
    return await store.resume(name, now)


async def _note(store: MemoryScheduleStore, name: str, record: Any) -> None:
    await store.note(name, Record.read(record))


async def _history(store: MemoryScheduleStore, name: str, limit: int) -> Any:
    return [one.data() for one in await store.history(name, limit)]


_ANSWERS: Final[Mapping[str, Callable[..., Awaitable[Any]]]] = {
    "adopt": _adopt,
    "standings": _standings,
    "claim": _claim,
    "mark": _mark,
    "beat": _beat,
    "overdue": _overdue,
    "take": _take,
    "renew": _renew,
    "entries": _entries,
    "add": _add,
    "remove": _remove,
    "pause": _pause,
    "resume": _resume,
    "note": _note,
    "history": _history,
}


def _packed(record: Record | None) -> dict[str, Any] | None:
    return None if record is None else record.data()


def _record(packed: Any) -> Record | None:
    return None if packed is None else Record.read(packed)


def _standing(found: Any) -> Standing:
    return Standing(**{**found, "counts": tuple((what, count) for what, count in found["counts"])})
