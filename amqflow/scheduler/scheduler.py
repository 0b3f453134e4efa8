"""The scheduler: decides what is due, claims it in the store, publishes what it won.

Any number of them run beside each other; there is no leader. Each wakes for each slot, and the
store lets one of them have it. What dies between its claim and its mark leaves a lease behind,
which another takes over.
"""

from __future__ import annotations

import asyncio
import os
import random
import socket
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Final
from uuid import uuid4

from amqflow import signals
from amqflow.backoff import Backoff
from amqflow.errors import AmqflowError, BrokerError, ScheduleError, StoreError
from amqflow.logs import get_logger
from amqflow.scheduler.agenda import Agenda
from amqflow.scheduler.declared import check_entries, declared_entries
from amqflow.scheduler.due import Due, Gap, due, fires_at
from amqflow.scheduler.entry import Entry, Overlap, task_id_of
from amqflow.scheduler.publish import Publisher
from amqflow.scheduler.store import open_schedule_store
from amqflow.scheduler.words import CORRECTION, OVERDUE, Adoption, Claim, Record, Standing, What
from amqflow.schedules import slots_after, to_instant, to_ms, zone_named

if TYPE_CHECKING:
    from collections.abc import Coroutine, Iterable, Sequence

    from amqflow.app import App
    from amqflow.scheduler.store import ScheduleStore
    from amqflow.scheduler.words import Answer, Lease, Pulse

log = get_logger("amqflow.scheduler")

#: Milliseconds a claimed slot is its owner's before another scheduler may take it over. A
#: takeover comes at most a pulse later: 2.5 s after a death, 3 s are promised.
LEASE: Final = 2000
#: Seconds between two looks at the store, and the longest a change of the clock goes unseen.
PULSE: Final = 0.5
#: Milliseconds after its last pulse in which a scheduler is counted as alive.
ALIVE: Final = 5000
#: Seconds a slot is claimed ahead of its instant, at the latest: the claim and the encoding do not
#: make it late.
LEAD: Final = 0.3
#: Seconds: what is due so soon after is claimed along with it. A thousand slots spread over a
#: second take five round trips to the store, not hundreds.
ALONG: Final = 0.2
#: Seconds a slot's lease is renewed. A broker that does not answer is found out before; one that
#: is slow would not be quicker for another scheduler.
HOLD: Final = 30.0
#: Slots under way beyond which nothing more is claimed, of all entries and of one.
MOST: Final = 5000
MOST_OF_ONE: Final = 1000
#: Entries taken up together.
TURN: Final = 1000
#: Entries decided on and claimed in one step: what is due meanwhile need not wait for more.
STEP: Final = 100
#: Seconds between two words about a store that is away at the start.
SAY_AGAIN: Final = 30.0
#: Seconds until an entry whose schedule raises is asked again.
ASK_AGAIN: Final = 30.0
#: Seconds after which a run before that was never seen to end is thought lost.
OVERLAP_LIMIT: Final = 86400.0
#: Seconds a stop waits for what is being published.
DRAIN: Final = 10.0
#: Seconds by which the clock must jump to be called a jump.
_JUMP: Final = 1.0


