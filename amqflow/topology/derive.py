"""The topology that follows from the queues an application uses, when no file declares one."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from amqflow.topology.ladder import DEFAULT_LEVELS, DEFAULT_RESOLUTION, Ladder, undelivered
from amqflow.topology.model import Binding, DeadLetter, Exchange, Queue, QueueType, Topology
from amqflow.topology.names import AppNames, dead_queue, suspect_queue

if TYPE_CHECKING:
    from collections.abc import Mapping

    from amqflow.topology.facts import BrokerFacts

#: Priorities 0 to 10, as Celery's documentation recommends for RabbitMQ (``x-max-priority``).
DERIVED_MAX_PRIORITY: Final = 10

#: Attempts by which the worker parks a message that keeps killing it.
DEFAULT_POISON_LIMIT: Final = 3

#: What the broker grants a suspect beyond the worker's own limit: hand-backs at a worker's stop
#: count too, and below 20 the backstop would come before the worker's verdict.
POISON_MARGIN: Final = 20


@dataclass(frozen=True, slots=True)
class QueueNeeds:
    """What the tasks on one queue need of it.

    Args:
        uses_priority: A task on it names a priority.
        prefetch: The most messages a worker takes from it at a time; None: its share.
    """

    uses_priority: bool = False
    prefetch: int | None = None


def derive(
    app_name: str,
    queues: Mapping[str, QueueNeeds],
    facts: BrokerFacts,
    *,
    poison_limit: int = DEFAULT_POISON_LIMIT,
    dead_max_age: float | None = None,
    dead_max_length: int | None = None,
    resolution: float = DEFAULT_RESOLUTION,
    levels: int = DEFAULT_LEVELS,
) -> Topology:
    """Return everything an application needs on its broker, each part with its reason.

    Dead letters are kept for ever unless a bound is given: a parked message is a confirmed one,
    and nothing confirmed is dropped unasked.

    Args:
        app_name: The application's name; its exchanges carry it.
        queues: The queues it consumes, and what their tasks need.
        facts: The broker's version.
        poison_limit: Attempts after which the worker parks a suspect.
        dead_max_age: Seconds a dead letter is kept.
        dead_max_length: Dead letters kept per queue; the oldest go first.
        resolution: Seconds of the delay ladder's tick.
        levels: Levels of the ladder.

    Raises:
        TopologyError: A name breaks AMQP's rules, or is too long for the ladder's keys.
    """
    names = AppNames(app_name)
    ladder = Ladder.on(facts, resolution, levels)
    builder = _Builder(names, facts, ladder)
    parts = [builder.shared()]
    for name, needs in queues.items():
        parts += [
            builder.work(name, needs),
            builder.dead(name, dead_max_age, dead_max_length),
            builder.suspect(name, poison_limit),
        ]
    return Topology().merge(
        *parts, undelivered(facts.no_delivery_limit), builder.application(), ladder.parts()
    )


@dataclass(frozen=True, slots=True)
class _Builder:
    """The parts of one application on one broker."""

    names: AppNames
    facts: BrokerFacts
    ladder: Ladder

    def shared(self) -> Topology:
        """Return the exchange all dead letters go through."""
        why = f"takes the dead letters of {self.names.app!r} to their queues' homes"
        return Topology(exchanges=(Exchange(self.names.dead, "direct", why=why),))

    def work(self, name: str, needs: QueueNeeds) -> Topology:
        """Return a consumed queue and the way delayed messages reach it."""
        if needs.uses_priority and not self.facts.quorum_priorities:
            queue = Queue(
                name,
                QueueType.CLASSIC,
                max_priority=DERIVED_MAX_PRIORITY,
                dead_letter=DeadLetter(self.names.dead, name),
                prefetch=needs.prefetch,
                why=(
                    f"holds tasks; classic, as a task on it names a priority and RabbitMQ "
                    f"{self.facts} has none on quorum queues"
                ),
            )
        else:
            queue = self._quorum(
                name,
                dead_letter=DeadLetter(self.names.dead, name, at_least_once=True),
                prefetch=needs.prefetch,
                why="holds tasks",
            )
        return Topology(queues=(queue,), bindings=(self.ladder.exit_binding(name),))

    def dead(self, name: str, max_age: float | None, max_length: int | None) -> Topology:
        """Return the home of a queue's dead letters."""
        why = f"keeps the dead letters of {name!r}"
        home = dead_queue(name)
        queue = Queue(
            home,
            message_ttl=max_age,
            max_length=max_length,
            delivery_limit=self.facts.no_delivery_limit,
            why=why,
        )
        return Topology(
            queues=(queue,), bindings=(Binding(self.names.dead, home, routing_key=name, why=why),)
        )

    def suspect(self, name: str, poison_limit: int) -> Topology:
        """Return the queue where messages that may have killed a worker run one at a time."""
        queue = self._quorum(
            suspect_queue(name),
            dead_letter=DeadLetter(self.names.dead, name, at_least_once=True),
            delivery_limit=poison_limit + POISON_MARGIN,
            prefetch=1,
            why=f"runs what may have killed a worker of {name!r} alone, one at a time",
        )
        return Topology(queues=(queue,))

    def application(self) -> Topology:
        """Return the result exchange, the completions behind it, and the forward queue."""
        names = self.names
        results_why = f"takes settlements and completions of {names.app!r} to its coordinator"
        forward_why = "lets delayed calls to an exchange out; a worker republishes them"
        return Topology(
            exchanges=(Exchange(names.results, "direct", why=results_why),),
            queues=(
                self._quorum(names.completions, why=results_why),
                self._quorum(names.forward, why=forward_why),
            ),
            bindings=(
                Binding(
                    names.results,
                    names.completions,
                    routing_key=names.completions_key,
                    why=results_why,
                ),
                self.ladder.exit_binding(names.completions),
                self.ladder.exit_binding(names.forward),
            ),
        )

    def _quorum(
        self,
        name: str,
        *,
        why: str,
        dead_letter: DeadLetter | None = None,
        delivery_limit: int | None = None,
        prefetch: int | None = None,
    ) -> Queue:
        """Return a quorum queue that loses nothing: no limit unless asked for."""
        return Queue(
            name,
            dead_letter=dead_letter,
            # At-least-once dead-lettering refuses the default, drop-head.
            overflow="reject-publish" if dead_letter else None,
            delivery_limit=(
                self.facts.no_delivery_limit if delivery_limit is None else delivery_limit
            ),
            prefetch=prefetch,
            why=why,
        )
