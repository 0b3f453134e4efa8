"""Policies: arguments the broker itself gives to queues and exchanges by pattern."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from collections.abc import Mapping

    from amqflow.topology.model import Exchange, Queue

#: What a policy may apply to (RabbitMQ docs, "Parameters and Policies").
APPLY_TO: Final = ("queues", "classic_queues", "quorum_queues", "streams", "exchanges", "all")


@dataclass(frozen=True, slots=True)
class Policy:
    """A policy of the broker.

    Args:
        name: Its name in the vhost.
        pattern: A regular expression that finds names (the broker searches, it does not match
            from the start to the end).
        definition: The broker's own keys and units, ``{"message-ttl": 60000}``.
        apply_to: One of :data:`APPLY_TO`.
        priority: Of the policies that find a name only the highest counts.
    """

    name: str
    pattern: str
    definition: Mapping[str, Any] = field(default_factory=dict, hash=False)
    apply_to: str = "queues"
    priority: int = 0

    def finds(self, part: Queue | Exchange) -> bool:
        """Return whether its pattern and kind take in a part."""
        if not re.search(self.pattern, part.name):
            return False
        if not hasattr(part, "dead_letter"):  # an exchange
            return self.apply_to in {"exchanges", "all"}
        kinds = {"queues", "all", "streams" if part.type == "stream" else f"{part.type}_queues"}
        return self.apply_to in kinds


def in_force(policies: tuple[Policy, ...], part: Queue | Exchange) -> Policy | None:
    """Return the policy a broker applies to a part: the one of the highest priority."""
    found = [policy for policy in policies if policy.finds(part)]
    return max(found, key=lambda policy: policy.priority, default=None)
