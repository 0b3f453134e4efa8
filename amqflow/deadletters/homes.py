"""Where dead letters lie: the queues a topology's work queues dead-letter to."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from amqflow.topology import dead_queue
from amqflow.topology.names import SUSPECT_SUFFIX
from amqflow.topology.routes import topic_matches

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from amqflow.deadletters.filters import Filters
    from amqflow.topology import Queue, Topology


@dataclass(frozen=True, slots=True)
class Home:
    """A dead-letter queue.

    ``queues`` are the work queues that lead to it, none where it is a stranger's. ``arguments``
    are what it was declared with, as far as that is known here. ``named`` says that somebody
    asked for this very queue, so that it must be there.
    """

    name: str
    queues: tuple[str, ...] = ()
    arguments: Mapping[str, Any] | None = None
    named: bool = False


def find_homes(topology: Topology, filters: Filters) -> list[Home]:
    """Return the dead-letter queues that filters ask for, in the topology's order.

    A work queue the topology does not know has its home under the derived name: a worker may
    consume more queues than its tasks name.
    """
    known = _leading(topology)
    if not filters.queues and not filters.homes:
        return [_home(topology, name, tuple(queues)) for name, queues in known.items()]
    wanted: dict[str, Home] = {}
    for queue in filters.queues:
        names = [name for name, queues in known.items() if queue in queues or queue == name]
        for name in names or [dead_queue(queue)]:
            wanted[name] = _home(topology, name, tuple(known.get(name, (queue,))), named=True)
    for name in filters.homes:
        wanted[name] = _home(topology, name, tuple(known.get(name, ())), named=True)
    return list(wanted.values())


def _home(topology: Topology, name: str, queues: tuple[str, ...], *, named: bool = False) -> Home:
    queue = topology.queues_by_name.get(name)
    return Home(name, queues, None if queue is None else queue.declare_arguments(), named)


def _leading(topology: Topology) -> dict[str, list[str]]:
    """Return each dead-letter queue with the work queues that lead to it.

    A queue of the delay ladder dead-letters too, to the next level or back to work: what is
    itself dead-lettered from is no home.
    """
    found: dict[str, list[str]] = {}
    for queue in topology.queues:
        for name in _ends(topology, queue):
            target = topology.queues_by_name.get(name)
            if target is not None and target.dead_letter is None and target.type != "stream":
                found.setdefault(name, []).append(queue.name)
    ladder = {name for name, queues in found.items() if all(map(_delays, queues))}
    return {
        name: [queue for queue in queues if not _delays(queue)]
        for name, queues in found.items()
        if name not in ladder
    }


def _ends(topology: Topology, queue: Queue) -> list[str]:
    """Return where a queue's dead letters lie: in its derived home alone, where it has one.

    Others bound to its exchange get copies; a copy replayed beside the original runs twice. Where
    the broker sends elsewhere, both count: workers park in the home all the same.
    """
    sent = list(_destinations(topology, queue))
    home = dead_queue(queue.name.removesuffix(SUSPECT_SUFFIX))
    if home == queue.name or home not in topology.queues_by_name:
        return sent
    return [home] if home in sent else [home, *sent]


def _delays(queue: str) -> bool:
    return queue.startswith("amqflow.delay.")


def _destinations(topology: Topology, queue: Queue) -> Iterator[str]:
    letter = queue.dead_letter
    if letter is None:
        return
    if not letter.exchange:
        yield letter.routing_key or queue.name
        return
    exchange = topology.exchanges_by_name.get(letter.exchange)
    kind = exchange.type if exchange is not None else "direct"
    for binding in topology.bindings_by_source.get(letter.exchange, ()):
        if binding.destination_kind != "queue":
            continue
        key = letter.routing_key
        if (
            kind == "fanout"
            or key is None  # each message's own: any binding may take it
            or (kind == "topic" and topic_matches(binding.routing_key, key))
            or binding.routing_key == key
        ):
            yield binding.destination
