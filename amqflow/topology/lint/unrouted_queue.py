"""AT114: a queue nothing in the file leads to."""

from __future__ import annotations

from typing import TYPE_CHECKING

from amqflow.topology.lint.finding import Analyzer, Hit, Level

if TYPE_CHECKING:
    from collections.abc import Iterator

    from amqflow.topology.lint.finding import Subject


def check(subject: Subject) -> Iterator[Hit]:
    """Look for queues without a binding, a route, or dead letters that arrive there."""
    declared = subject.declared
    bound = {
        binding.destination for binding in declared.bindings if binding.destination_kind == "queue"
    }
    named = {route.queue for route in declared.routes}
    dead = {
        name
        for queue in declared.queues
        if queue.name not in subject.homes
        for name in subject.dead_letters_reach(subject.topology.queue(queue.name))
    }
    for queue in (*subject.consumed, *subject.others):
        if queue.name in bound | named | dead or queue.name == "default":
            continue
        if queue.name in declared.consumed:
            text = (
                f"no binding and no route leads to {queue.name!r}: only calls and tasks that name "
                "it reach it"
            )
            yield Hit(("queues", queue.name), text, Level.NOTE)
        else:
            text = f"nothing leads to {queue.name!r}; bind it, or leave it out"
            yield Hit(("queues", queue.name), text)


ANALYZER = Analyzer("AT114", "queue nothing leads to", Level.WARNING, check)
