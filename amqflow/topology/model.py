"""What a broker holds, as values: exchanges, queues, bindings and routes, compared by content.

Durations are seconds, sizes are bytes; :meth:`Queue.declare_arguments` writes the broker's units.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields
from enum import StrEnum
from functools import cached_property
from typing import TYPE_CHECKING, Any, Final, TypeVar

from amqflow.abc import DeadReason
from amqflow.errors import TopologyError
from amqflow.topology.names import MAX_NAME_BYTES, check_name, encode_name
from amqflow.topology.units import MAX_DURATION

if TYPE_CHECKING:
    from collections.abc import Iterable

#: Why a queue's messages are parked unless it says otherwise: everything that cannot be told by
#: the caller's own choice (an expiry, a revoke).
DEFAULT_PARK: Final = frozenset(DeadReason) - {DeadReason.EXPIRED, DeadReason.REVOKED}

#: RabbitMQ's classic queues allow more; above 10 each level costs an Erlang process and memory
#: (RabbitMQ docs, "Priority Support in Queues").
MAX_PRIORITY: Final = 255


class QueueType(StrEnum):
    """RabbitMQ's queue types, as ``x-queue-type`` writes them."""

    QUORUM = "quorum"
    CLASSIC = "classic"
    STREAM = "stream"


class DestinationKind(StrEnum):
    """What a binding leads to."""

    QUEUE = "queue"
    EXCHANGE = "exchange"


class ImpossiblePart(TopologyError):
    """A part that no broker takes as written; ``problems`` are pairs of a field and a sentence."""

    def __init__(self, label: str, problems: Sequence[tuple[str, str]]) -> None:
        """Lead the message with the worst problem."""
        super().__init__(f"{label}: {problems[0][1]}")
        self.problems = tuple(problems)


@dataclass(frozen=True, slots=True)
class Exchange:
    """An exchange. ``why`` is a sentence for people and takes no part in comparing."""

    name: str
    type: str = "direct"
    durable: bool = True
    auto_delete: bool = False
    internal: bool = False
    arguments: Mapping[str, Any] = field(default_factory=dict, hash=False)
    why: str = field(default="", compare=False)

    def __post_init__(self) -> None:
        """Refuse a name the broker would refuse."""
        check_name("exchange", self.name)

    @property
    def label(self) -> str:
        """``exchange 'tasks'``, for messages."""
        return f"exchange {self.name!r}"

    def declare_arguments(self) -> dict[str, Any]:
        """Return the arguments ``exchange.declare`` sends."""
        return dict(self.arguments)


@dataclass(frozen=True, slots=True)
class DeadLetter:
    """Where a queue's dead letters go.

    Args:
        exchange: The dead-letter exchange.
        routing_key: The key they get; None keeps each message's own.
        at_least_once: The broker keeps a dead letter until its new queue has confirmed it.
            Quorum queues only; needs ``overflow="reject-publish"`` (RabbitMQ docs, "Quorum
            Queues", at-least-once dead-lettering).
    """

    exchange: str
    routing_key: str | None = None
    at_least_once: bool = False


@dataclass(frozen=True, slots=True)
class Queue:
    """A queue. Times are seconds; ``None`` means "not set".

    ``prefetch`` and ``park`` are for workers, not for the broker. ``arguments`` holds what is
    not modelled here and is passed through. ``why`` takes no part in comparing.
    """

    name: str
    type: QueueType = QueueType.QUORUM
    durable: bool = True
    exclusive: bool = False
    auto_delete: bool = False
    max_priority: int | None = None
    message_ttl: float | None = None
    expires: float | None = None
    max_length: int | None = None
    max_length_bytes: int | None = None
    #: Streams only: how long the log is kept.
    max_age: float | None = None
    overflow: str | None = None
    dead_letter: DeadLetter | None = None
    delivery_limit: int | None = None
    single_active_consumer: bool = False
    prefetch: int | None = None
    park: frozenset[DeadReason] = DEFAULT_PARK
    arguments: Mapping[str, Any] = field(default_factory=dict, hash=False)
    why: str = field(default="", compare=False)

    def __post_init__(self) -> None:
        """Refuse what a broker would refuse, or would silently do otherwise."""
        check_name("queue", self.name)
        if problems := tuple(_queue_problems(self)):
            raise ImpossiblePart(self.label, problems)

    @property
    def label(self) -> str:
        """``queue 'email'``, for messages."""
        return f"queue {self.name!r}"

    def declare_arguments(self) -> dict[str, Any]:
        """Return the arguments ``queue.declare`` sends, the broker's ``x-`` names and units."""
        letter = self.dead_letter
        modelled: dict[str, Any] = {
            "x-queue-type": self.type.value,
            "x-max-priority": self.max_priority,
            "x-message-ttl": _milliseconds(self.message_ttl),
            "x-expires": _milliseconds(self.expires),
            "x-max-length": self.max_length,
            "x-max-length-bytes": self.max_length_bytes,
            # Streams take their age as text; "s" is the smallest unit they know.
            "x-max-age": None if self.max_age is None else f"{max(1, round(self.max_age))}s",
            "x-overflow": self.overflow,
            "x-dead-letter-exchange": letter and letter.exchange,
            "x-dead-letter-routing-key": letter and letter.routing_key,
            "x-dead-letter-strategy": "at-least-once" if letter and letter.at_least_once else None,
            "x-delivery-limit": self.delivery_limit,
            "x-single-active-consumer": self.single_active_consumer or None,
        }
        return {key: value for key, value in modelled.items() if value is not None} | dict(
            self.arguments
        )


