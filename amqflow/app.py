"""The application: wires settings, tasks, stores and transports; imports no runner."""

from __future__ import annotations

import asyncio
import importlib
import os
import weakref
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any, TypeVar

from amqflow.clock import SYSTEM_CLOCK, Clock
from amqflow.errors import (
    AmqflowError,
    AppClosed,
    BrokerError,
    ConfigurationError,
    InvalidResult,
    NoResultStore,
    NotFound,
)
from amqflow.handles import AsyncResult
from amqflow.middleware import Stack
from amqflow.producer import LoopThread, Producer
from amqflow.protocol import Envelope, new_id
from amqflow.results.open import open_store
from amqflow.settings import Configuration, redact
from amqflow.tasks import TaskDecorator, TaskRegistry, shared
from amqflow.topology import BrokerFacts, QueueNeeds, Topology, derive
from amqflow.topology.routes import Address, Routes
from amqflow.transport import Delivery, Transport, open_transport

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine, Iterable, Mapping, Sequence
    from typing import Self

    from amqflow.abc import Call, Outcome, ResultStore, Sent
    from amqflow.canvas import Signature
    from amqflow.middleware import Middleware
    from amqflow.tasks import TaskOptions
    from amqflow.transport import Consumer

T = TypeVar("T")

DEFAULT_BROKER = "amqp://guest:guest@localhost:5672/"


class Replies:
    """The reply queue of this process, for stores that answer by message (``rpc://``)."""

    def __init__(self, transport: Transport, timeout: float) -> None:
        """Answer and listen over ``transport``; ``timeout`` in seconds bounds each publish."""
        self._transport = transport
        self._timeout = timeout
        self._consumer: Consumer | None = None

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
        await self._transport.declare_queue(
            queue, arguments={"x-expires": 300_000, "x-queue-type": "classic"}
        )

        def receive(delivery: Delivery) -> None:
            on_reply(delivery.envelope.correlation_id or "", delivery.envelope.body)
            delivery.ack()

        self._consumer = self._transport.consume(queue, receive, prefetch=1000)
        await self._consumer.wait_active(self._timeout)
        return queue


