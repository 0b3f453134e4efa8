"""What a RabbitMQ of a given version knows, so that no argument is sent to one that does not."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Final

from amqflow.errors import TopologyError

#: The oldest RabbitMQ with TTL and at-least-once dead-lettering on quorum queues.
OLDEST: Final = (3, 10)


@dataclass(frozen=True, slots=True)
class BrokerFacts:
    """The broker's version and the answers that follow from it.

    ``version`` is what the broker calls itself when a client connects, ``(3, 10, 8)``. Where the
    answers come from: RabbitMQ's release notes, and tries on 3.10.8.
    """

    version: tuple[int, ...]

    def __post_init__(self) -> None:
        """Refuse a broker whose quorum queues cannot carry what is promised here."""
        if self.version[:2] < OLDEST:
            raise TopologyError(
                f"RabbitMQ {self} is too old: amqflow needs 3.10 or later, the first with TTL and "
                "at-least-once dead-lettering on quorum queues"
            )

    @classmethod
    def parse(cls, version: str) -> BrokerFacts:
        """Read a version as brokers write it: ``"3.10.8"``, ``"4.1.0-rc.1"``, ``"4.0.5+1"``.

        Raises:
            TopologyError: It does not start with two numbers, or is older than 3.10.
        """
        found = re.match(r"(\d+)\.(\d+)(?:\.(\d+))?", version)
        if found is None:
            raise TopologyError(
                f"the broker calls its version {version!r}; expected one like 4.0.5"
            )
        return cls(tuple(int(part) for part in found.groups() if part is not None))

    def __str__(self) -> str:
        return ".".join(map(str, self.version))

    @property
    def no_delivery_limit(self) -> int | None:
        """The ``x-delivery-limit`` that means "none": left out below 4.0, ``-1`` from there on.

        4.0 made 20 the default. On 3.10, ``-1`` drops a message at its first return (tried).
        """
        return -1 if self.version >= (4, 0) else None

    @property
    def quorum_priorities(self) -> bool:
        """Whether quorum queues deliver strictly by priority (4.3: 32 levels, always on).

        4.0 to 4.2 know two levels, mixed 2:1, which is no order.
        """
        return self.version >= (4, 3)

    @property
    def expires_by_priority(self) -> bool:
        """Whether a high priority hides expired messages of a lower one (4.0 to 4.2).

        There, a quorum queue looks at the head of its high-priority messages first, so messages
        of both kinds need a ladder of their own.
        """
        return (4, 0) <= self.version < (4, 3)
