"""Dead letters with one cause, counted: bounded whatever lies in the queues."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from amqflow.deadletters.parked import Row

#: Groups told apart; what belongs to none of them is counted together.
MOST: Final = 1000


@dataclass(slots=True)
class Group:
    """Dead letters of one fingerprint. Times are Unix seconds; the rest is the first one's."""

    fingerprint: str
    example: str
    task: str | None
    reason: str
    exception: str | None
    exception_message: str | None
    queue: str | None
    count: int = 0
    first: float | None = None
    last: float | None = None

    def add(self, row: Row) -> None:
        """Count one more."""
        self.count += 1
        if row.time is not None:
            self.first = row.time if self.first is None else min(self.first, row.time)
            self.last = row.time if self.last is None else max(self.last, row.time)


@dataclass(slots=True)
class Groups:
    """What was seen, by fingerprint."""

    most: int = MOST
    total: int = 0
    #: Dead letters of fingerprints beyond ``most``.
    others: int = 0
    _groups: dict[str, Group] = field(default_factory=dict)

    def add(self, row: Row) -> None:
        """Count one dead letter."""
        self.total += 1
        group = self._groups.get(row.fingerprint)
        if group is None:
            if len(self._groups) >= self.most:
                self.others += 1
                return
            group = self._groups[row.fingerprint] = Group(
                row.fingerprint,
                row.id,
                row.task,
                row.reason,
                row.exception,
                row.exception_message,
                row.queue,
            )
        group.add(row)

    def ordered(self) -> list[Group]:
        """Return the groups, largest first, of equal ones the one seen last."""
        return sorted(self._groups.values(), key=lambda one: (-one.count, -(one.last or 0.0)))
