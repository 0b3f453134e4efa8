"""From a delivery to a job that may run: decode, judge, claim. Nothing here runs a task."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from typing import TYPE_CHECKING

from amqflow import signals
from amqflow.abc import FAILURE, REVOKED, Attempt, DeadReason, ExceptionInfo, Outcome, Verdict
from amqflow.backoff import Backoff
from amqflow.errors import InvalidArguments, Undecodable
from amqflow.logs import get_logger
from amqflow.protocol import decode
from amqflow.protocol import headers as h
from amqflow.worker.job import Job

if TYPE_CHECKING:
    from collections.abc import Callable

    from amqflow.abc import Claim, ResultStore
    from amqflow.clock import Clock
    from amqflow.middleware import Stack
    from amqflow.protocol import Limits, TaskMessage
    from amqflow.tasks import TaskRegistry
    from amqflow.transport import Delivery
    from amqflow.worker.execute import Executor
    from amqflow.worker.lanes import Lane
    from amqflow.worker.settle import Settler

log = get_logger("amqflow.worker")

#: Returns to the queue after which a message is suspected of killing workers (design 5.6).
SUSPECT_AFTER = 2
#: Seconds a busy ``once`` task waits in the ladder before it asks for the lease again.
BUSY_DELAY = 5.0


@dataclass(frozen=True, slots=True)
class IntakeRules:
    """The settings that judge deliveries."""

    limits: Limits
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
    ) -> None:
        """Wire the parts, in the running loop; ``on_job`` completes a job that may run."""
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
        self._fresh: list[tuple[Delivery, Lane]] = []
        self._claiming: set[asyncio.Task[None]] = set()
        self._waiting: dict[Job, asyncio.TimerHandle] = {}
        self._open = True

    def receive(self, delivery: Delivery, lane: Lane) -> None:
        """Take one delivery (called by the consumer); it is looked at with this turn's others."""
        if not self._open:
            delivery.requeue()
            return
        self._fresh.append((delivery, lane))
        if len(self._fresh) == 1:
            self._loop.call_soon(self._turn)

    def _turn(self) -> None:
        fresh, self._fresh = self._fresh, []
        if not self._open:
            for delivery, _ in fresh:
                delivery.requeue()
            return
        claims: list[Job] = []
        for delivery, lane in fresh:
            try:
                job = self._admit(delivery, lane)
            except Exception as error:
                # One delivery that breaks our own code must not hold up the turn's others.
                log.exception("a delivery could not be taken in", queue=lane.queue)
                self._settler.park(delivery, lane, DeadReason.UNDECODABLE, repr(error))
                continue
            if job is None:
                continue
            if job.attempt is not None:
                claims.append(job)
            else:
                self._ready(job)
        self._executor.pump()
        if claims:
            task = self._loop.create_task(self._claim(claims))
            self._claiming.add(task)
            task.add_done_callback(self._claiming.discard)

    # -- judging ---------------------------------------------------------------------------

    def _admit(self, delivery: Delivery, lane: Lane) -> Job | None:
        """Return the job of a delivery, with its outcome where it must not run."""
        try:
            message = decode(delivery.envelope, limits=self._rules.limits)
        except Undecodable as error:
            self._settler.park(delivery, lane, DeadReason.UNDECODABLE, str(error))
            return None
        if self._middleware.receives:
            try:
                self._middleware.after_receive(message)
            except Exception as error:  # noqa: BLE001 - whatever a hook raises parks the message
                text = f"refused by middleware: {error!r}"
                self._settler.park(delivery, lane, DeadReason.FAILED, text)
                return None
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
        if job.attempt is None:
            self._ready(job)
            self._executor.pump()
            return
        task = self._loop.create_task(self._claim([job]))
        self._claiming.add(task)
        task.add_done_callback(self._claiming.discard)

    def _job(self, delivery: Delivery, message: TaskMessage, lane: Lane) -> Job:
        task = self._tasks.get(message.task)
        keeps = self._keeps_result(message, task.options.ignore_result if task else None)
        job = Job(delivery, message, task, lane, keeps_result=keeps)
        if (keeps and self._fences) or (message.once and self._fences):
            job.attempt = Attempt(
                message.id,
                message.epoch,
                message.retries,
                self._owner,
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
                f"the worker died or was cut off {self._returns(delivery) + SUSPECT_AFTER} times "
                "while this message was in its hands",
            )
        else:
            try:
                job.args, job.kwargs = task.check_arguments(message.args, message.kwargs)
            except InvalidArguments as error:
                self._condemn(job, DeadReason.INVALID_ARGUMENTS, str(error))
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
            attempt=job.message.retries,
            park=why,
            reason=text,
            date_done=self._clock.now(),
        )

    # -- suspects --------------------------------------------------------------------------

    @staticmethod
    def _returns(delivery: Delivery) -> int:
        """Return how often the broker counted this message back into its queue."""
        count = delivery.envelope.headers.get("x-delivery-count", 0)
        return count if isinstance(count, int) else 0

    def _suspected(self, delivery: Delivery, message: TaskMessage, lane: Lane) -> bool:
        """Send away what has come back before; True where it is gone from this queue."""
        if not delivery.redelivered:
            return False
        counted = delivery.envelope.headers.get("x-delivery-count")
        if isinstance(counted, int):
            if counted < SUSPECT_AFTER:
                return False
        elif message.redelivered_marker < SUSPECT_AFTER - 1:
            # A classic queue counts nothing: the mark does.
            marker = message.redelivered_marker + 1
            self._settler.move(delivery, lane, lane.queue, **{h.REDELIVERED: marker})
            return True
        log.warning(
            "a message came back again: it runs alone from now on",
            task_id=message.id,
            task=message.task,
            queue=lane.queue,
        )
        self._settler.move(delivery, lane, lane.suspect_queue)
        return True

    # -- claiming --------------------------------------------------------------------------

    async def _claim(self, jobs: list[Job]) -> None:
        """Ask the store, in one round trip, which of these attempts may run."""
        store = self._store
        if store is None:  # pragma: no cover - attempts exist only where a store does
            return
        attempts = [job.attempt for job in jobs if job.attempt is not None]
        backoff = Backoff(first=0.1, most=5.0)
        claims: list[Claim] = []
        while not claims:
            try:
                claims = await store.begin(attempts)
            except Exception as error:  # noqa: BLE001 - a task that ends here strands its messages
                # Hold: nothing runs that could not be fenced, nothing is acked or given back.
                pause = backoff.next()
                log.warning(
                    "the result store is away, holding tasks", error=str(error), held=len(jobs)
                )
                await asyncio.sleep(pause)
        for job, claim in zip(jobs, claims, strict=True):
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
        self._executor.pump()

    def _ready(self, job: Job) -> None:
        if job.outcome is not None:
            self._settler.settle(job)
        elif not self._open:
            job.delivery.requeue()
        else:
            if signals.task_received.has_receivers():
                signals.task_received.send(sender=self, request=job.message)
            acks_late = job.task.options.acks_late
            if not (self._rules.acks_late if acks_late is None else acks_late):
                job.delivery.ack()
                job.acked = True
            self._on_job(job)
            self._executor.push(job)

    # -- stopping --------------------------------------------------------------------------

    async def stop(self) -> None:
        """Take nothing more; what waits here goes back to its queue."""
        self._open = False
        for job, timer in self._waiting.items():
            timer.cancel()
            job.delivery.requeue()
        self._waiting.clear()
        for task in list(self._claiming):
            task.cancel()
        await asyncio.gather(*self._claiming, return_exceptions=True)


_MODULE = "amqflow.errors"
_ERRORS = {
    DeadReason.UNKNOWN_TASK: "UnknownTask",
    DeadReason.INVALID_ARGUMENTS: "InvalidArguments",
}


def expired(job: Job, now: float) -> Outcome:
    """Return the outcome of a task that was not started before its ``expires``."""
    return Outcome(
        job.message.id,
        REVOKED,
        epoch=job.message.epoch,
        attempt=job.message.retries,
        park=DeadReason.EXPIRED,
        reason="expired",
        date_done=now,
    )
