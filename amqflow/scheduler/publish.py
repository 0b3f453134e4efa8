"""Publishes claimed slots under confirm, again with the same id until it is known how it went."""

from __future__ import annotations

import asyncio
from collections import Counter, deque
from dataclasses import dataclass
from datetime import timedelta
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from amqflow import signals
from amqflow.backoff import Backoff
from amqflow.canvas.call import build_call
from amqflow.clock import to_datetime
from amqflow.errors import (
    BrokerUnavailable,
    ChannelLost,
    NotFound,
    PublishNacked,
    PublishTimeout,
    StoreError,
    Unroutable,
)
from amqflow.logs import get_logger
from amqflow.protocol import headers as h
from amqflow.scheduler.due import fires_at
from amqflow.scheduler.entry import task_id_of
from amqflow.scheduler.gates import Gates
from amqflow.scheduler.words import Mark, Record, What
from amqflow.schedules import to_instant, to_ms

if TYPE_CHECKING:
    from collections.abc import Callable

    from amqflow.abc import Call
    from amqflow.app import App
    from amqflow.scheduler.entry import Entry
    from amqflow.scheduler.store import ScheduleStore

log = get_logger("amqflow.scheduler")

#: Seconds marks are collected: one call for all of a burst, when the burst is over.
_GATHER: Final = 0.2
#: Slots whose messages are made in one turn of the loop: what is due meanwhile need not wait.
_AT_ONCE: Final = 16
#: Seconds a slot whose queue is not there is tried again.
_PATIENCE: Final = 30.0
#: Seconds without a confirm after which nothing more is claimed: a slot that is not claimed yet can
#: still be judged by its entry's max_lateness.
_STALL: Final = 1.5
#: The broker is away or does not answer: whoever else is due would meet the same.
_AWAY: Final = (BrokerUnavailable, ChannelLost, PublishTimeout)


class _End(NamedTuple):
    """How a slot ended. A record is made of it when it is written: a burst has no time for it."""

    entry: str
    slot: int
    what: What
    #: Unix seconds.
    at: float
    task_id: str
    why: str | None = None


@dataclass(frozen=True, slots=True)
class _Slot:
    entry: Entry
    slot: int
    #: When it is published, in Unix seconds.
    due: float

    @property
    def key(self) -> tuple[str, int]:
        return self.entry.name, self.slot


