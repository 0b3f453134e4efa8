"""AT102: a queue whose messages expire into nothing."""

from __future__ import annotations

from typing import TYPE_CHECKING

from amqflow.topology.lint.finding import Analyzer, Hit, Level

if TYPE_CHECKING:
    from collections.abc import Iterator

    from amqflow.topology.lint.finding import Subject


def check(subject: Subject) -> Iterator[Hit]:
    """Look at queues with a TTL, no consumer and no dead-letter exchange."""
    for queue in subject.others:
        if queue.type != "stream" and queue.message_ttl is not None and queue.dead_letter is None:
            text = (
                f"what waits in {queue.name!r} longer than its message_ttl is gone; give it "
                "dead_letter: {exchange: …, routing_key: …}"
            )
            yield Hit(("queues", queue.name, "message_ttl"), text)


ANALYZER = Analyzer("AT102", "TTL that leads nowhere", Level.WARNING, check)
