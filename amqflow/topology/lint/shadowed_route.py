"""AT115: a route no task reaches, as an earlier one takes all it could match."""

from __future__ import annotations

from fnmatch import fnmatchcase
from typing import TYPE_CHECKING

from amqflow.topology.lint.finding import Analyzer, Hit, Level

if TYPE_CHECKING:
    from collections.abc import Iterator

    from amqflow.topology.lint.finding import Subject


def check(subject: Subject) -> Iterator[Hit]:
    """Compare each route with those before it; the first match wins."""
    routes = subject.declared.routes
    for index, route in enumerate(routes):
        for before, earlier in enumerate(routes[:index]):
            if covers(earlier.task, route.task):
                place = subject.declared.positions.of(("routes", before))
                text = (
                    f"{route.task!r} never matches: {earlier.task!r} at {place} takes every such "
                    "task first; put the narrower one first"
                )
                yield Hit(("routes", index), text)
                break


def covers(wide: str, narrow: str) -> bool:
    """Return whether every name that ``narrow`` matches is matched by ``wide``.

    False where that cannot be told: only ``*`` of the wide one is reckoned with.
    """
    if wide == narrow:
        return True
    if "?" in wide or "[" in wide:
        return False
    # A star of the narrow one is a sign like others here, which only a star of the wide one takes.
    return fnmatchcase(narrow, wide)


ANALYZER = Analyzer("AT115", "route behind a wider one", Level.WARNING, check)
