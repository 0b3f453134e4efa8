"""What signatures and compositions have in common: options, Celery's dict form, ``|``, sending."""

from __future__ import annotations

import uuid
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from copy import copy, deepcopy
from itertools import chain as chain_of_lists
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, ClassVar, Final, Generic, TypeVar

from amqflow.canvas.call import OPTION_NAMES, CallOptions, link_dicts
from amqflow.canvas.stamps import (
    NAMES,
    STAMPS,
    as_options,
    checked,
    merged,
    restamped,
    stamps_in,
    without_stamps,
)
from amqflow.current import applications
from amqflow.errors import ConfigurationError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from typing import Self, Unpack

    from amqflow.abc import Dispatcher
    from amqflow.canvas.signature import Signature

R_co = TypeVar("R_co", covariant=True)

#: Levels of chains, groups and chords within one another, a chord's header being one. Going through
#: them takes a few calls each, of the thousand that Python allows.
DEEPEST: Final = 100

_FIELDS: Final = ("task", "args", "kwargs", "options", "subtask_type", "immutable")

#: Attributes that lead to the task and its application: no part of what a node says.
_NOT_DATA: Final = frozenset({"_dispatcher", "sender"})


class Node(ABC, Generic[R_co]):
    """A signature, or a composition of them: something that can be called later.

    What is called, with which arguments, never changes; :meth:`clone` completes it in a copy.
    ``set``, ``link`` and ``link_error`` change *this* node's options and answer as in Celery,
    because Celery code calls them for their effect (``sig.link(other)``) and a silently lost
    errback is worse than a mutable dict. What was taken before (a composition, a sent message, a
    ``clone``) is a snapshot and never sees such a change.
    """

    __slots__ = ("_dispatcher", "_options", "immutable")

    #: Celery's ``subtask_type``: None for a plain signature, else the kind of composition.
    subtask_type: ClassVar[str | None] = None
    #: The class of each ``subtask_type``; what reads the dict form.
    kinds: ClassVar[dict[str | None, type[Node[Any]]]] = {}

    immutable: bool
    _options: dict[str, Any]
    _dispatcher: Dispatcher | None

    def __init_subclass__(cls, *, kind: bool = False, **more: Any) -> None:
        """Note the class that reads a ``subtask_type``; a user's subclass of one does not."""
        super().__init_subclass__(**more)
        if kind:
            Node.kinds[cls.subtask_type] = cls

    # -- as data ----------------------------------------------------------------------------

    @property
    @abstractmethod
    def task(self) -> str:
        """The task's name; of a composition Celery's name of its kind."""

    @property
    @abstractmethod
    def args(self) -> Sequence[Any]:
        """The positional arguments of the dict form."""

    @property
    @abstractmethod
    def kwargs(self) -> Mapping[str, Any]:
        """The keyword arguments of the dict form."""

    @property
    def options(self) -> Mapping[str, Any]:
        """The execution options, to read; :meth:`set` changes them."""
        return MappingProxyType(self._options)

    @property
    def name(self) -> str:
        """Celery's other name of :attr:`task`."""
        return self.task

    @property
    def id(self) -> str | None:
        """The id the task will have, where one was set."""
        task_id: str | None = self._options.get("task_id")
        return task_id

    @property
    def dispatcher(self) -> Dispatcher | None:
        """The application this will be sent by; None where none is known."""
        return self._dispatcher

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

    def __json__(self) -> dict[str, Any]:
        """Return the dict form: how kombu's and our JSON encoder ask an object for it."""
        return self.to_dict()

    @classmethod
    @abstractmethod
    def from_dict(cls, data: Mapping[str, Any], dispatcher: Dispatcher | None = None) -> Self:
        """Return the node of Celery's dict form, ours or a foreign client's.

        Raises:
            ConfigurationError: It is none of this kind.
        """

    def __getitem__(self, key: str) -> Any:
        """Return an entry of the dict form, as Celery's dict-based signature does."""
        if key not in _FIELDS:
            raise KeyError(key)
        return getattr(self, key)

    def keys(self) -> Iterator[str]:
        """Return the dict form's keys, so that ``dict(sig)`` works as in Celery."""
        return iter(_FIELDS)

    def __eq__(self, other: object) -> bool:
        if isinstance(other, Node):
            return self.to_dict() == other.to_dict()
        return NotImplemented

    #: Options may change, and arguments may be unhashable: as with Celery's dict.
    __hash__ = None  # type: ignore[assignment]

    # -- copying ----------------------------------------------------------------------------

    def _fields(self) -> dict[str, Any]:
        """Return what this node holds, by attribute; own ones of a user's subclass included."""
        slots = (name for kind in type(self).__mro__ for name in kind.__dict__.get("__slots__", ()))
        found = {name: getattr(self, name) for name in slots if hasattr(self, name)}
        return found | getattr(self, "__dict__", {})

    def _with_fields(self, fields: Mapping[str, Any]) -> Self:
        made = object.__new__(type(self))
        made.__setstate__(fields)
        return made

    def __copy__(self) -> Self:
        return self._with_fields(self._fields())

    def __deepcopy__(self, memo: dict[int, Any]) -> Self:
        """Return a copy that shares nothing but the task and the application."""
        fields = self._fields()
        ours = {name: fields.pop(name) for name in _NOT_DATA & fields.keys()}
        return self._with_fields({**deepcopy(_picklable(fields), memo), **ours})

    def __getstate__(self) -> dict[str, Any]:
        """Return what pickle keeps: without the application, which is looked up again."""
        fields = self._fields()
        return _picklable(fields | dict.fromkeys(_NOT_DATA & fields.keys()))

    def __setstate__(self, state: Mapping[str, Any]) -> None:
        for name, value in state.items():
            setattr(self, name, value)

    # -- completing -------------------------------------------------------------------------

    @abstractmethod
    def clone(
        self,
        args: Sequence[Any] = (),
        kwargs: Mapping[str, Any] | None = None,
        **options: Any,
    ) -> Node[R_co]:
        """Return a copy with ``args`` put before, and keywords and options over what is there.

        An immutable one ignores ``args`` and ``kwargs``. A composition passes them to the members
        that run first: a chain to its first step, a group to each member, a chord to its header.
        """

    def _copied(self, options: Mapping[str, Any]) -> Self:
        """Return a copy that shares the members, with more options."""
        made = copy(self)
        made.set(**options)
        return made

    def set(self, *, immutable: bool | None = None, **options: Unpack[CallOptions]) -> Self:
        """Set execution options here and return this node, as in Celery."""
        if immutable is not None:
            self.immutable = immutable
        self._options = merged(self._options, options, over=True)
        return self

    def set_immutable(self, immutable: bool) -> None:  # Celery's
        """Set whether a parent's result is ignored."""
        self.immutable = immutable

    def stamp(self, visitor: object = None, append_stamps: bool = False, **headers: Any) -> Self:
        """Stamp this, all in it, and what is linked to it; return this node.

        A stamp is a mark by which the task is known (``self.request.stamps``) and can be revoked
        (``app.control.revoke_by_stamped_headers``).

        Args:
            visitor: Celery's; there are none here.
            append_stamps: Keep the value that a stamp of the same name has, in a list with the
                new one.
            **headers: Each stamp with its value, or a list of values.

        Raises:
            ConfigurationError: A visitor is given, or a stamp has the name of an option.
        """
        if visitor is not None:
            raise ConfigurationError(
                f"{self.task}: there are no stamping visitors here: give the stamps by name, "
                'sig.stamp(tenant="acme"); what differs by member, stamp on the members'
            )
        # Celery's other way to name what is given.
        headers.pop(NAMES, None)
        self.restamp(checked(headers), append=append_stamps)
        return self

    def restamp(self, stamps: Mapping[str, Any], *, append: bool) -> Self:
        """Stamp this and what is linked to it with checked stamps; return this node."""
        options = dict(self._options)
        for option in ("link", "link_error"):
            if options.get(option):
                options[option] = [
                    signature_from(one).restamp(stamps, append=append).to_dict()
                    for one in link_dicts(options[option])
                ]
        made = restamped(stamps_in(options), stamps, append=append)
        self._options = {**without_stamps(options), **as_options(made)}
        return self

    def link(self, callback: Any) -> Any:
        """Add a signature to run with the result after success; return it, as in Celery."""
        return self._append("link", callback)

    def link_error(self, errback: Any) -> Any:
        """Add a signature to run after failure; return it, as in Celery."""
        return self._append("link_error", errback)

    def on_error(self, errback: Any) -> Self:
        """Add an errback and return this node, as in Celery."""
        self.link_error(errback)
        return self

    def flatten_links(self) -> list[Node[Any]]:
        """Return this node and all that is linked to run after it, links of links too."""
        linked = link_dicts(self._options.get("link") or [])
        after = (signature_from(one, self.dispatcher).flatten_links() for one in linked)
        return [self, *chain_of_lists.from_iterable(after)]

    @abstractmethod
    def freeze(
        self,
        _id: str | None = None,
        group_id: str | None = None,
        *,
        group_index: int | None = None,
    ) -> Any:
        """Give this, and all in it, the ids they will have, and return the handle, as in Celery.

        Sending it twice after that would be two messages with one id.

        Args:
            _id: Of its result, where none was chosen.
            group_id: The group it is to count in.
            group_index: Its place in the group.
        """

    def _take_id(self, given: str | None, **place: Any) -> str:
        """Set the id this has, was given, or gets now, and where it belongs; return the id."""
        own = self.id or given or str(uuid.uuid4())
        known = {name: value for name, value in place.items() if value is not None}
        self.set(**{"task_id": own, **known})
        return own

    def _append(self, option: str, signature: Any) -> Any:
        known = self._options.get(option) or []
        dicts = link_dicts(known)
        dicts += [one for one in link_dicts(signature) if one not in dicts]
        self._options = {**self._options, option: dicts}
        return signature

    @abstractmethod
    def bind(self, tasks: Mapping[str, Any], dispatcher: Dispatcher) -> Self:
        """Make this one ready to run by an application with these tasks; return it."""

    @abstractmethod
    def receivers(self) -> Iterator[Signature[Any]]:
        """Yield the signatures whose arguments follow what :meth:`clone` puts first.

        Alike ones of a group come once; of members still to be drawn only the first is looked at.
        """

    @abstractmethod
    def result_types(self) -> Iterator[tuple[str, Any]]:
        """Yield name and result type of the tasks whose result this node's may be."""

    @abstractmethod
    def check_options(self) -> None:
        """Make sure that this, and all in it, can be called.

        Raises:
            TypeError, ValueError, ConfigurationError: See :func:`build_call`.
        """

    # -- composing --------------------------------------------------------------------------

    def __or__(self, other: object) -> Node[Any]:
        """``self | other``: other runs after this, with its result."""
        if not isinstance(other, Node):
            return NotImplemented
        return self.composed("chain", self, other)

    @staticmethod
    def composed(kind: str, *nodes: Node[Any]) -> Node[Any]:
        """Return the composition of a kind: this module comes before its classes."""
        made: Callable[..., Node[Any]] = Node.kinds[kind]
        return made(*nodes)

    # -- running ----------------------------------------------------------------------------

    def __invert__(self) -> Any:
        """Send and wait for the result: ``~sig`` is ``sig.apply_async().get()``, as in Celery."""
        return self.apply_async().get()

    @abstractmethod
    def apply_async(
        self,
        args: Sequence[Any] = (),
        kwargs: Mapping[str, Any] | None = None,
        **options: Unpack[CallOptions],
    ) -> Any:
        """Send with arguments completed and ``options`` over ours; blocks until the confirm."""

    @abstractmethod
    async def aapply_async(
        self,
        args: Sequence[Any] = (),
        kwargs: Mapping[str, Any] | None = None,
        **options: Unpack[CallOptions],
    ) -> Any:
        """Async twin of :meth:`apply_async`."""

    def graph(self) -> str:
        """Return this drawn as a Mermaid flow chart, which GitHub and most wikis show."""
        # Drawing knows every kind of node, so it comes after this module.
        from amqflow.canvas.graph import draw  # noqa: PLC0415

        return draw(self)

    def _attached(self) -> Dispatcher:
        dispatcher: Dispatcher | None = self.dispatcher or applications.current()
        if dispatcher is None:
            raise ConfigurationError(
                f"{self.task}: this signature belongs to no application; make it by the task "
                "(task.s) or the application (app.signature)"
            )
        return dispatcher


