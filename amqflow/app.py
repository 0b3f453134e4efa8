"""The application: wires settings, tasks, stores and transports; imports no runner."""

from __future__ import annotations

import asyncio
import contextlib
import importlib
import os
import weakref
from dataclasses import dataclass, replace
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any, TypeAlias, TypeVar, cast

from amqflow.abc import REVOKED, Finish
from amqflow.clock import SYSTEM_CLOCK, Clock
from amqflow.control import Control
from amqflow.errors import (
    AmqflowError,
    AppClosed,
    BrokerError,
    ConfigurationError,
    InvalidResult,
    NoResultStore,
    NotFound,
)
from amqflow.guards.blobs import Blobs, ClaimCheck
from amqflow.guards.revocations import no_store, open_revocations, revoked_outcome
from amqflow.guards.shelves import default_shelf, open_shelf
from amqflow.handles import AsyncResult, GroupResult
from amqflow.middleware import Stack
from amqflow.producer import LoopThread, Producer
from amqflow.protocol import Envelope, new_id
from amqflow.protocol.revocation import Revocation, Target
from amqflow.rendezvous import find, is_embedded, name_of
from amqflow.results.blobbed import BlobbedStore
from amqflow.results.open import open_store
from amqflow.settings import Configuration, redact
from amqflow.signals import Signal
from amqflow.tasks import TaskDecorator, TaskRegistry, shared
from amqflow.tasks.builtin import register_builtin
from amqflow.tasks.context import current_request, parent_request
from amqflow.tasks.inherit import Inheritance
from amqflow.topology import (
    AppNames,
    BrokerFacts,
    Declaration,
    Delays,
    QueueNeeds,
    Topology,
    derive,
)
from amqflow.topology.declaration import derived_names
from amqflow.topology.names import OWN_PREFIX
from amqflow.topology.reach import reach
from amqflow.topology.routes import Address, Destination, Routes
from amqflow.transport import Delivery, Transport, open_transport
from amqflow.workflow import Place, Unfolder
from amqflow.workflow.add import add_member
from amqflow.workflow.catalog import count_revoked
from amqflow.workflow.launch import Launcher
from amqflow.workflow.send import child_of, sending
from amqflow.workflow.stores import Lifetimes, open_chords

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Coroutine, Iterable, Mapping, Sequence
    from typing import Self

    from amqflow.abc import BlobStore, Call, Outcome, ResultStore, Sent, SentNode
    from amqflow.canvas import Node, Signature
    from amqflow.guards.revocations import Revocations
    from amqflow.middleware import Middleware
    from amqflow.settings import Settings
    from amqflow.tasks import Request, TaskOptions
    from amqflow.transport import Consumer
    from amqflow.workflow.catalog import Workflow
    from amqflow.workflow.stores import ChordStore

T = TypeVar("T")

#: Names of packages, or what tells them later.
Packages: TypeAlias = "Iterable[str] | Callable[[], Iterable[str]]"

#: Seconds between two looks whether the reply queue is still consumed.
KEEP_REPLIES = 5.0
#: Both handles by names that the methods of Celery's names do not hide.
Single: TypeAlias = AsyncResult[Any]
Group: TypeAlias = GroupResult

DEFAULT_BROKER = "amqp://guest:guest@localhost:5672/"


@dataclass(frozen=True, slots=True)
class Hosted:
    """What stands in for the configured broker and store while this process hosts its own.

    ``broker_url`` is an ``amqp://`` URL, ``management_url`` that of its HTTP API; ``backend_url``
    None leaves the configured store. ``broker`` is the broker itself, for those who look into it.
    """

    broker_url: str
    backend_url: str | None = None
    management_url: str | None = None
    broker: object | None = None


