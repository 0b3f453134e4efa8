"""From a delivery to a job that may run: decode, judge, claim. Nothing here runs a task."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from itertools import count
from typing import TYPE_CHECKING

from amqflow import signals
from amqflow.abc import (
    FAILURE,
    RETRY,
    REVOKED,
    Attempt,
    DeadReason,
    ExceptionInfo,
    Outcome,
    Verdict,
)
from amqflow.backoff import Backoff
from amqflow.errors import InvalidArguments, StoreConflict, StoreUnavailable, Undecodable
from amqflow.logs import get_logger
from amqflow.protocol import decode
from amqflow.protocol import headers as h
from amqflow.worker.errback import failure_arguments
from amqflow.worker.job import Job
from amqflow.worker.pace import mark, mark_of
from amqflow.worker.returns import SUSPECT_AFTER, counts, deaths, returns

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine

    from amqflow.abc import Claim, ResultStore
    from amqflow.clock import Clock
    from amqflow.guards.revocations import Revoked
    from amqflow.middleware import Stack
    from amqflow.protocol import Limits, TaskMessage
    from amqflow.tasks import RateLimit, TaskRegistry
    from amqflow.transport import Delivery
    from amqflow.worker.execute import Executor
    from amqflow.worker.lanes import Lane
    from amqflow.worker.pace import Pace
    from amqflow.worker.settle import Settler

log = get_logger("amqflow.worker")

#: The most seconds between two questions to a store that is away.
STORE_RETRY = 2.0
#: Seconds a busy ``once`` task waits in the ladder before it asks for the lease again.
BUSY_DELAY = 5.0


@dataclass(frozen=True, slots=True)
class IntakeRules:
    """The settings that judge deliveries."""

    limits: Limits
    #: For bodies that did not come from the broker (the claim check).
    fetched_limits: Limits
    poison_limit: int
    #: Seconds; what is due within it waits here, what is due later goes back to the ladder.
    tick: float
    lease: float
    ignore_result: bool
    acks_late: bool


class Intake:
    """Takes deliveries by the loop turn and hands ready jobs to the executor."""

    def __init__(
        self,
        *,
        tasks: TaskRegistry,
        store: ResultStore | None,
        executor: Executor,
        settler: Settler,
        rules: IntakeRules,
        clock: Clock,
        owner: str,
        on_job: Callable[[Job], None],
        middleware: Stack,
        revoked: Revoked,
        pace: Pace | None,
    ) -> None:
        """Wire the parts, in the running loop.

        Args:
            tasks: the application's.
            store: claims attempts; None where no result is kept.
            executor: runs what may run.
            settler: ends what may not.
            rules: judge deliveries.
            clock: for delays and expiry.
            owner: this worker, in claims.
            on_job: completes a job that may run.
            middleware: its receive hooks see every message.
            revoked: what is revoked now.
            pace: the rate limits; None: they are switched off.
        """
        self._loop = asyncio.get_running_loop()
        self._tasks = tasks
        self._store = store
        self._fences = store is not None and store.capabilities.fences
        self._executor = executor
        self._settler = settler
        self._rules = rules
        self._clock = clock
        self._owner = owner
        self._on_job = on_job
        self._middleware = middleware
        self._revoked = revoked
        self._pace = pace
        self._fresh: list[tuple[Delivery, Lane, Limits]] = []
        #: What asks the store, and for which jobs.
        self._asking: dict[asyncio.Task[None], list[Job]] = {}
        self._waiting: dict[Job, asyncio.TimerHandle] = {}
        self._open = True
        #: Numbers the claims: two copies of a message here are two owners, too.
        self._claims = count()

    def receive(self, delivery: Delivery, lane: Lane, *, fetched: bool = False) -> None:
        """Take one delivery (called by the consumer); it is looked at with this turn's others.

        Args:
            delivery: as it came.
            lane: of its queue.
            fetched: its body was kept apart, and may be larger than a message.
        """
        if not self._open:
            self._settler.hand_back(delivery, lane)
            return
        limits = self._rules.fetched_limits if fetched else self._rules.limits
        self._fresh.append((delivery, lane, limits))
        if len(self._fresh) == 1:
            self._loop.call_soon(self._turn)

    def _turn(self) -> None:
        fresh, self._fresh = self._fresh, []
        if not self._open:
            for delivery, lane, _ in fresh:
                self._settler.hand_back(delivery, lane)
            return
        jobs: list[Job] = []
        for delivery, lane, limits in fresh:
            try:
                job = self._admit(delivery, lane, limits)
            except Exception as error:
                # One delivery that breaks our own code must not hold up the turn's others.
                log.exception("a delivery could not be taken in", queue=lane.queue)
                self._settler.park(delivery, lane, DeadReason.UNDECODABLE, repr(error))
                continue
            if job is not None:
                jobs.append(job)
        self._go_on(jobs)

    def _go_on(self, jobs: list[Job]) -> None:
        """Send jobs that are due on: to their rate limit, to the claim, to the executor."""
        limited: list[tuple[Job, RateLimit]] = []
        claims: list[Job] = []
        pace = self._pace
        for job in jobs:
            if pace is not None and (limit := pace.limit(job)) is not None:
                start = pace.reserved(job, limit)
                if start is None:
                    limited.append((job, limit))
                    continue
                if not self._reached(job, start):
                    continue
            if job.attempt is not None:
                claims.append(job)
            else:
                self._ready(job)
        self._executor.pump()
        if claims:
            self._start_claim(claims)
        if limited:
            self._start(self._reserve(limited), [job for job, _ in limited])

    def _start_claim(self, jobs: list[Job]) -> None:
        self._start(self._claim(jobs), jobs)

    def _start(self, asking: Coroutine[object, object, None], jobs: list[Job]) -> None:
        task = self._loop.create_task(asking)
        self._asking[task] = jobs
        task.add_done_callback(self._asking.pop)

    # -- judging ---------------------------------------------------------------------------

    def _admit(self, delivery: Delivery, lane: Lane, limits: Limits) -> Job | None:
        """Return the job of a delivery, with its outcome where it must not run."""
        try:
            message = decode(delivery.envelope, limits=limits)
        except Undecodable as error:
            self._settler.park(delivery, lane, DeadReason.UNDECODABLE, str(error))
            return None
        if self._middleware.receives:
            try:
                self._middleware.after_receive(message)
            except Exception as error:  # noqa: BLE001 - whatever a hook raises parks the message
                # It has an id, so somebody may wait for it: it ends as a task does.
                job = self._job(delivery, message, lane)
                self._condemn(job, DeadReason.FAILED, f"refused by middleware: {error!r}")
                return job
        if not lane.suspect and self._suspected(delivery, message, lane):
            return None
        remaining = (message.eta or 0.0) - self._clock.now()
        if remaining > self._rules.tick:
            # Beyond the ladder's reach, or sent by a client that knows no ladder.
            self._settler.delay(delivery, lane, remaining)
            return None
        job = self._job(delivery, message, lane)
        if remaining > 0 and job.outcome is None:
            # Never early: the rest of a tick is waited out here (design 6).
            self._waiting[job] = self._loop.call_later(remaining, self._due, job)
            return None
        return job

    def _due(self, job: Job) -> None:
        del self._waiting[job]
        now = self._clock.now()
        remaining = max(job.message.eta or 0.0, job.start or 0.0) - now
        if remaining > 0:  # A loop's timer counts from a moment ago, in whole milliseconds.
            self._waiting[job] = self._loop.call_later(remaining + 0.001, self._due, job)
            return
        self._go_on([job])

    def _job(self, delivery: Delivery, message: TaskMessage, lane: Lane) -> Job:
        task = self._tasks.get(message.task)
        keeps = self._keeps_result(message, task.options.ignore_result if task else None)
        job = Job(delivery, message, task, lane, keeps_result=keeps)
        if (keeps and self._fences) or (message.once and self._fences):
            job.attempt = Attempt(
                message.id,
                message.epoch,
                message.attempt,
                f"{self._owner}/{next(self._claims)}",
                once=message.once,
                lease=self._rules.lease,
            )
        if message.chord is not None:
            self._condemn(
                job,
                DeadReason.WORKFLOW,
                "the message carries a chord of Celery's (embed.chord), which only Celery's "
                "workers can count; send the chord with amqflow",
            )
        elif h.BLOB in message.extra:
            self._condemn(
                job,
                DeadReason.BLOB_MISSING,
                f"its body was kept apart, as {message.extra[h.BLOB]}, and cannot be had: it has "
                "expired (blob_expires), or this worker looks elsewhere (blob_store)",
            )
        elif task is None:
            if signals.task_unknown.has_receivers():
                signals.task_unknown.send(
                    sender=self, name=message.task, id=message.id, message=message, exc=None
                )
            self._condemn(
                job,
                DeadReason.UNKNOWN_TASK,
                f"no task named {message.task!r} is registered in this worker; import its module "
                "(include=[…]) or route it to a worker that has it",
            )
        elif lane.suspect and self._returns(delivery) >= self._rules.poison_limit:
            self._condemn(
                job,
                DeadReason.POISON,
                f"the worker died or was cut off {deaths(delivery.envelope.headers)} times "
                "while this message was in its hands",
            )
        else:
            try:
                args = failure_arguments(message) if message.errback else message.args
                job.args, job.kwargs = task.check_arguments(args, message.kwargs)
            except InvalidArguments as error:
                self._condemn(job, DeadReason.INVALID_ARGUMENTS, str(error))
        if job.outcome is None and (found := self._revoked.of(message)) is not None:
            job.outcome = revoked(job, found.reason, self._clock.now())
        if job.outcome is None and message.expires is not None:
            self._expire(job, self._clock.now())
        return job

    def _keeps_result(self, message: TaskMessage, of_task: bool | None) -> bool:
        if self._store is None:
            return False
        ignore = message.ignore_result
        if ignore is None:
            ignore = of_task
        if ignore is None:
            ignore = self._rules.ignore_result
        if ignore:
            return False
        return self._store.capabilities.fences or message.reply_to is not None

    def _expire(self, job: Job, now: float) -> None:
        expires = job.message.expires
        if expires is not None and expires <= now:
            job.outcome = expired(job, now)

    def _condemn(self, job: Job, why: DeadReason, text: str) -> None:
        log.warning(
            "not run", task_id=job.message.id, task=job.message.task, reason=str(why), detail=text
        )
        job.outcome = Outcome(
            job.message.id,
            FAILURE,
            exception=ExceptionInfo(_ERRORS.get(why, "AmqflowError"), _MODULE, (text,), text),
            epoch=job.message.epoch,
            attempt=job.message.attempt,
            park=why,
            reason=text,
            date_done=self._clock.now(),
        )

    # -- suspects --------------------------------------------------------------------------

    @staticmethod
    def _returns(delivery: Delivery) -> int:
        return returns(delivery.envelope.headers, redelivered=delivery.redelivered)

    def _suspected(self, delivery: Delivery, message: TaskMessage, lane: Lane) -> bool:
        """Send away what has come back before; True where it is gone from this queue."""
        known = self._returns(delivery)
        if known < SUSPECT_AFTER:
            if not delivery.redelivered or counts(delivery.envelope.headers):
                return False
            # A classic queue counts nothing: the mark does.
            self._settler.move(delivery, lane, lane.queue, **{h.REDELIVERED: known})
            return True
        log.warning(
            "a message came back again: it runs alone from now on",
            task_id=message.id,
            task=message.task,
            queue=lane.queue,
        )
        # Among suspects the count begins anew; who comes back from them by the ladder has a mark.
        known = max(0, message.extra.get(h.REDELIVERED, 0) - SUSPECT_AFTER)
        kept = {h.REDELIVERED: known, **mark_of(delivery)}
        self._settler.move(delivery, lane, lane.suspect_queue, **kept)
        return True

    # -- rate limits -----------------------------------------------------------------------

    async def _reserve(self, limited: list[tuple[Job, RateLimit]]) -> None:
        """Ask, in one round trip, when these jobs may start; send on what may start now."""
        pace = self._pace
        if pace is None:  # pragma: no cover - nothing is limited then
            return
        backoff = Backoff(first=0.1, most=STORE_RETRY)
        while limited := [one for one in limited if one[0].delivery.live]:
            try:
                over = await self._over([job for job, _ in limited])
                if over:
                    # Its outcome is stored: what follows from it is sent, and nothing starts.
                    self._start_claim(list(over))
                    limited = [one for one in limited if one[0] not in over]
                starts = await pace.reserve(limited)
            except Exception as error:  # noqa: BLE001 - a task that ends here strands its messages
                # Nothing starts that nobody has counted, nothing is acked or given back.
                log.warning(
                    "rate limits cannot be asked for, holding tasks",
                    error=str(error) or repr(error),
                    held=len(limited),
                )
                await asyncio.sleep(backoff.next())
                continue
            self._go_on(
                [
                    job
                    for (job, _), start in zip(limited, starts, strict=True)
                    if self._reached(job, start)
                ]
            )
            return

    async def _over(self, jobs: list[Job]) -> set[Job]:
        """Return those of which a copy has run to its end: a worker died before its ack."""
        asked = [job for job in jobs if job.attempt is not None and self._came_back(job)]
        if self._store is None or not asked:
            return set()
        outcomes = await self._store.get_many([job.message.id for job in asked])
        return {
            job
            for job, outcome in zip(asked, outcomes, strict=True)
            if outcome is not None
            and outcome.epoch == job.message.epoch
            and outcome.attempt >= job.message.attempt
            and (outcome.terminal or outcome.state == RETRY)
        }

    def _came_back(self, job: Job) -> bool:
        return job.delivery.redelivered or self._returns(job.delivery) > 0

    def _reached(self, job: Job, start: float | None) -> bool:
        """Give a job its moment; False: it waits, here for a tick at most, else in the ladder."""
        now = self._clock.now()
        if start is None:
            log.info("expires before its rate limit lets it start", task_id=job.message.id)
            job.outcome = expired(job, now)
            return True
        job.start = start
        if start <= now:
            return True
        if start - now <= self._rules.tick:
            self._waiting[job] = self._loop.call_later(start - now, self._due, job)
        else:
            self._settler.delay(job.delivery, job.lane, start - now, **mark(job.message, start))
        return False

    # -- claiming --------------------------------------------------------------------------

    async def _claim(self, jobs: list[Job]) -> None:
        """Ask the store, in one round trip, which of these attempts may run."""
        store = self._store
        if store is None:  # pragma: no cover - attempts exist only where a store does
            return
        backoff = Backoff(first=0.1, most=STORE_RETRY)
        # What the broker has taken back is claimed by whoever gets it now, not over his head.
        while jobs := [job for job in jobs if job.delivery.live]:
            try:
                claims = await store.begin([job.attempt for job in jobs if job.attempt])
            except Exception as error:  # noqa: BLE001 - a task that ends here strands its messages
                if not self._hold(jobs, error):
                    return
                await asyncio.sleep(backoff.next())
            else:
                for job, claim in zip(jobs, claims, strict=True):
                    self._claimed(job, claim)
                self._executor.pump()
                return

    def _hold(self, jobs: list[Job], error: Exception) -> bool:
        """Whether to ask again for jobs that could not be claimed; False: they go another way."""
        if len(jobs) > 1 and not isinstance(error, StoreUnavailable):
            # One of them may be the cause: each on its own, so that it holds up no other.
            for job in jobs:
                self._start_claim([job])
            return False
        if isinstance(error, ValueError | TypeError):
            text = f"the store cannot claim it: {error!r}"
            self._settler.park(jobs[0].delivery, jobs[0].lane, DeadReason.UNDECODABLE, text)
            return False
        if isinstance(error, StoreConflict):
            text = f"the store cannot claim it: {error}"
            self._settler.park(jobs[0].delivery, jobs[0].lane, DeadReason.FAILED, text)
            return False
        # Nothing runs that could not be fenced, nothing is acked or given back.
        if isinstance(error, StoreUnavailable):
            said = "the result store is away, holding tasks"
        else:
            said = "the result store refuses what is asked of it: mend that; holding tasks"
        log.warning(said, error=str(error), held=len(jobs))
        return True

    def _claimed(self, job: Job, claim: Claim) -> None:
        match claim.verdict:
            case Verdict.RUN:
                job.fence = claim.fence
                self._ready(job)
            case Verdict.SETTLED if claim.outcome is not None:
                self._settler.redo(job, claim.outcome)
            case Verdict.BUSY:
                self._settler.delay(job.delivery, job.lane, BUSY_DELAY)
            case _:
                job.delivery.ack()

    def _ready(self, job: Job) -> None:
        if job.outcome is not None:
            self._settler.settle(job)
        elif not self._open:
            self._settler.hand_back(job.delivery, job.lane)
        else:
            if signals.task_received.has_receivers():
                signals.task_received.send(sender=self, request=job.message)
            acks_late = job.task.options.acks_late
            job.acks_early = not (self._rules.acks_late if acks_late is None else acks_late)
            self._on_job(job)
            self._executor.push(job)

    # -- stopping --------------------------------------------------------------------------

    async def stop(self) -> None:
        """Take nothing more; what waits here goes back to its queue."""
        self._open = False
        for job, timer in self._waiting.items():
            timer.cancel()
            self._settler.hand_back(job.delivery, job.lane)
        self._waiting.clear()
        asking = dict(self._asking)
        for task in asking:
            task.cancel()
        await asyncio.gather(*asking, return_exceptions=True)
        # What got its answer before it was cancelled has passed its jobs on.
        for job in (job for task, jobs in asking.items() if task.cancelled() for job in jobs):
            self._settler.hand_back(job.delivery, job.lane)


_MODULE = "amqflow.errors"
_ERRORS = {
    DeadReason.UNKNOWN_TASK: "UnknownTask",
    DeadReason.INVALID_ARGUMENTS: "InvalidArguments",
    DeadReason.BLOB_MISSING: "BlobMissing",
}


def expired(job: Job, now: float) -> Outcome:
    """Return the outcome of a task that was not started before its ``expires``."""
    return Outcome(
        job.message.id,
        REVOKED,
        epoch=job.message.epoch,
        attempt=job.message.attempt,
        park=DeadReason.EXPIRED,
        reason="expired",
        date_done=now,
    )


def revoked(job: Job, reason: str, now: float) -> Outcome:
    """Return the outcome of a task that was revoked before it ran."""
    return Outcome(
        job.message.id,
        REVOKED,
        epoch=job.message.epoch,
        attempt=job.message.attempt,
        park=DeadReason.REVOKED,
        reason=reason,
        parent_id=job.message.parent_id,
        group_id=job.message.group,
        date_done=now,
    )
