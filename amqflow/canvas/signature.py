"""A signature: one call to one task, as data that can be kept, sent, completed and run."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Protocol, TypeVar

from amqflow.canvas.call import CallOptions, build_call, link_dicts
from amqflow.canvas.node import Node, read_fields, signature_from
from amqflow.canvas.stamps import merged as merged_options
from amqflow.current import applications
from amqflow.errors import ConfigurationError
from amqflow.handles import AsyncResult

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from typing import Self, Unpack

    from amqflow.abc import Call, Dispatcher

R = TypeVar("R")


class Sender(Protocol):
    """What runs a signature: a task, which validates and sends as its own ``apply_async`` does."""

    @property
    def __call__(self) -> Callable[..., Any]:
        """Run here and now."""
        ...

    def first_argument(self, args: int, kwargs: Sequence[str]) -> tuple[str, Any]:
        """Return name and type of what a result put before so many arguments becomes.

        Raises:
            InvalidArguments: It cannot be called with one more argument before these.
        """
        ...

    def check_outgoing(
        self, args: Sequence[Any], kwargs: Mapping[str, Any]
    ) -> tuple[Sequence[Any], Mapping[str, Any]]:
        """Return arguments as they travel, checked and converted by the annotations.

        Raises:
            InvalidArguments: They do not fit.
        """
        ...

    def result_type(self) -> Any:
        """Return the type of its results; Any where it does not say."""
        ...

    @property
    def apply(self) -> Callable[..., Any]:
        """Run in this process, as an EagerResult."""
        ...

    @property
    def aapply(self) -> Callable[..., Any]:
        """Run in this process from inside a loop, as an EagerResult."""
        ...

    @property
    def apply_async(self) -> Callable[..., Any]:
        """Send, blocking until the confirm."""
        ...

    @property
    def aapply_async(self) -> Callable[..., Any]:
        """Send, and return after the confirm."""
        ...


class Signature(Node[R], kind=True):
    """One call to one task, not yet made: name, arguments, options, and whether it is immutable."""

    __slots__ = ("_args", "_kwargs", "_task_name", "sender")

    def __init__(
        self,
        task: str,
        args: Sequence[Any] = (),
        kwargs: Mapping[str, Any] | None = None,
        options: Mapping[str, Any] | None = None,
        *,
        immutable: bool = False,
        sender: Sender | None = None,
        dispatcher: Dispatcher | None = None,
    ) -> None:
        """Describe a call.

        Args:
            task: The task's name.
            args: Positional arguments, to be preceded by a parent's result unless ``immutable``.
            kwargs: Keyword arguments.
            options: Celery's execution options (:class:`CallOptions`).
            immutable: Ignore a parent's result (``si``).
            sender: The task itself, where it is known here.
            dispatcher: The application, where the task is known elsewhere only.
        """
        self._task_name = task
        self._args = tuple(args)
        self._kwargs: Mapping[str, Any] = MappingProxyType(dict(kwargs or {}))
        self._options = merged_options({}, options or {})
        self.immutable = immutable
        self.sender = sender
        self._dispatcher = dispatcher

    # -- as data ----------------------------------------------------------------------------

    @property
    def task(self) -> str:
        """The task's name."""
        return self._task_name

    @property
    def args(self) -> tuple[Any, ...]:
        """The positional arguments."""
        return self._args

    @property
    def kwargs(self) -> Mapping[str, Any]:
        """The keyword arguments, to read."""
        return self._kwargs

    def __setstate__(self, state: Mapping[str, Any]) -> None:
        super().__setstate__({**state, "_kwargs": MappingProxyType(state["_kwargs"])})

    @classmethod
    def from_dict(cls, data: Mapping[str, Any], dispatcher: Dispatcher | None = None) -> Self:
        """Return the signature of Celery's dict form, ours or a foreign client's.

        Options that mean nothing here (serializers of connections) are left out, so that a
        foreign client's signature can be called.

        Raises:
            ConfigurationError: It is no signature, a composition (``subtask_type``; see
                :func:`signature_from`), or one with a chord of Celery's.
        """
        task, args, kwargs, options = read_fields(data)
        kind = data.get("subtask_type")
        if kind is not None:
            raise ConfigurationError(f"{task}: a {kind!r} is a composition, no plain signature")
        immutable = bool(data.get("immutable", False))
        return cls(task, args, kwargs, options, immutable=immutable, dispatcher=dispatcher)

    def receivers(self) -> Iterator[Signature[Any]]:
        """Yield this one, unless it ignores what is put before its arguments."""
        if not self.immutable:
            yield self

    def result_types(self) -> Iterator[tuple[str, Any]]:
        """Yield the task's result type, where the task is known here."""
        if self.sender is not None:
            yield self.task, self.sender.result_type()

    def check_options(self) -> None:
        """Make sure that this can be called.

        Raises:
            TypeError, ValueError, ConfigurationError: See :func:`build_call`.
        """
        signature_to_call(self)

    def bind(self, tasks: Mapping[str, Sender], dispatcher: Dispatcher) -> Self:
        """Make this one ready to run by an application, and return it.

        Args:
            tasks: The application's tasks by name.
            dispatcher: The application.
        """
        self.sender = tasks.get(self.task, self.sender)
        self._dispatcher = dispatcher
        return self

    def __repr__(self) -> str:
        parts = [f"{value!r:.100}" for value in self.args]
        parts += [f"{key}={value!r:.100}" for key, value in self.kwargs.items()]
        return f"{self.task}({', '.join(parts)})"

    # -- completing -------------------------------------------------------------------------

    def merged_args(
        self, args: Sequence[Any] = (), kwargs: Mapping[str, Any] | None = None
    ) -> tuple[tuple[Any, ...], dict[str, Any]]:
        """Return the arguments once ``args`` precede and ``kwargs`` override ours.

        An immutable signature ignores both (``celery/canvas.py: Signature._merge``). A parent's
        result is ``merged_args((result,))``.
        """
        if self.immutable:
            return self.args, dict(self.kwargs)
        return (*args, *self.args), {**self.kwargs, **(kwargs or {})}

    def clone(
        self,
        args: Sequence[Any] = (),
        kwargs: Mapping[str, Any] | None = None,
        **options: Any,
    ) -> Signature[R]:
        """Return a copy with ``args`` put before ours, and keywords and options over ours."""
        merged, named = self.merged_args(args or (), kwargs)
        return Signature(
            self.task,
            merged,
            named,
            merged_options(self._options, options),
            immutable=self.immutable,
            sender=self.sender,
            dispatcher=self.dispatcher,
        )

    partial = clone

    def replace(
        self,
        args: Sequence[Any] | None = None,
        kwargs: Mapping[str, Any] | None = None,
        options: Mapping[str, Any] | None = None,
    ) -> Signature[R]:
        """Return a copy with other arguments, keywords or options in place of ours."""
        return Signature(
            self.task,
            self.args if args is None else args,
            self.kwargs if kwargs is None else kwargs,
            self._options if options is None else options,
            immutable=self.immutable,
            sender=self.sender,
            dispatcher=self.dispatcher,
        )

    def freeze(
        self,
        _id: str | None = None,
        group_id: str | None = None,
        *,
        root_id: str | None = None,
        parent_id: str | None = None,
        group_index: int | None = None,
    ) -> AsyncResult[R]:
        """Give this the id it will have, and return the handle on its result."""
        own = self._take_id(
            _id, group_id=group_id, root_id=root_id, parent_id=parent_id, group_index=group_index
        )
        return AsyncResult(own, self._attached(), task=self.task)

    # -- running ----------------------------------------------------------------------------

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """Run the task here and now, in this process, with the arguments completed."""
        merged, named = self.merged_args(args, kwargs)
        return self._task("call")(*merged, **named)

    def apply(
        self, args: Sequence[Any] = (), kwargs: Mapping[str, Any] | None = None, **options: Any
    ) -> Any:
        """Run the task in this process and return its EagerResult."""
        merged, named = self.merged_args(args or (), kwargs)
        return self._task("apply").apply(merged, named, **merged_options(self._options, options))

    async def aapply(
        self, args: Sequence[Any] = (), kwargs: Mapping[str, Any] | None = None, **options: Any
    ) -> Any:
        """Async twin of :meth:`apply`."""
        merged, named = self.merged_args(args or (), kwargs)
        return await self._task("aapply").aapply(
            merged, named, **merged_options(self._options, options)
        )

    def delay(self, *args: Any, **kwargs: Any) -> AsyncResult[R]:
        """Send with ``args`` put before ours; blocks until the broker's confirm."""
        return self.apply_async(args, kwargs)

    async def adelay(self, *args: Any, **kwargs: Any) -> AsyncResult[R]:
        """Async twin of :meth:`delay`."""
        return await self.aapply_async(args, kwargs)

    def apply_async(
        self,
        args: Sequence[Any] = (),
        kwargs: Mapping[str, Any] | None = None,
        **options: Unpack[CallOptions],
    ) -> AsyncResult[R]:
        """Send with arguments completed and ``options`` over ours.

        Raises:
            ConfigurationError: No application is attached, or an option is unknown.
        """
        merged, named = self.merged_args(args or (), kwargs)
        if self.sender is not None:
            sent: AsyncResult[R] = self.sender.apply_async(
                merged, named, **merged_options(self._options, options)
            )
            return sent
        dispatcher = self._attached()
        call = signature_to_call(self, args or (), kwargs, **options)
        return AsyncResult.of(
            dispatcher.run(dispatcher.send_call(call), twin="aapply_async"), dispatcher
        )

    async def aapply_async(
        self,
        args: Sequence[Any] = (),
        kwargs: Mapping[str, Any] | None = None,
        **options: Unpack[CallOptions],
    ) -> AsyncResult[R]:
        """Async twin of :meth:`apply_async`."""
        merged, named = self.merged_args(args or (), kwargs)
        if self.sender is not None:
            sent: AsyncResult[R] = await self.sender.aapply_async(
                merged, named, **merged_options(self._options, options)
            )
            return sent
        dispatcher = self._attached()
        call = signature_to_call(self, args or (), kwargs, **options)
        return AsyncResult.of(await dispatcher.send_call(call), dispatcher)

    @property
    def type(self) -> Sender:
        """The task (Celery's name).

        Raises:
            ConfigurationError: No application here knows it.
        """
        return self._task("show its type")

    def _task(self, verb: str) -> Sender:
        """Return the task; where only its name is known, the application's of that name."""
        if self.sender is not None:
            return self.sender
        dispatcher = self.dispatcher or applications.current()
        tasks: Mapping[str, Sender] = getattr(dispatcher, "tasks", {})
        found = tasks.get(self.task)
        if found is None:
            raise ConfigurationError(
                f"{self.task}: cannot {verb} here: this signature knows only the task's name"
            )
        return found


