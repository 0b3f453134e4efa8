"""AT105: a message that two bindings bring to two consumed queues, so that its task runs twice."""

from __future__ import annotations

from itertools import combinations
from typing import TYPE_CHECKING

from amqflow.topology.lint.finding import Analyzer, Hit, Level

if TYPE_CHECKING:
    from collections.abc import Iterator

    from amqflow.topology.lint.finding import Subject
    from amqflow.topology.model import Binding


def check(subject: Subject) -> Iterator[Hit]:
    """Look at pairs of bindings of one exchange that lead to different consumed queues."""
    declared = subject.declared
    meant = {route.exchange for route in declared.routes if route.broadcast}
    by_source: dict[str, list[Binding]] = {}
    for binding in declared.bindings:
        if binding.destination_kind == "queue" and binding.destination in declared.consumed:
            by_source.setdefault(binding.source, []).append(binding)
    for source, bindings in by_source.items():
        kind = declared.exchange_type(source)
        if source in meant or kind is None:
            continue
        told: set[frozenset[str]] = set()
        for one, other in combinations(bindings, 2):
            pair = frozenset({one.destination, other.destination})
            if len(pair) > 1 and pair not in told and _both_take(kind, one, other):
                told.add(pair)
                yield _hit(subject, one, other)


def _hit(subject: Subject, one: Binding, other: Binding) -> Hit:
    keys = (
        f"keys {one.routing_key!r} and {other.routing_key!r} overlap"
        if one.routing_key != other.routing_key
        else f"key {one.routing_key!r} is bound twice"
    )
    text = (
        f"{keys} on {one.source!r}: a message both take runs in {one.destination!r} and in "
        f"{other.destination!r}; narrow one, or say broadcast: true in a route to the exchange"
    )
    return Hit(subject.declared.binding_paths[other], text)


def _both_take(kind: str, one: Binding, other: Binding) -> bool:
    if kind == "fanout":
        return True
    if kind == "direct":
        return one.routing_key == other.routing_key
    if kind == "topic":
        return patterns_meet(one.routing_key, other.routing_key)
    return kind == "headers" and one.arguments == other.arguments


def patterns_meet(one: str, other: str) -> bool:
    """Return whether some key is taken by both topic patterns."""
    left, right = one.split("."), other.split(".")
    # Pairs of positions both patterns can have reached after the same words.
    open_, seen = [(0, 0)], set()
    while open_:
        at = open_.pop()
        if at in seen:
            continue
        seen.add(at)
        i, j = at
        if i == len(left) and j == len(right):
            return True
        a = left[i] if i < len(left) else None
        b = right[j] if j < len(right) else None
        if a == "#":
            open_ += [(i + 1, j)] + ([(i, j + 1)] if b is not None else [])
        if b == "#":
            open_ += [(i, j + 1)] + ([(i + 1, j)] if a is not None else [])
        elif a is not None and b is not None and a != "#" and (a == b or "*" in {a, b}):
            open_.append((i + 1, j + 1))
    return False


ANALYZER = Analyzer("AT105", "overlapping bindings", Level.WARNING, check)
