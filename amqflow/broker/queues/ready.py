"""The messages of a queue that wait for a consumer, in order; no operation looks at all of them.

Two orders exist. In a classic queue a message that comes back takes its old place again; in a
quorum queue it goes before everything that has not been delivered yet.
"""

from __future__ import annotations

from collections import deque
from heapq import heappop, heappush
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from amqflow.broker.queues.entry import Entry


class Ready(Protocol):
    """A queue's ready messages, head first."""

    def __len__(self) -> int:
        """Return how many there are."""
        ...

    def push(self, entry: Entry) -> None:
        """Add a message that is new."""
        ...

    def put_back(self, entry: Entry) -> None:
        """Add a message that was here before."""
        ...

    def head(self) -> Entry | None:
        """Return the message that is next, and leave it."""
        ...

    def pop(self) -> Entry:
        """Take the message that is next; there is one."""
        ...

    def all(self) -> list[Entry]:
        """Return every message in order: for a look, a purge or a restart."""
        ...

    def clear(self) -> None:
        """Forget every message."""
        ...


class _Band:
    """Messages of one priority by position: the new ones come in order, those back do not."""

    __slots__ = ("back", "new")

    def __init__(self) -> None:
        self.new: deque[Entry] = deque()
        self.back: list[tuple[int, Entry]] = []

    def first_is_back(self) -> bool:
        return bool(self.back) and (not self.new or self.back[0][0] < self.new[0].position)


class ByPosition:
    """Highest priority first, then by position: a message that comes back has its old place."""

    def __init__(self, priorities: int) -> None:
        """Have bands for the priorities 0 to ``priorities``."""
        self._bands = [_Band() for _ in range(priorities + 1)]
        self._filled = 0  # a bit for each band that holds messages
        self._count = 0

    def __len__(self) -> int:
        return self._count

    def push(self, entry: Entry) -> None:
        """Add a new message; its position is higher than all others."""
        self._bands[entry.band].new.append(entry)
        self._filled |= 1 << entry.band
        self._count += 1

    def put_back(self, entry: Entry) -> None:
        """Add a message at its old position."""
        heappush(self._bands[entry.band].back, (entry.position, entry))
        self._filled |= 1 << entry.band
        self._count += 1

    def head(self) -> Entry | None:
        """Return the next message."""
        if not self._filled:
            return None
        band = self._bands[self._filled.bit_length() - 1]
        return band.back[0][1] if band.first_is_back() else band.new[0]

    def pop(self) -> Entry:
        """Take the next message."""
        number = self._filled.bit_length() - 1
        band = self._bands[number]
        entry = heappop(band.back)[1] if band.first_is_back() else band.new.popleft()
        if not band.new and not band.back:
            self._filled &= ~(1 << number)
        self._count -= 1
        return entry

    def all(self) -> list[Entry]:
        """Return every message in order."""
        found: list[Entry] = []
        for band in reversed(self._bands):
            found += sorted(
                (*band.new, *(entry for _, entry in band.back)), key=lambda entry: entry.position
            )
        return found

    def clear(self) -> None:
        """Forget every message."""
        for band in self._bands:
            band.new.clear()
            band.back.clear()
        self._filled = self._count = 0


class ReturnsFirst:
    """Messages that came back, in the order they did, then the new ones."""

    def __init__(self) -> None:
        """Begin empty."""
        self._back: deque[Entry] = deque()
        self._new: deque[Entry] = deque()

    def __len__(self) -> int:
        return len(self._back) + len(self._new)

    def push(self, entry: Entry) -> None:
        """Add a new message."""
        self._new.append(entry)

    def put_back(self, entry: Entry) -> None:
        """Add a message behind those that came back before."""
        self._back.append(entry)

    def head(self) -> Entry | None:
        """Return the next message."""
        if self._back:
            return self._back[0]
        return self._new[0] if self._new else None

    def pop(self) -> Entry:
        """Take the next message."""
        return self._back.popleft() if self._back else self._new.popleft()

    def all(self) -> list[Entry]:
        """Return every message in order."""
        return [*self._back, *self._new]

    def clear(self) -> None:
        """Forget every message."""
        self._back.clear()
        self._new.clear()