class Publisher:
    """The slots this scheduler has claimed and not marked yet."""

    def __init__(
        self, app: App, store: ScheduleStore, owner: str, on_free: Callable[[], None]
    ) -> None:
        """Publish for ``app``, mark in ``store``.

        Args:
            app: The application; its producer is the one way out.
            store: Where slots are marked.
            owner: This scheduler's name, for the history.
            on_free: Called when the broker answers again after it was away.
        """
        self._app, self._store, self._owner = app, store, owner
        self._on_free = on_free
        self._loop = asyncio.get_running_loop()
        self._work: set[asyncio.Task[None]] = set()
        #: Slots whose publishing is to begin.
        self._beginning: deque[_Slot] = deque()
        #: When each slot's publishing began, by the loop's clock.
        self._since: dict[tuple[str, int], float] = {}
        self._of_entry: Counter[str] = Counter()
        self._away: set[tuple[str, int]] = set()
        #: Since when each publish waits for its confirm, the oldest about first, by the loop's
        #: clock; what is not due yet from when it is.
        self._sending: dict[tuple[str, int], float] = {}
        #: What became of slots and is not in the store yet.
        self._ends: list[_End] = []
        self._marking: asyncio.Task[None] | None = None
        self._gates = Gates(app.clock)
        self._closing = asyncio.Event()
        self.published = 0
        #: Slots given up because this scheduler stops.
        self._left = 0

    def __len__(self) -> int:
        return len(self._since)

    def __contains__(self, key: object) -> bool:
        return key in self._since

    def of(self, name: str) -> int:
        """Return how many slots of an entry are under way."""
        return self._of_entry[name]

    @property
    def away(self) -> bool:
        """Whether the broker is away, as far as is known."""
        return bool(self._away)

    @property
    def stalled(self) -> bool:
        """Whether nothing more is to be claimed: the broker is away, or does not keep up."""
        if self._away:
            return True
        oldest = next(iter(self._sending.values()), None)
        return oldest is not None and self._loop.time() - oldest > _STALL

    def held(self, younger_than: float) -> list[tuple[str, int]]:
        """Return the slots whose publishing began less than so many seconds ago."""
        edge = self._loop.time() - younger_than
        return [key for key, since in self._since.items() if since > edge]

    def start(self, entry: Entry, slot: int) -> None:
        """Begin to publish one claimed slot."""
        known = _Slot(entry, slot, fires_at(entry, slot))
        if known.key in self._since:
            return
        self._since[known.key] = now = self._loop.time()
        self._sending[known.key] = now + max(0.0, known.due - self._app.clock.now())
        self._of_entry[entry.name] += 1
        if not self._beginning:
            self._loop.call_soon(self._begin)
        self._beginning.append(known)

    def _begin(self) -> None:
        """Begin with a few of those that are to begin, and with the next few in the next turn."""
        for _ in range(min(_AT_ONCE, len(self._beginning))):
            task = self._loop.create_task(self._publish(self._beginning.popleft()))
            self._work.add(task)
            task.add_done_callback(self._work.discard)
        if self._beginning:
            self._loop.call_soon(self._begin)

    async def drain(self, timeout: float) -> bool:
        """Wait for what is under way, at most so long; nothing is tried a second time.

        Returns:
            Whether every slot is marked; others are taken over when their leases end.
        """
        end = self._loop.time() + timeout
        self._closing.set()
        while (self._work or self._beginning) and (left := end - self._loop.time()) > 0:
            if self._beginning:
                await asyncio.sleep(0)
            else:
                await asyncio.wait(self._work, timeout=left)
        while self._marking is not None and self._loop.time() < end:
            await asyncio.wait([self._marking], timeout=max(0.0, end - self._loop.time()))
        whole = not self._left and not self._beginning
        self._beginning.clear()
        unfinished = [*self._work, *([self._marking] if self._marking is not None else [])]
        for task in unfinished:
            task.cancel()
        await asyncio.gather(*unfinished, return_exceptions=True)
        return whole and not unfinished

    # -- one slot --------------------------------------------------------------------------

    async def _publish(self, known: _Slot) -> None:
        ended = False
        try:
            ended = await self._ended(known)
        finally:
            self._sending.pop(known.key, None)
            self._here(known.key)
            if not ended:  # else it is under way until it is marked
                self._forget(known.key)

    async def _ended(self, known: _Slot) -> bool:
        """Publish a slot's task until it is known how that went; False: left to others."""
        entry, slot, due = known.entry, known.slot, known.due
        task_id = task_id_of(self._app.main, entry.name, slot)
        backoff = Backoff(first=0.1, most=1.0)
        while True:
            try:
                gate = self._gates.at(due)  # claimed a moment ahead
                early = 0.0 if gate is None else gate.left()
                call = call_of(self._app, entry, task_id, slot)
                call.gate = gate
                _shift(call, entry, early)
                await self._app.send_call(call)
            except (*_AWAY, PublishNacked, Unroutable, NotFound) as error:
                if not self._again(known, error, due):
                    self._failed(known, task_id, error)
                    return True
                if await self._closed_within(backoff.next()):
                    self._left += 1
                    return False
            except Exception as error:  # noqa: BLE001 - a user's middleware may raise anything
                self._failed(known, task_id, error)
                return True
            else:
                self._done(known, task_id, due)
                return True

    async def _closed_within(self, seconds: float) -> bool:
        """Wait before another try; True where this scheduler stops meanwhile."""
        try:
            async with asyncio.timeout(seconds):
                await self._closing.wait()
        except TimeoutError:
            return False
        return True

    def _again(self, known: _Slot, error: Exception, due: float) -> bool:
        """Return whether to try once more; a broker that is away is told once."""
        if isinstance(error, _AWAY):
            if not self._away:
                log.warning("the broker does not take what is due, holding", error=str(error))
            self._away.add(known.key)
            return True
        self._here(known.key)
        if isinstance(error, PublishNacked):
            return True
        return self._app.clock.now() - due <= _PATIENCE

    def _here(self, key: tuple[str, int]) -> None:
        if key in self._away:
            self._away.discard(key)
            if not self._away:
                log.info("the broker takes messages again")
                self._on_free()

    def _done(self, known: _Slot, task_id: str, due: float) -> None:
        entry, now = known.entry, self._app.clock.now()
        self.published += 1
        self._mark(_End(entry.name, known.slot, What.RAN, now, task_id))
        if signals.beat_published.has_receivers(entry.name):
            signals.beat_published.send(
                sender=entry.name,
                task=entry.task,
                task_id=task_id,
                slot=to_instant(known.slot),
                lateness=now - due,
            )

    def _failed(self, known: _Slot, task_id: str, error: Exception) -> None:
        entry = known.entry
        log.error(
            "a slot's task cannot be published", entry=entry.name, task=entry.task, error=str(error)
        )
        why = f"{type(error).__name__}: {error}"[:500]
        now = self._app.clock.now()
        self._mark(_End(entry.name, known.slot, What.FAILED, now, task_id, why))
        signals.beat_failed.send(
            sender=entry.name,
            task=entry.task,
            task_id=task_id,
            slot=to_instant(known.slot),
            exception=error,
        )

    def _forget(self, key: tuple[str, int]) -> None:
        self._since.pop(key, None)
        self._of_entry[key[0]] -= 1
        if not self._of_entry[key[0]]:
            del self._of_entry[key[0]]

    # -- marks -----------------------------------------------------------------------------

    def _mark(self, end: _End) -> None:
        self._ends.append(end)
        if self._marking is None:
            self._marking = self._loop.create_task(self._write_marks())

    async def _write_marks(self) -> None:
        backoff = Backoff(first=0.1, most=1.0)
        try:
            while self._ends:
                await self._closed_within(_GATHER)
                ends, self._ends = self._ends, []
                marks = [self._mark_of(end) for end in ends]
                try:
                    await self._store.mark(marks)
                except StoreError as error:
                    # Marking twice marks once; until then another scheduler may publish again.
                    log.warning("slots are not marked yet", slots=len(marks), error=str(error))
                    self._ends = ends + self._ends
                    await asyncio.sleep(backoff.next())
                else:
                    backoff.reset()
                    for mark in marks:
                        self._forget((mark.name, mark.slot))
        finally:
            self._marking = None

    def _mark_of(self, end: _End) -> Mark:
        record = Record(
            end.what, end.slot, to_ms(end.at), id=end.task_id, by=self._owner, why=end.why
        )
        return Mark(end.entry, end.slot, record)


def call_of(app: App, entry: Entry, task_id: str | None, slot: int) -> Call:
    """Return the call that runs an entry's task for a slot.

    It carries ``amqflow-once``: whoever delivers it a second time, the task runs once, where the
    result store fences.
    """
    marks = {
        h.ONCE: True,
        h.SCHEDULE: entry.name,
        h.SLOT: to_datetime(to_instant(slot)).isoformat(),
    }
    options: dict[str, Any] = {
        **entry.options,
        "headers": {**(entry.options.get("headers") or {}), **marks},
        "task_id": task_id,
    }
    task = app.tasks.get(entry.task)
    if task is None:
        return build_call(entry.task, entry.args, entry.kwargs, options, app.clock.now)
    return task.as_call(entry.args, entry.kwargs, **options)


def _shift(call: Call, entry: Entry, early: float) -> None:
    """Let what an entry gives in seconds count from its slot, for which the call is so early."""
    if call.eta is not None:  # an entry has countdown only
        call.eta += early
    if call.expires is not None and isinstance(
        entry.options.get("expires"), int | float | timedelta
    ):
        call.expires += early
