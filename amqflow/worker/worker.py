"""The worker: assembles intake, executor and settler over one application, starts and stops."""

from __future__ import annotations

import asyncio
import logging
import os
import socket
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, TypeVar

from amqflow import signals
from amqflow.abc import FAILURE, RETRY, REVOKED, STARTED, SUCCESS, DeadReason, Outcome
from amqflow.backoff import Backoff
from amqflow.clock import to_datetime
from amqflow.errors import (
    AmqflowError,
    BrokerUnavailable,
    ChannelLost,
    ConfigurationError,
    Ignore,
    Reject,
    Replaced,
    ShutdownInProgress,
    StoreError,
    TaskRevoked,
    WorkerLost,
)
from amqflow.guards.revocations import Revoked
from amqflow.logs import get_logger
from amqflow.protocol import Limits
from amqflow.provision import Action, apply, check
from amqflow.rendezvous import is_embedded
from amqflow.tasks import Request
from amqflow.topology import AppNames, BrokerFacts, dead_queue
from amqflow.topology.model import DEFAULT_PARK
from amqflow.topology.names import UNDELIVERED
from amqflow.worker import announce
from amqflow.worker.chords import ChordCoordinator
from amqflow.worker.comeback import declare_again
from amqflow.worker.conclude import conclude, left, rejected
from amqflow.worker.coordinator import Coordinator
from amqflow.worker.drops import Drops
from amqflow.worker.execute import Executor
from amqflow.worker.fetch import Fetcher
from amqflow.worker.forgetful import warn_of_forgetting
from amqflow.worker.hooks import Around
from amqflow.worker.intake import Intake, IntakeRules, expired, revoked
from amqflow.worker.job import NOT_PREPARED
from amqflow.worker.lanes import Lane, shares
from amqflow.worker.limits import check_limits, longer_than, unlimited
from amqflow.worker.pace import Pace, default_rate, limited
from amqflow.worker.pools import checked_pool, make_pools
from amqflow.worker.settle import Settler
from amqflow.worker.settlement import Desk
from amqflow.worker.window import Window, extras

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Mapping

    from amqflow.abc import ResultStore
    from amqflow.app import App
    from amqflow.guards.rates import Rates
    from amqflow.guards.revocations import Revocations
    from amqflow.protocol.revocation import Revocation
    from amqflow.provision import Change
    from amqflow.topology import Queue, Topology
    from amqflow.transport import Consumer, Delivery, QueueCounts
    from amqflow.worker.job import Job
    from amqflow.worker.pools import Hooks, MainThread, Pools

log = get_logger("amqflow.worker")

T = TypeVar("T")

#: Messages of the completions queue a coordinator holds: what it counts in one store call.
COMPLETIONS_PREFETCH = 250
FORWARD_PREFETCH = 50
#: Seconds the last settlements may take at a graceful stop.
SETTLE_TIMEOUT = 30.0
#: Seconds they may take where the worker was told twice.
CUT_TIMEOUT = 2.0


