"""What a user holds: the tasks, the settings, and the verbs that send calls and read results.

What sends them (transports, stores, workflows, topology) is imported when it is first used:
declaring tasks is cheap, and a process that only declares them never pays for the rest.
"""

from __future__ import annotations

import asyncio
import importlib
import os
import threading
import weakref
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any, TypeAlias, TypeVar

from amqflow.app.loopthread import LoopThread
from amqflow.canvas import Signature
from amqflow.clock import SYSTEM_CLOCK, Clock
from amqflow.errors import (
    AmqflowError,
    BrokerError,
    ConfigurationError,
    InvalidResult,
    NotFound,
)
from amqflow.handles import AsyncResult, GroupResult
from amqflow.logs import redact
from amqflow.middleware import Stack
from amqflow.signals import Signal
from amqflow.tasks import TaskDecorator, TaskRegistry, shared
from amqflow.tasks.builtin import register_builtin
from amqflow.tasks.context import current_request

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine, Iterable, Mapping, Sequence
    from typing import Self

    from amqflow.abc import Call, Outcome, Sent, SentNode
    from amqflow.app.runtime import Runtime
    from amqflow.app.shape import Shape
    from amqflow.canvas import Node
    from amqflow.control import Control
    from amqflow.middleware import Middleware
    from amqflow.protocol.revocation import Revocation, Target
    from amqflow.settings import Configuration
    from amqflow.tasks import Request, TaskOptions
    from amqflow.topology import BrokerFacts, Declaration, Delays, QueueNeeds, Topology
    from amqflow.topology.routes import Destination, Routes
    from amqflow.workflow.catalog import Workflow

T = TypeVar("T")

#: Names of packages, or what tells them later.
Packages: TypeAlias = "Iterable[str] | Callable[[], Iterable[str]]"

#: Both handles by names that the methods of Celery's names do not hide.
Single: TypeAlias = AsyncResult[Any]
Group: TypeAlias = GroupResult

