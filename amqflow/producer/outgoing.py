"""A message that is ready to leave: its content and where it goes."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from amqflow.protocol import Envelope


@dataclass(frozen=True, slots=True)
class Outgoing:
    """What is to be published.

    Args:
        envelope: Its content.
        exchange: Where it goes; "" for the default exchange.
        routing_key: By which key.
        queue: The queue it is for, where that is known offline.
        whole: It carries its body itself, however large: it may lie longer than a blob is kept.
    """

    envelope: Envelope
    exchange: str
    routing_key: str
    queue: str | None = None
    whole: bool = False
