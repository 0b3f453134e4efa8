"""A message in one queue: its place there and what happened to it there."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from amqflow.broker.message import Message


class Entry:
    """``position`` orders a queue's messages; ``deadline`` is monotonic, None: lives for ever.

    ``returned`` counts how often it came back to the queue without being acknowledged.
    """

    __slots__ = ("band", "deadline", "message", "position", "returned")

    def __init__(self, message: Message, position: int, band: int, deadline: float | None) -> None:
        """Put a message at a position of a priority's band."""
        self.message = message
        self.position = position
        self.band = band
        self.deadline = deadline
        self.returned = 0

    @property
    def size(self) -> int:
        """Octets of the body, what RabbitMQ's length limits count."""
        return len(self.message.body)