class Runtime:
    """What one event loop uses of an application: its transport, producer and store."""

    def __init__(self, app: App) -> None:
        """Make the parts; nothing connects before it is needed."""
        settings = app.conf.settings
        self.pid = os.getpid()
        url = settings.broker_url or DEFAULT_BROKER
        self.transport: Transport = open_transport(url, name=f"amqflow {app.main}")
        self.store: ResultStore | None = open_store(
            settings.result_backend,
            app_name=app.main,
            result_expires=settings.result_expires or 0.0,
            replies=Replies(self.transport, settings.publish_timeout),
        )
        self._opened: asyncio.Task[None] | None = None
        self._reply_to: str | None = None
        self.producer = Producer(
            self.transport,
            app_name=app.main,
            settings=settings,
            options_of=app.options_of,
            routes=app.routes,
            middleware=app.middleware,
            clock=app.clock,
            reply_to=lambda: self._reply_to,
        )
        #: Replies need a queue before the first call is sent; other stores open when first read.
        self.replies_needed = self.store is not None and not self.store.capabilities.fences

    async def opened_store(self) -> ResultStore:
        """Return the store, connected.

        Raises:
            NoResultStore: the application keeps no results.
            StoreUnavailable: it cannot be reached now; ask again.
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
        await asyncio.shield(self._opened)
        self._reply_to = store.reply_to
        return store

    async def close(self) -> None:
        """Close store and transport."""
        if self.store is not None and self._opened is not None:
            await self.store.close()
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
        topology: str | Topology | None = None,
        include: Sequence[str] | None = None,
        middleware: Iterable[Middleware] = (),
        clock: Clock = SYSTEM_CLOCK,
        **settings: object,
    ) -> None:
        """Create an application.

        Args:
            main: its name; exchanges and queues of its own carry it.
            broker: ``amqp://…`` or ``amqps://…``; also ``AMQFLOW_BROKER``.
            backend: where results are kept, ``redis://…``, ``rpc://``, ``memory://`` or None;
                also ``AMQFLOW_BACKEND``.
            topology: a Topology; None derives one from the tasks' queues.
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
        self._runtimes: weakref.WeakKeyDictionary[asyncio.AbstractEventLoop, Runtime] = (
            weakref.WeakKeyDictionary()
        )
        self._thread = LoopThread()
        self._routes: tuple[object, Routes] | None = None
        self._closed = False
        shared.attach(self)

    def __repr__(self) -> str:
        """Show the name and the broker without its password."""
        return f"<{type(self).__name__} {self.main!r} {redact(self.broker_url)}>"

    @property
    def broker_url(self) -> str:
        """The broker's URL in force, with its password."""
        return self.conf.settings.broker_url or DEFAULT_BROKER

    # -- tasks -----------------------------------------------------------------------------

    def options_of(self, name: str) -> TaskOptions | None:
        """Return a task's own options; None where the task is unknown here."""
        task = self.tasks.get(name)
        return task.options if task is not None else None

    @property
    def routes(self) -> Routes:
        """Offline routing by the settings in force."""
        settings = self.conf.settings
        if self._routes is None or self._routes[0] is not settings:
            self._routes = (
                settings,
                Routes(settings.task_routes, default_queue=settings.task_default_queue),
            )
        return self._routes[1]

    def import_modules(self) -> None:
        """Import what ``include`` and ``imports`` name.

        Raises:
            ConfigurationError: a module does not exist.
        """
        settings = self.conf.settings
        for module in (*settings.include, *settings.imports):
            try:
                importlib.import_module(module)
            except ModuleNotFoundError as error:
                message = f"include: cannot import {module!r}: {error}"
                raise ConfigurationError(message) from error

    def autodiscover_tasks(
        self, packages: Iterable[str] | None = None, related_name: str | None = "tasks"
    ) -> None:
        """Import ``<package>.<related_name>`` of each package that has one, as in Celery."""
        for package in packages or ():
            name = f"{package}.{related_name}" if related_name else package
            try:
                found = find_spec(name)
            except ModuleNotFoundError as error:
                message = f"autodiscover_tasks: no package {package!r}"
                raise ConfigurationError(message) from error
            if found is not None:
                importlib.import_module(name)

    def config_from_object(self, obj: object, *, namespace: str | None = None) -> None:
        """Take settings from an object, a mapping, or a module by name (Celery's verb)."""
        self.conf.from_object(obj, namespace=namespace)

    def work_queues(self, names: Iterable[str] | None = None) -> dict[str, QueueNeeds]:
        """Return the queues this application's tasks use, and what they need of them.

        Args:
            names: only these; a queue no task names is there too, with plain needs.
        """
        priorities: dict[str, bool] = {self.conf.settings.task_default_queue: False}
        default = self.conf.settings.task_default_priority is not None
        for task in self.tasks.values():
            options = task.options
            own = Address(options.queue, options.exchange, options.routing_key, options.priority)
            destination = self.routes.resolve(task.name, own=own)
            if destination.queue is not None:
                uses = default or destination.priority is not None
                priorities[destination.queue] = priorities.get(destination.queue, False) or uses
        if names is not None:
            priorities = {name: priorities.get(name, default) for name in names}
        return {name: QueueNeeds(uses_priority=uses) for name, uses in priorities.items()}

    def derived_topology(self, facts: BrokerFacts, names: Iterable[str] | None = None) -> Topology:
        """Return what the broker must hold for these queues (all of the tasks' by default)."""
        settings = self.conf.settings
        if isinstance(settings.topology, Topology):
            return settings.topology
        if settings.topology is not None:
            message = (
                "topology files come in a later release; leave topology= out (it is derived from "
                "the tasks' queues) or pass an amqflow.topology.Topology"
            )
            raise ConfigurationError(message)
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
        if self._closed:
            message = f"the application {self.main!r} is closed; create a new one"
            raise AppClosed(message)
        loop = asyncio.get_running_loop()
        runtime = self._runtimes.get(loop)
        if runtime is None or runtime.pid != os.getpid():
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

    async def fetch_outcome(self, task_id: str) -> Outcome | None:
        """Return what the store knows of an id."""
        store = await self.runtime().opened_store()
        return await store.get(task_id)

    async def wait_outcome(self, task_id: str, timeout: float | None) -> Outcome:
        """Wait for the terminal outcome; raises TimeoutError."""
        store = await self.runtime().opened_store()
        return await store.wait(task_id, timeout)

    async def forget_outcome(self, task_id: str) -> None:
        """Drop a result."""
        store = await self.runtime().opened_store()
        await store.forget(task_id)

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

    def __enter__(self) -> Self:
        """Use the application and close it at the end of the block."""
        return self

    def __exit__(self, *_: object) -> None:
        """Close it."""
        self.close()
