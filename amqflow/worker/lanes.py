"""What the worker consumes: a lane per queue, with its share of the worker's one budget."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from amqflow.errors import ConfigurationError
from amqflow.topology import suspect_queue
from amqflow.topology.model import DEFAULT_PARK

if TYPE_CHECKING:
    from collections.abc import Mapping

    from amqflow.abc import DeadReason


@dataclass(frozen=True, slots=True)
class Lane:
    """One consumed queue and where what fails in it goes.

    ``queue`` is what messages are addressed back to; ``source`` is the queue consumed: the same,
    or the suspect queue beside it.
    """

    queue: str
    source: str
    prefetch: int
    suspect: bool = False
    #: The queue that takes what is parked here, by its name: no binding loses or doubles it.
    home: str = ""
    park: frozenset[DeadReason] = field(default=DEFAULT_PARK)

    @property
    def suspect_queue(self) -> str:
        """Where messages of this lane run alone."""
        return suspect_queue(self.queue)


def parse_queues(text: str | None) -> dict[str, int]:
    """Return queue → weight of ``-Q high:3,low:1``; a weight left out is 1.

    Raises:
        ConfigurationError: no name, an empty one, or a weight that is not a whole number above 0.
    """
    queues: dict[str, int] = {}
    for part in (text or "").split(","):
        entry = part.strip()
        if not entry:
            continue
        name, colon, weight = entry.rpartition(":")
        if not colon:
            name, weight = entry, "1"
        if not name or not weight.isdigit() or int(weight) < 1:
            message = (
                f"-Q {entry!r}: write queue names with optional whole weights, as in "
                "-Q high:3,low:1"
            )
            raise ConfigurationError(message)
        queues[name] = int(weight)
    if text is not None and not queues:
        raise ConfigurationError(
            f"-Q {text!r} names no queue: name some, as in -Q high:3,low:1, or leave -Q out for all"
        )
    return queues


def shares(budget: int, weights: Mapping[str, int], caps: Mapping[str, int]) -> dict[str, int]:
    """Split a prefetch budget over queues by weight; every queue gets at least 1.

    ``caps`` are the queues' own ``prefetch`` limits.
    """
    total = sum(weights.values()) or 1
    return {
        queue: min(max(1, budget * weight // total), caps.get(queue, 65535))
        for queue, weight in weights.items()
    }
