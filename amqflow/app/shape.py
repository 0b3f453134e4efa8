"""What an application declares of its broker, and what follows from its tasks' queues."""

from __future__ import annotations

import os
from dataclasses import replace
from typing import TYPE_CHECKING

from amqflow.errors import ConfigurationError
from amqflow.topology import (
    BrokerFacts,
    Declaration,
    Delays,
    QueueNeeds,
    Topology,
    derive,
)
from amqflow.topology.declaration import derived_names
from amqflow.topology.names import OWN_PREFIX
from amqflow.topology.reach import reach
from amqflow.topology.routes import Address, Destination, Routes

if TYPE_CHECKING:
    from collections.abc import Iterable

    from amqflow.app.application import App


class Shape:
    """The topology of one application by the settings in force; each part is made once."""

    def __init__(self, app: App) -> None:
        """Read nothing yet: a file is read when it is first asked for."""
        self._app = app
        self._routes: tuple[object, Routes] | None = None
        self._declaration: tuple[object, Declaration | None] | None = None

    @property
    def declaration(self) -> Declaration | None:
        """What the application's topology file (or Topology) declares; None: all is derived.

        Raises:
            TopologyError: the file cannot be read, or something in it is wrong.
        """
        wanted = self._app.conf.settings.topology
        if self._declaration is None or self._declaration[0] is not wanted:
            self._declaration = (wanted, _declared(wanted))
        declared, settings = self._declaration[1], self._app.conf.settings
        if declared is not None and isinstance(wanted, Topology):
            # It says nothing of delays: the settings do.
            delays = Delays(settings.delay_resolution, settings.delay_levels)
            if declared.delays != delays:
                declared = replace(declared, delays=delays)
                self._declaration = (wanted, declared)
        return declared

    @property
    def delays(self) -> Delays:
        """The shape of the delay ladder: the topology file's, else the settings'."""
        if self.declaration is not None:
            return self.declaration.delays
        settings = self._app.conf.settings
        return Delays(settings.delay_resolution, settings.delay_levels)

    @property
    def topology_file(self) -> str | None:
        """The path of the topology file, where there is one."""
        wanted = self._app.conf.settings.topology
        return None if wanted is None or isinstance(wanted, Topology) else os.fspath(wanted)

    @property
    def routes(self) -> Routes:
        """Offline routing by the settings in force; the file's routes come after theirs."""
        settings = self._app.conf.settings
        if self._routes is None or self._routes[0] is not settings:
            rules = settings.task_routes
            if self.declaration is not None and self.declaration.routes:
                own = [] if rules is None else [rules] if isinstance(rules, dict) else [*rules]
                rules = [*own, *self.declaration.routes]
            self._routes = (settings, Routes(rules, default_queue=settings.task_default_queue))
        return self._routes[1]

    def reached(self, destination: Destination) -> tuple[str, ...]:
        """Return the consumed queues a destination leads to, as far as that is known offline."""
        if destination.queue is not None:
            return (destination.queue,)
        declared = self.declaration
        if declared is None:
            return ()
        found = reach(declared.own, destination.exchange, destination.routing_key).queues
        return tuple(queue for queue in found if queue in declared.consumed)

    def work_queues(self, names: Iterable[str] | None = None) -> dict[str, QueueNeeds]:
        """Return the queues this application's tasks use, and what they need of them.

        Args:
            names: only these; a queue no task names is there too, with plain needs.
        """
        declared = self.declaration
        default_queue = self._app.conf.settings.task_default_queue
        priorities: dict[str, bool] = {}
        if declared is None or default_queue in declared.consumed:
            priorities[default_queue] = False
        default = self._app.conf.settings.task_default_priority is not None
        for task in self._app.tasks.values():
            options = task.options
            own = Address(options.queue, options.exchange, options.routing_key, options.priority)
            destination = self.routes.resolve(task.name, own=own)
            uses = default or destination.priority is not None
            for queue in self.reached(destination):
                priorities[queue] = priorities.get(queue, False) or uses
        if names is not None:
            priorities = {name: priorities.get(name, default) for name in names}
        return {name: QueueNeeds(uses_priority=uses) for name, uses in priorities.items()}

    def derived_topology(self, facts: BrokerFacts, names: Iterable[str] | None = None) -> Topology:
        """Return what the broker must hold: what is declared with what follows from it.

        Args:
            facts: the broker's version.
            names: where nothing is declared, only these queues; None: all of the tasks'.

        Raises:
            TopologyError: the topology file is wrong, or this broker cannot hold it.
        """
        settings = self._app.conf.settings
        if self.declaration is not None:
            return self.declaration.topology(
                self._app.main, facts, poison_limit=settings.poison_limit
            )
        return derive(
            self._app.main,
            self.work_queues(names),
            facts,
            poison_limit=settings.poison_limit,
            dead_max_age=settings.dead_max_age,
            dead_max_length=settings.dead_max_length,
            resolution=settings.delay_resolution,
            levels=settings.delay_levels,
        )


def _declared(wanted: object) -> Declaration | None:
    """Return the declaration of a ``topology`` setting."""
    if wanted is None:
        return None
    if isinstance(wanted, Topology):
        queues = tuple(wanted.queues_by_name)
        derived = derived_names(queues)
        return Declaration(
            "topology=",
            wanted.exchanges,
            wanted.queues,
            wanted.bindings,
            wanted.routes,
            consumed=tuple(
                name for name in queues if name not in derived and not name.startswith(OWN_PREFIX)
            ),
        )
    if not isinstance(wanted, str | os.PathLike):
        text = f"topology is the path of a file or a Topology, not {type(wanted).__name__}"
        raise ConfigurationError(text)
    # YAML and the file's model are for those who have one.
    from amqflow.topology.load import load  # noqa: PLC0415

    return load(os.fspath(wanted))
