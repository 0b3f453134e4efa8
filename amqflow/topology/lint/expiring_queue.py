"""AT118: a queue of tasks that the broker deletes when it is idle."""

from __future__ import annotations

from typing import TYPE_CHECKING

from amqflow.topology.lint.finding import Analyzer, Hit, Level

if TYPE_CHECKING:
    from collections.abc import Iterator

    from amqflow.topology.lint.finding import Subject


def check(subject: Subject) -> Iterator[Hit]:
    """Look at consumed queues with ``expires``."""
    for queue in subject.consumed:
        if queue.expires is not None:
            text = (
                f"{queue.name!r} is deleted once no worker has used it for that long, and the "
                "tasks in it are dropped, not dead-lettered; leave expires out"
            )
            yield Hit(("queues", queue.name, "expires"), text)


ANALYZER = Analyzer("AT118", "queue of tasks that expires", Level.WARNING, check)
