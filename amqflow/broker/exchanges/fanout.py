"""A fanout exchange: every binding."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable

    from amqflow.broker.bindings import Binding
    from amqflow.broker.message import Message


class Fanout:
    """Bindings, whatever their keys."""

    def __init__(self) -> None:
        """Begin without bindings."""
        self._all: dict[Binding, None] = {}

    def add(self, binding: Binding) -> None:
        """Take a binding in."""
        self._all[binding] = None

    def remove(self, binding: Binding) -> None:
        """Let a binding go."""
        del self._all[binding]

    def route(self, message: Message) -> Iterable[Binding]:  # noqa: ARG002 - the protocol's
        """Return all bindings."""
        return self._all
