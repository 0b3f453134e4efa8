"""The default exchange: a queue's name is its key, and there is nothing to bind."""

from __future__ import annotations

from typing import TYPE_CHECKING

from amqflow.broker.bindings import Binding

if TYPE_CHECKING:
    from collections.abc import Iterable

    from amqflow.broker.message import Message


class Default:
    """Routes to the queues the keys name."""

    def add(self, binding: Binding) -> None:
        """Do nothing: binding to the default exchange is refused before."""

    def remove(self, binding: Binding) -> None:
        """Do nothing."""

    def route(self, message: Message) -> Iterable[Binding]:
        """Return a binding for each key; whether such a queue exists is the virtual host's."""
        return [Binding("", key, to_queue=True, routing_key=key) for key in message.keys]
