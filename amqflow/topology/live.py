"""What a broker holds now, as values; read by ``provision.live``, compared by ``topology.diff``.

Lenient where the declared model is strict: a broker holds names and arguments that no file may
declare.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING, Any, Final, TypeAlias

from amqflow.topology.names import MOVING

if TYPE_CHECKING:
    from collections.abc import Mapping

    from amqflow.topology.policy import Policy

#: Units of ``x-max-age`` in seconds (RabbitMQ docs, "Streams").
_AGES: Final = {"Y": 31536000, "M": 2592000, "D": 86400, "h": 3600, "m": 60, "s": 1}


@dataclass(frozen=True, slots=True)
class LiveExchange:
    """An exchange as the broker has it."""

    name: str
    type: str
    durable: bool = True
    auto_delete: bool = False
    internal: bool = False
    arguments: Mapping[str, Any] = field(default_factory=dict, hash=False)
    #: Only what a refusal named is known to differ; more may.
    partial: bool = False


@dataclass(frozen=True, slots=True)
class LiveQueue:
    """A queue as the broker has it; ``messages`` are ready and unacked ones, None: not told."""

    name: str
    type: str
    durable: bool = True
    auto_delete: bool = False
    exclusive: bool = False
    arguments: Mapping[str, Any] = field(default_factory=dict, hash=False)
    messages: int | None = field(default=None, compare=False)
    #: Only what a refusal named is known to differ; more may.
    partial: bool = False


@dataclass(frozen=True, slots=True)
class LiveBinding:
    """A binding as the broker has it; ``kind`` is ``"queue"`` or ``"exchange"``."""

    source: str
    kind: str
    destination: str
    routing_key: str = ""
    arguments: Mapping[str, Any] = field(default_factory=dict, hash=False)

    @property
    def key(self) -> tuple[str, str, str, str, str]:
        """What tells it from every other one."""
        return (
            self.source,
            self.kind,
            self.destination,
            self.routing_key,
            repr(sorted(self.arguments.items())),
        )


LivePart: TypeAlias = LiveExchange | LiveQueue | LiveBinding


@dataclass(frozen=True)
class Live:
    """A virtual host's content, as far as it could be seen.

    Args:
        exchanges: Exchanges; the broker's own (``amq.*``, the default one) are left out.
        queues: Queues.
        bindings: Bindings; those of the default exchange are left out.
        policies: Policies.
        complete: All of the virtual host was seen; else only the parts asked about.
        unseen: What could not be seen, a sentence each.
    """

    exchanges: tuple[LiveExchange, ...] = ()
    queues: tuple[LiveQueue, ...] = ()
    bindings: tuple[LiveBinding, ...] = ()
    policies: tuple[Policy, ...] = ()
    complete: bool = True
    unseen: tuple[str, ...] = ()

    @cached_property
    def exchanges_by_name(self) -> Mapping[str, LiveExchange]:
        """Every exchange under its name."""
        return {part.name: part for part in self.exchanges}

    @cached_property
    def queues_by_name(self) -> Mapping[str, LiveQueue]:
        """Every queue under its name."""
        return {part.name: part for part in self.queues}

    @cached_property
    def policies_by_name(self) -> Mapping[str, Policy]:
        """Every policy under its name."""
        return {part.name: part for part in self.policies}

    @cached_property
    def bindings_by_key(self) -> Mapping[tuple[str, ...], LiveBinding]:
        """Every binding under what tells it from others."""
        return {part.key: part for part in self.bindings}

    @cached_property
    def moving(self) -> frozenset[str]:
        """Names of the queues whose replacement was begun and is not finished."""
        names = [*self.exchanges_by_name, *self.queues_by_name]
        return frozenset(
            name.removeprefix(MOVING).rpartition("/")[0]
            for name in names
            if name.startswith(MOVING)
        )


def comparable(arguments: Mapping[str, Any]) -> dict[str, Any]:
    """Return a queue's arguments so that equal meanings are equal values.

    The type is compared by itself: a queue declared without ``x-queue-type`` has one all the
    same. A stream's age is text with a unit.
    """
    found = {key: value for key, value in arguments.items() if key != "x-queue-type"}
    age = found.get("x-max-age")
    if isinstance(age, str) and (match := re.fullmatch(r"(\d+)([YMDhms])", age)):
        found["x-max-age"] = int(match[1]) * _AGES[match[2]]
    return found
