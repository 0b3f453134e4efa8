"""AT103: a classic queue that dead-letters by itself, which it does at most once."""

from __future__ import annotations

from typing import TYPE_CHECKING

from amqflow.topology.lint.finding import Analyzer, Hit, Level

if TYPE_CHECKING:
    from collections.abc import Iterator

    from amqflow.topology.lint.finding import Subject


def check(subject: Subject) -> Iterator[Hit]:
    """Look at consumed classic queues that expire messages or have too many."""
    for queue in subject.consumed:
        if queue.type != "classic":
            continue
        for name in ("message_ttl", "max_length", "max_length_bytes"):
            if getattr(queue, name) is not None:
                text = (
                    f"{queue.name!r} is classic: what its {name} dead-letters is sent without a "
                    f"confirm and may be lost; make it quorum, or leave {name} out"
                )
                yield Hit(("queues", queue.name, name), text)


ANALYZER = Analyzer("AT103", "classic queue dead-letters at most once", Level.WARNING, check)
