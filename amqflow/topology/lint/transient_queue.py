"""AT113: a queue of tasks that goes with a connection, a consumer or a restart."""

from __future__ import annotations

from typing import TYPE_CHECKING

from amqflow.topology.lint.finding import Analyzer, Hit, Level

if TYPE_CHECKING:
    from collections.abc import Iterator

    from amqflow.topology.lint.finding import Subject

_GOES = {
    "exclusive": "with the connection that declared it; leave exclusive out",
    "auto_delete": "with its last consumer, so with the last worker; leave auto_delete out",
    "durable": "when the broker restarts; leave durable: false out",
}


def check(subject: Subject) -> Iterator[Hit]:
    """Look at consumed queues that are not there to stay."""
    for queue in subject.consumed:
        for name, when in _GOES.items():
            if getattr(queue, name) is (name != "durable"):
                text = f"{queue.name!r} and the tasks in it go {when}"
                yield Hit(("queues", queue.name, name), text)


ANALYZER = Analyzer("AT113", "queue that does not stay", Level.WARNING, check)
