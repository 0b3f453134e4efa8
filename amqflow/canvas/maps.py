"""``map``, ``starmap`` and ``chunks``: many calls of one task in one message, or in a few."""

from __future__ import annotations

from itertools import islice
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, ClassVar, Final

from amqflow.canvas.group import Group
from amqflow.canvas.hints import list_of
from amqflow.canvas.node import Node, signature_from
from amqflow.canvas.signature import Signature
from amqflow.canvas.stamps import merged
from amqflow.errors import ConfigurationError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping

    from amqflow.abc import Dispatcher
    from amqflow.canvas.signature import Sender

#: Celery's names of the tasks that run these, registered in every application.
MAP: Final = "celery.map"
STARMAP: Final = "celery.starmap"
CHUNKS: Final = "celery.chunks"


class _Mapped(Signature[list[Any]]):
    """One call of a built-in task that calls another for each item, in order.

    It goes where that task goes. Items of a generator are drawn when it is sent.
    """

    __slots__ = ("_items", "_mapped", "_ready")

    #: The built-in task.
    runs: ClassVar[str]

    def __init__(
        self, task: Any, it: Iterable[Any], *, app: Dispatcher | None = None, **options: Any
    ) -> None:
        """Call ``task`` for each item of ``it``.

        Args:
            task: A signature of the task, or the task itself.
            it: The items.
            app: The application; None: the task's.
            **options: Execution options of the one call.
        """
        mapped = _signature_of(task, app)
        self._mapped = mapped
        self._items: Iterable[Any] = it
        self._ready = False
        given = {"route_name": mapped.task, **merged(mapped.options, options)}
        super().__init__(
            self.runs,
            options=given,
            immutable=True,
            sender=_builtin(mapped, self.runs),
            dispatcher=mapped.dispatcher if app is None else app,
        )

    @property
    def kwargs(self) -> Mapping[str, Any]:
        """The task and the items, as the built-in task takes them."""
        if not self._ready:
            self._items = [self._checked(item) for item in self._items]
            self._ready = True
        return MappingProxyType({"task": self._mapped.to_dict(), "it": self._items})

    def _fields(self) -> dict[str, Any]:
        """Return what this holds, the items drawn: a copy cannot share what they come from."""
        _ = self.kwargs
        return super()._fields()

    def _checked(self, item: Any) -> Any:
        """Return an item as it travels: checked and converted as a call of the task with it."""
        star = self.runs == STARMAP
        leading = tuple(item) if star else (item,)
        sender = self._mapped.sender
        if sender is not None:
            args, _ = sender.check_outgoing(*self._mapped.merged_args(leading))
            leading = tuple(args[: len(leading)])
        return leading if star else leading[0]

    def result_types(self) -> Iterator[tuple[str, Any]]:
        """Yield the type of a list of the task's results."""
        return ((name, list_of(hint)) for name, hint in self._mapped.result_types())

    def __repr__(self) -> str:
        star = "*" if self.runs == STARMAP else ""
        return f"[{self._mapped.task}({star}x) for x in {self._items!r:.100}]"


class XMap(_Mapped):
    """``task.map(it)``: ``[task(item) for item in it]`` in one call, as Celery's ``xmap``."""

    __slots__ = ()

    runs = MAP


class XStarmap(_Mapped):
    """``task.starmap(it)``: ``[task(*item) for item in it]`` in one call, as ``xstarmap``."""

    __slots__ = ()

    runs = STARMAP


class Chunks(Group):
    """``task.chunks(it, n)``: a group of starmaps of ``n`` items each, the last maybe of fewer.

    Items of a generator are drawn chunk by chunk.
    """

    __slots__ = ()

    def __init__(
        self,
        task: Any,
        it: Iterable[Any],
        n: int,
        *,
        app: Dispatcher | None = None,
        **options: Any,
    ) -> None:
        """Cut ``it``, whose items are argument lists, into chunks.

        Args:
            task: A signature of the task, or the task itself.
            it: Argument lists.
            n: How many make a chunk.
            app: The application; None: the task's.
            **options: Execution options of each chunk.

        Raises:
            ConfigurationError: ``n`` is not above 0.
        """
        if type(n) is not int or n < 1:
            raise ConfigurationError(f"chunks: n must be a whole number above 0, got {n!r}")
        parts = (XStarmap(task, part, app=app) for part in _cut(iter(it), n))
        known = isinstance(it, list | tuple)
        super().__init__(list(parts) if known else parts, app=app, **options)

    def group(self) -> Group:
        """Return the group of starmaps, which this is (Celery's verb)."""
        return self

    @classmethod
    def apply_chunks(cls, task: Any, it: Iterable[Any], n: int, app: Any = None) -> Any:
        """Send the chunks at once, as in Celery."""
        return cls(task, it, n, app=app)()


def _cut(items: Iterator[Any], n: int) -> Iterator[list[Any]]:
    while part := list(islice(items, n)):
        yield part


def _signature_of(task: Any, app: Dispatcher | None) -> Signature[Any]:
    """Return a plain signature of a task, which may be given as one, as a dict, or itself."""
    make: Callable[[], Node[Any]] | None = getattr(task, "s", None)
    node = signature_from(task, app) if make is None else make()
    if not isinstance(node, Signature):
        raise ConfigurationError(f"map, starmap and chunks call one task, not {node!r:.100}")
    return node


def _builtin(mapped: Signature[Any], name: str) -> Sender | None:
    """Return the built-in task of the application that the mapped task is known in."""
    tasks: Mapping[str, Sender] = getattr(mapped.dispatcher, "tasks", {})
    return tasks.get(name) if mapped.sender is not None else None
