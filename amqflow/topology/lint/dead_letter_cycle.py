"""AT101: dead letters that come back to the queue they left."""

from __future__ import annotations

from typing import TYPE_CHECKING

from amqflow.topology.lint.finding import Analyzer, Hit, Level

if TYPE_CHECKING:
    from collections.abc import Iterator

    from amqflow.topology.lint.finding import Subject


def check(subject: Subject) -> Iterator[Hit]:
    """Follow the dead letters of each queue of the file until they come round."""
    queues = subject.topology.queues_by_name
    told: set[frozenset[str]] = set()
    for start in subject.declared.queues:
        way = _way_back(subject, start.name)
        if way is None or frozenset(way) in told:
            continue
        told.add(frozenset(way))
        rejects = any(name in subject.declared.consumed for name in way)
        loss = (
            "a message that is rejected there goes round for ever, one that expires all the way "
            "round is dropped by the broker"
            if rejects
            else "the broker drops a message that has come round without being rejected"
        )
        shown = " → ".join(map(repr, (*way, way[0])))
        place = ("queues", queues[way[0]].name, "dead_letter")
        yield Hit(place, f"dead letters go {shown}: {loss}; lead them to a queue that ends the way")


def _way_back(subject: Subject, start: str) -> tuple[str, ...] | None:
    """Return the shortest way of dead letters from a queue to itself, the queue first."""
    queues = subject.topology.queues_by_name
    ways: list[tuple[str, ...]] = [(start,)]
    seen: set[str] = set()
    while ways:
        way = ways.pop(0)
        queue = queues.get(way[-1])
        if queue is None:
            continue
        for name in subject.dead_letters_reach(queue):
            if name == start:
                return way
            if name not in seen:
                seen.add(name)
                ways.append((*way, name))
    return None


ANALYZER = Analyzer("AT101", "dead-letter cycle", Level.ERROR, check)
