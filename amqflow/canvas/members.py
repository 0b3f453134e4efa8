"""The members of a group: drawn one by one from where they come, and kept."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

    from amqflow.canvas.node import Node


class Members:
    """Nodes that are drawn from an iterator when they are first needed, and kept.

    So a generator of members may be looked at, drawn and sent any number of times, and its first
    member is there before its last is built.
    """

    __slots__ = ("_drawn", "_source")

    def __init__(self, source: Iterable[Node[Any]], *, lazy: bool) -> None:
        """Take members; ``lazy``: draw none of them yet."""
        self._drawn: list[Node[Any]] = [] if lazy else list(source)
        self._source: Iterator[Node[Any]] | None = iter(source) if lazy else None

    def __iter__(self) -> Iterator[Node[Any]]:
        """Yield every member, drawing those that were not yet."""
        index = 0
        while index < len(self._drawn) or self._draw():
            yield self._drawn[index]
            index += 1

    def __getstate__(self) -> list[Node[Any]]:
        """Return the members, all of them: a copy cannot share what they are drawn from."""
        return list(self.all())

    def __setstate__(self, state: list[Node[Any]]) -> None:
        self._drawn, self._source = state, None

    @property
    def drawn(self) -> list[Node[Any]]:
        """The members drawn so far."""
        return self._drawn

    @property
    def lazy(self) -> bool:
        """Whether members are still to be drawn, so that their number is not known."""
        return self._source is not None

    @property
    def first(self) -> Node[Any] | None:
        """The first member, drawn where it was not yet; None where there is none."""
        return next(iter(self), None)

    def all(self) -> list[Node[Any]]:
        """Return every member, drawing those that were not yet."""
        if self._source is not None:
            self._drawn.extend(self._source)
            self._source = None
        return self._drawn

    def mapped(self, change: Callable[[Node[Any]], Node[Any]]) -> Members:
        """Return these members changed one by one, as lazily as they come."""
        return Members(map(change, self), lazy=self.lazy)

    def _draw(self) -> bool:
        """Draw one more member; False: there is none."""
        node = next(self._source, None) if self._source is not None else None
        if node is None:
            self._source = None
            return False
        self._drawn.append(node)
        return True
