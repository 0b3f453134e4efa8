"""A signature: one call to one task, as data that can be kept, sent, completed and run."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Final, Generic, Protocol, TypeVar

from amqflow.canvas.call import OPTION_NAMES, CallOptions, build_call, link_dicts
from amqflow.errors import ConfigurationError
from amqflow.handles import AsyncResult

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from typing import Self, Unpack

    from amqflow.abc import Call, Dispatcher

R = TypeVar("R")

_FIELDS: Final = ("task", "args", "kwargs", "options", "subtask_type", "immutable")


class Sender(Protocol):
    """What runs a signature: a task, which validates and sends as its own ``apply_async`` does."""

    @property
    def __call__(self) -> Callable[..., Any]:
        """Run here and now."""
        ...

    @property
    def apply(self) -> Callable[..., Any]:
        """Run in this process, as an EagerResult."""
        ...

    @property
    def apply_async(self) -> Callable[..., Any]:
        """Send, blocking until the confirm."""
        ...

    @property
    def aapply_async(self) -> Callable[..., Any]:
        """Send, and return after the confirm."""
        ...


class Signature(Generic[R]):
    """One call to one task, not yet made: name, arguments, options, and whether it is immutable.

    Task, arguments and the immutable flag never change; :meth:`clone` completes them in a copy.
    ``set``, ``link`` and ``link_error`` change *this* signature's options and answer as in Celery,
    because Celery code calls them for their effect (``sig.link(other)``) and a silently lost
    errback is worse than a mutable dict. What was taken before (a composition, a sent message, a
    ``clone``) is a snapshot and never sees such a change.
    """

    __slots__ = ("_options", "args", "dispatcher", "immutable", "kwargs", "sender", "task")

    #: Celery's ``subtask_type``: None for a plain signature.
    subtask_type: str | None = None

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
        self.task = task
        self.args = tuple(args)
        self.kwargs: Mapping[str, Any] = MappingProxyType(dict(kwargs or {}))
        self._options: dict[str, Any] = dict(options or {})
        self.immutable = immutable
        self.sender = sender
        self.dispatcher = dispatcher

    # -- as data ----------------------------------------------------------------------------

    @property
    def options(self) -> Mapping[str, Any]:
        """The execution options, to read; :meth:`set` changes them."""
        return MappingProxyType(self._options)

    @property
    def name(self) -> str:
        """The task's name (Celery's alias)."""
        return self.task

    @property
    def id(self) -> str | None:
        """The id the task will have, where one was set."""
        task_id: str | None = self._options.get("task_id")
        return task_id

    def to_dict(self) -> dict[str, Any]:
        """Return Celery's dict form, nested signatures included: what travels in messages."""
        return {
            "task": self.task,
            "args": [_plain(value) for value in self.args],
            "kwargs": {key: _plain(value) for key, value in self.kwargs.items()},
            "options": {key: _plain(value) for key, value in self._options.items()},
            "subtask_type": self.subtask_type,
            "immutable": self.immutable,
        }

    #: How kombu's and our JSON encoder ask an object for its plain form.
    __json__ = to_dict

    @classmethod
    def from_dict(cls, data: Mapping[str, Any], dispatcher: Dispatcher | None = None) -> Self:
        """Return the signature of Celery's dict form, ours or a foreign client's.

        Options that mean nothing here (Celery's stamps, serializers of connections) are left out,
        so that a foreign client's signature can be called; a ``chord`` among them is refused,
        because dropping it would drop the chord's body.

        Raises:
            ConfigurationError: It is no signature, a composition (``subtask_type``), or one with
                a chord of Celery's.
        """
        task = data.get("task")
        if not isinstance(task, str) or not task:
            raise ConfigurationError(f"not a signature: no task name in {dict(data)!r:.200}")
        kind = data.get("subtask_type")
        if kind is not None and kind != cls.subtask_type:
            raise ConfigurationError(f"{task}: a {kind!r} is a composition, no plain signature")
        args, kwargs = data.get("args") or (), data.get("kwargs") or {}
        options = data.get("options") or {}
        if not (
            isinstance(args, list | tuple)
            and isinstance(kwargs, Mapping)
            and isinstance(options, Mapping)
        ):
            raise ConfigurationError(
                f"{task}: a signature's args must be a list, its kwargs and options objects"
            )
        if options.get("chord") is not None:
            raise ConfigurationError(f"{task}: this signature carries a chord of Celery's")
        return cls(
            task,
            args,
            kwargs,
            {name: value for name, value in options.items() if name in OPTION_NAMES},
            immutable=bool(data.get("immutable", False)),
            dispatcher=dispatcher,
        )

    def __getitem__(self, key: str) -> Any:
        """Return an entry of the dict form, as Celery's dict-based signature does."""
        if key not in _FIELDS:
            raise KeyError(key)
        return getattr(self, key)

    def keys(self) -> Iterator[str]:
        """Return the dict form's keys, so that ``dict(sig)`` works as in Celery."""
        return iter(_FIELDS)

    def __eq__(self, other: object) -> bool:
        if isinstance(other, Signature):
            return self.to_dict() == other.to_dict()
        return NotImplemented

    #: Options may change, and arguments may be unhashable: as with Celery's dict.
    __hash__ = None  # type: ignore[assignment]

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
            {**self._options, **options},
            immutable=self.immutable,
            sender=self.sender,
            dispatcher=self.dispatcher,
        )

    partial = clone

    def set(self, *, immutable: bool | None = None, **options: Unpack[CallOptions]) -> Self:
        """Set execution options here and return this signature, as in Celery."""
        if immutable is not None:
            self.immutable = immutable
        self._options = {**self._options, **options}
        return self

    def set_immutable(self, immutable: bool) -> None:  # Celery's
        """Set whether a parent's result is ignored."""
        self.immutable = immutable

    def link(self, callback: Any) -> Any:
        """Add a signature to run with the result after success; return it, as in Celery."""
        return self._append("link", callback)

    def link_error(self, errback: Any) -> Any:
        """Add a signature to run after failure; return it, as in Celery."""
        return self._append("link_error", errback)

    def on_error(self, errback: Any) -> Self:
        """Add an errback and return this signature, as in Celery."""
        self.link_error(errback)
        return self

    def _append(self, option: str, signature: Any) -> Any:
        known = self._options.get(option) or []
        dicts = link_dicts(known)
        dicts += [one for one in link_dicts(signature) if one not in dicts]
        self._options = {**self._options, option: dicts}
        return signature

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
        return self._task("apply").apply(merged, named, **{**self._options, **options})

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
                merged, named, **{**self._options, **options}
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
                merged, named, **{**self._options, **options}
            )
            return sent
        dispatcher = self._attached()
        call = signature_to_call(self, args or (), kwargs, **options)
        return AsyncResult.of(await dispatcher.send_call(call), dispatcher)

    def _task(self, verb: str) -> Sender:
        if self.sender is None:
            raise ConfigurationError(
                f"{self.task}: cannot {verb} here: this signature knows only the task's name"
            )
        return self.sender

    def _attached(self) -> Dispatcher:
        if self.dispatcher is None:
            raise ConfigurationError(
                f"{self.task}: this signature belongs to no application; make it by the task "
                "(task.s) or the application (app.signature)"
            )
        return self.dispatcher


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
    return build_call(signature.task, merged, named, {**signature.options, **options})


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
            signature_to_call(Signature.from_dict(step))
        except (TypeError, ValueError) as error:
            raise ConfigurationError(str(error)) from error


def maybe_signature(data: Any, dispatcher: Dispatcher | None = None) -> Any:
    """Return a dict form as a signature, and anything else (a signature, None) as it is."""
    if isinstance(data, Mapping):
        return Signature.from_dict(data, dispatcher)
    return data


def as_signatures(value: Any) -> list[Signature[Any]]:
    """Return one or several signatures or dict forms as a list of plain signatures."""
    return [Signature.from_dict(one) for one in link_dicts(value)] if value else []


def _plain(value: Any) -> Any:
    """Return ``value`` with the signatures in it in dict form; the rest is the codec's matter."""
    if isinstance(value, Signature):
        return value.to_dict()
    if type(value) in {list, tuple}:
        return [_plain(one) for one in value]
    if isinstance(value, dict):
        return {key: _plain(one) for key, one in value.items()}
    return value
