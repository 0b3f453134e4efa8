"""AT119: dead letters of one queue that arrive in the home of another too."""

from __future__ import annotations

from typing import TYPE_CHECKING

from amqflow.topology.lint.finding import Analyzer, Hit, Level

if TYPE_CHECKING:
    from collections.abc import Iterator

    from amqflow.topology.lint.finding import Subject


def check(subject: Subject) -> Iterator[Hit]:
    """Look which homes the dead letters of each consumed queue reach."""
    for queue in subject.consumed:
        homes = [
            subject.homes[name]
            for name in subject.dead_letters_reach(queue)
            if name in subject.homes
        ]
        if others := [name for name in homes if name != queue.name]:
            shown = ", ".join(f"'{name}.dead'" for name in others)
            text = (
                f"dead letters of {queue.name!r} also arrive in {shown}: one replayed from both "
                "runs twice; give each queue a dead-letter routing_key of its own"
            )
            yield Hit(("queues", queue.name, "dead_letter"), text)


ANALYZER = Analyzer("AT119", "dead letters in two homes", Level.WARNING, check)