#: Held while what a call needs is imported and made: a fork in the middle of that would leave the
#: child modules that are never finished.
_MAKING = threading.RLock()
if hasattr(os, "register_at_fork"):
    os.register_at_fork(
        before=_MAKING.acquire, after_in_parent=_MAKING.release, after_in_child=_MAKING.release
    )

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
        from amqflow.settings import Configuration

        self.main = self.name = main or "amqflow"
        self.clock = clock
        self.conf: Configuration = Configuration(
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
        self._made_shape: Shape | None = None
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
        from amqflow.rendezvous import find, is_embedded, name_of

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
        from amqflow.rendezvous import is_embedded

        settings = self.conf.settings
        if settings.result_backend is None and is_embedded(settings.broker_url):
            return settings.broker_url
        return settings.result_backend

    # -- tasks -----------------------------------------------------------------------------

    def options_of(self, name: str) -> TaskOptions | None:
        """Return a task's own options; None where the task is unknown here."""
        task = self.tasks.get(name)
        return task.options if task is not None else None

    # -- topology --------------------------------------------------------------------------

    @property
    def _shape(self) -> Shape:
        if self._made_shape is None:
            with _MAKING:
                from amqflow.app.shape import Shape

                self._made_shape = Shape(self)
        return self._made_shape

    @property
    def declaration(self) -> Declaration | None:
        """What the application's topology file (or Topology) declares; None: all is derived.

        Raises:
            TopologyError: the file cannot be read, or something in it is wrong.
        """
        return self._shape.declaration

    @property
    def delays(self) -> Delays:
        """The shape of the delay ladder: the topology file's, else the settings'."""
        return self._shape.delays

    @property
    def topology_file(self) -> str | None:
        """The path of the topology file, where there is one."""
        return self._shape.topology_file

    @property
    def routes(self) -> Routes:
        """Offline routing by the settings in force; the file's routes come after theirs."""
        return self._shape.routes

    def reached(self, destination: Destination) -> tuple[str, ...]:
        """Return the consumed queues a destination leads to, as far as that is known offline."""
        return self._shape.reached(destination)

    def work_queues(self, names: Iterable[str] | None = None) -> dict[str, QueueNeeds]:
        """Return the queues this application's tasks use, and what they need of them.

        Args:
            names: only these; a queue no task names is there too, with plain needs.
        """
        return self._shape.work_queues(names)

    def derived_topology(self, facts: BrokerFacts, names: Iterable[str] | None = None) -> Topology:
        """Return what the broker must hold: what is declared with what follows from it.

        Args:
            facts: the broker's version.
            names: where nothing is declared, only these queues; None: all of the tasks'.

        Raises:
            TopologyError: the topology file is wrong, or this broker cannot hold it.
        """
        return self._shape.derived_topology(facts, names)

    # -- modules and entries ---------------------------------------------------------------

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

    # -- running ---------------------------------------------------------------------------

    def runtime(self) -> Runtime:
        """Return the parts of the running loop."""
        loop = asyncio.get_running_loop()
        runtime = self._runtimes.get(loop)
        if runtime is None or runtime.pid != os.getpid():
            runtime = self._runtimes[loop] = self._make_runtime()
        elif runtime.hosted is not self.hosted:
            # The broker it is connected to is not the application's any more.
            self._leaving.add(leaving := loop.create_task(runtime.close()))
            leaving.add_done_callback(self._leaving.discard)
            runtime = self._runtimes[loop] = self._make_runtime()
        return runtime

    def _make_runtime(self) -> Runtime:
        with _MAKING:
            from amqflow.app.runtime import Runtime

            return Runtime(self)

    def preload(self) -> None:
        """Import now what the first call would import, a third of a second; connects to nothing.

        For processes that serve requests in an event loop: it would stand still for that long.

        Raises:
            ConfigurationError: broker or backend URL cannot be used.
            TopologyError: the topology file cannot be read, or something in it is wrong.
        """

        async def made() -> None:
            runtime = self._make_runtime()
            _ = runtime.producer, self.routes
            await runtime.close()

        # In a thread of its own, so that it may be called with or without a running loop.
        with ThreadPoolExecutor(1) as thread:
            thread.submit(asyncio.run, made()).result()

    def run(self, coroutine: Coroutine[Any, Any, T], *, twin: str) -> T:
        """Block until a coroutine is done on the background loop (see LoopThread.run)."""
        return self._thread.run(coroutine, twin=twin)

    def adopt_loop(self, loop: asyncio.AbstractEventLoop | None) -> None:
        """Let blocking calls of this process use a worker's loop and its connections."""
        self._thread.adopt(loop)

    # -- Dispatcher ------------------------------------------------------------------------

    async def send_call(self, call: Call) -> Sent:
        """Send one call; returns after the broker's confirm."""
        return await self.runtime().send_call(call)

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
        return await self.runtime().send_composition(node, args, kwargs, options)

    async def send_member(self, node: Node[Any], request: Request) -> Any:
        """Send one more member of the chord that a running task is in (``self.add_to_chord``).

        Raises:
            ValueError: It is in none.
            ConfigurationError: The chord is over, or kept elsewhere.
        """
        return await self.runtime().send_member(node, request)

    async def show_state(self, outcome: Outcome) -> None:
        """Keep an own state of a task (``task.update_state`` outside a run)."""
        store = await self.runtime().opened_store()
        await store.set_state(outcome)

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
        with _MAKING:
            from amqflow.control import Control

        return Control(self)

    async def arevoke(self, ids: str | Sequence[str], *, terminate: bool = False) -> None:
        """Revoke tasks by id (see :class:`amqflow.abc.Dispatcher`); ``control.revoke`` blocks."""
        with _MAKING:
            from amqflow.protocol.revocation import Target

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
        with _MAKING:
            from amqflow.app.revoking import revoke_all

        await revoke_all(self, target, values, terminate=terminate, expires=expires)

    async def acancel(self, workflow: Workflow, *, terminate: bool = False) -> int:
        """Revoke what has not ended of a workflow, its delayed retries too; return how many."""
        with _MAKING:
            from amqflow.app.revoking import cancel

        return await cancel(self, workflow, terminate=terminate)

    async def alift(self, target: Target, values: Iterable[str]) -> int:
        """Forget revocations; what a revoke has ended already stays ended."""
        with _MAKING:
            from amqflow.app.revoking import lift

        return await lift(self, target, values)

    async def arevocations(self) -> list[Revocation]:
        """Return the revocations in force."""
        with _MAKING:
            from amqflow.app.revoking import revocations

        return await revocations(self)

    # -- what is told of a task -------------------------------------------------------------

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
