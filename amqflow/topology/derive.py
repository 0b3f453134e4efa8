"""The topology that follows from the queues an application uses; a file's queues get the same."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Final

from amqflow.topology.ladder import DEFAULT_LEVELS, DEFAULT_RESOLUTION, Ladder, undelivered
from amqflow.topology.model import Binding, DeadLetter, Exchange, Queue, QueueType, Topology
from amqflow.topology.names import AppNames, dead_queue, suspect_queue

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

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
    builder = Builder(AppNames(app_name), facts, Ladder.on(facts, resolution, levels), poison_limit)
    kept = Retention(dead_max_age, dead_max_length)
    parts = []
    for name, needs in queues.items():
        queue = builder.work(name, needs)
        parts += [Topology(queues=(queue,)), builder.around(queue, kept)]
    return Topology().merge(builder.shared(), *parts, builder.frame())


@dataclass(frozen=True, slots=True)
class Retention:
    """How long a queue's home keeps dead letters; None: for ever, without a bound.

    ``alarm`` is the number of them from which on somebody should look.
    """

    max_age: float | None = None
    max_length: int | None = None
    alarm: int | None = None


@dataclass(frozen=True, slots=True)
class Builder:
    """Makes the parts of one application on one broker, declared and derived queues alike."""

    names: AppNames
    facts: BrokerFacts
    ladder: Ladder
    poison_limit: int = DEFAULT_POISON_LIMIT

    def shared(self) -> Topology:
        """Return the exchange all dead letters go through unless a queue names another."""
        why = f"takes the dead letters of {self.names.app!r} to their queues' homes"
        return Topology(exchanges=(Exchange(self.names.dead, "direct", why=why),))

    def frame(self) -> Topology:
        """Return what an application needs besides its queues."""
        return undelivered(self.facts.no_delivery_limit).merge(
            self.application(), self.ladder.parts()
        )

    def work(self, name: str, needs: QueueNeeds) -> Queue:
        """Return the queue that holds the tasks of a name nobody declared."""
        if needs.uses_priority and not self.facts.quorum_priorities:
            return self.complete(
                Queue(
                    name,
                    QueueType.CLASSIC,
                    max_priority=DERIVED_MAX_PRIORITY,
                    prefetch=needs.prefetch,
                    why=(
                        f"holds tasks; classic, as a task on it names a priority and RabbitMQ "
                        f"{self.facts} has none on quorum queues"
                    ),
                )
            )
        return self.complete(Queue(name, prefetch=needs.prefetch, why="holds tasks"))

    def complete(self, queue: Queue) -> Queue:
        """Return a consumed queue with what it leaves open filled in, so that it loses nothing.

        It gets the application's dead-letter exchange, at-least-once dead-lettering where its
        type and overflow allow that, and no delivery limit.
        """
        quorum = queue.type is QueueType.QUORUM
        letter = queue.dead_letter
        if letter is None:
            certain = quorum and queue.overflow in {None, "reject-publish"}
            letter = DeadLetter(self.names.dead, queue.name, at_least_once=certain)
        return replace(
            queue,
            dead_letter=letter,
            # At-least-once dead-lettering refuses the default, drop-head.
            overflow="reject-publish" if letter.at_least_once else queue.overflow,
            delivery_limit=self.limit(queue),
        )

    def limit(self, queue: Queue) -> int | None:
        """Return a queue's delivery limit; a quorum queue that names none is to have none."""
        if queue.type is QueueType.QUORUM and queue.delivery_limit is None:
            return self.facts.no_delivery_limit
        return queue.delivery_limit

    def around(self, queue: Queue, kept: Retention, keys: Sequence[str] | None = None) -> Topology:
        """Return what belongs to a consumed queue: its way out of the ladder, home, suspects.

        Args:
            queue: As :meth:`complete` returned it.
            kept: How long its dead letters are kept.
            keys: The keys by which its home takes dead letters from its dead-letter exchange;
                None: the one they are given.
        """
        return Topology(bindings=(self.ladder.exit_binding(queue.name),)).merge(
            self.home(queue, kept, keys), self.suspect(queue)
        )

    def home(self, queue: Queue, kept: Retention, keys: Sequence[str] | None = None) -> Topology:
        """Return the home of a queue's dead letters, bound to where the broker sends them.

        Workers park through the default exchange, straight into the home: what they park arrives
        whatever exchange the queue names, and once.
        """
        why = f"keeps the dead letters of {queue.name!r}"
        name = dead_queue(queue.name)
        home = Queue(
            name,
            message_ttl=kept.max_age,
            max_length=kept.max_length,
            delivery_limit=self.facts.no_delivery_limit,
            why=why,
        )
        letter = queue.dead_letter
        assert letter is not None, "complete() gives every consumed queue one"
        if not letter.exchange:  # the default exchange takes no bindings
            return Topology(queues=(home,))
        if keys is None:
            keys = (queue.name if letter.routing_key is None else letter.routing_key,)
        copies = f"copies what the broker drops, so that {self.names.app!r} learns of its end"
        return Topology(
            queues=(home,),
            bindings=tuple(
                Binding(letter.exchange, queue_name, routing_key=key, why=reason)
                for key in keys
                for queue_name, reason in ((name, why), (self.names.dropped, copies))
            ),
        )

    def suspect(self, queue: Queue) -> Topology:
        """Return the queue where messages that may have killed a worker run one at a time."""
        letter = queue.dead_letter
        assert letter is not None, "complete() gives every consumed queue one"
        # Its messages came by its own name: the queue's is what the home is bound with.
        key = queue.name if letter.routing_key is None else letter.routing_key
        return Topology(
            queues=(
                Queue(
                    suspect_queue(queue.name),
                    dead_letter=DeadLetter(letter.exchange, key, at_least_once=True),
                    overflow="reject-publish",
                    delivery_limit=self.poison_limit + POISON_MARGIN,
                    prefetch=1,
                    why=(
                        f"runs what may have killed a worker of {queue.name!r} alone, one at a time"
                    ),
                ),
            )
        )

    def application(self) -> Topology:
        """Return the result exchange, the completions behind it, and the forward queue."""
        names = self.names
        limit = self.facts.no_delivery_limit
        results_why = f"takes settlements and completions of {names.app!r} to its coordinator"
        dropped_why = f"tells {names.app!r} of messages the broker dropped: they end their tasks"
        forward_why = "lets delayed calls to an exchange out; a worker republishes them"
        return Topology(
            exchanges=(Exchange(names.results, "direct", why=results_why),),
            queues=(
                Queue(names.completions, delivery_limit=limit, why=results_why),
                Queue(names.dropped, delivery_limit=limit, why=dropped_why),
                Queue(names.forward, delivery_limit=limit, why=forward_why),
            ),
            bindings=(
                Binding(
                    names.results,
                    names.completions,
                    routing_key=names.completions_key,
                    why=results_why,
                ),
                self.ladder.exit_binding(names.completions),
                self.ladder.exit_binding(names.dropped),
                self.ladder.exit_binding(names.forward),
            ),
        )
