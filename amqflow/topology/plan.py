"""A plan: the changes that bring a broker to what is declared, each a value with its reason."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from enum import StrEnum
from typing import TYPE_CHECKING, Any, ClassVar, Final, TypeAlias

from amqflow.topology.model import Binding, Exchange, Queue
from amqflow.topology.policy import Policy

if TYPE_CHECKING:
    from collections.abc import Iterator

    from amqflow.topology.live import LiveBinding, LiveExchange, LiveQueue

Declared: TypeAlias = Exchange | Queue | Binding | Policy


class Action(StrEnum):
    """What a change does."""

    CREATE = "create"
    UPDATE = "update"
    REPLACE = "replace"
    DELETE = "delete"


@dataclass(frozen=True, slots=True)
class Difference:
    """One argument that differs; None stands for "not set"."""

    argument: str
    live: Any
    declared: Any


@dataclass(frozen=True, slots=True)
class Create:
    """A part that is declared and not there.

    Args:
        part: What is created.
        reason: Why, a sentence for people.
        source: Where it is declared, ``topology/shop.yaml:12:3``, or what it is derived for.
    """

    action: ClassVar[Action] = Action.CREATE
    part: Declared
    reason: str
    source: str


@dataclass(frozen=True, slots=True)
class Update:
    """A policy that differs: the broker changes it in place."""

    action: ClassVar[Action] = Action.UPDATE
    part: Policy
    reason: str
    source: str
    differences: tuple[Difference, ...]


@dataclass(frozen=True, slots=True)
class Replace:
    """A part the broker cannot change in place; done only where a migration was asked for.

    ``begun``: one was begun and is not finished; it goes on where it stopped.
    """

    action: ClassVar[Action] = Action.REPLACE
    part: Exchange | Queue
    reason: str
    source: str
    differences: tuple[Difference, ...] = ()
    begun: bool = False


@dataclass(frozen=True, slots=True)
class Delete:
    """A part that ``owns`` takes in and nothing declares; done only where pruning was asked for."""

    action: ClassVar[Action] = Action.DELETE
    part: LiveExchange | LiveQueue | LiveBinding | Policy
    reason: str
    source: str


Change: TypeAlias = Create | Update | Replace | Delete

#: Words of a change's ``kind``, by the class of its part.
_KINDS: Final = {
    "Exchange": "exchange",
    "LiveExchange": "exchange",
    "Queue": "queue",
    "LiveQueue": "queue",
    "Binding": "binding",
    "LiveBinding": "binding",
    "Policy": "policy",
}


def kind_of(change: Change) -> str:
    """Return ``exchange``, ``queue``, ``binding`` or ``policy``."""
    return _KINDS[type(change.part).__name__]


def name_of(change: Change) -> str:
    """Return the name of a change's part; a binding's is ``source --key--> destination``."""
    part: Any = change.part
    if kind_of(change) != "binding":
        return str(part.name)
    return f"{part.source} --{part.routing_key}--> {part.destination}"


@dataclass(frozen=True)
class Plan:
    """Changes in the order they are applied, and what they were worked out from.

    Args:
        changes: What is done.
        kept: Deletes that are not done, as pruning was not asked for.
        unverified: Bindings nobody could see, between parts that are there. They are bound again,
            which the broker takes without a word, and count as no change.
        unseen: What could not be seen of the broker, a sentence each.
        unchanged: Parts that are as declared.
        fingerprint: Tells the declared and the live state the plan was made from; another one
            means that the plan is stale.
    """

    changes: tuple[Change, ...] = ()
    kept: tuple[Delete, ...] = ()
    unverified: tuple[Create, ...] = ()
    unseen: tuple[str, ...] = ()
    unchanged: int = 0
    fingerprint: str = field(default="", compare=False)

    def __bool__(self) -> bool:
        """Whether there is anything to do."""
        return bool(self.changes)

    @property
    def replaces(self) -> tuple[Replace, ...]:
        """The changes that need a migration."""
        return tuple(change for change in self.changes if isinstance(change, Replace))

    def count(self, action: Action) -> int:
        """Return how many changes do this."""
        return Counter(change.action for change in self.changes)[action]

    def of(self, action: Action, kind: str) -> Iterator[Change]:
        """Yield the changes of one action on one kind of part."""
        for change in self.changes:
            if change.action is action and kind_of(change) == kind:
                yield change
