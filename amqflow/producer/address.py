"""Where a message goes now: straight to its destination, or onto the delay ladder first."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from amqflow.producer.outgoing import Outgoing
from amqflow.protocol import headers as h

if TYPE_CHECKING:
    from amqflow.protocol import Envelope
    from amqflow.topology import Ladder


def to_queue(envelope: Envelope, queue: str, *, delay: float, ladder: Ladder) -> Outgoing:
    """Address a message to one queue, ``delay`` seconds from now (0 or less: at once).

    It arrives up to a tick early: a worker waits for its ``eta``, to the millisecond.
    """
    if delay <= 0:
        return Outgoing(envelope, "", queue, queue)
    exchange, key = ladder.entry(queue, delay, envelope.priority, early=True)
    return Outgoing(envelope, exchange, key, queue)


def to_exchange(
    envelope: Envelope,
    exchange: str,
    routing_key: str,
    *,
    delay: float,
    ladder: Ladder,
    forward: str,
) -> Outgoing:
    """Address a message to an exchange; a delayed one leaves the ladder at ``forward``.

    The ladder ends in queues. So a delayed call to an exchange is addressed to the application's
    forward queue, with its true destination in headers; a worker republishes it from there. Who
    takes it then may know no ``eta``, so it is never early.
    """
    if delay <= 0:
        return Outgoing(envelope, exchange, routing_key)
    marked = replace(
        envelope, headers={**envelope.headers, h.EXCHANGE: exchange, h.ROUTING_KEY: routing_key}
    )
    entry, key = ladder.entry(forward, delay, envelope.priority)
    return Outgoing(marked, entry, key)