def signature(
    varies: Any,
    args: Sequence[Any] = (),
    kwargs: Mapping[str, Any] | None = None,
    options: Mapping[str, Any] | None = None,
    *,
    immutable: bool = False,
    app: Dispatcher | None = None,
    **more: Any,
) -> Node[Any]:
    """Return a signature of a task by its name, of a task, of a dict form, or a copy of one.

    Args:
        varies: A task's name, a task, a signature or composition, or Celery's dict form of one.
        args: Positional arguments, with a name or a task.
        kwargs: Keyword arguments, with a name or a task.
        options: Execution options, with a name or a task.
        immutable: Ignore a parent's result.
        app: The application; None: the one made last, when it is sent.
        **more: Execution options over ``options``.

    Raises:
        ConfigurationError: It is none of these.
    """
    if isinstance(varies, Node):
        return varies.clone()
    if isinstance(varies, Mapping):
        return signature_from(varies, app)
    given = {**(options or {}), **more}
    make: Callable[..., Signature[Any]] | None = getattr(varies, "signature", None)
    if make is not None:
        return make(args, kwargs, given, immutable=immutable)
    if not isinstance(varies, str):
        raise ConfigurationError(f"not a signature, a task, or a task's name: {varies!r:.200}")
    return Signature(varies, args, kwargs, given, immutable=immutable, dispatcher=app)


