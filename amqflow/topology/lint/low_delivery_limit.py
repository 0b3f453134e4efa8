"""AT106: a delivery limit that comes before the worker's own verdict."""

from __future__ import annotations

from typing import TYPE_CHECKING

from amqflow.topology.lint.finding import Analyzer, Hit, Level

if TYPE_CHECKING:
    from collections.abc import Iterator

    from amqflow.topology.lint.finding import Subject

#: RabbitMQ's own default from 4.0. What a stopping worker hands back counts.
LOWEST = 20


def check(subject: Subject) -> Iterator[Hit]:
    """Look at quorum queues whose limit is low."""
    for queue in subject.declared.queues:
        limit = queue.delivery_limit
        if limit is not None and 0 <= limit < LOWEST:
            text = (
                f"after {limit} returns the broker dead-letters a message, also one that workers "
                f"handed back as they stopped; write {LOWEST} or more, or leave it out: workers "
                "stop poison themselves"
            )
            yield Hit(("queues", queue.name, "delivery_limit"), text)


ANALYZER = Analyzer("AT106", "low delivery limit", Level.WARNING, check)
