"""Looking into queues without touching them, and moving on in time: what tests want.

No AMQP client can look: taking a message and giving it back marks it as redelivered.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from pamqp.commands import Basic

if TYPE_CHECKING:
    from collections.abc import Iterator

    from amqflow.broker.queues.entry import Entry
    from amqflow.broker.queues.queue import Queue
    from amqflow.broker.server import Broker


@dataclass(frozen=True, slots=True)
class Seen:
    """A message where it is. ``unacked``: a consumer has it, and has not settled it yet."""

    queue: str
    exchange: str
    routing_key: str
    properties: Basic.Properties
    body: bytes
    unacked: bool


def look(broker: Broker, vhost: str) -> list[Seen]:
    """Return every message of a virtual host, queue by queue, in the order they would be taken."""
    queues = broker._node.vhosts[vhost].queues  # noqa: SLF001 - a part of the broker
    return [seen for queue in queues.values() for seen in _messages(queue)]


def seconds_to_next(broker: Broker) -> float | None:
    """Return how long until the broker does something by itself; None: nothing is planned."""
    timers = broker._node.timers  # noqa: SLF001 - a part of the broker
    due = timers.next_due()
    return None if due is None else max(0.0, due - timers.now())


def _messages(queue: Queue) -> Iterator[Seen]:
    for unacked, entries in ((True, queue.unacked), (False, queue.ready.all())):
        for entry in entries:
            yield _seen(queue.name, entry, unacked=unacked)


def _seen(queue: str, entry: Entry, *, unacked: bool) -> Seen:
    message = entry.message
    raw = message.properties.raw
    properties = Basic.Properties()
    properties.unmarshal(int.from_bytes(raw[:2]), raw[2:])
    return Seen(
        queue, message.exchange, message.routing_key, properties, message.body, unacked=unacked
    )