@dataclass(frozen=True, slots=True)
class WorkerOptions:
    """What a command line or a test may say; None: the setting.

    ``queues`` maps queue names to weights; empty: every queue the tasks name.
    """

    queues: Mapping[str, int] | None = None
    concurrency: int | None = None
    prefetch_multiplier: int | None = None
    hostname: str | None = None
    pool: str | None = None
    time_limit: float | None = None
    soft_time_limit: float | None = None
    max_tasks_per_child: int | None = None
    #: KiB.
    max_memory_per_child: int | None = None
    #: Lent to the ``solo`` pool.
    main_thread: MainThread | None = None
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
        self.pool = checked_pool(self.options.pool or settings.worker_pool)
        self.concurrency = (
            self.options.concurrency or settings.worker_concurrency or os.cpu_count() or 1
        )
        if self.pool == "solo":
            self.concurrency = 1
        if self.concurrency < 1:
            message = f"-c {self.concurrency}: a worker needs at least one slot"
            raise ConfigurationError(message)
        self._settings = settings
        self._time_limit = self.options.time_limit or settings.task_time_limit
        self._soft_time_limit = self.options.soft_time_limit or settings.task_soft_time_limit
        check_limits(self._soft_time_limit, self._time_limit)
        self._default_rate = default_rate(settings.task_default_rate_limit)
        self._names = AppNames(app.main)
        self._consumers: list[tuple[Lane, Consumer]] = []
        self._lanes: dict[str, Lane] = {}
        self._declared: Mapping[str, Queue] = {}
        self._background: set[asyncio.Task[None]] = set()
        self._pool_is_made = False
        self._stop = asyncio.Event()
        self._cut = asyncio.Event()
        self._revoked = Revoked(app.clock)
        self._began = app.clock.monotonic()
        self._held: set[Job] = set()
        #: The last own state of a task that is not shown yet; None: it is being shown.
        self._shown: dict[str, Outcome | None] = {}
        self._loop: asyncio.AbstractEventLoop
        self._executor: Executor
        self._settler: Settler
        self._intake: Intake
        self._window: Window
        self.ready = asyncio.Event()
        #: Whether messages may be in its hands: from the first subscription on.
        self.consuming = False
        #: Outcomes settled since the start, by state.
        self.counts: dict[str, int] = {SUCCESS: 0, FAILURE: 0, RETRY: 0, REVOKED: 0}
        # Asked once: a structlog call that says nothing costs more than settling a task.
        self._verbose = logging.getLogger("amqflow.worker").isEnabledFor(logging.DEBUG)

    @property
    def consumed(self) -> tuple[str, ...]:
        """The queues it consumes: those of its tasks, their suspects, and the application's own."""
        return tuple(lane.source for lane, _ in self._consumers)

    # -- life ------------------------------------------------------------------------------

    async def run(self) -> None:
        """Start, run until told to stop, and stop gracefully."""
        try:
            await self.start()
        except BaseException:
            if self._pool_is_made:
                await self._executor.close()
            raise
        try:
            await self._stop.wait()
        finally:
            await self.shutdown()

    def stop(self) -> None:
        """Tell the worker to stop: once gracefully, a second time at once. Safe from a signal."""
        if self._stop.is_set():
            self._cut.set()
        self._stop.set()
        if self.consuming:
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
        topology = await self._once_there(self._topology)
        producer = runtime.producer
        ladder = await self._once_there(producer.ladder)
        server = await self._once_there(runtime.transport.server)
        store = await self._open_store(runtime.store)
        self._fetcher = Fetcher(runtime.claims)
        desk = Desk(
            ladder,
            self.hostname,
            producer.encode,
            self.app.clock.now,
            server.frame_max,
            self._settings.max_message_size,
            runtime.unfolder,
            self._settings.result_extended,
        )
        self._settler = Settler(
            store=store,
            producer=producer,
            desk=desk,
            launcher=runtime.launcher,
            on_settled=self._settled,
            on_dropped=self._release,
            middleware=self.app.middleware,
            on_stuck=self._stuck,
        )
        self._executor = Executor(
            slots=self.concurrency,
            on_done=self._done,
            on_admit=self._admit_run,
            on_start=announce.began,
            on_end=self._end_run,
            on_dropped=self._release,
            around=Around(self.app.middleware),
            make_pools=self._make_pools,
        )
        self._pool_is_made = True
        self._intake = Intake(
            tasks=self.app.tasks,
            store=store,
            executor=self._executor,
            settler=self._settler,
            rules=IntakeRules(
                limits=Limits(max_body=self._settings.max_message_size),
                fetched_limits=Limits(
                    max_body=max(self._settings.max_message_size, self._settings.blob_max_size)
                ),
                poison_limit=self._settings.poison_limit,
                tick=self.app.delays.resolution,
                lease=self._settings.once_lease,
                ignore_result=self._settings.task_ignore_result,
                acks_late=self._settings.task_acks_late,
            ),
            clock=self.app.clock,
            owner=f"{self.hostname}/{os.getpid()}",
            on_job=self._prepare,
            middleware=self.app.middleware,
            revoked=self._revoked,
            pace=self._pace(runtime.rates),
        )
        await self._executor.start()
        await self._follow_revocations(runtime.revocations)
        if store is not None and store.capabilities.fences:
            self._spawn(self._renew(store))
        self.consuming = True
        self._subscribe(topology, desk, store)
        # Those that are there run tasks meanwhile: all that concerns these is in force already.
        await self._await_consumers()
        if self._stop.is_set():
            return
        self._compare_limits()
        if is_embedded(self.app.broker_url) and self.app.topology_file is None:
            self._spawn(declare_again(self._lacks_queues, self._declare_missing))
        self._spawn(warn_of_forgetting(self.app.backend_url))
        self.ready.set()
        signals.worker_ready.send(sender=self)
        log.info(
            "ready",
            worker=self.hostname,
            queues=list(self._lanes),
            slots=self.concurrency,
        )

    async def _follow_revocations(self, revocations: Revocations | None) -> None:
        """Know what is revoked before the first message comes, and what comes from then on."""
        if revocations is None:
            return
        known = asyncio.Event()

        def told(found: list[Revocation], whole: bool) -> None:
            if whole:
                self._revoked.replace(found)
            else:
                self._revoked.add(found)
            known.set()
            self._apply_revocations(found)

        self._spawn(revocations.follow(told))
        await known.wait()

    def _apply_revocations(self, found: list[Revocation]) -> None:
        """End what waits here, and what runs where that is meant."""
        revoked_of = self._revoked.of
        if not found:
            return
        now = self.app.clock.now()
        for job in self._executor.take_out(lambda job: revoked_of(job.message) is not None):
            job.outcome = revoked(job, "revoked", now)
            self._settler.settle(job)
        for job in list(self._executor.running_jobs):
            one = revoked_of(job.message)
            if one is not None and one.terminate:
                why = TaskRevoked("terminated: it was revoked while it ran")
                if self._executor.terminate(job, why):
                    log.warning("terminated", task_id=job.message.id, task=job.message.task)

    def _pace(self, rates: Rates | None) -> Pace | None:
        """Return the rate limits; says once where they cannot be counted for all workers."""
        if self._settings.worker_disable_rate_limits:
            return None
        found = limited(self.app.tasks.values(), self._default_rate)
        if found and rates is None:
            log.warning(
                "rate limits count for this worker alone: workers that share no result store "
                "cannot count together; give the application one, such as redis://localhost:6379/0",
                tasks=found,
            )
        return Pace(
            rates,
            default=self._default_rate,
            clock=self.app.clock,
            tick=self.app.delays.resolution,
        )

    def _compare_limits(self) -> None:
        """Say which tasks may take longer than the broker waits for an ack."""
        tasks, timeout = self.app.tasks.values(), self._settings.consumer_timeout
        if long := longer_than(tasks, self._time_limit, timeout):
            log.warning(
                "time limits above the broker's consumer_timeout: it would close the channel in "
                "the middle of these tasks and have them run again; lower the limits, or raise "
                "consumer_timeout in rabbitmq.conf and in the settings here",
                consumer_timeout=timeout,
                tasks=long,
            )
        if timeout and (free := unlimited(tasks, self._time_limit)):
            log.info(
                "tasks without a time limit: the broker closes the channel of one that takes "
                "longer than consumer_timeout, and it runs again",
                consumer_timeout=timeout,
                tasks=len(free),
            )

    # -- what probes ask -------------------------------------------------------------------

    def unready(self) -> str | None:
        """Say why this worker takes no work now; None where it does."""
        if self._stop.is_set():
            return "stopping"
        if not self.ready.is_set():
            return "starting: the broker, the store or the pool is not ready"
        away = [
            f"{lane.source} ({consumer.problem or 'not consumed'})"
            for lane, consumer in self._consumers
            if not consumer.active
        ]
        return f"not consuming: {', '.join(away)}" if away else None

    def status(self) -> dict[str, Any]:
        """Return what this worker is doing, for its status page."""
        unready = self.unready()
        described: dict[str, Any] = {
            "worker": self.hostname,
            "app": self.app.main,
            "pid": os.getpid(),
            "state": "ready" if unready is None else unready.partition(":")[0],
            "problem": unready,
            "uptime": round(self.app.clock.monotonic() - self._began, 3),
            "settled": dict(self.counts),
        }
        if self.ready.is_set():
            described.update(self._executor.describe())
            described["settling"] = self._settler.busy
            described["queues"] = [
                {
                    "queue": lane.source,
                    "prefetch": lane.prefetch,
                    "active": consumer.active,
                    "problem": consumer.problem,
                }
                for lane, consumer in self._consumers
            ]
        return described

    def _make_pools(self, hooks: Hooks) -> Pools:
        settings, options = self._settings, self.options
        return make_pools(
            self.pool,
            hooks,
            self.concurrency,
            self.app,
            max_tasks=options.max_tasks_per_child or settings.worker_max_tasks_per_child,
            max_memory=options.max_memory_per_child or settings.worker_max_memory_per_child,
            main=options.main_thread,
        )

    async def _once_there(self, ask: Callable[[], Awaitable[T]]) -> T:
        """Ask the broker; one that is away, or goes away meanwhile, is waited for."""
        backoff = Backoff(first=0.2, most=10.0)
        while True:
            try:
                return await ask()
            except (BrokerUnavailable, ChannelLost) as error:
                log.warning("waiting for the broker", error=str(error))
                await asyncio.sleep(backoff.next())

    async def _topology(self) -> Topology:
        """Apply what is missing, or check what a file declares."""
        transport = self.app.runtime().transport
        facts = BrokerFacts((await transport.server()).version)
        topology = self.app.derived_topology(facts, self.options.queues or None)
        if (file := self.app.topology_file) is not None:
            await check(topology, transport, mend=f"run: amqflow topology apply {file}")
            return topology
        changes = await apply(topology, transport)
        created = [change for change in changes if change.action is Action.CREATED]
        if self.options.on_topology is not None:
            self.options.on_topology(created)
        for change in created:
            log.debug("created", kind=change.kind, name=change.name, why=change.why)
        return topology

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

    def _subscribe(self, topology: Topology, desk: Desk, store: ResultStore | None) -> None:
        self._declared = topology.queues_by_name
        weights = dict(self.options.queues or dict.fromkeys(self.app.work_queues(), 1))
        multiplier = self.options.prefetch_multiplier or self._settings.worker_prefetch_multiplier
        caps = {
            queue: limit
            for queue in weights
            if (found := topology.queues_by_name.get(queue)) is not None
            and (limit := found.prefetch) is not None
        }
        for queue, prefetch in shares(self.concurrency * multiplier, weights, caps).items():
            lane = self._lane(topology.queues_by_name.get(queue), queue, prefetch)
            self._lanes[queue] = lane
            self._consumers.append((lane, self._consume(lane, lane.prefetch)))
            suspects = replace(lane, source=lane.suspect_queue, prefetch=1, suspect=True)
            self._consumers.append((suspects, self._consume(suspects, 1)))
        self._window = Window(
            extras(
                [*self._lanes.values()],
                topology.queues_by_name,
                slots=self.concurrency,
                multiplier=multiplier,
            ),
            slots=self._executor,
            subscribe=self._consume,
            give_back=self._give_back,
            stuck=lambda: self._settler.stuck,
        )
        self._spawn(self._window.run())
        own = self._own_lane(self._names.completions, COMPLETIONS_PREFETCH)
        forward = self._own_lane(self._names.forward, FORWARD_PREFETCH)
        dropped = self._own_lane(self._names.dropped, FORWARD_PREFETCH)
        runtime = self.app.runtime()
        chords = ChordCoordinator(
            settler=self._settler,
            launcher=runtime.launcher,
            unfolder=runtime.unfolder,
            results=store,
            lane=own,
            now=self.app.clock.now,
        )
        coordinator = Coordinator(
            settler=self._settler,
            desk=desk,
            chords=chords if runtime.chords is not None else None,
            lane_of=self._lane_by_name,
            own=own,
            forward=forward,
        )
        drops = Drops(
            settler=self._settler,
            desk=desk,
            store=store,
            lane_of=self._lane_by_name,
            lane=dropped,
            owner=f"{self.hostname}/{os.getpid()}/dropped",
        )
        transport = runtime.transport
        complete = self._fetcher.before(coordinator.complete)
        handlers = [
            (forward, coordinator.forward),
            (dropped, self._fetcher.before(drops.receive)),
        ]
        if store is not None:  # who keeps no results leaves completions to those who do
            handlers.append((own, complete))
        for lane, handler in handlers:
            self._consumers.append(
                (lane, transport.consume(lane.source, handler, prefetch=lane.prefetch))
            )

    def _lane(self, declared: Queue | None, queue: str, prefetch: int) -> Lane:
        """Return the lane of a queue; what it parks goes straight into the queue's home.

        No exchange stands between: where several queues share one, each of their homes would get
        a copy, and a replay of all would run the task as often.
        """
        park = DEFAULT_PARK if declared is None else declared.park
        return Lane(queue, queue, prefetch, home=dead_queue(queue), park=park)

    def _own_lane(self, queue: str, prefetch: int) -> Lane:
        """Return the lane of a queue of the application's own."""
        return Lane(queue, queue, prefetch, home=UNDELIVERED)

    def _lane_by_name(self, queue: str) -> Lane:
        found = self._lanes.get(queue)
        return found or self._lane(self._declared.get(queue), queue, 1)

    def _consume(self, lane: Lane, prefetch: int) -> Consumer:
        """Subscribe to a lane's source."""
        receive = self._intake.receive

        def on_delivery(delivery: Delivery) -> None:
            receive(delivery, lane)

        def on_fetched(delivery: Delivery) -> None:
            receive(delivery, lane, fetched=True)

        transport = self.app.runtime().transport
        handler = self._fetcher.before(on_delivery, on_fetched)
        return transport.consume(lane.source, handler, prefetch=prefetch)

    def _give_back(self, job: Job) -> None:
        """Send a job that has not begun back to its queue."""
        self._release(job)
        self._settler.hand_back(job.delivery, job.lane)

    def _lacks_queues(self) -> bool:
        """Whether a queue of ours is not consumed now."""
        return any(not consumer.active for _, consumer in self._consumers)

    async def _declare_missing(self) -> int:
        """Create what the derived topology lacks; return how much it was."""
        transport = self.app.runtime().transport
        facts = BrokerFacts((await transport.server()).version)
        topology = self.app.derived_topology(facts, self.options.queues or None)
        changes = await apply(topology, transport)
        return sum(change.action is Action.CREATED for change in changes)

    async def _await_consumers(self) -> None:
        """Wait until every queue is subscribed, or the worker is told to stop.

        A broker that goes away meanwhile is waited for.
        """
        subscribed = asyncio.create_task(self._subscribed())
        stopped = asyncio.create_task(self._stop.wait())
        try:
            await asyncio.wait([subscribed, stopped], return_when=asyncio.FIRST_COMPLETED)
            if subscribed.done():
                subscribed.result()
        finally:
            for task in (subscribed, stopped):
                task.cancel()
            await asyncio.gather(subscribed, stopped, return_exceptions=True)

    async def _subscribed(self) -> None:
        """Wait for each consumer, saying every ten seconds which one is not there yet."""
        for _, consumer in self._consumers:
            while not consumer.active:
                try:
                    await consumer.wait_active(10.0)
                except BrokerUnavailable as error:
                    log.warning("not consuming yet", error=str(error))

    async def shutdown(self) -> None:
        """Stop consuming, let running tasks end, hand back what has not started (design 10)."""
        self._executor.halt()
        signals.worker_shutting_down.send(sender=self, sig="SIGTERM", how="Warm", exitcode=0)
        log.info("stopping", running=self._executor.running, waiting=self._executor.waiting)
        self._window.stop()
        consumers = [consumer for _, consumer in self._consumers] + [*self._window.consumers]
        await asyncio.gather(*(each.pause() for each in consumers), return_exceptions=True)
        await self._fetcher.stop()
        await self._intake.stop()
        # Only now: what is given back while a queue is consumed comes straight here again.
        for job in self._executor.drain():
            self._give_back(job)
        await self._wait_for_running()
        if not await self._settled_all():
            log.warning("settlements left behind; their messages are delivered again")
        await asyncio.gather(*(each.close() for each in consumers), return_exceptions=True)
        for task in self._background:
            task.cancel()
        await asyncio.gather(*self._background, return_exceptions=True)
        await self._executor.close()
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
            await self._executor.cut_off()

    async def _settled_all(self) -> bool:
        """Wait for the last settlements; told twice, only as long as a broker takes."""
        draining = asyncio.ensure_future(self._settler.drain(SETTLE_TIMEOUT))
        cut = asyncio.ensure_future(self._cut.wait())
        await asyncio.wait([draining, cut], return_when=asyncio.FIRST_COMPLETED)
        if not draining.done():
            await asyncio.wait([draining], timeout=CUT_TIMEOUT)
        cut.cancel()
        draining.cancel()
        return draining.done() and not draining.cancelled() and draining.result()

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
            message.soft_time_limit or options.soft_time_limit or self._soft_time_limit
        )
        job.time_limit = message.time_limit or options.time_limit or self._time_limit
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
            replaced_task_nesting=message.replaced_task_nesting,
            headers=message.extra,
            stamps=message.stamps or {},
            stamped_headers=message.stamped_headers,
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
            traceparent=message.traceparent,
            tracestate=message.tracestate,
            fence=job.fence,
            epoch=message.epoch,
            set_state=self._set_state if job.keeps_result else None,
        )

    def _admit_run(self, job: Job) -> None:
        """Last look before the task runs: in its own thread or coroutine, or before its child."""
        expires = job.message.expires
        if expires is not None and expires <= self.app.clock.now():
            raise _ExpiredBeforeRun
        if (found := self._revoked.of(job.message)) is not None:
            raise TaskRevoked(found.reason)
        if job.time_limit:
            job.request.deadline = self.app.clock.now() + job.time_limit
        if job.tracked:
            message = job.message
            started = Outcome(message.id, STARTED, epoch=message.epoch, attempt=message.attempt)
            self._loop.call_soon_threadsafe(self._show_started, started)

    def _end_run(self, job: Job, result: object, error: BaseException | None) -> None:
        """Tell signals, where the task ran, how it ended; where nobody listens, do nothing."""
        if not announce.wanted(job.task) or isinstance(error, ShutdownInProgress):
            return
        if isinstance(error, Ignore | Reject | Replaced):
            announce.aside(job, error)
        elif job.outcome is None:  # else its hard limit has ended it
            outcome = conclude(job, result, error, now=self.app.clock.now())
            job.outcome, job.announced = outcome, True
            announce.ended(job, outcome, error)

    def _show_started(self, started: Outcome) -> None:
        store = self.app.runtime().store
        if store is not None:
            self._spawn(store.set_state(started))

    def _done(self, ended: list[tuple[Job, object, BaseException | None]]) -> None:
        now = self.app.clock.now()
        for job, result, error in ended:
            try:
                if error is None or not self._set_aside(job, error, now):
                    if job.outcome is None:
                        job.outcome = conclude(job, result, error, now=now)
                    self._settler.settle(job)
            except Exception:
                # Unacked: it is delivered again when this channel closes. The slot goes on.
                self._release(job)
                log.exception("an outcome could not be settled", task_id=job.message.id)

    def _set_aside(self, job: Job, error: BaseException, now: float) -> bool:
        """Handle the ends that are no outcome; True where that is all."""
        match error:
            case ShutdownInProgress() if job.acked:
                pass  # at most once: a copy would be a second run
            case ShutdownInProgress():
                self._settler.hand_back(job.delivery, job.lane)
            case WorkerLost() if not job.acked and self._runs_again(job):
                self._settler.lost(job.delivery, job.lane)
            case Ignore():
                self._settler.leave(job, left(job, now))
            case Reject(requeue=True):
                self._settler.delay(job.delivery, job.lane, 1.0)
            case Reject():
                text = error.reason or "rejected by the task"
                failed = rejected(job, text, now)
                self._settler.reject(job, failed, DeadReason.FAILED, text)
            case _ExpiredBeforeRun():
                job.outcome = expired(job, now)
                self._settler.settle(job)
            case _:
                return False
        self._release(job)
        return True

    def _runs_again(self, job: Job) -> bool:
        """Whether a task whose process died goes back to its queue (Celery's option)."""
        own = job.task.options.reject_on_worker_lost
        return self._settings.task_reject_on_worker_lost if own is None else own

    def _settled(self, job: Job, outcome: Outcome) -> None:
        """Count and announce an outcome that stands."""
        self._release(job)
        state = outcome.state
        self.counts[state] = self.counts.get(state, 0) + 1
        task = job.task
        if job.request is NOT_PREPARED:
            return
        if not job.announced and announce.wanted(task):
            announce.ended(job, outcome)
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

    def _release(self, job: Job) -> None:
        self._held.discard(job)

    # -- beside the way --------------------------------------------------------------------

    def _set_state(self, task_id: str, state: str, meta: Any) -> None:
        """Show an own state of a running task (``self.update_state``)."""
        outcome = Outcome(task_id, state, result=meta)
        if _in_loop():
            waits = task_id in self._shown
            self._shown[task_id] = outcome
            if not waits:
                self._spawn(self._show_in_order(task_id))
        else:
            self.app.run(self._store_state(outcome), twin="aupdate_state")

    async def _show_in_order(self, task_id: str) -> None:
        """Show the states of a task one after the other; one that was overtaken is left out."""
        try:
            while (outcome := self._shown[task_id]) is not None:
                self._shown[task_id] = None
                await self._store_state(outcome)
        finally:
            del self._shown[task_id]

    async def _store_state(self, outcome: Outcome) -> None:
        store = self.app.runtime().store
        if store is not None:
            await store.set_state(outcome)

    async def _renew(self, store: ResultStore) -> None:
        """Keep the leases of held ``once`` tasks alive."""
        while True:
            await asyncio.sleep(self._settings.once_lease / 3)
            held = [(job.attempt, job.fence) for job in self._held if job.attempt is not None]
            if held:
                try:
                    await store.renew(held)
                except StoreError as error:
                    log.warning("leases not renewed", error=str(error))

    def _stuck(self, lane: Lane, problem: str | None) -> None:
        """Pause a lane whose message can be sent nowhere; without a problem, resume it."""
        if self._stop.is_set():
            return  # nothing is consumed any more
        if problem is not None:
            log.critical(
                "a message can be sent nowhere: it stays unacked and its queue is paused",
                queue=lane.source,
                problem=problem,
            )
        else:
            log.warning("all messages could be sent: consuming again", queue=lane.source)
        for known, consumer in self._consumers:
            if known.source == lane.source:
                self._spawn(consumer.pause() if problem is not None else consumer.resume())

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
