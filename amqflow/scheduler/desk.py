"""What people do with entries at run time: list, add, remove, pause, resume, run, look ahead."""

from __future__ import annotations

from dataclasses import dataclass
from difflib import get_close_matches
from typing import TYPE_CHECKING, Any

from amqflow.errors import ScheduleError
from amqflow.protocol import new_id
from amqflow.scheduler.declared import check_entry, declared_entries
from amqflow.scheduler.due import fires_at
from amqflow.scheduler.entry import Entry
from amqflow.scheduler.publish import call_of
from amqflow.scheduler.store import open_schedule_store
from amqflow.scheduler.words import Record, What
from amqflow.schedules import slots_after, to_instant, to_ms, zone_named

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from amqflow.app import App
    from amqflow.scheduler.store import ScheduleStore
    from amqflow.scheduler.words import Standing

#: What ``source`` says of an entry that was added at run time.
KEPT = "the store"


@dataclass(frozen=True, slots=True)
class Known:
    """An entry and where it stands; no scheduler has seen it where ``standing`` is None."""

    entry: Entry
    standing: Standing | None

    @property
    def paused(self) -> bool:
        """Whether it is paused."""
        return self.standing is not None and self.standing.paused_at is not None

    def slots(self, now: float) -> Iterator[tuple[float, float]]:
        """Yield the coming slots and when each is published, in Unix seconds.

        Raises:
            ScheduleError: The schedule, one of the user's own making, failed.
        """
        standing = self.standing
        seen = standing is not None and standing.cursor > 0
        start = to_instant(standing.start) if standing is not None and seen else now
        after = max(now, to_instant(standing.cursor)) if standing is not None and seen else now
        try:
            for slot in slots_after(self.entry.schedule, after, start=start):
                yield slot, fires_at(self.entry, to_ms(slot))
        except Exception as error:
            raise ScheduleError(
                f"{self.entry.source}: entry {self.entry.name!r}: its schedule failed: "
                f"{type(error).__name__}: {error}"
            ) from error


class Desk:
    """One application's entries, over the store its schedulers use."""

    def __init__(self, app: App, store: ScheduleStore | None = None) -> None:
        """Read what the application declares.

        Raises:
            ScheduleError: An entry is wrong.
        """
        settings = app.conf.settings
        self._app = app
        self._store = store or open_schedule_store(
            app.backend_url, app.main, history=settings.beat_history
        )
        self._declared = declared_entries(app)
        self._zone = zone_named(settings.timezone)

    @property
    def shared(self) -> bool:
        """Whether schedulers of other processes see what is done here."""
        return self._store.capabilities.shared

    async def close(self) -> None:
        """Close the store's connections."""
        await self._store.close()

    async def known(self) -> list[Known]:
        """Return all entries, those of the application first, and where they stand."""
        kept = await self._kept() if self.shared else {}
        entries = [*self._declared.values(), *kept.values()]
        standings = await self._store.standings([entry.name for entry in entries])
        return [Known(*pair) for pair in zip(entries, standings, strict=True)]

    async def schedulers(self) -> int:
        """Return how many schedulers live."""
        return (await self._store.beat("", 0)).schedulers

    async def one(self, name: str) -> Known:
        """Return one entry.

        Raises:
            ScheduleError: There is none of this name; the message says which are near.
        """
        known = await self.known()
        for found in known:
            if found.entry.name == name:
                return found
        near = get_close_matches(name, [found.entry.name for found in known], n=1)
        hint = f"; did you mean {near[0]!r}?" if near else ""
        raise ScheduleError(f"there is no entry {name!r}{hint}")

    async def add(self, name: str, given: Mapping[str, Any], *, replace: bool) -> Entry:
        """Keep an entry in the store; schedulers serve it within a second.

        Raises:
            ScheduleError: It cannot work, or the name is taken.
        """
        self._need_sharing("add")
        if name in self._declared:
            raise ScheduleError(
                f"the application declares an entry {name!r} ({self._declared[name].source}); "
                "change it there, or choose another name"
            )
        entry = Entry.read(name, given, self._zone, KEPT)
        check_entry(self._app, entry)
        now = self._app.clock.now()
        if entry.schedule.next_after(now, start=now) is None:
            raise ScheduleError(f"entry {name!r} would never be due: {entry.schedule} has passed")
        # With its zone: the application's may change, or another's scheduler may serve it.
        if not await self._store.add(name, entry.data(), replace=replace):
            raise ScheduleError(f"there is an entry {name!r} already; --replace changes it")
        return entry

    async def remove(self, name: str) -> None:
        """Drop a run-time entry and its history.

        Raises:
            ScheduleError: There is none, or the application declares it.
        """
        self._need_sharing("remove")
        if name in self._declared:
            raise ScheduleError(
                f"the application declares entry {name!r} ({self._declared[name].source}); remove "
                f"it there, or: amqflow beat pause {name}"
            )
        if not await self._store.remove(name):
            await self.one(name)

    async def pause(self, name: str) -> bool:
        """Let no slot run until :meth:`resume`; False where it was paused already."""
        self._need_sharing("pause")
        await self.one(name)
        return await self._store.pause(name, to_ms(self._app.clock.now()))

    async def resume(self, name: str) -> bool:
        """End a pause; what passed meanwhile is not made up for. False: it was not paused."""
        self._need_sharing("resume")
        await self.one(name)
        return await self._store.resume(name, to_ms(self._app.clock.now()))

    async def run_now(self, name: str) -> str:
        """Publish the entry's task once, besides its slots, and return the task's id."""
        entry = (await self.one(name)).entry
        now = to_ms(self._app.clock.now())
        sent = await self._app.send_call(call_of(self._app, entry, new_id(), now))
        if self.shared:
            await self._store.note(name, Record(What.MANUAL, now, now, id=sent.id))
        return sent.id

    async def history(self, name: str, limit: int) -> list[Record]:
        """Return what became of an entry's slots, newest first."""
        await self.one(name)
        return await self._store.history(name, limit)

    async def _kept(self) -> dict[str, Entry]:
        return {
            name: Entry.read(name, data, self._zone, KEPT)
            for name, data in (await self._store.entries()).items()
            if name not in self._declared
        }

    def _need_sharing(self, verb: str) -> None:
        if not self.shared:
            raise ScheduleError(
                f"{verb} needs a store that the schedulers share: set backend=, such as "
                "redis://localhost:6379/0"
            )
