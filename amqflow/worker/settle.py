"""Settles ended attempts: store the outcome, publish what the stored one requires, then ack.

The order is the invariant (design 5.2). Where a step cannot be done now it is tried again with
backoff, or handed over under confirm; the message stays unacked until then.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections import Counter
from contextlib import contextmanager
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from amqflow.abc import FAILURE, RETRY, REVOKED, SUCCESS, DeadReason, ExceptionInfo, Finish, Outcome
from amqflow.backoff import Backoff
from amqflow.errors import (
    AccessRefused,
    AmqflowError,
    AppClosed,
    BrokerError,
    BrokerUnavailable,
    ChannelLost,
    EncodeError,
    NotFound,
    PublishTimeout,
    StoreConflict,
    StoreError,
    StoreUnavailable,
    Undecodable,
    Unroutable,
)
from amqflow.logs import get_logger
from amqflow.producer import Outgoing
from amqflow.protocol import headers as h
from amqflow.results.exceptions import describe
from amqflow.topology.names import UNDELIVERED
from amqflow.transport import Delivery
from amqflow.worker.away import away_message
from amqflow.worker.completions import CompletionBox
from amqflow.worker.returns import SUSPECT_AFTER, returns
from amqflow.worker.settlement import Received, Settlement
from amqflow.workflow import Completion, Launch, following
from amqflow.workflow.completion import lost_member, membership
from amqflow.workflow.records import Ending

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine, Iterable, Iterator

    from amqflow.abc import Call, Finished, ResultStore
    from amqflow.middleware import Stack
    from amqflow.producer import Producer
    from amqflow.worker.completions import Held
    from amqflow.worker.job import Job
    from amqflow.worker.lanes import Lane
    from amqflow.worker.settlement import Desk
    from amqflow.workflow.launch import Launcher

log = get_logger("amqflow.worker")

#: Seconds a message waits in the ladder whose attempt another owner has claimed.
CONTESTED_DELAY = 2.0
#: The most seconds between two tries to bring an outcome to a store that is away.
STORE_RETRY = 2.0
#: What ends by itself when the broker is back, which takes back what is held meanwhile.
_PASSING = (BrokerUnavailable, ChannelLost, PublishTimeout)


class Settler:
    """One per worker; everything happens in its loop."""

    def __init__(
        self,
        *,
        store: ResultStore | None,
        producer: Producer,
        desk: Desk,
        launcher: Launcher,
        on_settled: Callable[[Job, Outcome], None],
        on_dropped: Callable[[Job], None],
        middleware: Stack,
        on_stuck: Callable[[Lane, str | None], None],
    ) -> None:
        """Wire the parts.

        Args:
            store: where outcomes stand; None where the application keeps none.
            producer: the way out.
            desk: makes settlements.
            launcher: starts what follows, compositions too.
            on_settled: told of each outcome that stands, before the ack.
            on_dropped: told of each job that ends here without one.
            middleware: its settle hooks see every outcome.
            on_stuck: told of a lane whose message can be sent nowhere, to pause it; with None
                when it is through.
        """
        self._loop = asyncio.get_running_loop()
        self._store = store
        self._producer = producer
        self._desk = desk
        self._launcher = launcher
        self._on_settled = on_settled
        self._on_dropped = on_dropped
        self._on_stuck = on_stuck
        #: How many messages keep a lane paused.
        self._holding: Counter[str] = Counter()
        self._stopping = asyncio.Event()
        self._middleware = middleware
        self._finishing: list[Job] = []
        self._work: set[asyncio.Task[None]] = set()
        self._box = CompletionBox(launcher.completions, self._deliver, self._start)

    @property
    def busy(self) -> int:
        """How many settlements are under way."""
        return len(self._work) + len(self._finishing)

    @property
    def stuck(self) -> bool:
        """Whether a message can be sent nowhere, so that its lane is paused."""
        return any(self._holding.values())

    # -- ways in ---------------------------------------------------------------------------

    def settle(self, job: Job) -> None:
        """Settle an ended job; its ``outcome`` is set."""
        if self._middleware.settles and job.outcome is not None:
            job.outcome = self._middleware.before_settle(job.message, job.outcome)
        # A claim that is to run once ends with an outcome, whether its result is wanted or not.
        if job.keeps_result or job.attempt is not None:
            self._finishing.append(job)
            if len(self._finishing) == 1:
                # Everything that ends in this loop turn shares one round trip to the store.
                self._loop.call_soon(self._finish_turn)
        elif job.outcome is not None:
            self._stands(job, job.outcome)

    def redo(self, job: Job, stored: Outcome) -> None:
        """Do what a stored outcome requires, for a message that came again."""
        self._stands(job, stored)

    def park(self, delivery: Delivery, lane: Lane, why: DeadReason, text: str) -> None:
        """Park a message that is no task, with its reason."""
        log.warning("parked", queue=lane.queue, reason=str(why), detail=text)
        letter = self._desk.parked(why, _received(delivery), lane, reason=text)
        # What cannot be read may still say which chord waits for it.
        completion = lost_member(delivery.envelope, why, text)
        launch = Launch(completions=[completion] if completion else [])
        self._start(self._carry_out(delivery, lane, Settlement((letter,), launch)))

    def delay(self, delivery: Delivery, lane: Lane, seconds: float, **headers: object) -> None:
        """Send a message back to its queue by the ladder, with ``headers``, then ack.

        The copy keeps its count of returns, which the broker begins anew: one that kills its
        worker, and waits for the dead one's lease after each time, would never be a suspect.
        """
        known = returns(delivery.envelope.headers, redelivered=delivery.redelivered)
        if lane.suspect:
            known += SUSPECT_AFTER  # the ladder leads to the work queue
        if known:
            headers[h.REDELIVERED] = known
        letter = self._desk.delayed(_received(delivery), lane, seconds, **headers)
        self._start(self._send_on(delivery, lane, [letter]))

    def move(self, delivery: Delivery, lane: Lane, queue: str, **headers: object) -> None:
        """Move a message to another queue (or the end of its own), then ack."""
        letter = self._desk.moved(_received(delivery), queue, **headers)
        self._start(self._send_on(delivery, lane, [letter]))

    def hand_back(self, delivery: Delivery, lane: Lane) -> None:
        """Give back what was not run to its end, through no fault of its own.

        The broker counts every return and cannot tell a worker that stops from one that died. So
        what has come back before goes back as a copy that keeps its count: no number of stops
        makes it a suspect, let alone poison (design 5.6).
        """
        known = returns(delivery.envelope.headers, redelivered=delivery.redelivered)
        if known:
            self.move(delivery, lane, lane.source, **{h.REDELIVERED: known})
        else:
            delivery.requeue()

    def lost(self, delivery: Delivery, lane: Lane) -> None:
        """Give back what the death of its own process cut off.

        The copy counts the death, as the broker would count a worker's: who kills every process
        ends among the suspects, and then as poison (design 5.6).
        """
        known = returns(delivery.envelope.headers, redelivered=delivery.redelivered)
        self.move(delivery, lane, lane.source, **{h.REDELIVERED: known + 1})

    def send_on(self, delivery: Delivery, lane: Lane, letter: Outgoing) -> None:
        """Publish a message in a delivery's place, then ack."""
        self._start(self._send_on(delivery, lane, [letter]))

    # -- (a) store -------------------------------------------------------------------------

    def _finish_turn(self) -> None:
        jobs, self._finishing = self._finishing, []
        self._start(self._finish(jobs))

    async def _finish(self, jobs: list[Job]) -> None:
        store = self._store
        if store is None:
            return
        try:
            finished = await store.finish([_finish_of(job, self._desk) for job in jobs])
        except EncodeError as error:
            if len(jobs) == 1:
                await self._unencodable(jobs[0], error)
            else:  # one of them cannot be written: each on its own
                for job in jobs:
                    await self._finish([job])
            return
        except StoreConflict as error:
            if len(jobs) == 1:
                self._no_room(jobs[0], error)
            else:  # the key of one of them is somebody else's: each on its own
                for job in jobs:
                    await self._finish([job])
        except Exception as error:  # noqa: BLE001 - whatever it is, the outcomes must not be stranded
            said = (
                "the result store is away"
                if isinstance(error, StoreUnavailable)
                else "the result store refuses what is asked of it: mend that"
            )
            log.warning(said, error=repr(error), settlements=len(jobs))
            await asyncio.gather(*(self._hand_over(job) for job in jobs))
        else:
            self._answered(jobs, finished)

    def _answered(self, jobs: list[Job], finished: list[Finished]) -> None:
        for job, answer in zip(jobs, finished, strict=True):
            if answer.refused:
                self._refused(job, answer)
            else:
                self._stands(job, answer.stored)

    def _refused(self, job: Job, answer: Finished) -> None:
        """Publish nothing; end the message only where a later attempt or epoch carries the task."""
        log.warning(
            "outcome refused: another worker has taken this task over",
            task_id=job.message.id,
            task=job.message.task,
            state=answer.stored.state,
        )
        self._on_dropped(job)
        if answer.contested and not job.acked:
            # Who holds the fence may be dead, and this message the last copy: ask again later.
            self.delay(job.delivery, job.lane, CONTESTED_DELAY)
        else:
            job.delivery.ack()

    def _no_room(self, job: Job, error: StoreConflict) -> None:
        """Park a task that has ended and whose outcome can never be stored."""
        outcome = job.outcome
        self._on_dropped(job)
        if outcome is None or job.acked:
            log.error("an outcome cannot be stored", task_id=job.message.id, error=str(error))
            return
        text = f"it ended as {outcome.state}, which cannot be stored: {error}"
        failed = replace(
            outcome, state=FAILURE, result=None, exception=describe(error), reason=text
        )
        self.reject(job, failed, DeadReason.FAILED, text)

    async def _unencodable(self, job: Job, error: EncodeError) -> None:
        text = f"the result cannot be written: {error}"
        job.outcome = Outcome(
            job.message.id,
            FAILURE,
            exception=ExceptionInfo("InvalidResult", "amqflow.errors", (text,), text),
            epoch=job.message.epoch,
            attempt=job.message.attempt,
            park=DeadReason.FAILED,
            reason=text,
            date_done=self._desk.now(),
        )
        await self._finish([job])

    async def _hand_over(self, job: Job) -> None:
        """Hand a settlement to the completions queue under confirm; hold it where that fails.

        Held, it stays unacked and its queue is paused, until the store or the completions queue
        is back (design 5.3).
        """
        store, outcome = self._store, job.outcome
        if store is None or outcome is None:
            return
        body = away_message(outcome, job.fence, _received(job.delivery), job.lane)
        names = self._launcher.names
        letter = Outgoing(body, names.results, names.completions_key)
        backoff = Backoff(first=0.2, most=STORE_RETRY)
        with self._hold(job.lane) as hold:
            while job.delivery.live:
                try:
                    await self._producer.publish(letter)
                except (BrokerError, EncodeError, StoreError) as error:
                    log.warning("holding a settlement", task_id=job.message.id, error=str(error))
                    if not isinstance(error, _PASSING):
                        hold(f"the result store is away, and the completions queue: {error}")
                else:
                    # Nobody writes another outcome before this one: it is announced as it is.
                    self._on_settled(job, outcome)
                    job.delivery.ack()
                    return
                await asyncio.sleep(backoff.next())
                try:
                    self._answered([job], await store.finish([_finish_of(job, self._desk)]))
                except StoreConflict as error:
                    self._no_room(job, error)
                except StoreError:
                    continue
                return
        # The broker hands it out again, and who gets it now is to find no lease of ours.
        self._on_dropped(job)

    @contextmanager
    def _hold(self, lane: Lane) -> Iterator[Callable[[str], None]]:
        """Hand out a way to pause a lane; the last message that paused it lets it go on."""
        paused = False

        def hold(problem: str) -> None:
            nonlocal paused
            if not paused:
                paused = True
                self._holding[lane.source] += 1
                if self._holding[lane.source] == 1:
                    self._on_stuck(lane, problem)

        try:
            yield hold
        finally:
            if paused:
                self._holding[lane.source] -= 1
                if not self._holding[lane.source]:
                    self._on_stuck(lane, None)

    # -- (b) publish, (c) ack --------------------------------------------------------------

    def _stands(self, job: Job, outcome: Outcome) -> None:
        """Do what a standing outcome requires, then ack."""
        self._on_settled(job, outcome)
        if self._middleware.settles:
            self._middleware.after_settle(job.message, outcome)
        message = job.message
        if outcome.state == SUCCESS and not message.chain and not message.callbacks:
            if h.CHORD not in message.extra:
                job.delivery.ack()  # nearly every task of a busy system ends here
                return
            if self._count(job, outcome):
                return
        received = _received(job.delivery)
        try:
            settlement = self._desk.settlement(outcome, message, received, job.lane)
        except (AmqflowError, TypeError, ValueError) as error:
            if outcome.state == RETRY:
                self._cannot_go_on(job, outcome, error)
                return
            # A foreign message whose next step or link is no signature: nothing can follow it.
            self._cannot_follow(job, outcome, f"what follows the task cannot be sent: {error}")
            return
        if settlement.empty:
            job.delivery.ack()
            return
        self._start(self._carry_out(job.delivery, job.lane, settlement))

    def _count(self, job: Job, outcome: Outcome) -> bool:
        """Send a member's success to its chord, without a task of its own; False: it cannot."""
        message, delivery = job.message, job.delivery
        try:
            member = membership(message)
            if member is None:
                return False
            completion = Completion(member, Ending.of(member.index, outcome, message.task))
        except (Undecodable, EncodeError):
            return False

        def confirmed(sent: asyncio.Future[bool]) -> None:
            if not sent.cancelled() and sent.result():
                delivery.ack()

        self._box.add(completion, delivery, job.lane).add_done_callback(confirmed)
        return True

    def _cannot_go_on(self, job: Job, outcome: Outcome, error: Exception) -> None:
        """End a task whose next attempt, or what was to take its place, cannot be sent."""
        text = f"the next attempt cannot be sent: {error}"
        job.outcome = replace(
            outcome,
            state=FAILURE,
            attempt=outcome.attempt + 1,  # of this one it stands that it was to be tried again
            exception=ExceptionInfo(type(error).__name__, type(error).__module__, (text,), text),
            replaced_by=None,
            retry_at=None,
            park=DeadReason.FAILED,
            reason=text,
            date_done=self._desk.now(),
        )
        job.announced = False
        self.settle(job)

    def _cannot_follow(self, job: Job, outcome: Outcome, text: str) -> None:
        """Park the message, and end what waited for its followers."""
        error = ExceptionInfo("ConfigurationError", "amqflow.errors", (text,), text)
        failed = replace(outcome, state=FAILURE, result=None, exception=error, reason=text)
        self.reject(job, failed, DeadReason.WORKFLOW, text)

    def reject(self, job: Job, failed: Outcome, why: DeadReason, text: str) -> None:
        """Park a message that ends without an outcome of its own, and what waited for it."""
        try:
            launch = self._desk.ended(failed, job.message)
        except (AmqflowError, TypeError, ValueError):
            self.park(job.delivery, job.lane, why, text)
            return
        log.warning("parked", queue=job.lane.queue, reason=str(why), detail=text)
        letter = self._desk.parked(why, _received(job.delivery), job.lane, reason=text)
        self._start(self._carry_out(job.delivery, job.lane, Settlement((letter,), launch)))

    def leave(self, job: Job, outcome: Outcome) -> None:
        """Ack a task that ended without an outcome of its own, and end what waited for it."""
        launch = self._desk.ended(outcome, job.message)
        if launch:
            self._start(self._carry_out(job.delivery, job.lane, Settlement(launch=launch)))
        else:
            job.delivery.ack()

    async def _carry_out(self, delivery: Delivery, lane: Lane, settlement: Settlement) -> None:
        if await self.carry_out(settlement, delivery, lane):
            delivery.ack()

    async def carry_out(self, settlement: Settlement, held: Held, lane: Lane) -> bool:
        """Do what remains; True when all of it is stored and confirmed.

        Args:
            settlement: what remains.
            held: what is acked afterwards; once the broker has taken it back, this gives up.
            lane: by which it came.
        """
        launch = settlement.launch
        if (launch.records or launch.outcomes) and not await self._prepared(launch, held):
            return False
        sent = await asyncio.gather(
            *(self._deliver(letter, held, lane) for letter in settlement.messages),
            *(self._call(call, held, lane) for call in launch.calls),
            *(self._box.add(completion, held, lane) for completion in launch.completions),
        )
        return all(sent)

    async def _prepared(self, launch: Launch, held: Held) -> bool:
        """Store and watch what must stand before anything is published; False: given up."""
        backoff = Backoff(first=0.1, most=STORE_RETRY)
        while held.live:
            try:
                await self._launcher.prepare(launch)
            except StoreConflict as error:
                # Of ends that wait for this one; a chord without its record must not begin.
                log.error("what follows a task cannot be stored", error=str(error))  # noqa: TRY400 - it says all
                if not launch.records:
                    return True
                await asyncio.sleep(backoff.next())
            except (StoreError, BrokerError) as error:
                log.warning("holding what follows a task", error=str(error))
                await asyncio.sleep(backoff.next())
            else:
                return True
        return False

    async def _send_on(self, delivery: Delivery, lane: Lane, letters: Iterable[Outgoing]) -> None:
        sent = [await self._deliver(letter, delivery, lane) for letter in letters]
        if all(sent):
            delivery.ack()

    async def _call(self, call: Call, held: Held, lane: Lane) -> bool:
        """Send a following call; one that cannot be sent fails, and what waits for it."""
        refused: list[Exception] = []

        async def send() -> None:
            await self._producer.send(call)

        async def give_up(error: Exception) -> None:
            try:
                letter = await self._producer.unrouted(call)
            except EncodeError as wrong:
                # It can be kept nowhere. What it was to follow is parked, with the why.
                if isinstance(held, Delivery) and held.envelope.type is None:
                    text = f"what follows the task, {call.task}, cannot be sent: {wrong}"
                    why = DeadReason.WORKFLOW
                    letter = self._desk.parked(why, _received(held), lane, reason=text)
                    await self._producer.publish(letter)
            else:
                await self._producer.publish(replace(letter, exchange=UNDELIVERED, routing_key=""))
            refused.append(error)

        sent = await self._insist(send, give_up, held, lane, what=call.task)
        if sent and refused:
            message = self._producer.message_of(call)
            outcome = self._desk.refused(message, refused[0])
            launch = following(message, outcome, self._desk.unfolder, now=self._desk.now())
            launch.outcomes.insert(0, outcome)
            return await self.carry_out(Settlement(launch=launch), held, lane)
        return sent

    async def _deliver(self, letter: Outgoing, held: Held, lane: Lane) -> bool:
        """Publish one message of a settlement; True when the broker has confirmed it."""

        async def send() -> None:
            await self._producer.publish(letter)

        async def give_up(_error: Exception) -> None:
            await self._producer.publish(replace(letter, exchange=UNDELIVERED, routing_key=""))

        return await self._insist(send, give_up, held, lane, what=letter.queue or letter.exchange)

    async def _insist(
        self,
        send: Callable[[], Coroutine[object, object, None]],
        give_up: Callable[[Exception], Coroutine[object, object, None]],
        held: Held,
        lane: Lane,
        *,
        what: str,
    ) -> bool:
        """Send until confirmed, or until the broker has taken the held delivery back.

        Unroutable goes to ``amqflow.undelivered``; failing that the message stays unacked and
        its lane is paused, loudly (design 5.8).
        """
        backoff = Backoff(first=0.1, most=10.0)
        with self._hold(lane) as hold:
            while held.live:
                try:
                    await send()
                except Exception as error:  # noqa: BLE001 - else it would be unacked for good
                    if _comes_right(error):
                        log.warning("publishing again", to=what, error=str(error))
                        await asyncio.sleep(backoff.next())
                        continue
                    try:
                        await give_up(error)
                    except Exception as worse:  # noqa: BLE001 - as above
                        hold(f"{what}: {error}; and the undelivered queue: {worse}")
                        await asyncio.sleep(backoff.next())
                    else:
                        log.warning(
                            "undeliverable, kept in the undelivered queue",
                            to=what,
                            error=str(error) or repr(error),
                        )
                        return True
                else:
                    return True
        return False

    # -- for the coordinator ---------------------------------------------------------------

    async def settle_away(
        self,
        delivery: Delivery,
        finish: Finish,
        settlement_of: Callable[[Outcome], Settlement],
        again: Callable[[], Outgoing],
        lane: Lane,
    ) -> None:
        """Finish a settlement that another worker handed over while the store was away.

        Args:
            delivery: of the completions queue.
            finish: what is to be stored.
            settlement_of: what the outcome that stands requires.
            again: the task's message on its way back to its queue, for an attempt that another
                owner has claimed.
            lane: of the completions queue.
        """
        backoff = Backoff(first=0.2, most=STORE_RETRY)
        while delivery.live and self._store is not None:
            try:
                (answer,) = await self._store.finish([finish])
            except StoreConflict as error:
                text = f"the outcome cannot be stored: {error}"
                self.park(delivery, lane, DeadReason.WORKFLOW, text)
                return
            except StoreError as error:
                log.warning("the result store is still away", error=str(error))
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(backoff.next()):
                        await self._stopping.wait()
                        return  # unacked: it waits in its queue for another worker
                continue
            except Exception as error:  # noqa: BLE001 - the next try would end the same way
                self.park(
                    delivery, lane, DeadReason.WORKFLOW, f"the outcome cannot be stored: {error!r}"
                )
                return
            if answer.contested:
                await self._send_on(delivery, lane, [again()])
            elif answer.refused:
                delivery.ack()
            else:
                await self._carry_out(delivery, lane, settlement_of(answer.stored))
            return

    def start(self, work: Coroutine[object, object, None]) -> None:
        """Run settling work that :meth:`drain` waits for."""
        self._start(work)

    def _start(self, work: Coroutine[object, object, None]) -> None:
        task = self._loop.create_task(work)
        self._work.add(task)
        task.add_done_callback(self._ended)

    def _ended(self, task: asyncio.Task[None]) -> None:
        self._work.discard(task)
        if not task.cancelled() and (error := task.exception()) is not None:
            # The message stays unacked and is delivered again when the channel closes.
            log.error("settling failed, the message stays unacked", exc_info=error)

    async def drain(self, timeout: float) -> bool:
        """Wait for the settlements under way; False when ``timeout`` seconds passed first."""
        self._stopping.set()
        try:
            async with asyncio.timeout(timeout):
                while self._work or self._finishing or self._box.waiting:
                    await asyncio.gather(*self._work, return_exceptions=True)
                    await asyncio.sleep(0)
        except TimeoutError:
            return False
        return True


