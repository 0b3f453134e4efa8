"""AT109: more priorities than a classic queue carries lightly."""

from __future__ import annotations

from typing import TYPE_CHECKING

from amqflow.topology.lint.finding import Analyzer, Hit, Level

if TYPE_CHECKING:
    from collections.abc import Iterator

    from amqflow.topology.lint.finding import Subject

#: RabbitMQ docs, "Classic Queues Support Priorities": values between 1 and 10 are recommended.
MOST = 10


def check(subject: Subject) -> Iterator[Hit]:
    """Look at classic queues with many levels: each is a queue inside the queue."""
    for queue in subject.declared.queues:
        if queue.type == "classic" and (queue.max_priority or 0) > MOST:
            text = (
                f"each of the {queue.max_priority} priorities costs memory and CPU on the broker; "
                f"write {MOST} or less"
            )
            yield Hit(("queues", queue.name, "max_priority"), text)


ANALYZER = Analyzer("AT109", "many priorities", Level.WARNING, check)
