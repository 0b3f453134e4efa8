"""A task: a function with a name, options, and Celery's verbs for calling it elsewhere."""

from __future__ import annotations

import asyncio
import inspect
import logging
import time
import types
from typing import TYPE_CHECKING, Any, ClassVar, Generic, ParamSpec, Protocol, TypeVar, cast

from amqflow.abc import FAILURE, OUTCOME_STATES, RETRY, SUCCESS, Dispatcher, Outcome
from amqflow.canvas import (
    CallOptions,
    Chunks,
    Node,
    Signature,
    XMap,
    XStarmap,
    build_call,
    signature_from,
)
from amqflow.canvas.call import parse_moment, positive_seconds
from amqflow.errors import ConfigurationError, MaxRetriesExceeded, Replaced, Retry
from amqflow.handles import AsyncResult, EagerResult
from amqflow.tasks.context import Request, parent_request, request_of, running
from amqflow.tasks.eager import EagerRun
from amqflow.tasks.inherit import inherit
from amqflow.tasks.options import OPTION_NAMES, TaskOptions, read_options
from amqflow.tasks.retry import RetryDecision, decide
from amqflow.tasks.validate import ArgumentValidator, ResultValidator, shown, to_wire

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine, Iterable, Mapping, Sequence
    from datetime import datetime, timedelta
    from typing import Unpack

    from amqflow.abc import Call
    from amqflow.settings import Configuration

P = ParamSpec("P")
R = TypeVar("R")

_log = logging.getLogger(__name__)


class TaskApp(Dispatcher, Protocol):
    """What a task needs of the application it belongs to."""

    @property
    def conf(self) -> Configuration:
        """The settings."""
        ...

    @property
    def tasks(self) -> Mapping[str, Task[Any, Any]]:
        """The registered tasks by name."""
        ...

    async def send_member(self, node: Node[Any], request: Request) -> Any:
        """Send one more member of the chord that a running task is in."""
        ...

    async def show_state(self, outcome: Outcome) -> None:
        """Keep an own state of a task in the result store."""
        ...


