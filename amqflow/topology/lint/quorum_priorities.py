"""AT110: priorities on a quorum queue of a broker that has none there."""

from __future__ import annotations

from typing import TYPE_CHECKING

from amqflow.topology.lint.finding import Analyzer, Hit, Level

if TYPE_CHECKING:
    from collections.abc import Iterator

    from amqflow.topology.lint.finding import Subject


def check(subject: Subject) -> Iterator[Hit]:
    """Ask what the broker of the version in question cannot hold."""
    if subject.facts is not None:
        for problem in subject.declared.impossible_on(subject.facts):
            yield Hit(problem.path, problem.text)


ANALYZER = Analyzer("AT110", "quorum queue without priorities", Level.ERROR, check)