class Replies:
    """The reply queue of this process, for stores that answer by message (``rpc://``)."""

    def __init__(self, transport: Transport, timeout: float) -> None:
        """Answer and listen over ``transport``; ``timeout`` in seconds bounds each publish."""
        self._transport = transport
        self._timeout = timeout
        self._consumer: Consumer | None = None
        self._keeping: asyncio.Task[None] | None = None

    async def publish(
        self,
        exchange: str,
        routing_key: str,
        body: bytes,
        *,
        content_type: str,
        content_encoding: str,
        correlation_id: str,
        delivery_mode: int,
    ) -> None:
        """Send one reply under confirm."""
        envelope = Envelope(
            body,
            {},
            content_type,
            content_encoding,
            delivery_mode,
            correlation_id=correlation_id,
            message_id=new_id(),
        )
        await self._transport.publish(envelope, exchange, routing_key, timeout=self._timeout)

    async def consume_replies(self, on_reply: Callable[[str, bytes], None]) -> str:
        """Declare the queue, consume it, return its name.

        Durable and expiring after five idle minutes rather than exclusive: an exclusive queue
        dies with its connection, and with it every reply that was on its way.
        """
        queue = f"amqflow.reply.{new_id()}"
        await self._declare(queue)

        def receive(delivery: Delivery) -> None:
            on_reply(delivery.envelope.correlation_id or "", delivery.envelope.body)
            delivery.ack()

        consumer = self._transport.consume(queue, receive, prefetch=1000)
        try:
            await consumer.wait_active(self._timeout)
        except BaseException:
            await consumer.close()
            raise
        self._consumer = consumer
        self._keeping = asyncio.get_running_loop().create_task(self._keep(queue, consumer))
        return queue

    async def _declare(self, queue: str) -> None:
        await self._transport.declare_queue(
            queue, arguments={"x-expires": 300_000, "x-queue-type": "classic"}
        )

    async def _keep(self, queue: str, consumer: Consumer) -> None:
        """Declare the queue again where it has expired: its name is in messages under way."""
        while True:
            await asyncio.sleep(KEEP_REPLIES)
            if not consumer.active:
                with contextlib.suppress(BrokerError):  # away: the next look
                    await self._declare(queue)

    async def close(self) -> None:
        """Keep the queue no longer."""
        if self._keeping is not None:
            self._keeping.cancel()
            await asyncio.gather(self._keeping, return_exceptions=True)


class Runtime:
    """What one event loop uses of an application: its transport, producer and store."""

    def __init__(self, app: App) -> None:
        """Make the parts; nothing connects before it is needed."""
        settings = app.conf.settings
        self._app = app
        self.pid = os.getpid()
        self.hosted = app.hosted
        self.transport: Transport = open_transport(app.broker_url, name=f"amqflow {app.main}")
        self._replies = Replies(self.transport, settings.publish_timeout)
        self.blobs: BlobStore | None = None
        self.claims: ClaimCheck | None = None
        self._open_blobs(settings)
        self.store: ResultStore | None = self._blobbed(
            open_store(
                app.backend_url,
                app_name=app.main,
                result_expires=settings.result_expires or 0.0,
                replies=self._replies,
            ),
            settings,
        )
        self.chords: ChordStore | None = open_chords(
            app.backend_url,
            app_name=app.main,
            lifetimes=Lifetimes.of(settings.workflow_deadline, settings.result_expires),
        )
        self.unfolder = Unfolder(
            app.main,
            "" if self.chords is None else self.chords.kind,
            app.backend_url,
            Inheritance.of(settings),
        )
        self.revocations: Revocations | None = open_revocations(
            app.backend_url, app_name=app.main, clock=app.clock
        )
        #: Told of the outcomes of tasks that a revoke has ended before they began.
        self.after_revoke: list[Callable[[list[Outcome]], Awaitable[None]]] = []
        self._opened: asyncio.Task[None] | None = None
        self._reply_to: str | None = None
        self._producer: tuple[object, Producer] | None = None
        #: Replies need a queue before the first call is sent; other stores open when first read.
        self.replies_needed = self.store is not None and not self.store.capabilities.fences

    def _open_blobs(self, settings: Settings) -> None:
        """Make the claim check, where there is a place for what is large."""
        url = settings.blob_store or default_shelf(self._app.backend_url)
        if url is None or settings.blob_threshold is None:
            return
        most = settings.blob_max_size
        shelf = open_shelf(url, app_name=self._app.main, most=16 * most)
        self.blobs = Blobs(shelf, expires=settings.blob_expires, most=most)
        # What the broker would refuse is kept elsewhere, whatever the threshold says.
        threshold = min(settings.blob_threshold, settings.max_message_size)
        self.claims = ClaimCheck(self.blobs, threshold=threshold, clock=self._app.clock)

    def _blobbed(self, store: ResultStore | None, settings: Settings) -> ResultStore | None:
        if store is None or self.blobs is None or settings.blob_threshold is None:
            return store
        return BlobbedStore(
            store,
            self.blobs,
            threshold=settings.blob_threshold,
            keep=settings.result_expires or 0.0,
        )

    @property
    def producer(self) -> Producer:
        """The producer by the settings in force: what is set after the first call counts too."""
        app, settings = self._app, self._app.conf.settings
        if self._producer is None or self._producer[0] is not settings:
            producer = Producer(
                self.transport,
                app_name=app.main,
                settings=settings,
                options_of=app.options_of,
                routes=app.routes,
                middleware=app.middleware,
                clock=app.clock,
                reply_to=lambda: self._reply_to,
                delays=app.delays,
                reached=app.reached,
                topology_file=app.topology_file,
                claims=self.claims,
            )
            self._producer = (settings, producer)
        return self._producer[1]

    @property
    def launcher(self) -> Launcher:
        """What starts compositions here."""
        settings = self._app.conf.settings
        return Launcher(
            self.producer,
            self.chords,
            self.store,
            AppNames(self._app.main),
            self._app.backend_url,
            settings.workflow_deadline,
        )

    async def opened_store(self) -> ResultStore:
        """Return the store, connected.

        Raises:
            NoResultStore: the application keeps no results.
            StoreUnavailable: it cannot be reached now; ask again.
            AppClosed: the application was closed meanwhile.
        """
        store = self.store
        if store is None:
            message = (
                "this application keeps no results: give AmqFlow(backend=…) a store such as "
                "redis://localhost:6379/0, or do not ask for the result"
            )
            raise NoResultStore(message)
        if self._opened is None or (
            self._opened.done() and (self._opened.cancelled() or self._opened.exception())
        ):
            self._opened = asyncio.get_running_loop().create_task(store.open())
        opening = self._opened
        try:
            await asyncio.shield(opening)
        except asyncio.CancelledError:
            task = asyncio.current_task()
            if not opening.cancelled() or (task is not None and task.cancelling()):
                raise
            message = f"the application {self._app.main!r} was closed while this call was under way"
            raise AppClosed(message) from None
        self._reply_to = store.reply_to
        return store

    async def close(self) -> None:
        """Close store and transport."""
        if self.store is not None and self._opened is not None:
            # Still opening, it would connect after it was closed.
            self._opened.cancel()
            await asyncio.wait([self._opened])
            await self.store.close()
        if self.chords is not None:
            await self.chords.close()
        if self.blobs is not None:
            await self.blobs.close()
        if self.revocations is not None:
            await self.revocations.close()
        await self._replies.close()
        await self.transport.close()