def _comes_right(error: Exception) -> bool:
    """Whether a publish may succeed when it is tried again, the message as it is.

    A middleware, a router or a codec that refuses a message refuses it again, and so does a broker
    whose user may not write there.
    """
    return isinstance(error, BrokerError | AppClosed | StoreUnavailable) and not isinstance(
        error, Unroutable | NotFound | AccessRefused
    )


def _received(delivery: Delivery) -> Received:
    return Received(delivery.envelope, delivery.exchange, delivery.routing_key)


def _finish_of(job: Job, desk: Desk) -> Finish:
    outcome = job.outcome
    if outcome is None:  # pragma: no cover - settle() is called with an outcome
        message = "a job was settled without an outcome"
        raise RuntimeError(message)
    if desk.extended:
        outcome = replace(outcome, extended=_extended(job, desk.worker))
    return Finish(outcome, job.fence, job.message.reply_to, job.message.correlation_id)


def _extended(job: Job, worker: str) -> dict[str, Any]:
    """Return what a result says of its call with ``result_extended``, by Celery's names."""
    message = job.message
    return {
        "name": message.task,
        "args": message.args,
        "kwargs": message.kwargs,
        "worker": worker,
        "retries": message.retries,
        "queue": message.original_routing_key or job.delivery.routing_key,
    }


TERMINAL_LOGS = {SUCCESS: "succeeded", FAILURE: "failed", REVOKED: "revoked", RETRY: "retrying"}
