"""Counts what chord members ended with, and ends the chords that are complete or have failed.

It works in batches: while one store call is under way, deliveries gather for the next. A delivery
is acked when everything it told is stored and everything that follows from it is confirmed.
"""

from __future__ import annotations

import asyncio
from dataclasses import replace
from typing import TYPE_CHECKING, Final, TypeVar

from amqflow.abc import DeadReason
from amqflow.backoff import Backoff
from amqflow.errors import (
    AmqflowError,
    BrokerError,
    EncodeError,
    StoreConflict,
    StoreError,
    StoreUnavailable,
    Undecodable,
)
from amqflow.logs import get_logger
from amqflow.worker.completions import Several
from amqflow.worker.settlement import Settlement
from amqflow.workflow.conclude import failed, fired, own_failure
from amqflow.workflow.launch import UNDRAWN
from amqflow.workflow.records import Counting, Ending, Failure, State, Verdict
from amqflow.workflow.wire import Completions, Watch

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Sequence

    from amqflow.abc import Outcome, ResultStore
    from amqflow.transport import Delivery
    from amqflow.worker.completions import Held
    from amqflow.worker.lanes import Lane
    from amqflow.worker.settle import Settler
    from amqflow.workflow import Launch, Unfolder
    from amqflow.workflow.launch import Launcher
    from amqflow.workflow.records import Counted, Known
    from amqflow.workflow.stores import ChordStore

T = TypeVar("T")

log = get_logger("amqflow.worker")

#: Seconds completions wait in the ladder while another coordinator ends their chord.
BUSY_DELAY: Final = 1.0
#: The most seconds between two tries to reach a store that is away.
STORE_RETRY: Final = 2.0
#: Results a watch reads at a time.
_READ: Final = 500