class App(TaskDecorator):
    """A task application: tasks are declared on it, calls go out through it.

    Blocking verbs run on one background loop thread per process; inside a running loop use their
    ``a`` twins, which use that loop's own connections.
    """

    def __init__(
        self,
        main: str | None = None,
        *,
        broker: str | None = None,
        backend: str | None = None,
        topology: str | os.PathLike[str] | Topology | None = None,
        include: Sequence[str] | None = None,
        middleware: Iterable[Middleware] = (),
        clock: Clock = SYSTEM_CLOCK,
        **settings: object,
    ) -> None:
        """Create an application.

        Args:
            main: its name; exchanges and queues of its own carry it.
            broker: ``amqp://…``, ``amqps://…`` or ``embedded://[name]``; also ``AMQFLOW_BROKER``.
            backend: where results are kept, ``redis://…``, ``rpc://``, ``memory://``,
                ``embedded://`` or None; also ``AMQFLOW_BACKEND``. With an embedded broker, None
                is the store served beside it, and ``disabled://`` keeps none.
            topology: the path of a topology file, which workers check and ``amqflow topology
                apply`` applies; or a Topology; None derives one from the tasks' queues.
            include: modules to import in a worker, so that their tasks are known.
            middleware: hooks, outermost first.
            clock: where time comes from; tests step it.
            settings: any setting of :class:`amqflow.settings.Settings` by name.

        Raises:
            ConfigurationError: a setting does not exist or has an impossible value.
        """
        self.main = self.name = main or "amqflow"
        self.clock = clock
        self.conf = Configuration(
            {
                "broker_url": broker,
                "result_backend": backend,
                "topology": topology,
                "include": tuple(include) if include else None,
                **settings,
            }
        )
        self.middleware = Stack(middleware)
        self.tasks = TaskRegistry()
        #: Set while this process hosts a broker for the application (``running()``, a test).
        self.hosted: Hosted | None = None
        register_builtin(self.tasks, self)
        self._runtimes: weakref.WeakKeyDictionary[asyncio.AbstractEventLoop, Runtime] = (
            weakref.WeakKeyDictionary()
        )
        self._leaving: set[asyncio.Task[None]] = set()
        self._thread = LoopThread()
        self._routes: tuple[object, Routes] | None = None
        self._declaration: tuple[object, Declaration | None] | None = None
        self._discoveries: list[tuple[Packages, str | None]] = []
        #: Sent once, when a runner or a command has imported the tasks' modules: the place for
        #: :meth:`add_periodic_task`, as in Celery.
        self.on_after_configure = Signal("on_after_configure")
        self.on_after_finalize = Signal("on_after_finalize")
        self._configured = False
        shared.attach(self)

    def __repr__(self) -> str:
        """Show the name and the broker without its password."""
        return f"<{type(self).__name__} {self.main!r} {redact(self.broker_url)}>"

    @property
    def broker_url(self) -> str:
        """The broker's URL in force, with its password."""
        if self.hosted is not None:
            return self.hosted.broker_url
        return self.conf.settings.broker_url or DEFAULT_BROKER

    def located(self) -> tuple[str, str | None]:
        """Return the ``amqp://`` URL of the broker and the URL of its HTTP API, if one is known.

        Raises:
            NoEmbeddedBroker: nothing serves the ``embedded://`` name in force.
        """
        if self.hosted is not None:
            return self.hosted.broker_url, self.hosted.management_url
        management = self.conf.settings.management_url
        if not is_embedded(self.broker_url):
            return self.broker_url, management
        there = find(name_of(self.broker_url))
        return there.broker, management or there.management

    @property
    def backend_url(self) -> str | None:
        """The result store's URL in force, with its password; None where no results are kept."""
        if self.hosted is not None and self.hosted.backend_url is not None:
            return self.hosted.backend_url
        settings = self.conf.settings
        if settings.result_backend is None and is_embedded(settings.broker_url):
            return settings.broker_url
        return settings.result_backend

    # -- tasks -----------------------------------------------------------------------------

    def options_of(self, name: str) -> TaskOptions | None:
        """Return a task's own options; None where the task is unknown here."""
        task = self.tasks.get(name)
        return task.options if task is not None else None

    @property
    def declaration(self) -> Declaration | None:
        """What the application's topology file (or Topology) declares; None: all is derived.

        Raises:
            TopologyError: the file cannot be read, or something in it is wrong.
        """
        wanted = self.conf.settings.topology
        if self._declaration is None or self._declaration[0] is not wanted:
            self._declaration = (wanted, _declared(wanted))
        declared, settings = self._declaration[1], self.conf.settings
        if declared is not None and isinstance(wanted, Topology):
            # It says nothing of delays: the settings do.
            delays = Delays(settings.delay_resolution, settings.delay_levels)
            if declared.delays != delays:
                declared = replace(declared, delays=delays)
                self._declaration = (wanted, declared)
        return declared

    @property
    def delays(self) -> Delays:
        """The shape of the delay ladder: the topology file's, else the settings'."""
        if self.declaration is not None:
            return self.declaration.delays
        settings = self.conf.settings
        return Delays(settings.delay_resolution, settings.delay_levels)

    @property
    def topology_file(self) -> str | None:
        """The path of the topology file, where there is one."""
        wanted = self.conf.settings.topology
        return None if wanted is None or isinstance(wanted, Topology) else os.fspath(wanted)

    @property
    def routes(self) -> Routes:
        """Offline routing by the settings in force; the file's routes come after theirs."""
        settings = self.conf.settings
        if self._routes is None or self._routes[0] is not settings:
            rules = settings.task_routes
            if self.declaration is not None and self.declaration.routes:
                own = [] if rules is None else [rules] if isinstance(rules, dict) else [*rules]
                rules = [*own, *self.declaration.routes]
            self._routes = (settings, Routes(rules, default_queue=settings.task_default_queue))
        return self._routes[1]

    def reached(self, destination: Destination) -> tuple[str, ...]:
        """Return the consumed queues a destination leads to, as far as that is known offline."""
        if destination.queue is not None:
            return (destination.queue,)
        declared = self.declaration
        if declared is None:
            return ()
        found = reach(declared.own, destination.exchange, destination.routing_key).queues
        return tuple(queue for queue in found if queue in declared.consumed)

    def import_modules(self) -> None:
        """Import what ``include``, ``imports`` and :meth:`autodiscover_tasks` name.

        Raises:
            ConfigurationError: a module does not exist.
        """
        settings = self.conf.settings
        for module in (*settings.include, *settings.imports):
            _import(module, "include")
        discoveries, self._discoveries = self._discoveries, []
        for packages, related_name in discoveries:
            _discover(packages, related_name)
        if not self._configured:
            self._configured = True
            self.on_after_configure.send(sender=self)
            self.on_after_finalize.send(sender=self)

    def add_periodic_task(
        self,
        schedule: object,
        sig: Signature[Any],
        args: Sequence[object] = (),
        kwargs: Mapping[str, object] | None = None,
        name: str | None = None,
        **options: object,
    ) -> str:
        """Add an entry to ``beat_schedule`` (docs/scheduler.md), and return its name.

        Args:
            schedule: seconds, a timedelta, or a schedule such as ``crontab(hour=2, minute=0)``.
            sig: the task with its arguments, as ``task.s(1, 2)``.
            args: more arguments, before those of ``sig``, as in Celery.
            kwargs: more keywords.
            name: the entry's; None: the signature as text.
            options: execution options, as of ``apply_async``.
        """
        name = name or repr(sig)
        entry = {
            "task": sig.task,
            "schedule": schedule,
            "args": (*args, *sig.args),
            "kwargs": {**sig.kwargs, **(kwargs or {})},
            "options": {**sig.options, **options},
        }
        self.conf.beat_schedule = {**self.conf.beat_schedule, name: entry}
        return name

    def autodiscover_tasks(
        self,
        packages: Packages | None = None,
        related_name: str | None = "tasks",
        force: bool = False,
    ) -> None:
        """Import ``<package>.<related_name>`` of each package that has one, as in Celery.

        Args:
            packages: names of packages, or a function that returns them.
            related_name: the module in each of them; None: the packages themselves.
            force: now; else when a worker starts, when the application is complete.

        Raises:
            ConfigurationError: no packages are named, or (with ``force``) one does not exist.
        """
        if packages is None:
            message = (
                'autodiscover_tasks: name the packages, as in app.autodiscover_tasks(["shop"]); '
                "Django's installed apps are not looked up"
            )
            raise ConfigurationError(message)
        if force:
            _discover(packages, related_name)
        else:
            self._discoveries.append((packages, related_name))

    def config_from_object(self, obj: object, *, namespace: str | None = None) -> None:
        """Take settings from an object, a mapping, or a module by name (Celery's verb)."""
        self.conf.from_object(obj, namespace=namespace)

    def work_queues(self, names: Iterable[str] | None = None) -> dict[str, QueueNeeds]:
        """Return the queues this application's tasks use, and what they need of them.

        Args:
            names: only these; a queue no task names is there too, with plain needs.
        """
        declared = self.declaration
        default_queue = self.conf.settings.task_default_queue
        priorities: dict[str, bool] = {}
        if declared is None or default_queue in declared.consumed:
            priorities[default_queue] = False
        default = self.conf.settings.task_default_priority is not None
        for task in self.tasks.values():
            options = task.options
            own = Address(options.queue, options.exchange, options.routing_key, options.priority)
            destination = self.routes.resolve(task.name, own=own)
            uses = default or destination.priority is not None
            for queue in self.reached(destination):
                priorities[queue] = priorities.get(queue, False) or uses
        if names is not None:
            priorities = {name: priorities.get(name, default) for name in names}
        return {name: QueueNeeds(uses_priority=uses) for name, uses in priorities.items()}

    def derived_topology(self, facts: BrokerFacts, names: Iterable[str] | None = None) -> Topology:
        """Return what the broker must hold: what is declared with what follows from it.

        Args:
            facts: the broker's version.
            names: where nothing is declared, only these queues; None: all of the tasks'.

        Raises:
            TopologyError: the topology file is wrong, or this broker cannot hold it.
        """
        settings = self.conf.settings
        if self.declaration is not None:
            return self.declaration.topology(self.main, facts, poison_limit=settings.poison_limit)
        return derive(
            self.main,
            self.work_queues(names),
            facts,
            poison_limit=settings.poison_limit,
            dead_max_age=settings.dead_max_age,
            dead_max_length=settings.dead_max_length,
            resolution=settings.delay_resolution,
            levels=settings.delay_levels,
        )

    # -- running ---------------------------------------------------------------------------

    def runtime(self) -> Runtime:
        """Return the parts of the running loop."""
        loop = asyncio.get_running_loop()
        runtime = self._runtimes.get(loop)
        if runtime is None or runtime.pid != os.getpid():
            runtime = self._runtimes[loop] = Runtime(self)
        elif runtime.hosted is not self.hosted:
            # The broker it is connected to is not the application's any more.
            self._leaving.add(leaving := loop.create_task(runtime.close()))
            leaving.add_done_callback(self._leaving.discard)
            runtime = self._runtimes[loop] = Runtime(self)
        return runtime

    def run(self, coroutine: Coroutine[Any, Any, T], *, twin: str) -> T:
        """Block until a coroutine is done on the background loop (see LoopThread.run)."""
        return self._thread.run(coroutine, twin=twin)

    def adopt_loop(self, loop: asyncio.AbstractEventLoop | None) -> None:
        """Let blocking calls of this process use a worker's loop and its connections."""
        self._thread.adopt(loop)

    # -- Dispatcher ------------------------------------------------------------------------

    async def send_call(self, call: Call) -> Sent:
        """Send one call; returns after the broker's confirm."""
        runtime = self.runtime()
        if runtime.replies_needed:
            await runtime.opened_store()
        return await runtime.producer.send(call)

    async def send_calls(self, calls: Sequence[Call]) -> list[Sent]:
        """Send many calls pipelined; raises PublishGroupError where some were refused."""
        runtime = self.runtime()
        if runtime.replies_needed:
            await runtime.opened_store()
        return await runtime.producer.send_many(calls)

    async def send_composition(
        self,
        node: SentNode,
        args: Sequence[Any],
        kwargs: Mapping[str, Any],
        options: Mapping[str, Any],
    ) -> Any:
        """Send a chain, group or chord (see :class:`amqflow.abc.Dispatcher`)."""
        runtime = self.runtime()
        if runtime.replies_needed:
            await runtime.opened_store()
        parent = parent_request()
        place = Place()
        if parent is not None:
            heritage = runtime.unfolder.inherits.from_request(parent)
            place = Place(parent.root_id or parent.id, parent.id, heritage=heritage)
        sent = sending(
            cast("Node[Any]", node),
            args,
            kwargs,
            options,
            unfolder=runtime.unfolder,
            place=place,
            reader=self,
        )
        await runtime.launcher.send(sent.launches)
        if parent is not None:
            parent.add_child(child_of(sent.handle))
        return sent.handle

    async def send_member(self, node: Node[Any], request: Request) -> Any:
        """Send one more member of the chord that a running task is in (``self.add_to_chord``).

        Raises:
            ValueError: It is in none.
            ConfigurationError: The chord is over, or kept elsewhere.
        """
        runtime = self.runtime()
        return await add_member(
            node, request, launcher=runtime.launcher, unfolder=runtime.unfolder, reader=self
        )

    def send_task(
        self,
        name: str,
        args: Sequence[object] | None = None,
        kwargs: Mapping[str, object] | None = None,
        **options: Any,
    ) -> AsyncResult[Any]:
        """Send a task by name, known here or not; Celery's keywords (see ``apply_async``)."""
        return self.run(self.asend_task(name, args, kwargs, **options), twin="asend_task")

    async def asend_task(
        self,
        name: str,
        args: Sequence[object] | None = None,
        kwargs: Mapping[str, object] | None = None,
        **options: Any,
    ) -> AsyncResult[Any]:
        """Async twin of :meth:`send_task`."""
        signature = self.signature(name, args, kwargs)
        return await signature.aapply_async(**options)

    def signature(
        self,
        name: str,
        args: Sequence[object] | None = None,
        kwargs: Mapping[str, object] | None = None,
        **options: Any,
    ) -> Signature[Any]:
        """Return a signature of a task by name."""
        from amqflow.canvas import Signature  # noqa: PLC0415 - keeps the import list of start-up

        return Signature(name, tuple(args or ()), dict(kwargs or {}), options, dispatcher=self)

    # -- ResultReader ----------------------------------------------------------------------

    def AsyncResult(self, task_id: str) -> AsyncResult[Any]:  # noqa: N802 - Celery's name
        """Return a handle on a result by its id."""
        return AsyncResult(task_id, self)

    def GroupResult(  # noqa: N802 - Celery's name
        self, group_id: str, results: Sequence[Single | Group]
    ) -> Group:
        """Return a handle on a group by its id and its members' handles."""
        return GroupResult(group_id, results, self)

    def restore_group(self, group_id: str) -> Group | None:
        """Return a group that was saved, by its id (``GroupResult.save``)."""
        return GroupResult.restore(group_id, self)

    async def arestore_group(self, group_id: str) -> Group | None:
        """Async twin of :meth:`restore_group`."""
        return await GroupResult.arestore(group_id, self)

    async def fetch_outcome(self, task_id: str) -> Outcome | None:
        """Return what the store knows of an id."""
        store = await self.runtime().opened_store()
        return await store.get(task_id)

    async def fetch_outcomes(self, task_ids: Sequence[str]) -> list[Outcome | None]:
        """Return what the store knows of many ids, in order."""
        store = await self.runtime().opened_store()
        return await store.get_many(task_ids)

    async def wait_outcome(self, task_id: str, timeout: float | None) -> Outcome:
        """Wait for the terminal outcome; raises TimeoutError."""
        store = await self.runtime().opened_store()
        return await store.wait(task_id, timeout)

    async def forget_outcome(self, task_id: str) -> None:
        """Drop a result."""
        store = await self.runtime().opened_store()
        await store.forget(task_id)

    async def save_group(self, group_id: str, members: Any) -> None:
        """Keep a group's tuple form in the store; None drops it."""
        store = await self.runtime().opened_store()
        await store.save_group(group_id, members)

    async def load_group(self, group_id: str) -> Any:
        """Return a saved group's tuple form; None where there is none."""
        store = await self.runtime().opened_store()
        return await store.load_group(group_id)

    def running_task(self) -> str | None:
        """Return the name of the task a worker runs in this context; None outside one."""
        request = current_request()
        if request is None or request.called_directly or request.is_eager:
            return None
        return request.task

    # -- revoking --------------------------------------------------------------------------

    @property
    def control(self) -> Control:
        """What may be told to workers: Celery's ``app.control``."""
        return Control(self)

    async def arevoke(self, ids: str | Sequence[str], *, terminate: bool = False) -> None:
        """Revoke tasks by id (see :class:`amqflow.abc.Dispatcher`); ``control.revoke`` blocks."""
        ids = [ids] if isinstance(ids, str) else list(ids)
        await self.arevoke_all(Target.ID, ids, terminate=terminate)

    async def arevoke_all(
        self,
        target: Target,
        values: Iterable[str],
        *,
        terminate: bool = False,
        expires: float | None = None,
    ) -> None:
        """Keep revocations where every worker reads them, and end what has not begun.

        Raises:
            NoResultStore: there is no store that callers and workers share.
            StoreUnavailable: it cannot be used now; nothing was revoked.
        """
        runtime, now = self.runtime(), self.clock.now()
        if runtime.revocations is None:
            raise no_store()
        known: dict[str, Outcome | None] = {}
        values = list(values)
        if target is Target.ID:
            store = await runtime.opened_store()
            known = dict(zip(values, await asyncio.gather(*map(store.get, values)), strict=True))
        kept = self.conf.settings.revoke_expires if expires is None else expires
        await runtime.revocations.add(
            [
                Revocation(
                    target,
                    value,
                    at=now,
                    expires=now + kept,
                    terminate=terminate,
                    epoch=outcome.epoch if (outcome := known.get(value)) is not None else 0,
                )
                for value in values
            ]
        )
        if known:
            await self._end_revoked(known, now)

    async def _end_revoked(self, known: Mapping[str, Outcome | None], now: float) -> None:
        """Store REVOKED for what no worker has begun: whoever waits for it is answered now.

        Fence 0 loses against every attempt under way; that one's worker has been told.
        """
        runtime = self.runtime()
        store = await runtime.opened_store()
        finishes = [
            Finish(revoked_outcome(task_id, outcome, now), fence=0)
            for task_id, outcome in known.items()
            if outcome is None or not outcome.terminal
        ]
        finished = await store.finish(finishes)
        ended = [one.stored for one in finished if not one.refused and one.stored.state == REVOKED]
        # A member's message may lie in a queue for long; its chord is told now.
        await count_revoked(ended, runtime.launcher)
        for told in runtime.after_revoke:
            await told(ended)

    async def acancel(self, workflow: Workflow, *, terminate: bool = False) -> int:
        """Revoke what has not ended of a workflow, its delayed retries too; return how many."""
        ids = list(dict.fromkeys(workflow.ids()))
        outcomes = await self.fetch_outcomes(ids)
        waiting = [
            task_id
            for task_id, outcome in zip(ids, outcomes, strict=True)
            if outcome is None or not outcome.terminal
        ]
        await self.arevoke_all(Target.ROOT, [workflow.root_id], terminate=terminate)
        if waiting:
            await self.arevoke_all(Target.ID, waiting, terminate=terminate)
        return len(waiting)

    async def alift(self, target: Target, values: Iterable[str]) -> int:
        """Forget revocations; what a revoke has ended already stays ended."""
        revocations = self.runtime().revocations
        if revocations is None:
            raise no_store()
        return await revocations.lift(target, values)

    async def arevocations(self) -> list[Revocation]:
        """Return the revocations in force."""
        revocations = self.runtime().revocations
        if revocations is None:
            raise no_store()
        return await revocations.all()

    async def explain(self, task_id: str, queue: str | None) -> str:
        """Say where a task without a result is likely to be: its state and its queue's counts."""
        parts: list[str] = []
        try:
            outcome = await self.fetch_outcome(task_id)
            if outcome is not None:
                parts.append(f"state {outcome.state}")
        except AmqflowError as error:
            parts.append(f"the result store does not answer ({error})")
        if queue is not None:
            parts.append(await self._queue_words(queue))
        return ", ".join(parts) or "it is in no queue known here, and the store knows nothing of it"

    async def _queue_words(self, queue: str) -> str:
        try:
            async with asyncio.timeout(2.0):
                counts = await self.runtime().transport.declare_queue(queue, passive=True)
        except NotFound:
            return f"queue {queue} does not exist"
        except (BrokerError, TimeoutError):
            return f"the broker does not answer for queue {queue}"
        return f"queue {queue}: {counts.messages} ready, {counts.consumers} consumers"

    def decode_result(self, task: str | None, value: Any) -> Any:
        """Validate a result back by the task's return annotation, where the task is known."""
        known = self.tasks.get(task) if task else None
        if known is None:
            return value
        try:
            return known.decode_result(value)
        except InvalidResult:
            return value

    # -- closing ---------------------------------------------------------------------------

    async def aclose(self) -> None:
        """Close the running loop's connections; the application may be used again after it."""
        runtime = self._runtimes.pop(asyncio.get_running_loop(), None)
        if runtime is not None:
            await runtime.close()

    def close(self) -> None:
        """Close the connections of the background loop; blocks."""
        self._thread.run(self.aclose(), twin="aclose")
        self._thread.stop()

    def close_everywhere(self) -> None:
        """Close the connections of all loops that stand still, and of the background loop; blocks.

        For who ends while loops it does not run are still there, as a test's fixture does.
        """
        for loop in [loop for loop in self._runtimes if not loop.is_running()]:
            runtime = self._runtimes.pop(loop)
            if not loop.is_closed() and runtime.pid == os.getpid():
                loop.run_until_complete(runtime.close())
        if self._runtimes:
            self.close()

    def __enter__(self) -> Self:
        """Use the application and close it at the end of the block."""
        return self

    def __exit__(self, *_: object) -> None:
        """Close it."""
        self.close()


