"""A topic exchange: words of the key against a pattern, ``*`` one word, ``#`` any number.

The patterns are a trie of words, so that a message costs what its key's words and the wild cards
on their way cost, not what the bindings are.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from amqflow.broker.bindings import Binding
    from amqflow.broker.message import Message


class _Node:
    __slots__ = ("below", "bindings")

    def __init__(self) -> None:
        self.below: dict[str, _Node] = {}
        self.bindings: dict[Binding, None] = {}


class Topic:
    """Bindings by the words of their patterns."""

    def __init__(self) -> None:
        """Begin without bindings."""
        self._root = _Node()

    def add(self, binding: Binding) -> None:
        """Take a binding in."""
        node = self._root
        for word in words(binding.routing_key):
            node = node.below.setdefault(word, _Node())
        node.bindings[binding] = None

    def remove(self, binding: Binding) -> None:
        """Let a binding go, and the branch that only it held."""
        way = [self._root]
        path = words(binding.routing_key)
        for word in path:
            way.append(way[-1].below[word])
        del way[-1].bindings[binding]
        for parent, word in zip(reversed(way[:-1]), reversed(path), strict=True):
            child = parent.below[word]
            if child.bindings or child.below:
                break
            del parent.below[word]

    def route(self, message: Message) -> Iterable[Binding]:
        """Return the bindings whose pattern one of the message's keys fits."""
        found: dict[Binding, None] = {}
        for key in message.keys:
            self._collect(words(key), found)
        return found

    def _collect(self, path: Sequence[str], found: dict[Binding, None]) -> None:
        # A place is met once: `#.#.#` would else be walked in every way it can be split.
        todo = [(self._root, 0)]
        met = {(id(self._root), 0)}
        while todo:
            node, at = todo.pop()
            if at == len(path):
                found.update(node.bindings)
            steps = []
            if at < len(path):
                steps += [(node.below.get(path[at]), at + 1), (node.below.get("*"), at + 1)]
            if (rest := node.below.get("#")) is not None:
                steps += [(rest, here) for here in range(at, len(path) + 1)]
            for child, here in steps:
                if child is not None and (id(child), here) not in met:
                    met.add((id(child), here))
                    todo.append((child, here))


def words(key: str) -> list[str]:
    """Return the words of a key; the empty key has none."""
    return key.split(".") if key else []
