"""AT108: a dead-letter exchange from which no queue is reached."""

from __future__ import annotations

from typing import TYPE_CHECKING

from amqflow.topology.lint.finding import Analyzer, Hit, Level

if TYPE_CHECKING:
    from collections.abc import Iterator

    from amqflow.topology.lint.finding import Subject
    from amqflow.topology.model import Queue


def check(subject: Subject) -> Iterator[Hit]:
    """Look at the queues without a home: the others' dead letters reach at least that."""
    for queue in (*subject.others, *_declared_homes(subject)):
        letter = queue.dead_letter
        if letter is None or subject.dead_exchange_unknown(queue):
            continue
        if not subject.dead_letters_reach(queue):
            key = "their own key" if letter.routing_key is None else f"key {letter.routing_key!r}"
            text = (
                f"nothing is bound to exchange {letter.exchange!r} for {key}: dead letters of "
                f"{queue.name!r} are dropped; bind a queue to it"
            )
            yield Hit(("queues", queue.name, "dead_letter"), text)


def _declared_homes(subject: Subject) -> Iterator[Queue]:
    for queue in subject.declared.queues:
        if queue.name in subject.homes:
            yield queue


ANALYZER = Analyzer("AT108", "dead letters reach no queue", Level.ERROR, check)
