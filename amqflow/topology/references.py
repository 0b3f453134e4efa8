"""Checks what the parts of a file say of each other: names that exist, routes to one queue."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from amqflow.topology.names import BUILT_IN_EXCHANGES, OWN_PREFIX
from amqflow.topology.positions import Path, Problem, near
from amqflow.topology.reach import reach

if TYPE_CHECKING:
    from collections.abc import Iterator

    from amqflow.topology.declaration import Declaration
    from amqflow.topology.model import Route

#: Names shown of many.
SHOWN: Final = 5


def reference_problems(declared: Declaration) -> list[Problem]:
    """Return every name that leads nowhere and every route that is no decision."""
    checks = (*_names(declared), *_bindings(declared), *_routes(declared))
    return [
        Problem(declared.source, path, text, declared.positions.of(path)) for path, text in checks
    ]


def _names(declared: Declaration) -> Iterator[tuple[Path, str]]:
    parts = (("exchanges", declared.exchanges), ("queues", declared.queues))
    for section, found in parts:
        for part in found:
            if part.name.startswith(OWN_PREFIX):
                text = f"names starting with {OWN_PREFIX!r} belong to amqflow; choose another"
                yield (section, part.name), text


def _bindings(declared: Declaration) -> Iterator[tuple[Path, str]]:
    known = {*declared.own.exchanges_by_name, *BUILT_IN_EXCHANGES}
    for queue in declared.queues:
        if queue.dead_letter:
            known.add(queue.dead_letter.exchange)
    for binding, path in declared.binding_paths.items():
        if binding.source not in known and not binding.source.startswith(OWN_PREFIX):
            hint = near(binding.source, known) or "; declare it under exchanges"
            yield (*path, "exchange"), f"no exchange {binding.source!r} here{hint}"
            continue
        kind = declared.exchange_type(binding.source)
        written = (*path, "routing_key") in declared.positions.places
        if kind in {"direct", "topic"} and not written:
            text = f"exchange {binding.source!r} is {kind}: say which routing_key leads here"
            yield path, text
        if kind == "headers" and not binding.arguments:
            text = f"exchange {binding.source!r} is headers: say in arguments which ones lead here"
            yield path, text
    for exchange in declared.exchanges:
        other = exchange.arguments.get("alternate-exchange")
        if isinstance(other, str) and other not in known and not other.startswith(OWN_PREFIX):
            path = ("exchanges", exchange.name, "arguments", "alternate-exchange")
            hint = near(other, known) or "; declare it under exchanges"
            yield path, f"no exchange {other!r} here{hint}"


def _routes(declared: Declaration) -> Iterator[tuple[Path, str]]:
    for index, route in enumerate(declared.routes):
        yield from _route(declared, route, ("routes", index))


def _route(declared: Declaration, route: Route, path: Path) -> Iterator[tuple[Path, str]]:
    if route.queue is not None and route.exchange is not None:
        yield path, "names a queue and an exchange; keep one"
    elif route.queue is not None:
        yield from _to_queue(declared, route, path)
    elif route.exchange is not None:
        yield from _to_exchange(declared, route, path)
    elif route.routing_key is not None:
        yield (*path, "routing_key"), "routing_key needs an exchange beside it"
    elif route.priority is None:
        yield path, "says nothing; name a queue, an exchange or a priority"


def _to_queue(declared: Declaration, route: Route, path: Path) -> Iterator[tuple[Path, str]]:
    queues = declared.own.queues_by_name
    assert route.queue is not None
    if route.routing_key is not None:
        yield (*path, "routing_key"), "a queue is reached by its name; leave routing_key out"
    if route.queue not in queues:
        hint = near(route.queue, queues) or "; declare it under queues"
        yield (*path, "queue"), f"no queue {route.queue!r} here{hint}"
    elif route.queue not in declared.consumed:
        yield (*path, "queue"), f"no worker takes tasks from {route.queue!r} (consumed: false)"


def _to_exchange(declared: Declaration, route: Route, path: Path) -> Iterator[tuple[Path, str]]:
    known = {*declared.own.exchanges_by_name, *BUILT_IN_EXCHANGES}
    assert route.exchange is not None
    if route.exchange not in known:
        hint = near(route.exchange, known) or "; declare it under exchanges"
        yield (*path, "exchange"), f"no exchange {route.exchange!r} here{hint}"
        return
    exchange = declared.own.exchanges_by_name.get(route.exchange)
    if exchange is not None and exchange.internal:
        text = f"exchange {route.exchange!r} is internal; nobody may publish to it"
        yield (*path, "exchange"), text
        return
    if route.routing_key is None and declared.exchange_type(route.exchange) != "fanout":
        return  # the task's own options give the key: `topology route` tells where it leads
    found = reach(declared.own, route.exchange, route.routing_key or "")
    if found.unknown:
        return
    reached = [name for name in found.queues if name in declared.consumed]
    where = f"{route.exchange!r} with key {route.routing_key!r}"
    if not reached:
        yield path, f"{where} reaches no consumed queue; bind one, or correct the key"
    elif len(reached) > 1 and not route.broadcast:
        names = ", ".join(map(repr, reached[:SHOWN]))
        if (rest := len(reached) - SHOWN) > 0:
            names += f" and {rest} more"
        text = (
            f"{where} reaches {len(reached)} consumed queues ({names}), and the task would run "
            "in each; narrow a binding, or write broadcast: true"
        )
        yield path, text