def _milliseconds(seconds: float | None) -> int | None:
    return None if seconds is None else round(seconds * 1000)


#: What each queue type does not take, with what the broker answers to it (tried on 3.10.8).
_NOT_ON: Final[Mapping[QueueType, tuple[str, ...]]] = {
    QueueType.QUORUM: ("exclusive", "auto_delete", "max_age"),
    QueueType.CLASSIC: ("delivery_limit", "max_age"),
    QueueType.STREAM: (
        "exclusive",
        "auto_delete",
        "max_priority",
        "message_ttl",
        "dead_letter",
        "delivery_limit",
        "overflow",
        "max_length",
        "single_active_consumer",
    ),
}


def _queue_problems(queue: Queue) -> Iterable[tuple[str, str]]:
    """Name what is wrong with a queue as written, field by field, worst first."""
    yield from _type_problems(queue)
    yield from _number_problems(queue)
    if queue.dead_letter:
        yield from _dead_letter_problems(queue, queue.dead_letter)
    modelled = _modelled_arguments()
    for key in queue.arguments:
        if key in modelled:
            yield (
                "arguments",
                f"argument {key} has a field of its own: write {modelled[key]} instead",
            )


def _type_problems(queue: Queue) -> Iterable[tuple[str, str]]:
    for name in _NOT_ON[queue.type]:
        value = getattr(queue, name)
        if value is not None and value is not False:
            yield name, f"a {queue.type} queue has no {name}; leave it out or change the type"
    if queue.type is not QueueType.CLASSIC and not queue.durable:
        yield (
            "durable",
            f"a {queue.type} queue is always durable; leave durable out or make it classic",
        )


def _number_problems(queue: Queue) -> Iterable[tuple[str, str]]:
    if queue.max_priority is not None and not 1 <= queue.max_priority <= MAX_PRIORITY:
        text = f"max_priority is {queue.max_priority}; RabbitMQ takes 1 to {MAX_PRIORITY}"
        yield "max_priority", text
    for name in ("message_ttl", "max_length", "max_length_bytes", "max_age", "prefetch"):
        value = getattr(queue, name)
        if value is not None and value < 0:
            yield name, f"{name} is {value}; it cannot be negative"
    for name in ("message_ttl", "expires"):
        if (getattr(queue, name) or 0) > MAX_DURATION:
            yield name, f"{name} is {getattr(queue, name)} s; RabbitMQ takes at most 3650 days"
    if queue.expires is not None and round(queue.expires * 1000) < 1:
        yield "expires", f"expires is {queue.expires} s; the broker takes 1 ms or more"


def _dead_letter_problems(queue: Queue, letter: DeadLetter) -> Iterable[tuple[str, str]]:
    where = "dead_letter"
    if letter.at_least_once and queue.type is not QueueType.QUORUM:
        yield where, "at-least-once dead-lettering needs a quorum queue"
    if letter.at_least_once and queue.overflow != "reject-publish":
        yield where, "at-least-once dead-lettering needs overflow 'reject-publish'"
    if letter.routing_key is not None:
        for problem in _key_problems("dead-letter routing key", letter.routing_key):
            yield where, problem


def _modelled_arguments() -> dict[str, str]:
    """Return the ``x-`` arguments that are fields of :class:`Queue`, and the fields' names."""
    return {
        "x-queue-type": "type",
        "x-dead-letter-exchange": "dead_letter",
        "x-dead-letter-routing-key": "dead_letter",
        "x-dead-letter-strategy": "dead_letter",
        **{
            "x-" + name.replace("_", "-"): name
            for name in (
                "max_priority",
                "message_ttl",
                "expires",
                "max_length",
                "max_length_bytes",
                "max_age",
                "overflow",
                "delivery_limit",
                "single_active_consumer",
            )
        },
    }


def _key_problems(what: str, key: str) -> Iterable[str]:
    size = len(encode_name(what, key))
    if size > MAX_NAME_BYTES:
        yield f"the {what} {key[:40]!r}… has {size} bytes; AMQP allows {MAX_NAME_BYTES}"


