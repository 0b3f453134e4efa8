"""The worker: assembles intake, executor and settler over one application, starts and stops."""

from __future__ import annotations

import asyncio
import logging
import os
import socket
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from amqflow import signals
from amqflow.abc import FAILURE, RETRY, REVOKED, STARTED, SUCCESS, DeadReason, Outcome
from amqflow.backoff import Backoff
from amqflow.clock import to_datetime
from amqflow.errors import (
    AmqflowError,
    BrokerUnavailable,
    ConfigurationError,
    Ignore,
    Reject,
    ShutdownInProgress,
    StoreError,
    TaskRevoked,
    rebuild_exception,
)
from amqflow.logs import get_logger
from amqflow.protocol import Limits
from amqflow.provision import Action, apply
from amqflow.tasks import Request
from amqflow.topology import AppNames, BrokerFacts, dead_queue, suspect_queue
from amqflow.worker.conclude import conclude
from amqflow.worker.coordinator import Coordinator
from amqflow.worker.execute import Executor
from amqflow.worker.hooks import Around
from amqflow.worker.intake import Intake, IntakeRules, expired
from amqflow.worker.job import NOT_PREPARED
from amqflow.worker.lanes import Lane, shares
from amqflow.worker.settle import Settler
from amqflow.worker.settlement import Desk

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from amqflow.abc import ResultStore
    from amqflow.app import App
    from amqflow.provision import Change
    from amqflow.topology import Topology
    from amqflow.transport import Consumer, Delivery, QueueCounts
    from amqflow.worker.job import Job

log = get_logger("amqflow.worker")

#: Seconds of a ``once`` lease; renewed at a third of it.
LEASE = 60.0
#: Seconds the last settlements may take at a graceful stop.
SETTLE_TIMEOUT = 30.0


@dataclass(frozen=True, slots=True)
class WorkerOptions:
    """What a command line or a test may say; None: the setting.

    ``queues`` maps queue names to weights; empty: every queue the tasks name.
    """

    queues: Mapping[str, int] | None = None
    concurrency: int | None = None
    prefetch_multiplier: int | None = None
    hostname: str | None = None
    on_topology: Callable[[list[Change]], None] | None = None


class _ExpiredBeforeRun(TaskRevoked):
    """The task expired while it waited for a slot."""


