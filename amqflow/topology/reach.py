"""Which queues a message reaches, worked out offline as the broker would."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from amqflow.topology.model import DestinationKind
from amqflow.topology.names import BUILT_IN_EXCHANGES
from amqflow.topology.routes import topic_matches

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from amqflow.topology.model import Binding, Topology

_NO_HEADERS: Final[Mapping[str, Any]] = {}


@dataclass(frozen=True, slots=True)
class Reach:
    """Where a message of one exchange and routing key arrives.

    Args:
        queues: The queues, each once, in the order their bindings are found.
        bindings: The bindings it takes, in that order.
        unknown: Exchanges whose answer nobody can tell offline: a plugin's type, or not here.
    """

    queues: tuple[str, ...] = ()
    bindings: tuple[Binding, ...] = ()
    unknown: tuple[str, ...] = ()


def reach(
    topology: Topology,
    exchange: str,
    routing_key: str,
    headers: Mapping[str, Any] = _NO_HEADERS,
) -> Reach:
    """Return where a message goes.

    Follows bindings between exchanges, each exchange once, and the alternate exchange of one
    that no binding takes the message from (RabbitMQ docs, "Alternate Exchanges").

    Args:
        topology: The exchanges, queues and bindings there are.
        exchange: Where it is published; ``""`` is the default exchange.
        routing_key: Its key.
        headers: Its headers, for headers exchanges.
    """
    if not exchange:
        known = routing_key in topology.queues_by_name
        return Reach(queues=(routing_key,) if known else ())
    queues: dict[str, None] = {}
    bindings: dict[Binding, None] = {}
    unknown: dict[str, None] = {}
    waiting, seen = [exchange], {exchange}
    while waiting:
        name = waiting.pop(0)
        kind = exchange_type(topology, name)
        if kind is None or kind.startswith("x-"):
            unknown[name] = None
            continue
        taken = list(_taken(topology, name, kind, routing_key, headers))
        ways = []
        for binding in taken:
            bindings[binding] = None
            if binding.destination_kind is DestinationKind.QUEUE:
                queues[binding.destination] = None
            else:
                ways.append(binding.destination)
        if not taken and (other := alternate(topology, name)):
            ways.append(other)
        waiting += [way for way in ways if way not in seen]
        seen.update(ways)
    return Reach(tuple(queues), tuple(bindings), tuple(unknown))


def exchange_type(topology: Topology, name: str) -> str | None:
    """Return an exchange's type; None where it is neither in the topology nor the broker's."""
    found = topology.exchanges_by_name.get(name)
    return BUILT_IN_EXCHANGES.get(name) if found is None else found.type


def alternate(topology: Topology, name: str) -> str | None:
    """Return the alternate exchange of an exchange, if it has one."""
    found = topology.exchanges_by_name.get(name)
    other = None if found is None else found.arguments.get("alternate-exchange")
    return other if isinstance(other, str) and other else None


def _taken(
    topology: Topology, name: str, kind: str, key: str, headers: Mapping[str, Any]
) -> Iterator[Binding]:
    for binding in topology.bindings_by_source.get(name, ()):
        if (
            kind == "fanout"
            or (kind == "direct" and binding.routing_key == key)
            or (kind == "topic" and topic_matches(binding.routing_key, key))
            or (kind == "headers" and _headers_match(binding.arguments, headers))
        ):
            yield binding


def _headers_match(arguments: Mapping[str, Any], headers: Mapping[str, Any]) -> bool:
    """Return whether a headers binding takes a message (RabbitMQ docs, "Headers Exchange")."""
    rule = arguments.get("x-match", "all")
    wanted = {
        name: value
        for name, value in arguments.items()
        if not name.startswith("x-") or (str(rule).endswith("-with-x") and name != "x-match")
    }
    hits = [headers.get(name) == value for name, value in wanted.items() if name in headers]
    if str(rule).startswith("any"):
        return any(hits)
    return len(hits) == len(wanted) and all(hits)
