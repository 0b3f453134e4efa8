"""A message that is ready to leave: its content and where it goes."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from amqflow.protocol import Envelope


@dataclass(frozen=True, slots=True)
class Outgoing:
    """What is to be published; ``queue`` is the queue it is for, where that is known offline."""

    envelope: Envelope
    exchange: str
    routing_key: str
    queue: str | None = None
