"""What every handle has: an id, what it descends from, and the way to the application."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections import deque
from signal import Signals
from typing import TYPE_CHECKING, Any, Final, TypeVar

from amqflow.current import applications
from amqflow.errors import ConfigurationError, IncompleteStream

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Coroutine, Iterator

    from amqflow.abc import ResultReader

V = TypeVar("V")


class Handle(ABC):
    """A result, or a group of them, that has an id and may have a parent and children."""

    __slots__ = ("_reader", "id", "parent")

    id: str
    #: The handle on what ran before, in a chain or before a chord's body; None at the first.
    parent: Handle | None
    _reader: ResultReader

    # -- waiting ----------------------------------------------------------------------------

    @abstractmethod
    def get(self, timeout: float | None = None, propagate: bool = True) -> Any:
        """Wait for the result and return it; blocks."""

    @abstractmethod
    async def aget(self, timeout: float | None = None, propagate: bool = True) -> Any:
        """Async twin of :meth:`get`."""

    @abstractmethod
    async def aready(self) -> bool:
        """Return whether all has ended."""

    # -- what belongs to it -----------------------------------------------------------------

    @abstractmethod
    async def achildren(self) -> list[Handle]:
        """Return handles on what this one has sent, or is made of."""

    @abstractmethod
    def as_tuple(self) -> tuple[Any, Any]:
        """Return Celery's tuple form: ``((id, parent), members or None)``, nested."""

    def _id_and_parent(self) -> tuple[str, tuple[Any, Any] | None]:
        return self.id, None if self.parent is None else self.parent.as_tuple()

    def to_dict(self) -> dict[str, Any]:
        """Return plain data that :func:`handle_from_dict` reads: ``{"result": as_tuple()}``.

        It is what Celery keeps of a saved group.
        """
        return {"result": self.as_tuple()}

    @property
    def beginning(self) -> Handle:
        """The first of what ran before this: the handle that has no parent; maybe this one."""
        node: Handle = self
        while node.parent is not None:
            node = node.parent
        return node

    # -- the tree ---------------------------------------------------------------------------

    def iterdeps(self, intermediate: bool = False) -> Iterator[tuple[Handle | None, Handle]]:
        """Yield (parent, node) of this and all that came of it; blocks while it looks.

        Args:
            intermediate: Go on past what has not ended yet, whose children are not known.

        Raises:
            IncompleteStream: Something has not ended yet.
        """
        stack: deque[tuple[Handle | None, Handle]] = deque([(None, self)])
        while stack:
            parent, node = stack.popleft()
            yield parent, node
            children = self._run(_children_of(node, intermediate=intermediate), "aiterdeps")
            stack.extend((node, child) for child in children)

    async def aiterdeps(
        self, intermediate: bool = False
    ) -> AsyncIterator[tuple[Handle | None, Handle]]:
        """Async twin of :meth:`iterdeps`."""
        stack: deque[tuple[Handle | None, Handle]] = deque([(None, self)])
        while stack:
            parent, node = stack.popleft()
            yield parent, node
            stack.extend(
                (node, child) for child in await _children_of(node, intermediate=intermediate)
            )

    def collect(self, intermediate: bool = False, **kwargs: Any) -> Iterator[tuple[Handle, Any]]:
        """Yield (handle, value) of this and all that came of it, waiting for each, as in Celery.

        Args:
            intermediate: Go on past what has not ended yet.
            **kwargs: For each :meth:`get`.
        """
        for _, node in self.iterdeps(intermediate):
            yield node, node.get(**kwargs)

    async def acollect(
        self, intermediate: bool = False, **kwargs: Any
    ) -> AsyncIterator[tuple[Handle, Any]]:
        """Async twin of :meth:`collect`."""
        async for _, node in self.aiterdeps(intermediate):
            yield node, await node.aget(**kwargs)

    def get_leaf(self) -> Any:
        """Return the value of the last of all that came of this, as in Celery."""
        return [value for _, value in self.collect()][-1]

    @property
    def graph(self) -> str:
        """All that came of this with the state of each, as a Mermaid flow chart; blocks."""
        return self._run(self.agraph(), "agraph")

    async def agraph(self) -> str:
        """Async twin of :attr:`graph`."""
        lines = ["flowchart TD"]
        known: dict[str, str] = {}
        async for parent, node in self.aiterdeps(intermediate=True):
            name = known.setdefault(node.id, f"n{len(known)}")
            lines.append(f'    {name}["{await node._label()}"]')  # noqa: SLF001 - its own kind
            if parent is not None:
                lines.append(f"    {known[parent.id]} --> {name}")
        return "\n".join(lines) + "\n"

    @abstractmethod
    async def _label(self) -> str:
        """Return what a drawing says of this: name or id, and state."""

    # -- inside -----------------------------------------------------------------------------

    def _run(self, work: Coroutine[Any, Any, V], twin: str) -> V:
        return self._reader.run(work, twin=twin)

    def __hash__(self) -> int:
        return hash(self.id)

    def __str__(self) -> str:
        return self.id


def known_id(kind: str, given: Any) -> str:
    """Return an id that may be asked for.

    Raises:
        ValueError: It is None, or no text.
    """
    if not isinstance(given, str) or not given:
        raise ValueError(f"{kind}: the id of a result is a text, got {given!r:.80}")
    return given


def current_reader(kind: str) -> ResultReader:
    """Return the application made last.

    Raises:
        ConfigurationError: There is none.
    """
    app: ResultReader | None = applications.current()
    if app is None:
        raise ConfigurationError(f"{kind}: make an application first, or name one: app=app")
    return app


def check_signal(given: Any) -> None:
    """Take the signals of Celery's ``revoke`` that say what ``terminate`` does here.

    Raises:
        ConfigurationError: It is another one.
    """
    name = given.name if isinstance(given, Signals) else given
    if name not in _ENDING:
        raise ConfigurationError(
            f"revoke: signal {name!r} has no place here: terminate=True ends a task in every pool, "
            "a coroutine by cancelling it, a child of the processes pool by killing it; leave "
            "signal out"
        )


#: Signals that end a process, by Celery's names; None: not given.
_ENDING: Final = frozenset(
    {None, "TERM", "SIGTERM", "KILL", "SIGKILL", int(Signals.SIGTERM), int(Signals.SIGKILL)}
)


def seconds_to_wait(timeout: Any) -> float | None:
    """Return a ``timeout=`` as seconds, 0 where it is past already; None: as long as it takes.

    Raises:
        TypeError: It is no number.
        ValueError: It is not a number (NaN).
    """
    if timeout is None:
        return None
    if not isinstance(timeout, int | float) or isinstance(timeout, bool):
        raise TypeError(f"timeout must be a number of seconds or None, got {timeout!r:.80}")
    if math.isnan(timeout):
        raise ValueError("timeout must be a number of seconds or None, got nan")
    # No loop can count to infinity, and none has to count beyond what a float holds.
    try:
        seconds = max(float(timeout), 0.0)
    except OverflowError:
        return None if timeout > 0 else 0.0
    return None if math.isinf(seconds) else seconds


async def _children_of(node: Handle, *, intermediate: bool) -> list[Handle]:
    if not intermediate and not await node.aready():
        raise IncompleteStream(f"{node.id} has not ended: what it has sent is not known yet")
    return await node.achildren()
