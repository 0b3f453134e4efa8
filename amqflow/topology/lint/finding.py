"""What lint says: findings, and the analyzers that make them."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from functools import cached_property
from typing import TYPE_CHECKING

from amqflow.topology.declaration import derived_names
from amqflow.topology.facts import BrokerFacts
from amqflow.topology.names import OWN_PREFIX
from amqflow.topology.reach import reach

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    from amqflow.topology.declaration import Declaration
    from amqflow.topology.model import Queue, Topology
    from amqflow.topology.positions import Path, Place


class Level(StrEnum):
    """How much a finding weighs: a note alone does not fail a build."""

    ERROR = "error"
    WARNING = "warning"
    NOTE = "note"


@dataclass(frozen=True, slots=True)
class Hit:
    """What an analyzer found: where, what, and what to write instead."""

    path: Path
    text: str
    #: Other than the analyzer's own level.
    level: Level | None = None


@dataclass(frozen=True, slots=True)
class Analyzer:
    """Looks for one danger. ``docs/lint.md`` has a section per ``code``."""

    code: str
    title: str
    level: Level
    check: Callable[[Subject], Iterator[Hit]]


@dataclass(frozen=True, slots=True)
class Finding:
    """One danger in one place."""

    code: str
    title: str
    level: Level
    text: str
    path: Path
    source: str
    place: Place | None
    #: Why somebody silenced it; None where nobody did.
    ignored: str | None = None


@dataclass(frozen=True)
class Subject:
    """What analyzers look at.

    Args:
        declared: The file.
        facts: The broker's version; None where nobody told, and then nothing is said about
            versions.
        app_name: Whose derived parts are meant.
    """

    declared: Declaration
    facts: BrokerFacts | None = None
    app_name: str = "app"

    @cached_property
    def topology(self) -> Topology:
        """Everything, derived parts too."""
        return self.declared.outline(self.app_name, self.facts or BrokerFacts((4, 3)))

    @cached_property
    def consumed(self) -> tuple[Queue, ...]:
        """The queues workers take from, as they will be declared."""
        return tuple(map(self.topology.queue, self.declared.consumed))

    @cached_property
    def homes(self) -> Mapping[str, str]:
        """The consumed queue of each home."""
        return {f"{name}.dead": name for name in self.declared.consumed}

    @cached_property
    def others(self) -> tuple[Queue, ...]:
        """The file's queues that no worker takes from and that are no home or suspects' queue."""
        skipped = derived_names(self.declared.consumed)
        return tuple(
            queue
            for queue in self.declared.queues
            if queue.name not in skipped and queue.name not in self.declared.consumed
        )

    def keys_of(self, queue: Queue) -> tuple[str, ...]:
        """Return the keys messages reach a queue with, as far as bindings spell them out."""
        own = [
            binding.routing_key
            for binding in self.topology.bindings
            if binding.destination_kind == "queue"
            and binding.destination == queue.name
            and not binding.source.startswith(OWN_PREFIX)
        ]
        return (queue.name, *own)

    def dead_letters_reach(self, queue: Queue) -> tuple[str, ...]:
        """Return the queues a queue's dead letters may arrive in, each once."""
        letter = queue.dead_letter
        if letter is None:
            return ()
        keys = self.keys_of(queue) if letter.routing_key is None else (letter.routing_key,)
        found = [name for key in keys for name in reach(self.topology, letter.exchange, key).queues]
        return tuple(dict.fromkeys(found))

    def dead_exchange_unknown(self, queue: Queue) -> bool:
        """Whether nobody can tell offline where a queue's dead letters go."""
        letter = queue.dead_letter
        return letter is not None and bool(
            letter.exchange and reach(self.topology, letter.exchange, queue.name).unknown
        )
