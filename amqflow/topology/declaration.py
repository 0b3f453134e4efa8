"""What a topology file says, as one value, and the full topology that follows from it."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import TYPE_CHECKING, Final

from amqflow.topology.derive import DEFAULT_POISON_LIMIT, Builder, Retention
from amqflow.topology.ladder import DEFAULT_LEVELS, DEFAULT_RESOLUTION, Ladder
from amqflow.topology.model import Binding, Exchange, Queue, QueueType, Topology
from amqflow.topology.names import BUILT_IN_EXCHANGES, AppNames, dead_queue, suspect_queue
from amqflow.topology.positions import Path, Positions, Problem, TopologyFileError

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from amqflow.topology.document import Ignore
    from amqflow.topology.facts import BrokerFacts
    from amqflow.topology.model import Route
    from amqflow.topology.policy import Policy

_FOREVER: Final = Retention()


@dataclass(frozen=True, slots=True)
class Delays:
    """The ladder a file asks for: ``resolution`` is seconds of a tick."""

    resolution: float = DEFAULT_RESOLUTION
    levels: int = DEFAULT_LEVELS


@dataclass(frozen=True)
class Declaration:
    """A topology file's own parts; :meth:`topology` adds what follows from them.

    Args:
        source: The file as the user named it.
        exchanges: Its exchanges.
        queues: Its queues. One whose ``dead_letter`` is None gets the application's own when it
            is consumed.
        bindings: Its bindings.
        routes: Its routes, in order.
        consumed: Names of the queues workers take tasks from, in the file's order.
        owns: Globs of the names a plan may delete.
        delays: The ladder.
        retention: How long the dead letters of a queue are kept, by the queue's name.
        policies: Policies, by the management API only.
        positions: Where everything stands.
        binding_paths: Where each binding is written.
        ignores: Comments that silence lint findings.
    """

    source: str
    exchanges: tuple[Exchange, ...] = ()
    queues: tuple[Queue, ...] = ()
    bindings: tuple[Binding, ...] = ()
    routes: tuple[Route, ...] = ()
    consumed: tuple[str, ...] = ()
    owns: tuple[str, ...] = ()
    delays: Delays = field(default_factory=Delays)
    retention: Mapping[str, Retention] = field(default_factory=dict, hash=False)
    policies: tuple[Policy, ...] = ()
    positions: Positions = field(default_factory=lambda: Positions(""), hash=False, compare=False)
    binding_paths: Mapping[Binding, Path] = field(default_factory=dict, hash=False, compare=False)
    ignores: tuple[Ignore, ...] = field(default=(), compare=False)

    @cached_property
    def own(self) -> Topology:
        """The file's own parts and nothing derived."""
        return Topology(self.exchanges, self.queues, self.bindings, self.routes)

    def path_of(self, part: Exchange | Queue | Binding) -> Path | None:
        """Return where a part is written; None for a derived one."""
        if isinstance(part, Binding):
            return self.binding_paths.get(part)
        section = "exchanges" if isinstance(part, Exchange) else "queues"
        path = (section, part.name)
        return path if path in self.positions.places else None

    def place_of(self, part: Exchange | Queue | Binding) -> str | None:
        """Return ``topology/shop.yaml:12:3`` for a part of the file; None for a derived one."""
        path = self.path_of(part)
        return None if path is None else self.positions.show(path)

    def exchange_type(self, name: str) -> str | None:
        """Return the type of an exchange of the file or the broker's own; None: neither."""
        found = self.own.exchanges_by_name.get(name)
        return BUILT_IN_EXCHANGES.get(name) if found is None else found.type

    # -- the whole -------------------------------------------------------------------------

    def topology(
        self,
        app_name: str,
        facts: BrokerFacts,
        *,
        poison_limit: int = DEFAULT_POISON_LIMIT,
    ) -> Topology:
        """Return everything the broker must hold: the declared parts and the derived ones.

        Derived are, for each consumed queue, its home ``<queue>.dead``, its ``<queue>.suspect``
        and its way out of the ladder; a dead-letter exchange that is named but not declared; the
        ladder; the application's result exchange and queues; ``amqflow.undelivered``. A queue
        the file declares under a derived name takes the derived one's place.

        Args:
            app_name: The application's name.
            facts: The broker's version.
            poison_limit: Attempts after which a worker parks a suspect.

        Raises:
            TopologyFileError: A broker of this version cannot hold what is declared.
        """
        if problems := list(self.impossible_on(facts)):
            raise TopologyFileError(problems)
        return self.outline(app_name, facts, poison_limit=poison_limit)

    def outline(
        self,
        app_name: str,
        facts: BrokerFacts,
        *,
        poison_limit: int = DEFAULT_POISON_LIMIT,
    ) -> Topology:
        """Return :meth:`topology` without asking whether the broker can hold it, for lint."""
        delays = self.delays
        builder = Builder(
            AppNames(app_name),
            facts,
            Ladder.on(facts, delays.resolution, delays.levels),
            poison_limit,
        )
        declared = Topology(
            exchanges=self.exchanges,
            queues=tuple(self._declared(queue, builder) for queue in self.queues),
            bindings=self.bindings,
            routes=self.routes,
        )
        derived = builder.shared().merge(
            *(self._around(declared.queue(name), builder) for name in self.consumed),
            builder.frame(),
        )
        return declared.merge(_without(derived, declared), self._dead_exchanges(declared))

    def impossible_on(self, facts: BrokerFacts) -> Iterator[Problem]:
        """Yield what a broker of this version cannot hold."""
        for queue in self.queues:
            if (
                queue.type is QueueType.QUORUM
                and queue.max_priority is not None
                and not facts.quorum_priorities
            ):
                path = ("queues", queue.name, "max_priority")
                text = (
                    f"quorum queues of RabbitMQ {facts} have no priorities; write type: classic, "
                    "or leave max_priority out"
                )
                yield Problem(self.source, path, text, self.positions.of(path))

    def _declared(self, queue: Queue, builder: Builder) -> Queue:
        if queue.type is QueueType.QUORUM and queue.max_priority is not None:
            # From 4.3 every quorum queue has its 32 priorities; there is nothing to declare.
            queue = replace(queue, max_priority=None)
        if queue.name in self.consumed:
            return builder.complete(queue)
        return replace(queue, delivery_limit=builder.limit(queue))

    def _around(self, queue: Queue, builder: Builder) -> Topology:
        kept = self.retention.get(queue.name, _FOREVER)
        return builder.around(queue, kept, self._home_keys(queue))

    def _home_keys(self, queue: Queue) -> tuple[str, ...] | None:
        """Return the keys a home is bound with where messages keep their own."""
        letter = queue.dead_letter
        if letter is None or letter.routing_key is not None:
            return None
        kind = self.exchange_type(letter.exchange) or "direct"
        if kind == "topic":
            return ("#",)
        own = [queue.name]
        if kind == "direct":
            own += [
                binding.routing_key
                for binding in self.bindings
                if binding.destination_kind == "queue" and binding.destination == queue.name
            ]
        return tuple(dict.fromkeys(own))

    def _dead_exchanges(self, declared: Topology) -> Topology:
        """Return the dead-letter exchanges that consumed queues name and nobody declares."""
        missing: dict[str, str] = {}
        for name in self.consumed:
            letter = declared.queue(name).dead_letter
            if letter and letter.exchange and self.exchange_type(letter.exchange) is None:
                missing.setdefault(letter.exchange, name)
        return Topology(
            exchanges=tuple(
                Exchange(exchange, why=f"takes the dead letters of {queue!r} to their home")
                for exchange, queue in missing.items()
                if not exchange.startswith("amqflow.")
            )
        )


def derived_names(queues: tuple[str, ...]) -> frozenset[str]:
    """Return the names that are homes or suspects' queues of these queues."""
    return frozenset(make(name) for name in queues for make in (dead_queue, suspect_queue))


def _without(derived: Topology, declared: Topology) -> Topology:
    """Return the derived parts less the queues that are declared: who declares one, shapes it."""
    return replace(
        derived,
        queues=tuple(
            queue for queue in derived.queues if queue.name not in declared.queues_by_name
        ),
    )
