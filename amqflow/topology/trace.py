"""Where a task's calls go under a file: key, bindings, queues, dead letters, and whether to one."""

from __future__ import annotations

from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import TYPE_CHECKING

from amqflow.topology.names import OWN_PREFIX, dead_queue
from amqflow.topology.positions import near
from amqflow.topology.reach import reach
from amqflow.topology.routes import NOWHERE, Address, Destination, Routes

if TYPE_CHECKING:
    from amqflow.topology.declaration import Declaration
    from amqflow.topology.model import Binding, DeadLetter, Route, Topology


@dataclass(frozen=True, slots=True)
class Stop:
    """A queue a call arrives in.

    Args:
        queue: Its name.
        consumed: Whether workers take tasks from it.
        dead_letter: Where the broker sends its dead letters.
        homes: The queues those arrive in.
        parked: Where workers park; None where none consume it.
    """

    queue: str
    consumed: bool
    dead_letter: DeadLetter | None
    homes: tuple[str, ...]
    parked: str | None


@dataclass(frozen=True, slots=True)
class Trace:
    """The way of a task's calls.

    ``problem`` says why they would not run exactly once; None where they do, or where a route
    says ``broadcast: true``. ``route`` is the one that matched, with its index in the file.
    """

    task: str
    destination: Destination
    route: Route | None
    route_index: int | None
    bindings: tuple[Binding, ...]
    stops: tuple[Stop, ...]
    problem: str | None

    @property
    def broadcast(self) -> bool:
        """Whether reaching several queues is meant."""
        return self.route is not None and self.route.broadcast


def trace(
    declared: Declaration,
    topology: Topology,
    task: str,
    call: Address = NOWHERE,
    own: Address = NOWHERE,
    routes: Routes | None = None,
) -> Trace:
    """Follow a task's calls, offline.

    Args:
        declared: The file.
        topology: Everything, as :meth:`Declaration.topology` returns it.
        task: The task's name.
        call: The call's own options.
        own: The options of the task's declaration.
        routes: The application's, where its settings have some too; None: the file's alone.
    """
    by_file = Routes(declared.routes)
    destination = (routes or by_file).resolve(task, call, own)
    index = next(
        (at for at, route in enumerate(declared.routes) if fnmatchcase(task, route.task)), None
    )
    matched = None if index is None else declared.routes[index]
    # A route that the call, the task or a setting overrules does not speak for the destination.
    if call.names_place or own.names_place or by_file.resolve(task, call, own) != destination:
        matched = index = None
    found = reach(topology, destination.exchange, destination.routing_key)
    stops = tuple(_stop(declared, topology, name) for name in found.queues)
    problem = _problem(declared, topology, destination, matched, stops, found.unknown)
    return Trace(task, destination, matched, index, found.bindings, stops, problem)


def _stop(declared: Declaration, topology: Topology, name: str) -> Stop:
    queue = topology.queue(name)
    letter = queue.dead_letter
    homes: tuple[str, ...] = ()
    if letter is not None:
        key = name if letter.routing_key is None else letter.routing_key
        found = reach(topology, letter.exchange, key).queues
        # The application's own copy is nobody's home.
        homes = tuple(queue for queue in found if not queue.startswith(OWN_PREFIX))
    consumed = name in declared.consumed
    return Stop(name, consumed, letter, homes, dead_queue(name) if consumed else None)


def _problem(
    declared: Declaration,
    topology: Topology,
    destination: Destination,
    route: Route | None,
    stops: tuple[Stop, ...],
    unknown: tuple[str, ...],
) -> str | None:
    consumed = [stop.queue for stop in stops if stop.consumed]
    if len(consumed) == 1 or (len(consumed) > 1 and route is not None and route.broadcast):
        return None
    if len(consumed) > 1:
        return (
            f"reaches {len(consumed)} consumed queues and would run in each; narrow a binding, or "
            "write broadcast: true in its route"
        )
    if unknown:
        return f"exchange {unknown[0]!r} is not in the file, so nobody can tell where this goes"
    if not destination.exchange and destination.queue not in topology.queues_by_name:
        hint = near(destination.routing_key, declared.own.queues_by_name)
        return f"there is no queue {destination.routing_key!r}{hint or '; declare or route it'}"
    if stops:
        return "reaches no queue that workers take tasks from"
    return (
        f"no binding of {destination.exchange!r} takes key {destination.routing_key!r}; bind a "
        "queue, or correct the key"
    )
