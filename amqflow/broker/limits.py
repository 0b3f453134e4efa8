"""What a broker lets its clients do; RabbitMQ's defaults."""

from __future__ import annotations

from dataclasses import dataclass

from amqflow.broker.identity import MAX_MESSAGE_SIZE


@dataclass(frozen=True, slots=True)
class Limits:
    """``max_message_size`` in octets; ``consumer_timeout`` in seconds, None: no such limit.

    A delivery that is not acknowledged within the consumer's time-out closes its channel.
    """

    max_message_size: int = MAX_MESSAGE_SIZE
    consumer_timeout: float | None = 1800.0
