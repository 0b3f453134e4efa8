"""What a revocation says, and whom it concerns. Pure: guards keep them."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from amqflow.protocol.message import TaskMessage


class Target(StrEnum):
    """What a revocation names."""

    #: One task.
    ID = "id"
    #: Every task of a name that was sent before it was revoked.
    TASK = "task"
    #: Every task with a stamp (``header=value``), whenever it was sent, until it expires.
    STAMP = "stamp"
    #: Every task of a workflow, by the id of its first one.
    ROOT = "root"


@dataclass(frozen=True, slots=True)
class Revocation:
    """That something must not run, from ``at`` on until it is forgotten (Unix seconds).

    ``terminate``: end what runs already. ``epoch``: a replay of an id from the dead letters has a
    higher one, and runs.
    """

    target: Target
    value: str
    at: float
    expires: float
    terminate: bool = False
    epoch: int = 0
    reason: str = "revoked"

    def concerns(self, message: TaskMessage) -> bool:
        """Return whether a message is meant."""
        match self.target:
            case Target.ID:
                return message.id == self.value and message.epoch <= self.epoch
            case Target.TASK:
                return message.task == self.value and self._was_sent(message)
            case Target.STAMP:
                return self.value in stamps_of(message)
            case Target.ROOT:
                return (message.root_id or message.id) == self.value and message.epoch <= self.epoch

    def _was_sent(self, message: TaskMessage) -> bool:
        """Return whether it was sent before; the wire keeps whole seconds, and retries keep it."""
        return message.timestamp is None or message.timestamp <= self.at


def stamps_of(message: TaskMessage) -> list[str]:
    """Return a message's stamps as ``header=value``, one for each value."""
    if not message.stamps:
        return []
    found: list[str] = []
    for header, value in message.stamps.items():
        values = value if isinstance(value, list | tuple | set | frozenset) else (value,)
        found += [f"{header}={one}" for one in values]
    return found
