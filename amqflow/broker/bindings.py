"""A binding: from an exchange to a queue or to another exchange."""

from __future__ import annotations

from typing import TYPE_CHECKING

from amqflow.broker.tables import frozen

if TYPE_CHECKING:
    from amqflow.broker.tables import Table


class Binding:
    """Equal where source, destination, key and arguments are."""

    __slots__ = ("_identity", "arguments", "destination", "routing_key", "source", "to_queue")

    def __init__(
        self,
        source: str,
        destination: str,
        *,
        to_queue: bool,
        routing_key: str,
        arguments: Table | None = None,
    ) -> None:
        """Name both ends; ``to_queue`` says what the destination is."""
        self.source = source
        self.destination = destination
        self.to_queue = to_queue
        self.routing_key = routing_key
        self.arguments = arguments or {}
        frozen_arguments = frozen(self.arguments) if arguments else ()
        self._identity = (source, destination, to_queue, routing_key, frozen_arguments)

    @property
    def kind(self) -> str:
        """What the destination is, as RabbitMQ names it."""
        return "queue" if self.to_queue else "exchange"

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Binding) and self._identity == other._identity

    def __hash__(self) -> int:
        return hash(self._identity)

    def __repr__(self) -> str:
        return f"Binding{self._identity[:4]}"
