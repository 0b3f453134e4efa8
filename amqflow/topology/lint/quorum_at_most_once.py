"""AT120: a quorum queue that dead-letters at most once though it could do better."""

from __future__ import annotations

from typing import TYPE_CHECKING

from amqflow.topology.lint.finding import Analyzer, Hit, Level

if TYPE_CHECKING:
    from collections.abc import Iterator

    from amqflow.topology.lint.finding import Subject
    from amqflow.topology.positions import Path


def check(subject: Subject) -> Iterator[Hit]:
    """Look at consumed quorum queues without the at-least-once strategy."""
    for queue in subject.consumed:
        letter = queue.dead_letter
        if queue.type != "quorum" or letter is None or letter.at_least_once:
            continue
        path: Path = ("queues", queue.name)
        if queue.overflow == "drop-head":
            path, mend = (*path, "overflow"), "leave overflow: drop-head out"
        else:
            path, mend = (*path, "dead_letter"), "leave at_least_once: false out"
        text = f"dead letters of {queue.name!r} are sent without a confirm and may be lost; {mend}"
        yield Hit(path, text)


ANALYZER = Analyzer("AT120", "quorum queue dead-letters at most once", Level.WARNING, check)