@dataclass(frozen=True, slots=True)
class Binding:
    """A way from an exchange to a queue or to another exchange."""

    source: str
    destination: str
    destination_kind: DestinationKind = DestinationKind.QUEUE
    routing_key: str = ""
    arguments: Mapping[str, Any] = field(default_factory=dict, hash=False)
    why: str = field(default="", compare=False)

    def __post_init__(self) -> None:
        """Refuse a binding to the default exchange, or with a key too long for AMQP."""
        if not self.source:
            raise TopologyError(
                f"{self.label}: the default exchange takes no bindings; every queue is already "
                "bound to it by its name"
            )
        for problem in _key_problems("routing key", self.routing_key):
            raise TopologyError(f"{self.label}: {problem}")

    @property
    def label(self) -> str:
        """``binding 'tasks' --email.*--> queue 'email'``, for messages."""
        return (
            f"binding {self.source!r} --{self.routing_key}--> "
            f"{self.destination_kind} {self.destination!r}"
        )


@dataclass(frozen=True, slots=True)
class Route:
    """A rule that sends the tasks matching a glob somewhere; the first match wins.

    ``broadcast`` says that reaching several queues is meant.
    """

    task: str = "*"
    exchange: str | None = None
    routing_key: str | None = None
    queue: str | None = None
    priority: int | None = None
    broadcast: bool = False


Part = TypeVar("Part", Exchange, Queue)


@dataclass(frozen=True)
class Topology:
    """A set of exchanges, queues and bindings that belong together, and the routes into them.

    Equal parts given twice count once; parts of one name that differ are refused.
    """

    exchanges: tuple[Exchange, ...] = ()
    queues: tuple[Queue, ...] = ()
    bindings: tuple[Binding, ...] = ()
    routes: tuple[Route, ...] = ()

    def __post_init__(self) -> None:
        """Fold equal parts into one and refuse contradicting ones."""
        object.__setattr__(self, "exchanges", _unique(self.exchanges))
        object.__setattr__(self, "queues", _unique(self.queues))
        seen: dict[tuple[str, ...], Binding] = {}
        for binding in self.bindings:
            seen.setdefault(_binding_key(binding), binding)
        object.__setattr__(self, "bindings", tuple(seen.values()))

    @cached_property
    def exchanges_by_name(self) -> Mapping[str, Exchange]:
        """Every exchange under its name."""
        return {exchange.name: exchange for exchange in self.exchanges}

    @cached_property
    def queues_by_name(self) -> Mapping[str, Queue]:
        """Every queue under its name."""
        return {queue.name: queue for queue in self.queues}

    @cached_property
    def bindings_by_source(self) -> Mapping[str, tuple[Binding, ...]]:
        """Every exchange's bindings, in order."""
        found: dict[str, list[Binding]] = {}
        for binding in self.bindings:
            found.setdefault(binding.source, []).append(binding)
        return {source: tuple(bindings) for source, bindings in found.items()}

    def exchange(self, name: str) -> Exchange:
        """Return an exchange by name.

        Raises:
            TopologyError: There is none of this name.
        """
        return _lookup("exchange", name, self.exchanges_by_name)

    def queue(self, name: str) -> Queue:
        """Return a queue by name.

        Raises:
            TopologyError: There is none of this name.
        """
        return _lookup("queue", name, self.queues_by_name)

    def merge(self, *others: Topology) -> Topology:
        """Return one topology holding the parts of all.

        Raises:
            TopologyError: Two parts of one name differ; the message names the first difference.
        """
        parts = (self, *others)
        return Topology(
            exchanges=tuple(exchange for part in parts for exchange in part.exchanges),
            queues=tuple(queue for part in parts for queue in part.queues),
            bindings=tuple(binding for part in parts for binding in part.bindings),
            routes=tuple(route for part in parts for route in part.routes),
        )


def _binding_key(binding: Binding) -> tuple[str, ...]:
    return (
        binding.source,
        binding.destination_kind,
        binding.destination,
        binding.routing_key,
        # Two bindings that differ in arguments only are two bindings (AMQP 0-9-1, queue.bind).
        repr(sorted(binding.arguments.items())),
    )


def _unique(parts: Iterable[Part]) -> tuple[Part, ...]:
    seen: dict[str, Part] = {}
    for part in parts:
        other = seen.setdefault(part.name, part)
        if other != part:
            raise TopologyError(_difference(other, part))
    return tuple(seen.values())


def _difference(one: Part, other: Part) -> str:
    """Say in which argument two parts of one name differ, with both values."""
    for slot in fields(one):
        if not slot.compare:
            continue
        left: Any = getattr(one, slot.name)
        right: Any = getattr(other, slot.name)
        if left == right:
            continue
        name: str = slot.name
        if isinstance(left, Mapping):
            name = next(key for key in sorted({*left, *right}) if left.get(key) != right.get(key))
            left, right = left.get(name), right.get(name)
        return (
            f"{one.label} is declared twice with different {name}: {_show(left)} and "
            f"{_show(right)}; make them equal or give one another name"
        )
    raise AssertionError(f"{one.label} differs nowhere")


def _show(value: object) -> str:
    if value is None:
        return "not set"
    return str(value) if isinstance(value, StrEnum) else repr(value)


def _lookup(kind: str, name: str, known: Mapping[str, Part]) -> Part:
    try:
        return known[name]
    except KeyError:
        names = ", ".join(sorted(known)) or "none"
        raise TopologyError(f"the topology has no {kind} {name!r}; it has: {names}") from None