class ChordCoordinator:
    """The chords' part of the coordinator; one per worker, everything in its loop."""

    def __init__(
        self,
        *,
        settler: Settler,
        launcher: Launcher,
        unfolder: Unfolder,
        results: ResultStore | None,
        lane: Lane,
        now: Callable[[], float],
    ) -> None:
        """Wire the parts, in the running loop.

        Args:
            settler: publishes, acks.
            launcher: holds the store of chords, and watches.
            unfolder: unfolds what follows.
            results: where a watch looks for outcomes nobody has counted.
            lane: of the completions queue.
            now: returns Unix seconds.
        """
        self._loop = asyncio.get_running_loop()
        self._settler = settler
        self._launcher = launcher
        self._unfolder = unfolder
        self._results = results
        self._lane = lane
        self._now = now
        self._fresh: list[tuple[Delivery, Completions]] = []
        self._counting = False

    # -- completions ---------------------------------------------------------------------------

    def complete(self, delivery: Delivery) -> None:
        """Take one message of completions; it is counted with this turn's others."""
        try:
            completions = Completions.of(delivery.envelope)
            self._check(completions.store)
        except Undecodable as error:
            self._settler.park(delivery, self._lane, DeadReason.UNDECODABLE, str(error))
            return
        self._fresh.append((delivery, completions))
        if not self._counting:
            self._counting = True
            self._settler.start(self._count())

    def _check(self, store: str) -> None:
        """Refuse what is counted elsewhere: here its record would be missed for ever."""
        kind = self._unfolder.store
        if store != kind:
            raise Undecodable(
                f"this chord is kept in a store of kind {store!r}, and this worker's is "
                f"{kind or 'none'!r}: give every worker of the application the same backend"
            )

    async def _count(self) -> None:
        await asyncio.sleep(0)  # the turn's others
        try:
            while self._fresh:
                fresh, self._fresh = self._fresh, []
                await self._count_batch(fresh)
        finally:
            self._counting = False

    async def _count_batch(self, fresh: list[tuple[Delivery, Completions]]) -> None:
        """Count everything in one round trip, and settle each chord's deliveries."""
        told: dict[str, list[Ending]] = {}
        by_chord: dict[str, list[Delivery]] = {}
        for delivery, completions in fresh:
            told.setdefault(completions.chord, []).extend(completions.endings)
            by_chord.setdefault(completions.chord, []).append(delivery)
        store = self._launcher.store()
        batch = [Counting(chord, endings) for chord, endings in told.items()]
        held = Several([delivery for delivery, _ in fresh])
        alone = len(fresh) == 1
        try:
            counted = await self._insist(held, lambda: store.count(batch), refused=alone)
        except Exception as error:  # noqa: BLE001 - whatever it is, nothing may stay unacked
            if alone:
                self._broken(fresh[0][0], error)
            else:  # one of them is the cause: each on its own, so that it holds up no other
                for one in fresh:
                    self._settler.start(self._count_batch([one]))
            return
        if counted is None:
            return
        for (chord, deliveries), answer in zip(by_chord.items(), counted, strict=True):
            self._answered(chord, answer, deliveries)

    def _answered(self, chord: str, answer: Counted, deliveries: list[Delivery]) -> None:
        match answer.verdict:
            case Verdict.READY | Verdict.FAILED:
                self._settler.start(self._end(chord, answer, deliveries))
            case Verdict.BUSY:
                for delivery in deliveries:
                    self._settler.delay(delivery, self._lane, BUSY_DELAY)
            case Verdict.GONE:
                log.warning("a member of a chord nobody knows has ended", chord=chord)
                _ack(deliveries)
            case _:
                _ack(deliveries)

    # -- ending a chord ------------------------------------------------------------------------

    def _broken(self, delivery: Delivery, error: Exception) -> None:
        """Park what breaks our own code, or meets somebody else's key: it would break it again.

        The watch looks at its chord when its time has come.
        """
        trace = None if isinstance(error, StoreConflict) else error
        log.error("a chord could not be counted", error=str(error), exc_info=trace)
        text = f"the chord could not be counted: {error!r}"
        self._settler.park(delivery, self._lane, DeadReason.WORKFLOW, text)

    async def _end(self, chord: str, answer: Counted, deliveries: list[Delivery]) -> None:
        try:
            ended = await self._ended(chord, answer, Several(deliveries))
        except Exception as error:  # noqa: BLE001 - whatever it is, nothing may stay unacked
            for delivery in deliveries:
                self._broken(delivery, error)
            return
        if ended:
            _ack(deliveries)

    async def _ended(self, chord: str, answer: Counted, held: Held) -> bool:
        """Publish what a chord's end leads to, then write that it has ended."""
        store = self._launcher.store()
        known = await self._insist(held, lambda: store.load(chord, endings=True))
        if known is None or known.spec is None or known.state is not State.OPEN:
            return held.live  # it has ended, or expired, since
        if not known.over:
            return held.live  # what had failed was replayed since: the others are waited for
        remembered = known.spec.remembered()
        state, launch = self._conclusion(known)
        try:
            sent = await self._settler.carry_out(Settlement(launch=launch), held, self._lane)
        except EncodeError as error:
            # Its list is no result that can be stored. Nothing of the launch was published yet.
            state, launch = self._not_to_be(known, f"its list of results cannot be stored: {error}")
            sent = await self._settler.carry_out(Settlement(launch=launch), held, self._lane)
        if not sent:
            return False
        # A fence that is another's by now: it publishes the same again, which runs once.
        ended = await self._insist(held, lambda: store.end(chord, answer.fence, state, remembered))
        return ended is not None

    def _conclusion(self, known: Known) -> tuple[State, Launch]:
        """Return how a chord ends, and what that leads to."""
        spec, now = known.spec, self._now()
        assert spec is not None, "asked by the caller"
        if (ending := known.failure()) is not None:
            return State.FAILED, self._failure(known, ending)
        try:
            return State.FIRED, fired(known, spec, self._unfolder, now=now)
        except (AmqflowError, TypeError, ValueError) as error:
            return self._not_to_be(known, f"its body cannot be sent: {error}", type(error).__name__)

    def _not_to_be(
        self, known: Known, text: str, kind: str = "InvalidResult"
    ) -> tuple[State, Launch]:
        """Return the failure of a chord whose members have all succeeded.

        None of them has failed, and none can mend it: it is over.
        """
        spec = known.spec
        assert spec is not None, "asked by the caller"
        cause = own_failure(known.id, kind, text)
        now = self._now()
        return State.FIRED, failed(
            known.id, spec.fate, cause, self._unfolder, epoch=known.epoch, now=now
        )

    def _failure(self, known: Known, ending: Ending) -> Launch:
        spec = known.spec
        assert spec is not None, "asked by the caller"
        try:
            cause = Failure.read(ending.value)
        except Undecodable as error:
            cause = own_failure(known.id, "TaskFailed", str(error))
        return failed(
            known.id, spec.fate, cause, self._unfolder, epoch=known.epoch, now=self._now()
        )

    # -- the watch -----------------------------------------------------------------------------

    def watch(self, delivery: Delivery) -> None:
        """Look at a chord whose deadline has come."""
        try:
            watch = Watch.of(delivery.envelope)
        except Undecodable as error:
            self._settler.park(delivery, self._lane, DeadReason.UNDECODABLE, str(error))
            return
        self._settler.start(self._watch(delivery, watch))

    async def _watch(self, delivery: Delivery, watch: Watch) -> None:
        try:
            await self._watched(delivery, watch)
        except StoreConflict as error:
            self._broken(delivery, error)

    async def _watched(self, delivery: Delivery, watch: Watch) -> None:
        store = self._launcher.store()
        known = await self._insist(delivery, lambda: store.load(watch.chord, endings=True))
        if not delivery.live:
            return
        if known is None:
            done = watch.ended or await self._lost(delivery, watch)
        elif known.state is State.FIRED or known.epoch < watch.epoch:
            done = True
        elif known.state is State.FAILED:
            # A replay may open it again, and would find nobody who watches it. The record is not
            # prolonged: it goes when its time has come, and so does the watch.
            done = await self._again(delivery, replace(watch, ended=True))
        else:
            done = await self._look(delivery, watch, known, store)
        if done:
            delivery.ack()

    async def _lost(self, delivery: Delivery, watch: Watch) -> bool:
        """End a chord whose record is gone, unless it had come to its end before."""
        result = watch.fate.result
        if self._results is not None:
            results = self._results
            outcome = await self._insist(delivery, lambda: results.get(result.id))
            if outcome is not None and outcome.terminal and outcome.epoch >= watch.epoch:
                return True
        if not delivery.live:
            return False
        log.error("the record of a chord was lost", chord=watch.chord)
        cause = own_failure(
            watch.chord,
            "ChordLost",
            f"the record of chord {watch.chord} is no longer in the store: which members have "
            "ended is not known any more",
        )
        launch = failed(
            watch.chord, watch.fate, cause, self._unfolder, epoch=watch.epoch, now=self._now()
        )
        return await self._settler.carry_out(Settlement(launch=launch), delivery, self._lane)

    async def _look(
        self, delivery: Delivery, watch: Watch, known: Known, store: ChordStore
    ) -> bool:
        """Add what ended without being counted; where members still run, watch again."""
        if known.size is None:
            endings = [_unsealed(known)]
        else:
            endings = await self._uncounted(delivery, known)
        counted = await self._insist(
            delivery, lambda: store.count([Counting(watch.chord, endings)])
        )
        if counted is None:
            return False
        answer = counted[0]
        if answer.verdict in (Verdict.READY, Verdict.FAILED):
            return await self._ended(watch.chord, answer, delivery)
        if answer.verdict in (Verdict.WAITING, Verdict.BUSY):
            # Members alive, or somebody at its end right now: look again at the next deadline.
            return await self._rearm(delivery, watch, store)
        return True

    async def _uncounted(self, delivery: Delivery, known: Known) -> list[Ending]:
        """Return the endings of members whose outcome is stored, and not counted."""
        if self._results is None:
            return []
        results = self._results
        missing = list(known.missing())
        endings: list[Ending] = []
        for start in range(0, len(missing), _READ):
            some = missing[start : start + _READ]

            async def read(some: Sequence[tuple[int, str]] = some) -> list[Outcome | None]:
                return list(await asyncio.gather(*(results.get(task_id) for _, task_id in some)))

            found = await self._insist(delivery, read)
            endings += [
                Ending.of(index, outcome)
                for (index, _), outcome in zip(some, found or (), strict=False)
                if outcome is not None and outcome.terminal
            ]
        return endings

    async def _rearm(self, delivery: Delivery, watch: Watch, store: ChordStore) -> bool:
        async def prolong() -> bool:
            await store.prolong([watch.chord])
            return True

        prolonged = await self._insist(delivery, prolong)
        return bool(prolonged) and await self._again(delivery, replace(watch, ended=False))

    async def _again(self, delivery: Delivery, watch: Watch) -> bool:
        """Send the watch round once more."""

        async def again() -> bool:
            await self._launcher.watch(watch)
            return True

        return bool(await self._insist(delivery, again))

    # -- holding -------------------------------------------------------------------------------

    async def _insist(
        self, held: Held, ask: Callable[[], Awaitable[T]], *, refused: bool = True
    ) -> T | None:
        """Ask store or broker until they answer; None once the broker has taken back what asks.

        Args:
            held: What asks.
            ask: Asks once.
            refused: Whether to ask again where the store is there and refuses, too.

        Raises:
            StoreConflict: A key holds what is not ours; nothing but an operator ends that.
        """
        backoff = Backoff(first=0.1, most=STORE_RETRY)
        while held.live:
            try:
                return await ask()
            except StoreConflict:
                raise
            except (StoreError, BrokerError) as error:
                if not refused and not isinstance(error, StoreUnavailable | BrokerError):
                    raise
                log.warning("holding completions", error=str(error))
                await asyncio.sleep(backoff.next())
        return None


def _unsealed(known: Known) -> Ending:
    """Return the failure of a chord whose sender died before all its members were sent."""
    text = (
        f"whoever sent chord {known.id} died or lost the broker before all its members were sent; "
        f"{known.ended} of them have ended"
    )
    cause = own_failure(known.id, "ChordLost", text)
    return Ending(UNDRAWN, succeeded=False, value=cause.to_json(), epoch=known.epoch)


def _ack(deliveries: Sequence[Delivery]) -> None:
    for delivery in deliveries:
        delivery.ack()