def signature_from(data: Any, dispatcher: Dispatcher | None = None) -> Node[Any]:
    """Return the signature or composition of Celery's dict form, by its ``subtask_type``.

    A node is returned as it is.

    Raises:
        ConfigurationError: It is neither, or of a kind that is not known.
    """
    if isinstance(data, Node):
        return data
    if not isinstance(data, Mapping):
        raise ConfigurationError(f"not a signature: {data!r:.200}")
    kind = data.get("subtask_type")
    known = Node.kinds.get(kind) if kind is None or isinstance(kind, str) else None
    if known is None:
        raise ConfigurationError(f"{data.get('task')}: a {kind!r:.50} is no composition known here")
    try:
        return known.from_dict(data, dispatcher)
    except RecursionError:
        raise too_deep(str(data.get("task"))) from None


def too_deep(task: str) -> ConfigurationError:
    """Return the error that refuses what nests deeper than :data:`DEEPEST`."""
    return ConfigurationError(
        f"{task}: compositions nested deeper than {DEEPEST} levels: let a task go on with the rest "
        "(raise self.replace(…)), or put steps side by side in place of one within the other"
    )


def read_fields(
    data: Mapping[str, Any],
) -> tuple[str, Sequence[Any], Mapping[str, Any], dict[str, Any]]:
    """Return task, args, kwargs and options of a dict form, checked.

    Options that mean nothing here (serializers of connections) are left out, so that a foreign
    client's signature can be called, as are stamps without a value; a ``chord`` among them is
    refused, because dropping it would drop the chord's body.

    Raises:
        ConfigurationError: They are not of the right types.
    """
    task = data.get("task")
    if not isinstance(task, str) or not task:
        raise ConfigurationError(f"not a signature: no task name in {dict(data)!r:.200}")
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
    known = {name: value for name, value in options.items() if name in OPTION_NAMES}
    names = known.pop(NAMES, None)
    if not isinstance(known.get(STAMPS), Mapping):
        known.pop(STAMPS, None)
    if isinstance(names, list | tuple):
        stamps = {
            name: options[name] for name in names if isinstance(name, str) and name in options
        }
        known.update(as_options(stamps))
    return task, args, kwargs, known


def _picklable(fields: Mapping[str, Any]) -> dict[str, Any]:
    return {
        name: dict(value) if isinstance(value, MappingProxyType) else value
        for name, value in fields.items()
    }


def _plain(value: Any) -> Any:
    """Return ``value`` with the signatures in it in dict form; the rest is the codec's matter."""
    if isinstance(value, Node):
        return value.to_dict()
    if type(value) in {list, tuple}:
        return [_plain(one) for one in value]
    if isinstance(value, dict):
        return {key: _plain(one) for key, one in value.items()}
    return value
