"""AT112: dead letters that pile up unseen."""

from __future__ import annotations

from typing import TYPE_CHECKING

from amqflow.topology.lint.finding import Analyzer, Hit, Level

if TYPE_CHECKING:
    from collections.abc import Iterator

    from amqflow.topology.lint.finding import Subject


def check(subject: Subject) -> Iterator[Hit]:
    """Look at consumed queues whose home has no bound and no alarm."""
    declared = subject.declared
    for queue in subject.consumed:
        kept = declared.retention.get(queue.name)
        if kept is not None and (kept.max_age, kept.max_length, kept.alarm) != (None, None, None):
            continue
        home = declared.own.queues_by_name.get(f"{queue.name}.dead")
        if home is not None and not (
            home.message_ttl is None and home.max_length is None and home.max_length_bytes is None
        ):
            continue
        text = (
            f"dead letters of {queue.name!r} are kept for ever and nobody is told; write "
            "dead_letter: {alarm: 1000}, or bound them with max_age or max_length"
        )
        yield Hit(("queues", queue.name), text)


ANALYZER = Analyzer("AT112", "unbounded dead letters", Level.NOTE, check)