class Scheduler:
    """Publishes what is due, in the running event loop."""

    def __init__(
        self,
        app: App,
        *,
        store: ScheduleStore | None = None,
        name: str | None = None,
        embedded: bool = False,
    ) -> None:
        """Prepare; :meth:`run` connects.

        Args:
            app: The application whose ``beat_schedule`` and ``schedules`` are served.
            store: Where slots are claimed; None: beside the result store.
            name: This scheduler's, for logs and the history.
            embedded: It runs inside a worker: connections and modules are the worker's to close
                and import.
        """
        settings = app.conf.settings
        self.app = app
        self.name = name or f"{socket.gethostname()}:{os.getpid()}:{uuid4().hex[:4]}"
        self.store = store or open_schedule_store(
            app.backend_url, app.main, history=settings.beat_history
        )
        self.ready = asyncio.Event()
        self.entries: dict[str, Entry] = {}
        self._embedded = embedded
        self._declared: dict[str, Entry] = {}
        self._zone = zone_named(settings.timezone)
        self._standings: dict[str, Standing] = {}
        self._agenda = Agenda()
        self._wake = asyncio.Event()
        self._stopping = asyncio.Event()
        self._background: set[asyncio.Task[None]] = set()
        self._pulsing: asyncio.Task[None] | None = None
        self._next_pulse = 0.0
        self._version: int | None = None
        #: Until when (monotonic) the store is left alone after it was away.
        self._store_back = 0.0
        self._store_away = False
        self._backoff = Backoff(first=0.1, most=1.0)
        self._skewed = False
        self._last = (app.clock.now(), app.clock.monotonic())
        self._publisher: Publisher

    # -- life ------------------------------------------------------------------------------

    async def run(self) -> None:
        """Start, run until told to stop, and let what is under way end.

        Raises:
            ScheduleError: An entry is wrong; nothing was published.
            StoreError: The store refused us.
        """
        try:
            if await self._start():
                await self._serve()
        finally:
            await self._shutdown()

    def stop(self) -> None:
        """Tell the scheduler to stop. Safe from a signal handler of the loop."""
        self._stopping.set()
        self._wake.set()

    async def _start(self) -> bool:
        signal = signals.beat_embedded_init if self._embedded else signals.beat_init
        signal.send(sender=self)
        if not self._embedded:
            self.app.import_modules()
        self._declared = declared_entries(self.app)
        check_entries(self.app, self._declared.values())
        self._publisher = Publisher(self.app, self.store, self.name, self._wake.set)
        if not self.store.capabilities.shared:
            log.warning(
                "single instance: the backend is no store that schedulers share, so a second "
                "scheduler would run everything twice and a restart forgets what ran; set "
                "backend=redis://… for more than one"
            )
        self._spawn(self._warm())
        if not await self._opened():
            return False
        log.info("scheduling", entries=len(self.entries), scheduler=self.name)
        self.ready.set()
        return True

    async def _warm(self) -> None:
        """Connect to the broker before the first slot is due; one that is away is met then."""
        try:
            await self.app.runtime().producer.ladder()
        except BrokerError as error:
            log.warning("the broker is away", error=str(error))

    async def _opened(self) -> bool:
        """Connect and learn where the entries stand; a store that is away is waited for."""
        say_again = 0.0
        while not self._stopping.is_set():
            try:
                await self.store.open()
                self._version = (await self._beat()).version
                await self._load()
            except ConnectionError as error:
                if self._monotonic() >= say_again:
                    log.warning("waiting for the store", error=str(error))
                    say_again = self._monotonic() + SAY_AGAIN
                await self._sleep(self._backoff.next())
            else:
                self._backoff.reset()
                return True
        return False

    async def _sleep(self, seconds: float) -> None:
        try:
            async with asyncio.timeout(seconds):
                await self._stopping.wait()
        except TimeoutError:
            pass

    async def _shutdown(self) -> None:
        for task in self._background:
            task.cancel()
        await asyncio.gather(*self._background, return_exceptions=True)
        if self.ready.is_set():
            if not await self._publisher.drain(DRAIN):
                log.warning("slots left behind; another scheduler publishes them")
            log.info("stopped", published=self._publisher.published)
        await self.store.close()
        if not self._embedded:
            await self.app.aclose()

    # -- entries ---------------------------------------------------------------------------

    async def _load(self) -> None:
        """Learn the run-time entries, and where all entries stand."""
        kept = self._read(await self.store.entries())
        entries = {**kept, **self._declared}
        adoptions = [Adoption(entry.name, entry.print) for entry in entries.values()]
        standings = await self.store.adopt(adoptions, to_ms(self.app.clock.now()))
        self.entries = entries
        self._standings = dict(zip(entries, standings, strict=True))
        self._agenda.clear()
        for number, name in enumerate(entries, 1):
            self._plan(name)
            if number % STEP == 0:
                await asyncio.sleep(0)
                if self.entries is not entries:  # learnt anew meanwhile
                    return

    def _read(self, kept: dict[str, Any]) -> dict[str, Entry]:
        """Read the store's entries; one that cannot be read must not keep the others from it."""
        found = {}
        for name, data in kept.items():
            if name in self._declared:
                log.warning("an entry of the store is hidden by the application's", entry=name)
                continue
            try:
                found[name] = Entry.read(name, data, self._zone, "the store")
            except ScheduleError as error:
                log.error("an entry of the store is left out", error=str(error))  # noqa: TRY400
        return found

    async def _adopt(self, names: Iterable[str]) -> None:
        """Learn again where entries stand: the store has lost them, or the clock was set back."""
        known = [name for name in names if name in self.entries]
        adoptions = [Adoption(name, self.entries[name].print) for name in known]
        standings = await self.store.adopt(adoptions, to_ms(self.app.clock.now()))
        for name, standing in zip(known, standings, strict=True):
            self._standings[name] = standing
            self._plan(name)

    def _plan(self, name: str) -> None:
        """Put an entry's next slot onto the agenda."""
        entry, standing = self.entries[name], self._standings[name]
        if standing.paused_at is not None:
            self._agenda.drop(name)
            return
        cursor, start = to_instant(standing.cursor), to_instant(standing.start)
        try:
            slot = next(slots_after(entry.schedule, cursor, start=start), None)
            fires = None if slot is None else fires_at(entry, to_ms(slot))
        except Exception as error:  # noqa: BLE001 - a schedule of the user's may raise anything
            self._cannot_tell(entry, error)
            return
        if fires is None:
            self._agenda.drop(name)  # a single moment that has passed
        else:
            # Whether the run before has ended is asked late, so nothing else is claimed along.
            later = ALONG if entry.overlap is not Overlap.ALLOW else 0.0
            self._agenda.put(name, fires - LEAD + later)

    # -- the loop --------------------------------------------------------------------------

    async def _serve(self) -> None:
        while not self._stopping.is_set():
            self._watch_clock()
            if self._monotonic() >= self._next_pulse and self._pulsing is None:
                self._pulsing = self._spawn(self._pulse())
            if self._may_claim():
                now = self.app.clock.now()
                names = self._agenda.take(now + ALONG, TURN)
                if names:
                    await self._turn(names, now)
                    continue
            await self._pause()

    async def _pause(self) -> None:
        """Wait for the next slot, the next pulse, or a reason to look."""
        self._wake.clear()
        wait = PULSE if self._pulsing is not None else self._next_pulse - self._monotonic()
        at = self._agenda.next_at() if self._may_claim() else None
        if at is not None:
            wait = min(wait, at - self.app.clock.now())
        elif self._store_away:
            wait = min(wait, self._store_back - self._monotonic())
        if wait <= 0:
            await asyncio.sleep(0)
            return
        try:
            async with asyncio.timeout(wait):
                await self._wake.wait()
        except TimeoutError:
            pass

    def _may_claim(self) -> bool:
        return (
            not self._publisher.stalled
            and len(self._publisher) < MOST
            and not (self._store_away and self._monotonic() < self._store_back)
        )

    def _monotonic(self) -> float:
        return self.app.clock.monotonic()

    def _watch_clock(self) -> None:
        """Notice that somebody set the clock (docs/scheduler.md, "When the clock is set")."""
        now, mono = self.app.clock.now(), self._monotonic()
        jump = (now - self._last[0]) - (mono - self._last[1])
        self._last = (now, mono)
        if abs(jump) < _JUMP:
            return
        if jump > 0:
            log.warning("the clock was set forward; each entry's catch_up decides", seconds=jump)
        elif -jump * 1000 < CORRECTION:
            log.warning("the clock was set back; no slot runs a second time", seconds=-jump)
        else:
            log.warning("the clock was set back by hours; the new time counts", seconds=-jump)
            self._spawn(self._guarded(self._adopt(list(self.entries))))

    # -- the pulse -------------------------------------------------------------------------

    async def _pulse(self) -> None:
        """Say that this scheduler lives, keep its leases, take over those of the dead."""
        try:
            pulse = await self._beat()
            await self._renew()
            await self._take_over(pulse)
            if pulse.version != self._version:
                self._version = pulse.version
                await self._load()
                log.info("entries changed", entries=len(self.entries))
        except StoreError as error:
            self._lost_store(error)
        else:
            self._found_store()
        finally:
            self._pulsing = None
            self._next_pulse = self._monotonic() + PULSE
            self._wake.set()

    async def _beat(self) -> Pulse:
        pulse = await self.store.beat(self.name, ALIVE)
        skew = to_instant(pulse.now) - self.app.clock.now()
        if abs(skew) > _JUMP and not self._skewed:
            log.warning("this machine's clock differs from the store's", seconds=round(skew, 3))
        self._skewed = abs(skew) > _JUMP
        return pulse

    async def _renew(self) -> None:
        """Renew what is under way, unless the broker is away: another may reach it."""
        if self._publisher.away:
            return
        held = self._publisher.held(younger_than=HOLD)
        if held:
            await self.store.renew(held, LEASE)

    async def _take_over(self, pulse: Pulse) -> None:
        wanted = self._known_of(pulse.overdue)
        seen, page = len(pulse.overdue), pulse.overdue
        # Leases of entries that only others know may stand before ours, in any number.
        while not wanted and len(page) == OVERDUE:
            page = await self.store.overdue(seen)
            seen += len(page)
            wanted = self._known_of(page)
        wanted = wanted[: max(0, MOST - len(self._publisher))]
        if not wanted or self._publisher.stalled:
            return
        taken = await self.store.take(wanted, LEASE)
        won = [lease for lease, mine in zip(wanted, taken, strict=True) if mine]
        for lease in won:
            self._publisher.start(self.entries[lease.name], lease.slot)
        if won:
            log.warning(
                "took over slots whose scheduler is gone",
                slots=len(won),
                entries=sorted({lease.name for lease in won})[:5],
            )

    def _known_of(self, leases: Sequence[Lease]) -> list[Lease]:
        return [
            lease
            for lease in leases
            if lease.name in self.entries and (lease.name, lease.slot) not in self._publisher
        ]

    def _lost_store(self, error: Exception) -> None:
        wait = self._backoff.next()
        self._store_back = self._monotonic() + wait
        if not self._store_away:
            self._store_away = True
            log.warning("the store is away, holding what is due", error=str(error))

    def _found_store(self) -> None:
        if self._store_away:
            self._store_away = False
            self._backoff.reset()
            log.info("the store is back")

    # -- what is due -----------------------------------------------------------------------

    async def _turn(self, names: list[str], now: float) -> None:
        """Decide, claim and publish for entries whose time has come."""
        random.shuffle(names)  # schedulers side by side share a burst instead of racing for it
        for start in range(0, len(names), STEP):
            if start and not self._may_claim():  # the store or the broker went away meanwhile
                for name in names[start:]:
                    if name in self.entries and name not in self._agenda:
                        self._agenda.put(name, now)
                return
            await self._step(names[start : start + STEP], now)

    async def _step(self, names: list[str], now: float) -> None:
        decided: list[tuple[Entry, Due]] = []
        for name in names:
            entry = self.entries.get(name)
            if entry is None:  # removed while others were claimed
                continue
            if self._publisher.of(name) >= MOST_OF_ONE:
                self._agenda.put(name, now + PULSE)
            elif entry.overlap is not Overlap.ALLOW:
                self._spawn(self._turn_careful(entry))
            elif (found := self._due(entry, now, LEAD + ALONG)) is not None:
                decided.append((entry, found))
        if decided:
            await self._claim(decided)

    def _due(self, entry: Entry, now: float, ahead: float) -> Due | None:
        standing = self._standings[entry.name]
        try:
            found = due(entry, standing.cursor, standing.start, now, ahead=ahead)
        except Exception as error:  # noqa: BLE001 - a schedule of the user's may raise anything
            self._cannot_tell(entry, error)
            return None
        if found is None:
            self._plan(entry.name)
        return found

    def _cannot_tell(self, entry: Entry, error: Exception) -> None:
        """Leave out an entry whose schedule raises, for a while; the others go on."""
        log.error(
            "an entry's schedule failed, it runs nothing until that is mended",
            entry=entry.name,
            schedule=type(entry.schedule).__name__,
            error=f"{type(error).__name__}: {error}",
            asked_again_in=ASK_AGAIN,
            exc_info=error,
        )
        self._agenda.put(entry.name, self.app.clock.now() + ASK_AGAIN)

    async def _claim(self, decided: list[tuple[Entry, Due]]) -> None:
        claims = [self._claim_of(entry, found) for entry, found in decided]
        try:
            answers = await self.store.claim(claims, self.name, LEASE)
        except StoreError as error:
            # Who knows whether the store did it: if so, the leases come back by themselves.
            self._lost_store(error)
            for entry, _ in decided:
                if entry.name in self.entries:
                    self._agenda.put(entry.name, self.app.clock.now())
            return
        self._found_store()
        lost = [
            entry.name
            for (entry, found), claim, answer in zip(decided, claims, answers, strict=True)
            if not self._answered(entry, found, claim, answer)
        ]
        if lost:
            # Removed or added anew meanwhile, or the store was emptied: what is kept there is
            # learnt again at the next pulse.
            self._version = None
            await self._guarded(self._adopt(name for name in lost if name in self._declared))

    def _claim_of(self, entry: Entry, found: Due) -> Claim:
        run, gap = found.run, found.missed
        return Claim(
            entry.name,
            self._standings[entry.name].cursor,
            found.cursor,
            run,
            task_id_of(self.app.main, entry.name, run[-1]) if run else None,
            None if gap is None else self._record(gap),
        )

    def _record(self, gap: Gap) -> Record:
        return Record(
            What(gap.what),
            gap.first,
            to_ms(self.app.clock.now()),
            by=self.name,
            last=gap.last if gap.last != gap.first else None,
            count=gap.count,
            why=gap.why,
        )

    def _answered(self, entry: Entry, found: Due, claim: Claim, answer: Answer) -> bool:
        """Do what an answer requires; False where the store does not know the entry."""
        name = entry.name
        if name not in self.entries:
            # Removed meanwhile; what was won is published all the same, it is ours.
            if answer.won:
                self._start_all(entry, found)
            return True
        if not answer.won:
            if answer.standing is None:
                return False
            self._standings[name] = answer.standing
            self._plan(name)
            return True
        standing = self._standings[name]
        self._standings[name] = replace(
            standing,
            cursor=claim.cursor,
            last_id=claim.last_id if found.run else standing.last_id,
            last_slot=found.run[-1] if found.run else standing.last_slot,
        )
        self._start_all(entry, found)
        self._plan(name)
        return True

    def _start_all(self, entry: Entry, found: Due) -> None:
        for slot in found.run:
            self._publisher.start(entry, slot)
        if (gap := found.missed) is not None:
            log.warning(
                gap.what, entry=entry.name, slots=gap.count, why=gap.why, last=to_instant(gap.last)
            )
            signals.beat_missed.send(
                sender=entry.name,
                what=gap.what,
                slot=to_instant(gap.first),
                last=to_instant(gap.last),
                count=gap.count,
                why=gap.why,
            )

    # -- overlap ---------------------------------------------------------------------------

    async def _turn_careful(self, entry: Entry) -> None:
        """Decide for an entry whose runs must not overlap."""
        try:
            running = await self._still_runs(entry)
        except AmqflowError as error:
            log.warning("cannot tell whether the run before has ended", error=str(error))
            self._agenda.put(entry.name, self.app.clock.now() + PULSE)
            self._wake.set()
            return
        if entry.name not in self.entries:
            return
        found = self._due(entry, self.app.clock.now(), LEAD)
        if found is None:
            self._wake.set()
            return
        if running and entry.overlap is Overlap.QUEUE:
            await self._await_end(entry)
            return
        if entry.overlap is Overlap.SKIP:
            found = _with_skips(found, running=running)
        await self._claim([(entry, found)])
        self._wake.set()

    async def _still_runs(self, entry: Entry) -> bool:
        standing = self._standings.get(entry.name)
        if standing is None or standing.last_id is None:
            return False
        store = await self.app.runtime().opened_store()
        outcome = await store.get(standing.last_id)
        if outcome is not None and outcome.terminal:
            return False
        since = self.app.clock.now() - to_instant(standing.last_slot or 0)
        if since > OVERLAP_LIMIT:
            log.warning(
                "a run was never seen to end, it counts as lost",
                entry=entry.name,
                task_id=standing.last_id,
            )
            return False
        return True

    async def _await_end(self, entry: Entry) -> None:
        """Wait until the run before has ended, then look again."""
        standing = self._standings.get(entry.name)
        try:
            store = await self.app.runtime().opened_store()
            if standing is not None and standing.last_id is not None:
                await store.wait(standing.last_id, PULSE * 10)
        except (AmqflowError, TimeoutError):
            await asyncio.sleep(PULSE)
        if entry.name in self.entries and entry.name not in self._agenda:
            self._agenda.put(entry.name, self.app.clock.now())
            self._wake.set()

    # -- beside the loop -------------------------------------------------------------------

    async def _guarded(self, work: Coroutine[Any, Any, None]) -> None:
        """Do what the store may be away for; the next pulse finds what is left undone."""
        try:
            await work
        except StoreError as error:
            self._lost_store(error)
            self._version = None  # all is learnt again when the store is back

    def _spawn(self, work: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        task = asyncio.get_running_loop().create_task(work)
        self._background.add(task)
        task.add_done_callback(self._ended)
        return task

    def _ended(self, task: asyncio.Task[None]) -> None:
        self._background.discard(task)
        if not task.cancelled() and (error := task.exception()) is not None:
            log.error("the scheduler met an error of its own", error=repr(error), exc_info=error)
            self._version = None
            self._wake.set()


def _with_skips(found: Due, *, running: bool) -> Due:
    """Return what remains of a decision where runs must not overlap: one slot, or none."""
    run = () if running else found.run[-1:]
    skipped = [slot for slot in found.run if slot not in run]
    if not skipped:
        return found
    first = min(skipped[0], found.missed.first) if found.missed else skipped[0]
    count = len(skipped) + (found.missed.count if found.missed else 0)
    gap = Gap(first, skipped[-1], count, "the run before it has not ended", str(What.SKIPPED))
    return Due(run, gap, found.cursor)
