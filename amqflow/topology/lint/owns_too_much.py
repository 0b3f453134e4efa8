"""AT122: ``owns`` globs that take in what others made."""

from __future__ import annotations

from fnmatch import fnmatchcase
from typing import TYPE_CHECKING

from amqflow.topology.lint.finding import Analyzer, Hit, Level

if TYPE_CHECKING:
    from collections.abc import Iterator

    from amqflow.topology.lint.finding import Subject


#: Names no application made: whoever owns these owns everything.
STRANGERS = ("amqflow.undelivered", "amqflow.delay.0", "somebody.elses-queue_1")


def check(subject: Subject) -> Iterator[Hit]:
    """Try each glob on names that are not this application's."""
    for index, glob in enumerate(subject.declared.owns):
        if any(fnmatchcase(name, glob) for name in STRANGERS):
            text = (
                f"{glob!r} takes in queues of other applications and the delays of all, and plan "
                "--prune would delete them; name what is yours, such as 'shop.*'"
            )
            yield Hit(("owns", index), text)


ANALYZER = Analyzer("AT122", "owns too much", Level.WARNING, check)