def _declared(wanted: object) -> Declaration | None:
    """Return the declaration of a ``topology`` setting."""
    if wanted is None:
        return None
    if isinstance(wanted, Topology):
        queues = tuple(wanted.queues_by_name)
        derived = derived_names(queues)
        return Declaration(
            "topology=",
            wanted.exchanges,
            wanted.queues,
            wanted.bindings,
            wanted.routes,
            consumed=tuple(
                name for name in queues if name not in derived and not name.startswith(OWN_PREFIX)
            ),
        )
    if not isinstance(wanted, str | os.PathLike):
        text = f"topology is the path of a file or a Topology, not {type(wanted).__name__}"
        raise ConfigurationError(text)
    # YAML and the file's model are for those who have one.
    from amqflow.topology.load import load  # noqa: PLC0415

    return load(os.fspath(wanted))


def _discover(packages: Packages, related_name: str | None) -> None:
    for package in packages() if callable(packages) else packages:
        _import(package, "autodiscover_tasks")
        if related_name and find_spec(name := f"{package}.{related_name}") is not None:
            importlib.import_module(name)


def _import(module: str, said_by: str) -> None:
    """Import a module a setting names; a missing one of the module's own is another matter."""
    try:
        importlib.import_module(module)
    except ModuleNotFoundError as error:
        if error.name is None or not f"{module}.".startswith(f"{error.name}."):
            raise
        message = f"{said_by}: cannot import {module!r}: {error}"
        raise ConfigurationError(message) from error
