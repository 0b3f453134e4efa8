"""A direct exchange: the binding's key equals the message's."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable

    from amqflow.broker.bindings import Binding
    from amqflow.broker.message import Message


class Direct:
    """Bindings by key."""

    def __init__(self) -> None:
        """Begin without bindings."""
        self._by_key: dict[str, dict[Binding, None]] = {}

    def add(self, binding: Binding) -> None:
        """Take a binding in."""
        self._by_key.setdefault(binding.routing_key, {})[binding] = None

    def remove(self, binding: Binding) -> None:
        """Let a binding go."""
        same = self._by_key[binding.routing_key]
        del same[binding]
        if not same:
            del self._by_key[binding.routing_key]

    def route(self, message: Message) -> Iterable[Binding]:
        """Return the bindings with one of the message's keys."""
        keys = message.keys
        if len(keys) == 1:
            return self._by_key.get(keys[0], ())
        return [binding for key in keys for binding in self._by_key.get(key, ())]