class Task(Generic[P, R]):
    """A function that can be run by a worker.

    Made by ``@app.task``; a subclass given as ``base=`` adds hooks and shared state, and its class
    attributes with names of options are their defaults, as in Celery. A subclass with a ``run``
    method and a ``name`` can be registered as a task itself (``app.register_task``). One instance
    serves all runs in a process.
    """

    name: str
    #: Checked options in force.
    options: TaskOptions
    #: Whether the body is ``async def``.
    is_async: bool = False
    #: Whether any of before_start, on_success, on_failure, on_retry, after_return is overridden.
    has_hooks: bool = False
    #: The body with ``self`` bound: what a worker calls (a coroutine function if ``is_async``).
    execute: Callable[..., Any]

    _app: TaskApp | None = None
    _arguments: ArgumentValidator
    _result: ResultValidator
    _HOOKS: ClassVar = ("before_start", "on_success", "on_failure", "on_retry", "after_return")

    # -- declaring --------------------------------------------------------------------------

    def declare(
        self,
        name: str,
        function: Callable[..., Any] | None = None,
        *,
        app: TaskApp | None = None,
        bind: bool = False,
        options: Mapping[str, Any] | None = None,
        namespace: Mapping[str, Any] | None = None,
    ) -> None:
        """Give this task its body, name and options; called once by who registers it.

        Args:
            name: The task's name.
            function: The body; None: this class's ``run`` method.
            app: The application; None: attached later.
            bind: Pass the task itself as the first argument.
            options: Celery's options by name; over those of the class.
            namespace: Local names where the function was defined, for its annotations.

        Raises:
            ConfigurationError: An option is unknown or of a wrong type, or the body is none.
        """
        body = self.run if function is None else function
        if inspect.isclass(body) or not callable(body):
            raise ConfigurationError(f"task {name}: a task's body must be a function, got {body!r}")
        put = self.__dict__
        put["name"] = name
        put["_app"] = app
        put["_arguments"] = ArgumentValidator(body, name, bound=bind, namespace=namespace)
        put["_result"] = ResultValidator(body, name, namespace=namespace)
        put["is_async"] = inspect.iscoroutinefunction(inspect.unwrap(body))
        if function is not None:
            put["run"] = types.MethodType(function, self) if bind else function
            for attribute in ("__name__", "__qualname__", "__doc__", "__module__"):
                put[attribute] = getattr(function, attribute, getattr(type(self), attribute, None))
            put["__wrapped__"] = function
        put["execute"] = put.get("run", self.run)
        if _calls_itself(type(self)):
            # Celery runs an overridden __call__ in place of run.
            put["execute"] = self.__call__
        put["has_hooks"] = any(
            getattr(type(self), hook) is not getattr(Task, hook) for hook in self._HOOKS
        )
        self._set_options({**self._class_options(), **(options or {})})

    def _class_options(self) -> dict[str, Any]:
        """Return class attributes with names of options, of subclasses of Task only."""
        found: dict[str, Any] = {}
        for klass in reversed(type(self).__mro__):
            if issubclass(klass, Task) and klass is not Task and klass is not AsyncTask:
                attributes = vars(klass)
                found.update({name: attributes[name] for name in OPTION_NAMES & attributes.keys()})
        return found

    def _set_options(self, values: Mapping[str, Any]) -> None:
        read = read_options(self.name, values)
        options = TaskOptions(**read)
        self.__dict__["options"] = options
        # Celery code reads options as attributes of the task (self.max_retries).
        self.__dict__.update({name: getattr(options, name) for name in OPTION_NAMES})

    def __setattr__(self, name: str, value: Any) -> None:
        """Set an attribute; one that is an option (``task.rate_limit = "10/m"``) is checked."""
        if name in OPTION_NAMES and "options" in self.__dict__:
            known = {one: getattr(self.options, one) for one in OPTION_NAMES}
            self._set_options({**known, name: value})
        else:
            object.__setattr__(self, name, value)

    if TYPE_CHECKING:

        def __getattr__(self, name: str) -> Any:
            """Options are attributes too."""

    def attach(self, app: TaskApp) -> None:
        """Make this task one of ``app``."""
        self.__dict__["_app"] = app

    @property
    def app(self) -> Any:
        """The application this task belongs to.

        Raises:
            ConfigurationError: It belongs to none yet.
        """
        return self._attached()

    def _attached(self) -> TaskApp:
        if self._app is None:
            raise ConfigurationError(
                f"task {self.name} belongs to no application: make one (AmqFlow(...)) first"
            )
        return self._app

    def prepare(self) -> None:
        """Compile the validators now; a worker does so at its start, to fail there.

        Raises:
            ConfigurationError: An annotation cannot be resolved.
        """
        if self.options.typing:
            self._arguments.compile()
            self._result.compile()

    # -- the body ---------------------------------------------------------------------------

    def run(self, *_args: Any, **_kwargs: Any) -> Any:
        """The body: of ``@app.task`` the function, of a class-based task its own method."""
        raise NotImplementedError(f"{type(self).__name__} needs a run method")

    def run_async(self, *args: Any, **kwargs: Any) -> Coroutine[Any, Any, Any]:
        """Return the coroutine of an ``async def`` body."""
        coroutine: Coroutine[Any, Any, Any] = self.execute(*args, **kwargs)
        return coroutine

    def __call__(self, *args: P.args, **kwargs: P.kwargs) -> R:
        """Run the body here, as a plain call: no message, no retry, arguments as they are."""
        request = Request(task=self.name, args=args, kwargs=kwargs, _outer=parent_request())
        if self.is_async:
            return self._acall(request, args, kwargs)  # type: ignore[return-value]
        with running(self, request):
            result: R = self.run(*args, **kwargs)
            return result

    async def _acall(
        self, request: Request, args: tuple[Any, ...], kwargs: Mapping[str, Any]
    ) -> Any:
        with running(self, request):
            return await self.run(*args, **kwargs)

    # -- checking ---------------------------------------------------------------------------

    def check_arguments(
        self, args: Sequence[Any], kwargs: Mapping[str, Any]
    ) -> tuple[tuple[Any, ...], dict[str, Any]]:
        """Return arguments validated and converted by the body's annotations.

        Raises:
            InvalidArguments: They do not fit.
        """
        if self.options.typing:
            return self._arguments.check(args, kwargs)
        return tuple(args), dict(kwargs)

    def encode_result(self, value: Any) -> Any:
        """Return what the body returned, checked by its return annotation, as the codec takes it.

        Raises:
            InvalidResult: It is not what the annotation says.
        """
        return self._result.encode(value) if self.options.typing else value

    def decode_result(self, value: Any) -> Any:
        """Return a stored result converted back by the return annotation.

        Raises:
            InvalidResult: It is not what the annotation says.
        """
        return self._result.decode(value) if self.options.typing else value

    def check_outgoing(
        self, args: Sequence[Any], kwargs: Mapping[str, Any]
    ) -> tuple[Sequence[Any], Mapping[str, Any]]:
        """Return arguments as they travel, checked and converted by the body's annotations.

        Raises:
            InvalidArguments: They do not fit.
        """
        if not self.options.typing:
            return args, kwargs
        return self._arguments.check_outgoing(args, kwargs)

    def first_argument(self, args: int, kwargs: Sequence[str]) -> tuple[str, Any]:
        """Return name and type of what a result put before so many arguments becomes.

        Raises:
            InvalidArguments: It cannot be called with one more argument before these.
        """
        if not self.options.typing:
            return "", Any
        return self._arguments.first(args, kwargs)

    def result_type(self) -> Any:
        """Return the return annotation; Any where it does not say."""
        return self._result.hint() if self.options.typing else Any

    # -- sending ----------------------------------------------------------------------------

    def delay(self, *args: P.args, **kwargs: P.kwargs) -> AsyncResult[R]:
        """Send with these arguments; blocks until the broker has confirmed.

        Raises:
            InvalidArguments: They do not fit the signature or annotations.
            PublishError: The broker did not take it (Unroutable, PublishNacked, PublishTimeout).
            SyncInLoop: Called inside a running event loop; use :meth:`adelay`.
        """
        return self._send(self._call(args, kwargs, {}), "adelay")

    async def adelay(self, *args: P.args, **kwargs: P.kwargs) -> AsyncResult[R]:
        """Async twin of :meth:`delay`."""
        return await self._asend(self._call(args, kwargs, {}))

    def apply_async(
        self,
        args: Sequence[Any] | None = None,
        kwargs: Mapping[str, Any] | None = None,
        **options: Unpack[CallOptions],
    ) -> AsyncResult[R]:
        """Send with execution options (:class:`CallOptions`, Celery's names).

        Raises:
            InvalidArguments, PublishError, SyncInLoop: As :meth:`delay`.
            TypeError, ValueError, ConfigurationError: An option is wrong.
        """
        return self._send(self._call(args, kwargs, options), "aapply_async", options)

    async def aapply_async(
        self,
        args: Sequence[Any] | None = None,
        kwargs: Mapping[str, Any] | None = None,
        **options: Unpack[CallOptions],
    ) -> AsyncResult[R]:
        """Async twin of :meth:`apply_async`."""
        return await self._asend(self._call(args, kwargs, options), options)

    def as_call(
        self,
        args: Sequence[Any] | None = None,
        kwargs: Mapping[str, Any] | None = None,
        **options: Unpack[CallOptions],
    ) -> Call:
        """Return the checked call that :meth:`apply_async` sends, for who sends it later.

        Raises:
            InvalidArguments, TypeError, ValueError, ConfigurationError: As there.
        """
        return self._call(args, kwargs, options)

    def _call(
        self,
        args: Sequence[Any] | None,
        kwargs: Mapping[str, Any] | None,
        options: Mapping[str, Any],
    ) -> Call:
        """Return the checked call, as a descendant of the running task where there is one."""
        call = build_call(self.name, args, kwargs, options)
        if self.options.typing:
            call.args, call.kwargs = self._arguments.check_outgoing(call.args, call.kwargs)
        if self.options.shadow_name is not None and call.shadow is None:
            call.shadow = self.options.shadow_name(self, call.args, call.kwargs, options)
        parent = parent_request()
        if parent is not None:
            inherit(call, parent, self._attached().conf.settings)
        return call

    def _send(
        self, call: Call, twin: str, options: Mapping[str, Any] | None = None
    ) -> AsyncResult[R]:
        app = self._attached()
        if app.conf.settings.task_always_eager:
            return self._apply(call, throw=None)
        sent = app.run(app.send_call(call), twin=twin)
        self._note_child(sent.id, options)
        return AsyncResult.of(sent, app)

    async def _asend(self, call: Call, options: Mapping[str, Any] | None = None) -> AsyncResult[R]:
        app = self._attached()
        if app.conf.settings.task_always_eager:
            return await self._aapply(call, throw=None)
        sent = await app.send_call(call)
        self._note_child(sent.id, options)
        return AsyncResult.of(sent, app)

    @staticmethod
    def _note_child(task_id: str, options: Mapping[str, Any] | None) -> None:
        parent = parent_request()
        if parent is not None and (not options or options.get("add_to_parent", True) is not False):
            parent.add_child(task_id)

    # -- here and now -----------------------------------------------------------------------

    def apply(
        self,
        args: Sequence[Any] | None = None,
        kwargs: Mapping[str, Any] | None = None,
        *,
        throw: bool | None = None,
        **options: Unpack[CallOptions],
    ) -> EagerResult[R]:
        """Run in this process, retries included, and return how it ended.

        Args:
            args: Positional arguments.
            kwargs: Keyword arguments.
            throw: Raise the task's error; None: as ``task_eager_propagates`` says.
            **options: Execution options; delays and limits are not waited for.

        Raises:
            SyncInLoop: An ``async def`` task inside a running loop; use :meth:`aapply`.
        """
        return self._apply(self._call(args, kwargs, options), throw=throw)

    async def aapply(
        self,
        args: Sequence[Any] | None = None,
        kwargs: Mapping[str, Any] | None = None,
        *,
        throw: bool | None = None,
        **options: Unpack[CallOptions],
    ) -> EagerResult[R]:
        """Async twin of :meth:`apply`."""
        return await self._aapply(self._call(args, kwargs, options), throw=throw)

    def _apply(self, call: Call, *, throw: bool | None) -> EagerResult[R]:
        if self.is_async:
            work = self._aapply(call, throw=throw)
            return asyncio.run(work) if self._app is None else self._app.run(work, twin="aapply")
        run = EagerRun(self, call)
        while (ended := run.once()) is None:
            pass
        return self._thrown(ended, throw)

    async def _aapply(self, call: Call, *, throw: bool | None) -> EagerResult[R]:
        if not self.is_async:
            return self._apply(call, throw=throw)
        run = EagerRun(self, call)
        while (ended := await run.aonce()) is None:
            pass
        return self._thrown(ended, throw)

    def _thrown(self, ended: EagerResult[Any], throw: bool | None) -> EagerResult[R]:
        if throw is None:
            throw = self._app is not None and self._app.conf.settings.task_eager_propagates
        if throw:
            ended.get()
        return ended

    # -- as data ----------------------------------------------------------------------------

    def s(self, *args: Any, **kwargs: Any) -> Signature[R]:
        """Return a signature; arguments may be incomplete, a parent's result comes first."""
        return Signature(self.name, args, kwargs, sender=self, dispatcher=self._app)

    def si(self, *args: Any, **kwargs: Any) -> Signature[R]:
        """Return an immutable signature: it ignores a parent's result."""
        return Signature(self.name, args, kwargs, immutable=True, sender=self, dispatcher=self._app)

    def signature(
        self,
        args: Sequence[Any] | None = None,
        kwargs: Mapping[str, Any] | None = None,
        options: Mapping[str, Any] | None = None,
        *,
        immutable: bool = False,
        **more: Unpack[CallOptions],
    ) -> Signature[R]:
        """Return a signature with options, given as a dict or as keywords (Celery's order)."""
        return Signature(
            self.name,
            args or (),
            kwargs,
            {**(options or {}), **more},
            immutable=immutable,
            sender=self,
            dispatcher=self._app,
        )

    subtask = signature

    def map(self, it: Iterable[Any]) -> XMap:
        """Return one call that runs this for each item, in order: ``[task(item) …]``."""
        return XMap(self.s(), it)

    def starmap(self, it: Iterable[Any]) -> XStarmap:
        """Return one call that runs this for each argument list: ``[task(*item) …]``."""
        return XStarmap(self.s(), it)

    def chunks(self, it: Iterable[Any], n: int) -> Chunks:
        """Return a group of starmaps of ``n`` argument lists each."""
        return Chunks(self.s(), it, n)

    def sender_of(self, signature: Node[Any]) -> Node[Any]:
        """Return a signature or composition made ready to run by this task's application."""
        app = self._attached()
        return signature.bind(app.tasks, app)

    def AsyncResult(self, task_id: str) -> AsyncResult[R]:  # noqa: N802 - Celery's name
        """Return the handle on an earlier call by its id."""
        return AsyncResult(task_id, self._attached(), task=self.name)

    # -- inside a run -----------------------------------------------------------------------

    @property
    def request(self) -> Request:
        """The request of the run this is read in; an empty one outside a run."""
        return request_of(self)

    def retry(
        self,
        args: Sequence[Any] | None = None,
        kwargs: Mapping[str, Any] | None = None,
        exc: BaseException | None = None,
        throw: bool = True,
        eta: datetime | None = None,
        countdown: float | timedelta | None = None,
        *,
        max_retries: int | None = None,
        **options: Any,
    ) -> Retry:
        """End this attempt and run the task again later; write ``raise self.retry(...)``.

        Nothing is sent here: the worker stores the attempt's end first and then publishes the
        next one, so that neither can be lost. With ``throw=False`` the Retry is returned, and
        counts only if it is raised.

        Args:
            args: Positional arguments of the next attempt; None: the same.
            kwargs: Keyword arguments of the next attempt; None: the same.
            exc: Raised in place of MaxRetriesExceeded after the last attempt.
            throw: Raise; False returns the Retry.
            eta: When to run again.
            countdown: Seconds until then; default: ``default_retry_delay`` (the backoff is
                autoretry's, as in Celery).
            max_retries: For this call only, in place of the option.
            **options: Execution options of the next attempt (``priority``, ``time_limit``…).

        Raises:
            Retry: Always, unless ``throw=False`` or one of the next two.
            MaxRetriesExceeded: This was the last attempt, and no ``exc`` was given.
            BaseException: ``exc``, where this was the last attempt or a plain call.
        """
        request = self.request
        if request.called_directly:
            raise exc or Retry("the task can be retried; this was a plain call")
        if eta is not None and countdown is not None:
            raise ValueError(f"{self.name}: give countdown or eta, not both")
        most = self.options.max_retries if max_retries is None else max_retries
        if most is not None and request.retries >= most:
            request.update(exhausted=True)
            raise exc or MaxRetriesExceeded(
                f"can't retry {self.name}[{request.id}] after {request.retries} retries: "
                f"args {shown(request.args)}, kwargs {shown(request.kwargs)}"
            )
        new_args, new_kwargs = self._changed_arguments(request, args, kwargs)
        retry = Retry(
            exc=exc,
            when=self._retry_at(eta, countdown),
            new_args=new_args,
            new_kwargs=new_kwargs,
            options=_retry_options(self.name, options),
        )
        if throw:
            raise retry
        return retry

    def replace(self, sig: Any) -> Any:
        """End this run, and let a signature or composition take this task's place.

        Its result becomes this task's: it has its id, its place in a chain, group or chord, and
        its links and errbacks beside its own. Write ``raise self.replace(...)`` or ``return``.
        Nothing is sent here: the worker stores first that this run has ended so.

        Raises:
            Replaced: Always in a worker. Run by ``apply`` or as a function, the signature runs
                here and its result is returned.
            ConfigurationError: It is no signature, or an option of it is wrong.
        """
        request = self.request
        node = signature_from(sig, self._app)
        node.check_options()
        if request.is_eager or request.called_directly:
            return cast("Any", node).apply().get()
        raise Replaced(node.to_dict())

    def add_to_chord(self, sig: Any) -> Any:
        """Send a signature as one more member of the chord this task is in; return its handle.

        The body waits for it too and gets its result after those of the header.

        Raises:
            ValueError: This task is in no chord.
            ConfigurationError: It is no signature, or the chord is over.
        """
        return self._attached().run(self.aadd_to_chord(sig), twin="aadd_to_chord")

    async def aadd_to_chord(self, sig: Any) -> Any:
        """Async twin of :meth:`add_to_chord`."""
        app = self._attached()
        return await app.send_member(signature_from(sig, app), self.request)

    def _retry_at(self, eta: datetime | None, countdown: float | timedelta | None) -> float:
        if eta is not None:
            return parse_moment(eta)
        if countdown is not None:
            return time.time() + (positive_seconds(countdown) if countdown else 0.0)
        return time.time() + self.options.default_retry_delay

    def _changed_arguments(
        self, request: Request, args: Sequence[Any] | None, kwargs: Mapping[str, Any] | None
    ) -> tuple[Sequence[Any] | None, Mapping[str, Any] | None]:
        """Return the next attempt's arguments; inherited ones give way where both name one.

        Celery's rule (``celery/app/task.py: retry``, its issue 6494).
        """
        if args is None and kwargs is None:
            return None, None
        signature = self._arguments.signature
        if kwargs is None:
            taken = list(signature.parameters)[: len(args or ())]
            kwargs = {key: value for key, value in request.kwargs.items() if key not in taken}
        elif args is None and request.args:
            bound = signature.bind_partial(*request.args)
            kwargs = dict(kwargs)
            for name in kwargs.keys() & bound.arguments.keys():
                bound.arguments[name] = kwargs.pop(name)
            args, kwargs = bound.args, {**bound.kwargs, **kwargs}
        args = () if args is None else args
        if self.options.typing:
            return self._arguments.check_outgoing(args, kwargs)
        return args, kwargs

    def decide(self, error: BaseException, request: Request | None = None) -> RetryDecision:
        """Return whether the attempt of ``request``, ended by ``error``, runs again."""
        request = self.request if request is None else request
        if request.get("exhausted"):
            # self.retry(max_retries=…) said "no more" by its own count; autoretry keeps to it.
            return decide(self.options.changed(autoretry_for=()), request.retries, error)
        return decide(self.options, request.retries, error)

    def update_state(
        self, task_id: str | None = None, state: str | None = None, meta: Any = None
    ) -> None:
        """Show an own state of this run, such as ``state="PROGRESS", meta={"done": 5}``.

        Where no result of this run is kept this does nothing. With the id of another task it shows
        that one's, and outside a task too; blocks until the store has it. What has ended stays so.

        Raises:
            TypeError, ValueError: No state was given, or no id and no task is running; or they
                are of a wrong type, or the state is one that a task ends in.
            EncodeError: ``meta`` cannot be written.
            NoResultStore, SyncInLoop: Outside a task.
        """
        outside = self._shown_state(task_id, state, meta)
        if outside is not None:
            app = self._attached()
            app.run(app.show_state(outside), twin="aupdate_state")

    async def aupdate_state(
        self, task_id: str | None = None, state: str | None = None, meta: Any = None
    ) -> None:
        """Async twin of :meth:`update_state`."""
        outside = self._shown_state(task_id, state, meta)
        if outside is not None:
            await self._attached().show_state(outside)

    def _shown_state(self, task_id: Any, state: Any, meta: Any) -> Outcome | None:
        """Check an own state and have the worker show it; return what the application must show."""
        # Declaring tasks loads nothing that writes messages.
        from amqflow.protocol import dumps  # noqa: PLC0415

        request = self.request
        shown_of = task_id or request.id
        if shown_of is None or state is None:
            raise ValueError(
                f"{self.name}: update_state needs a state and a running task, or the id of one"
            )
        for name, value in (("task_id", shown_of), ("state", state)):
            if not isinstance(value, str):
                raise TypeError(
                    f"{self.name}: update_state: {name} must be a string: {value!r:.80}"
                )
        if state in OUTCOME_STATES:
            raise ValueError(
                f"{self.name}: update_state shows how far a task is, and {state} is how one ends: "
                "return a value, or raise"
            )
        plain = to_wire(meta)
        dumps(plain, root="meta")
        if request.set_state is not None:
            request.set_state(shown_of, state, plain)
        elif shown_of != request.id:
            return Outcome(shown_of, state, result=plain)
        return None

    # -- hooks of base classes, Celery's ------------------------------------------------------

    def before_start(self, task_id: str, args: Any, kwargs: Any) -> None:
        """Run before the body."""

    def on_success(self, retval: Any, task_id: str, args: Any, kwargs: Any) -> None:
        """Run after the body returned."""

    def on_failure(self, exc: Any, task_id: str, args: Any, kwargs: Any, einfo: Any) -> None:
        """Run after the task has failed for good; ``einfo`` shows the traceback."""

    def on_retry(self, exc: Any, task_id: str, args: Any, kwargs: Any, einfo: Any) -> None:
        """Run after an attempt that will be repeated."""

    def after_return(
        self, status: str, retval: Any, task_id: str, args: Any, kwargs: Any, einfo: Any
    ) -> None:
        """Run after every attempt; ``retval`` is the value, or the exception."""

    def run_hooks(self, state: str, value: Any, request: Request, einfo: Any) -> None:
        """Call the hooks of an ended attempt; one that fails is logged and changes nothing.

        Args:
            state: SUCCESS, FAILURE or RETRY; of other states only ``after_return`` hears.
            value: The result, or the exception.
            request: The attempt's.
            einfo: The traceback, as text.
        """
        task_id, args, kwargs = request.id or "", request.args, request.kwargs
        calls: list[Callable[[], None]] = [
            lambda: self.after_return(state, value, task_id, args, kwargs, einfo)
        ]
        if state == SUCCESS:
            calls.insert(0, lambda: self.on_success(value, task_id, args, kwargs))
        elif state == RETRY:
            calls.insert(0, lambda: self.on_retry(value, task_id, args, kwargs, einfo))
        elif state == FAILURE:
            calls.insert(0, lambda: self.on_failure(value, task_id, args, kwargs, einfo))
        for call in calls:
            try:
                call()
            except Exception:  # noqa: BLE001 - whatever a hook raises is logged
                _log.exception("a hook of task %s failed", self.name)

    def __repr__(self) -> str:
        return f"<@task: {self.__dict__.get('name', type(self).__name__)}>"


class AsyncTask(Task[P, R]):
    """A task whose body is ``async def``; its plain call is awaited."""

    def __call__(  # type: ignore[override]
        self, *args: P.args, **kwargs: P.kwargs
    ) -> Coroutine[Any, Any, R]:
        """Return the body's coroutine."""
        request = Request(task=self.name, args=args, kwargs=kwargs, _outer=parent_request())
        return self._acall(request, args, kwargs)


def _calls_itself(kind: type[Task[Any, Any]]) -> bool:
    return kind.__call__ is not Task.__call__ and kind.__call__ is not AsyncTask.__call__


def _retry_options(task: str, options: Mapping[str, Any]) -> Mapping[str, Any]:
    """Return the execution options of a retry once they are known to be right."""
    if options:
        build_call(task, None, None, options)
        if away := {"exchange", "routing_key"} & options.keys():
            text = (
                f"{task}: a retry goes by the delay ladder to a queue: give queue=, not "
                f"{' and '.join(sorted(away))}"
            )
            raise ConfigurationError(text)
    return options
