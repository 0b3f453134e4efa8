"""The seam to where slots are claimed: the store's words, its Protocol, and which one a URL names.

Every entry has a *cursor*: up to that instant all its slots are decided. Whoever moves it, by
comparing and setting, owns the slots in between: runs them, or records them as missed. Slots to
run are *leased* until they are marked; a lease nobody renews is taken over by another scheduler.
Instants are whole milliseconds.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final, Protocol

from amqflow.rendezvous import is_embedded, name_of
from amqflow.scheduler.memory import MemoryScheduleStore
from amqflow.scheduler.served import ServedScheduleStore

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

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


class ScheduleStore(Protocol):
    """Where slots are claimed and run-time entries live. One instance lives in one event loop.

    Every method raises :class:`~amqflow.errors.StoreUnavailable` when the store cannot be used
    now, and every method may be called again after it: what was done once is not done twice.
    """

    @property
    def capabilities(self) -> ScheduleStoreCapabilities:
        """What this store can do."""
        ...

    async def open(self) -> None:
        """Connect, or raise StoreUnavailable."""
        ...

    async def close(self) -> None:
        """Release connections."""
        ...

    async def adopt(self, adoptions: Sequence[Adoption], now: int) -> list[Standing]:
        """Return where entries stand; one that is new, or has a new schedule, starts ``now``.

        A cursor more than three hours ahead of ``now``, and of the store's own clock, is one a
        wrong clock left behind: it is set back to ``now``.
        """
        ...

    async def standings(self, names: Sequence[str]) -> list[Standing | None]:
        """Return where entries stand, for people; None for one that was never adopted."""
        ...

    async def claim(self, claims: Sequence[Claim], owner: str, lease: int) -> list[Answer]:
        """Move cursors; an answer that is not ``won`` carries where the entry stands instead."""
        ...

    async def mark(self, marks: Sequence[Mark]) -> None:
        """End leases with what became of each slot."""
        ...

    async def beat(self, owner: str, ttl: int) -> Pulse:
        """Say that ``owner`` lives; return what a scheduler must know twice a second."""
        ...

    async def overdue(self, skip: int) -> tuple[Lease, ...]:
        """Return leases that have ended, the longest ended first, after so many of them."""
        ...

    async def take(self, leases: Sequence[Lease], lease: int) -> list[bool]:
        """Take over leases that are still as overdue as they were when they were seen."""
        ...

    async def renew(self, slots: Sequence[tuple[str, int]], lease: int) -> None:
        """Extend leases that are still there."""
        ...

    async def entries(self) -> dict[str, Mapping[str, Any]]:
        """Return the entries that were added at run time, as data by name."""
        ...

    async def add(self, name: str, data: Mapping[str, Any], *, replace: bool) -> bool:
        """Keep an entry, which starts anew; False where it is there and ``replace`` is not said."""
        ...

    async def remove(self, name: str) -> bool:
        """Drop an entry and all that is known of it; False where nothing was."""
        ...

    async def pause(self, name: str, now: int) -> bool:
        """Let no slot of an entry be claimed; False where it is paused already."""
        ...

    async def resume(self, name: str, now: int) -> bool:
        """End a pause; slots that passed meanwhile are not made up for. False: it was none."""
        ...

    async def note(self, name: str, record: Record) -> None:
        """Write one line into an entry's history."""
        ...

    async def history(self, name: str, limit: int) -> list[Record]:
        """Return an entry's history, newest first."""
        ...


#: Schemes of ``backend=`` whose store all schedulers share.
SHARED: Final = frozenset({"redis", "rediss", "unix"})


def open_schedule_store(url: str | None, app_name: str, *, history: int) -> ScheduleStore:
    """Return the schedule store beside a result store; ``await store.open()`` connects.

    Args:
        url: The result backend's; one that schedulers cannot share gives a store in memory.
        app_name: Schedulers of one application share its entries.
        history: Lines kept of each entry.
    """
    scheme = (url or "").partition("://")[0].lower()
    if url is not None and is_embedded(url):
        return ServedScheduleStore(name_of(url), app_name, history=history)
    if url is None or scheme not in SHARED:
        return MemoryScheduleStore(history=history)
    # redis-py is an extra, and importing it takes time.
    from amqflow.scheduler.redis import RedisScheduleStore  # noqa: PLC0415

    return RedisScheduleStore(url, app_name, history=history)
