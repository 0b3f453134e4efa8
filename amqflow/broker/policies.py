"""Policies: what an operator adds to queues and exchanges whose names match a pattern.

Of several that match, the one of the highest priority holds
(https://www.rabbitmq.com/docs/parameters#policies).
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import Any

from amqflow.broker.queues.arguments import CLASSIC, QUORUM


@dataclass(frozen=True)
class Policy:
    """One policy of a virtual host; ``apply_to`` as RabbitMQ's HTTP API writes it."""

    name: str
    pattern: str
    definition: dict[str, Any] = field(hash=False)
    apply_to: str = "all"
    priority: int = 0

    def covers_queue(self, name: str, kind: str) -> bool:
        """Whether it holds for a queue."""
        kinds = {
            "all": True,
            "queues": True,
            "classic_queues": kind == CLASSIC,
            "quorum_queues": kind == QUORUM,
        }
        return kinds.get(self.apply_to, False) and self._matches(name)

    def covers_exchange(self, name: str) -> bool:
        """Whether it holds for an exchange."""
        return self.apply_to in {"all", "exchanges"} and self._matches(name)

    def _matches(self, name: str) -> bool:
        return re.search(self.pattern, name) is not None


def strongest(policies: list[Policy]) -> Policy | None:
    """Return the policy that holds among those that match."""
    return max(policies, key=lambda policy: policy.priority, default=None)
