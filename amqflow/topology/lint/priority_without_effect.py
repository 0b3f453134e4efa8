"""AT111: a route's priority that its queue does not order by."""

from __future__ import annotations

from typing import TYPE_CHECKING

from amqflow.topology.lint.finding import Analyzer, Hit, Level
from amqflow.topology.reach import reach

if TYPE_CHECKING:
    from collections.abc import Iterator

    from amqflow.topology.lint.finding import Subject


def check(subject: Subject) -> Iterator[Hit]:
    """Look where each route with a priority leads."""
    declared = subject.declared
    queues = declared.own.queues_by_name
    for index, route in enumerate(declared.routes):
        if not route.priority:
            continue
        if route.queue is not None:
            names: tuple[str, ...] = (route.queue,)
        else:
            names = reach(declared.own, route.exchange or "", route.routing_key or "").queues
        for name in names:
            queue = queues.get(name)
            if queue is None or (queue.type == "quorum" and _orders(subject)):
                continue
            path = ("routes", index, "priority")
            if queue.max_priority is None:
                way = (
                    "type: classic and max_priority: 10"
                    if queue.type == "quorum"
                    else "max_priority: 10"
                )
                yield Hit(path, f"{name!r} hands out in the order of arrival; give it {way}")
            elif route.priority > queue.max_priority:
                text = (
                    f"{name!r} has priorities up to {queue.max_priority}, and {route.priority} "
                    "counts as that; write no more"
                )
                yield Hit(path, text)


def _orders(subject: Subject) -> bool:
    """Whether quorum queues order by priority; unknown versions get the benefit of the doubt."""
    return subject.facts is None or subject.facts.quorum_priorities


ANALYZER = Analyzer("AT111", "priority without effect", Level.WARNING, check)
