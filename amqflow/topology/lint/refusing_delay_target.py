"""AT104: a queue that refuses messages when it is full, and so stops the delay ladder."""

from __future__ import annotations

from typing import TYPE_CHECKING

from amqflow.topology.lint.finding import Analyzer, Hit, Level

if TYPE_CHECKING:
    from collections.abc import Iterator

    from amqflow.topology.lint.finding import Subject


def check(subject: Subject) -> Iterator[Hit]:
    """Look at consumed queues with a length and an overflow that refuses."""
    for queue in subject.consumed:
        limit = "max_length" if queue.max_length is not None else "max_length_bytes"
        if getattr(queue, limit) is None or not (queue.overflow or "").startswith("reject-publish"):
            continue
        text = (
            f"once {queue.name!r} is full it refuses messages, and delays and retries for it pile "
            f"up on the ladder, which retries them for ever; leave {limit} out, or write "
            "overflow: drop-head, which moves the oldest to its home"
        )
        yield Hit(("queues", queue.name, limit), text)


ANALYZER = Analyzer("AT104", "reject-publish on a delay's target", Level.WARNING, check)