def signature_to_call(
    signature: Signature[Any],
    leading: Sequence[Any] = (),
    kwargs: Mapping[str, Any] | None = None,
    **options: Unpack[CallOptions],
) -> Call:
    """Return the call of a signature completed by arguments put before its own, and ``options``.

    Args:
        signature: What to call.
        leading: Arguments before its own, such as a parent's result; ignored when immutable.
        kwargs: Keyword arguments over its own; ignored when immutable.
        **options: Execution options over its own.

    Raises:
        TypeError, ValueError, ConfigurationError: See :func:`build_call`.
    """
    merged, named = signature.merged_args(leading, kwargs)
    return build_call(signature.task, merged, named, merged_options(signature.options, options))


def check_signatures(steps: Sequence[Any]) -> None:
    """Make sure that signatures from a message can be called later, when nobody can be told.

    A worker asks this of a message's callbacks, errbacks and chain before it runs the task.

    Raises:
        ConfigurationError: One is no signature, or an option of one is wrong.
    """
    for step in steps:
        if not isinstance(step, Mapping):
            raise ConfigurationError(f"not a signature: {step!r:.200}")
        try:
            signature_from(step).check_options()
        except (TypeError, ValueError) as error:
            raise ConfigurationError(str(error)) from error


def maybe_signature(data: Any, dispatcher: Dispatcher | None = None) -> Any:
    """Return a dict form as a signature or composition, and anything else as it is."""
    return signature_from(data, dispatcher) if isinstance(data, Mapping) else data


def as_signatures(value: Any) -> list[Node[Any]]:
    """Return one or several signatures or dict forms as a list of signatures, compositions too."""
    return [signature_from(one) for one in link_dicts(value)] if value else []