class Worker:
    """Consumes queues and runs their tasks, in the running event loop."""

    def __init__(self, app: App, options: WorkerOptions | None = None) -> None:
        """Prepare; :meth:`start` connects."""
        self.app = app
        self.options = options or WorkerOptions()
        settings = app.conf.settings
        self.hostname = self.options.hostname or f"amqflow@{socket.gethostname()}"
        self.concurrency = (
            self.options.concurrency or settings.worker_concurrency or os.cpu_count() or 1
        )
        if self.concurrency < 1:
            message = f"-c {self.concurrency}: a worker needs at least one slot"
            raise ConfigurationError(message)
        self._settings = settings
        self._names = AppNames(app.main)
        self._consumers: list[tuple[Lane, Consumer]] = []
        self._lanes: dict[str, Lane] = {}
        self._background: set[asyncio.Task[None]] = set()
        self._stop = asyncio.Event()
        self._cut = asyncio.Event()
        self._held: set[Job] = set()
        self._loop: asyncio.AbstractEventLoop
        self._executor: Executor
        self._settler: Settler
        self._intake: Intake
        self.ready = asyncio.Event()
        #: Outcomes settled since the start, by state.
        self.counts: dict[str, int] = {SUCCESS: 0, FAILURE: 0, RETRY: 0, REVOKED: 0}
        # Asked once: a structlog call that says nothing costs more than settling a task.
        self._verbose = logging.getLogger("amqflow.worker").isEnabledFor(logging.DEBUG)
        self._announces = (
            signals.task_success,
            signals.task_failure,
            signals.task_retry,
            signals.task_revoked,
            signals.task_postrun,
        )

    # -- life ------------------------------------------------------------------------------

    async def run(self) -> None:
        """Start, run until told to stop, and stop gracefully."""
        await self.start()
        try:
            await self._stop.wait()
        finally:
            await self.shutdown()

    def stop(self) -> None:
        """Tell the worker to stop: once gracefully, a second time at once. Safe from a signal."""
        if self._stop.is_set():
            self._cut.set()
        self._stop.set()
        if self.ready.is_set():
            self._executor.halt()

    async def start(self) -> None:
        """Connect, bring the derived topology about, subscribe.

        A broker that is away is waited for, with backoff; a refused login or a topology that
        differs raises.
        """
        loop = self._loop = asyncio.get_running_loop()
        self.app.import_modules()
        self.app.adopt_loop(loop)
        runtime = self.app.runtime()
        signals.worker_init.send(sender=self)
        facts, topology = await self._topology()
        producer = runtime.producer
        ladder = await producer.ladder()
        store = await self._open_store(runtime.store)
        desk = Desk(
            ladder,
            self.hostname,
            producer.encode,
            self.app.clock.now,
            (await runtime.transport.server()).frame_max,
        )
        self._settler = Settler(
            store=store,
            producer=producer,
            desk=desk,
            results_exchange=self._names.results,
            completions_key=self._names.completions_key,
            on_settled=self._settled,
            middleware=self.app.middleware,
            on_stuck=self._stuck,
        )
        self._executor = Executor(
            slots=self.concurrency,
            on_done=self._done,
            on_start=self._begin_run,
            on_dropped=self._release,
            around=Around(self.app.middleware),
        )
        self._intake = Intake(
            tasks=self.app.tasks,
            store=store,
            executor=self._executor,
            settler=self._settler,
            rules=IntakeRules(
                limits=Limits(max_body=self._settings.max_message_size),
                poison_limit=self._settings.poison_limit,
                tick=self._settings.delay_resolution,
                lease=LEASE,
                ignore_result=self._settings.task_ignore_result,
                acks_late=self._settings.task_acks_late,
            ),
            clock=self.app.clock,
            owner=f"{self.hostname}/{os.getpid()}",
            on_job=self._prepare,
            middleware=self.app.middleware,
        )
        del facts
        self._subscribe(topology, desk)
        await self._await_consumers()
        if store is not None and store.capabilities.fences:
            self._spawn(self._renew(store))
        self.ready.set()
        signals.worker_ready.send(sender=self)
        log.info(
            "ready",
            worker=self.hostname,
            queues=[lane.source for lane, _ in self._consumers if not lane.suspect],
            slots=self.concurrency,
        )

    async def _topology(self) -> tuple[BrokerFacts, Topology]:
        """Apply what is missing; wait for a broker that is away."""
        transport = self.app.runtime().transport
        backoff = Backoff(first=0.2, most=10.0)
        while True:
            try:
                facts = BrokerFacts((await transport.server()).version)
                topology = self.app.derived_topology(facts, self.options.queues or None)
                changes = await apply(topology, transport)
            except BrokerUnavailable as error:
                log.warning("waiting for the broker", error=str(error))
                await asyncio.sleep(backoff.next())
                continue
            created = [change for change in changes if change.action is Action.CREATED]
            if self.options.on_topology is not None:
                self.options.on_topology(created)
            for change in created:
                log.debug("created", kind=change.kind, name=change.name, why=change.why)
            return facts, topology

    async def _open_store(self, store: ResultStore | None) -> ResultStore | None:
        if store is None:
            return None
        backoff = Backoff(first=0.2, most=10.0)
        while True:
            try:
                return await self.app.runtime().opened_store()
            except StoreError as error:
                log.warning("waiting for the result store", error=str(error))
                await asyncio.sleep(backoff.next())

    def _subscribe(self, topology: Topology, desk: Desk) -> None:
        weights = dict(self.options.queues or dict.fromkeys(self.app.work_queues(), 1))
        multiplier = self.options.prefetch_multiplier or self._settings.worker_prefetch_multiplier
        caps = {
            queue: limit
            for queue in weights
            if (found := topology.queues_by_name.get(queue)) is not None
            and (limit := found.prefetch) is not None
        }
        for queue, prefetch in shares(self.concurrency * multiplier, weights, caps).items():
            lane = self._lane(queue, prefetch)
            self._lanes[queue] = lane
            self._consume(lane)
            self._consume(
                Lane(
                    queue,
                    suspect_queue(queue),
                    1,
                    suspect=True,
                    dead_exchange=lane.dead_exchange,
                    dead_routing_key=lane.dead_routing_key,
                    park=lane.park,
                )
            )
        own = Lane(self._names.completions, self._names.completions, 50)
        forward = Lane(self._names.forward, self._names.forward, 50)
        coordinator = Coordinator(self._settler, desk, self._lane_by_name, own, forward)
        transport = self.app.runtime().transport
        for lane, handler in ((own, coordinator.complete), (forward, coordinator.forward)):
            self._consumers.append(
                (lane, transport.consume(lane.source, handler, prefetch=lane.prefetch))
            )

    def _lane(self, queue: str, prefetch: int) -> Lane:
        found = self._lanes.get(queue)
        return found or Lane(
            queue, queue, prefetch, dead_exchange="", dead_routing_key=dead_queue(queue)
        )

    def _lane_by_name(self, queue: str) -> Lane:
        return self._lane(queue, 1)

    def _consume(self, lane: Lane) -> None:
        receive = self._intake.receive

        def on_delivery(delivery: Delivery) -> None:
            receive(delivery, lane)

        transport = self.app.runtime().transport
        consumer = transport.consume(lane.source, on_delivery, prefetch=lane.prefetch)
        self._consumers.append((lane, consumer))

    async def _await_consumers(self) -> None:
        """Wait until every queue is subscribed; a broker that goes away meanwhile is waited for."""
        while True:
            try:
                await asyncio.gather(
                    *(consumer.wait_active(10.0) for _, consumer in self._consumers)
                )
            except BrokerUnavailable as error:
                log.warning("not consuming yet", error=str(error))
                if self._stop.is_set():
                    return
            else:
                return

    async def shutdown(self) -> None:
        """Stop consuming, let running tasks end, hand back what has not started (design 10)."""
        self._executor.halt()
        signals.worker_shutting_down.send(sender=self, sig="SIGTERM", how="Warm", exitcode=0)
        log.info("stopping", running=self._executor.running, waiting=self._executor.waiting)
        await asyncio.gather(
            *(consumer.pause() for _, consumer in self._consumers), return_exceptions=True
        )
        await self._intake.stop()
        # Only now: what is given back while a queue is consumed comes straight here again.
        for job in self._executor.drain():
            self._release(job)
            job.delivery.requeue()
        await self._wait_for_running()
        if not await self._settler.drain(SETTLE_TIMEOUT):
            log.warning("settlements left behind; their messages are delivered again")
        await asyncio.gather(
            *(consumer.close() for _, consumer in self._consumers), return_exceptions=True
        )
        for task in self._background:
            task.cancel()
        await asyncio.gather(*self._background, return_exceptions=True)
        self._executor.close()
        self.app.adopt_loop(None)
        await self.app.aclose()
        signals.worker_shutdown.send(sender=self)
        log.info("stopped", **{state.lower(): count for state, count in self.counts.items()})

    async def _wait_for_running(self) -> None:
        idle = asyncio.ensure_future(self._executor.wait_idle(self._settings.shutdown_timeout))
        cut = asyncio.ensure_future(self._cut.wait())
        await asyncio.wait([idle, cut], return_when=asyncio.FIRST_COMPLETED)
        ended = idle.done() and idle.result()
        idle.cancel()
        cut.cancel()
        if not ended:
            log.warning("not waiting any longer", running=self._executor.running)
            self._executor.cut_off()
            await self._executor.wait_idle(1.0)

    # -- a job's way -----------------------------------------------------------------------

    def _prepare(self, job: Job) -> None:
        """Complete a job that may run with its request and limits."""
        message, task, delivery = job.message, job.task, job.delivery
        options = task.options
        settings = self._settings
        if job.attempt is not None and job.attempt.once:
            self._held.add(job)
        if job.keeps_result:
            tracked = options.track_started
            job.tracked = settings.task_track_started if tracked is None else tracked
        job.soft_time_limit = (
            message.soft_time_limit or options.soft_time_limit or settings.task_soft_time_limit
        )
        job.time_limit = message.time_limit or options.time_limit or settings.task_time_limit
        job.request = Request(
            id=message.id,
            task=message.task,
            args=job.args,
            kwargs=job.kwargs,
            root_id=message.root_id or message.id,
            parent_id=message.parent_id,
            group=message.group,
            group_index=message.group_index,
            retries=message.retries,
            headers=message.extra,
            delivery_info={
                "exchange": message.original_exchange or delivery.exchange,
                "routing_key": message.original_routing_key or delivery.routing_key,
                "priority": message.priority,
                "redelivered": delivery.redelivered,
                "queue": job.lane.queue,
            },
            eta=to_datetime(message.eta).isoformat() if message.eta is not None else None,
            expires=(
                to_datetime(message.expires).isoformat() if message.expires is not None else None
            ),
            timelimit=(job.time_limit, job.soft_time_limit),
            hostname=self.hostname,
            origin=message.origin,
            reply_to=message.reply_to,
            correlation_id=message.correlation_id,
            ignore_result=not job.keeps_result,
            shadow=message.shadow,
            callbacks=message.callbacks,
            errbacks=message.errbacks,
            chain=message.chain,
            called_directly=False,
            fence=job.fence,
            epoch=message.epoch,
            set_state=self._set_state if job.keeps_result else None,
        )

    def _begin_run(self, job: Job) -> None:
        """Last look before the task runs, in its own thread or coroutine."""
        expires = job.message.expires
        if expires is not None and expires <= self.app.clock.now():
            raise _ExpiredBeforeRun
        if job.time_limit:
            job.request.deadline = self.app.clock.now() + job.time_limit
        if job.tracked:
            message = job.message
            started = Outcome(message.id, STARTED, epoch=message.epoch, attempt=message.retries)
            self._loop.call_soon_threadsafe(self._show_started, started)
        if signals.task_prerun.has_receivers(job.task):
            signals.task_prerun.send(
                sender=job.task,
                task_id=job.message.id,
                task=job.task,
                args=job.args,
                kwargs=job.kwargs,
            )

    def _show_started(self, started: Outcome) -> None:
        store = self.app.runtime().store
        if store is not None:
            self._spawn(store.set_state(started))

    def _done(self, ended: list[tuple[Job, object, BaseException | None]]) -> None:
        now = self.app.clock.now()
        for job, result, error in ended:
            try:
                if error is None or not self._set_aside(job, error, now):
                    job.outcome = conclude(job, result, error, now=now)
                    self._settler.settle(job)
            except Exception:
                # Unacked: it is delivered again when this channel closes. The slot goes on.
                log.exception("an outcome could not be settled", task_id=job.message.id)

    def _set_aside(self, job: Job, error: BaseException, now: float) -> bool:
        """Handle the ends that are no outcome; True where that is all."""
        match error:
            case ShutdownInProgress():
                job.delivery.requeue()
            case Ignore():
                job.delivery.ack()
            case Reject(requeue=True):
                self._settler.delay(job.delivery, job.lane, 1.0)
            case Reject():
                text = error.reason or "rejected by the task"
                self._settler.park(job.delivery, job.lane, DeadReason.FAILED, text)
            case _ExpiredBeforeRun():
                job.outcome = expired(job, now)
                self._settler.settle(job)
            case _:
                return False
        self._release(job)
        return True

    def _settled(self, job: Job, outcome: Outcome) -> None:
        """Count and announce an outcome that stands."""
        self._release(job)
        state = outcome.state
        self.counts[state] = self.counts.get(state, 0) + 1
        task = job.task
        if job.request is NOT_PREPARED:
            return
        if any(signal.has_receivers(task) for signal in self._announces):
            self._announce(job, outcome)
        if state == SUCCESS:
            if self._verbose:
                log.debug("succeeded", task_id=outcome.id, task=task.name)
        elif state == RETRY:
            log.info(
                "retrying",
                task_id=outcome.id,
                task=task.name,
                attempt=outcome.attempt,
                error=_words(outcome),
                reason=outcome.reason,
            )
        else:
            log.warning(
                state.lower(),
                task_id=outcome.id,
                task=task.name,
                attempt=outcome.attempt,
                error=_words(outcome),
                reason=outcome.reason,
                parked=outcome.park,
            )

    def _announce(self, job: Job, outcome: Outcome) -> None:
        task, request = job.task, job.request
        named: dict[str, Any] = {}
        error = rebuild_exception(outcome.exception) if outcome.exception is not None else None
        match outcome.state:
            case "SUCCESS":
                signals.task_success.send(sender=task, result=outcome.result)
            case "FAILURE":
                signals.task_failure.send(
                    sender=task,
                    task_id=outcome.id,
                    exception=error,
                    args=job.args,
                    kwargs=job.kwargs,
                    traceback=None,
                    einfo=outcome.traceback,
                )
            case "RETRY":
                signals.task_retry.send(
                    sender=task, request=request, reason=error, einfo=outcome.traceback
                )
            case "REVOKED":
                signals.task_revoked.send(
                    sender=task,
                    request=request,
                    terminated=False,
                    signum=None,
                    expired=outcome.reason == "expired",
                )
        signals.task_postrun.send(
            sender=task,
            task_id=outcome.id,
            task=task,
            args=job.args,
            kwargs=job.kwargs,
            retval=outcome.result if outcome.state == SUCCESS else error,
            state=outcome.state,
            **named,
        )

    def _release(self, job: Job) -> None:
        self._held.discard(job)

    # -- beside the way --------------------------------------------------------------------

    def _set_state(self, task_id: str, state: str, meta: Any) -> None:
        """Show an own state of a running task (``self.update_state``)."""
        store = self.app.runtime().store if _in_loop() else None
        outcome = Outcome(task_id, state, result=meta)
        if store is not None:
            self._spawn(store.set_state(outcome))
        else:
            self.app.run(self._store_state(outcome), twin="aupdate_state")

    async def _store_state(self, outcome: Outcome) -> None:
        store = self.app.runtime().store
        if store is not None:
            await store.set_state(outcome)

    async def _renew(self, store: ResultStore) -> None:
        """Keep the leases of held ``once`` tasks alive."""
        while True:
            await asyncio.sleep(LEASE / 3)
            held = [(job.attempt, job.fence) for job in self._held if job.attempt is not None]
            if held:
                try:
                    await store.renew(held)
                except StoreError as error:
                    log.warning("leases not renewed", error=str(error))

    def _stuck(self, lane: Lane, problem: str) -> None:
        log.critical(
            "a message can be sent nowhere: it stays unacked and its queue is paused",
            queue=lane.source,
            problem=problem,
        )
        for known, consumer in self._consumers:
            if known.source == lane.source:
                self._spawn(self._pause_for_a_while(consumer))

    @staticmethod
    async def _pause_for_a_while(consumer: Consumer) -> None:
        await consumer.pause()
        await asyncio.sleep(30.0)
        await consumer.resume()

    def _spawn(self, work: Any) -> None:
        task = asyncio.get_running_loop().create_task(work)
        self._background.add(task)
        task.add_done_callback(self._background_done)

    def _background_done(self, task: asyncio.Task[None]) -> None:
        self._background.discard(task)
        if not task.cancelled() and (error := task.exception()) is not None:
            level = log.warning if isinstance(error, AmqflowError) else log.error
            level("background work failed", error=repr(error))

    async def queue_counts(self) -> list[QueueCounts]:
        """Return the counts of the consumed queues."""
        transport = self.app.runtime().transport
        return list(
            await asyncio.gather(
                *(transport.declare_queue(queue, passive=True) for queue in self._lanes)
            )
        )


def _in_loop() -> bool:
    return asyncio._get_running_loop() is not None  # noqa: SLF001 - public, and raises nothing


def _words(outcome: Outcome) -> str | None:
    error = outcome.exception
    return f"{error.type}: {error.text}" if error is not None else None
