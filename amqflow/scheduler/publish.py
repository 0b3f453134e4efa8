"""Publishes claimed slots under confirm, again with the same id until it is known how it went."""

from __future__ import annotations

import asyncio
from collections import Counter
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any, Final

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
from amqflow.scheduler.words import Mark, Record, What
from amqflow.schedules import to_instant, to_ms

if TYPE_CHECKING:
    from collections.abc import Callable

    from amqflow.abc import Call
    from amqflow.app import App
    from amqflow.scheduler.entry import Entry
    from amqflow.scheduler.store import ScheduleStore

log = get_logger("amqflow.scheduler")

#: Seconds marks are collected: one call for all of a burst.
_GATHER: Final = 0.1
#: Seconds a slot whose queue is not there is tried again.
_PATIENCE: Final = 30.0
#: Publishes let out in one turn of the loop.
_AT_ONCE: Final = 50
#: Seconds: a gate that is earlier than this was shut before the clock was set back.
_JUMPED: Final = 0.05
#: Seconds without a confirm after which nothing more is claimed: a slot that is not claimed yet can
#: still be judged by its entry's max_lateness.
_STALL: Final = 1.5
#: The broker is away or does not answer: whoever else is due would meet the same.
_AWAY: Final = (BrokerUnavailable, ChannelLost, PublishTimeout)


@dataclass(frozen=True, slots=True)
class _Slot:
    entry: Entry
    slot: int

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
        #: When each slot's publishing began, by the loop's clock.
        self._since: dict[tuple[str, int], float] = {}
        self._of_entry: Counter[str] = Counter()
        self._away: set[tuple[str, int]] = set()
        #: Since when each publish waits for its confirm, the oldest first, by the loop's clock.
        self._sending: dict[tuple[str, int], float] = {}
        self._marks: list[Mark] = []
        self._marking: asyncio.Task[None] | None = None
        self._gates = Gates(app)
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
        known = _Slot(entry, slot)
        if known.key in self._since:
            return
        self._since[known.key] = self._loop.time()
        self._of_entry[entry.name] += 1
        task = self._loop.create_task(self._publish(known))
        self._work.add(task)
        task.add_done_callback(self._work.discard)

    async def drain(self, timeout: float) -> bool:
        """Wait for what is under way, at most so long; nothing is tried a second time.

        Returns:
            Whether every slot is marked; others are taken over when their leases end.
        """
        end = self._loop.time() + timeout
        self._closing.set()
        if self._work:
            await asyncio.wait(self._work, timeout=timeout)
        while self._marking is not None and self._loop.time() < end:
            await asyncio.wait([self._marking], timeout=max(0.0, end - self._loop.time()))
        whole = not self._left
        left = [*self._work, *([self._marking] if self._marking is not None else [])]
        for task in left:
            task.cancel()
        await asyncio.gather(*left, return_exceptions=True)
        return whole and not left

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
        entry, slot = known.entry, known.slot
        task_id = task_id_of(self._app.main, entry.name, slot)
        due = fires_at(entry, slot)
        backoff = Backoff(first=0.1, most=1.0)
        while True:
            try:
                call = call_of(self._app, entry, task_id, slot)
                call.hold = partial(self._hold, known, due)  # claimed a moment ahead
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

    async def _hold(self, known: _Slot, due: float) -> None:
        await self._gates.wait(due)
        self._sending.setdefault(known.key, self._loop.time())

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
        self._mark(known, Record(What.RAN, known.slot, to_ms(now), id=task_id, by=self._owner))
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
        at = to_ms(self._app.clock.now())
        why = f"{type(error).__name__}: {error}"[:500]
        self._mark(known, Record(What.FAILED, known.slot, at, id=task_id, by=self._owner, why=why))
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

    def _mark(self, known: _Slot, record: Record) -> None:
        self._marks.append(Mark(known.entry.name, known.slot, record))
        if self._marking is None:
            self._marking = self._loop.create_task(self._write_marks())

    async def _write_marks(self) -> None:
        backoff = Backoff(first=0.1, most=1.0)
        try:
            while self._marks:
                await asyncio.sleep(_GATHER)
                marks, self._marks = self._marks, []
                try:
                    await self._store.mark(marks)
                except StoreError as error:
                    # Marking twice marks once; until then another scheduler may publish again.
                    log.warning("slots are not marked yet", slots=len(marks), error=str(error))
                    self._marks = marks + self._marks
                    await asyncio.sleep(backoff.next())
                else:
                    backoff.reset()
                    for mark in marks:
                        self._forget((mark.name, mark.slot))
        finally:
            self._marking = None


class Gates:
    """Lets publishes out at their instants, a few at a time.

    A burst that is let out at once is written at once, and the broker sees nothing of it until
    the last message is written; in parts, it works on the first while the next are written.
    """

    def __init__(self, app: App) -> None:
        """Use the application's clock."""
        self._clock = app.clock
        self._loop = asyncio.get_running_loop()
        self._waiting: dict[float, list[asyncio.Future[None]]] = {}

    async def wait(self, due: float) -> None:
        """Return at ``due`` (Unix seconds), or at once where it has passed."""
        early = due - self._clock.now()
        if early <= 0:
            return
        waiting = self._waiting.get(due)
        if waiting is None:
            waiting = self._waiting[due] = []
            self._loop.call_later(early, self._open, due)
        gate = self._loop.create_future()
        waiting.append(gate)
        await gate

    def _open(self, due: float) -> None:
        early = due - self._clock.now()
        if 0 < early < _JUMPED:  # a timer may be a millisecond early
            self._loop.call_later(early, self._open, due)
            return
        waiting = self._waiting[due]
        for gate in waiting[:_AT_ONCE]:
            if not gate.done():
                gate.set_result(None)
        del waiting[:_AT_ONCE]
        if waiting:
            self._loop.call_soon(self._open, due)
        else:
            del self._waiting[due]


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
