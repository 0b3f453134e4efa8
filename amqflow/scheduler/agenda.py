"""What comes next: a heap of entries by when each is due."""

from __future__ import annotations

import heapq
from itertools import count


class Agenda:
    """Names by time; a name stands in it once, the latest word counts."""

    def __init__(self) -> None:
        """Hold nothing."""
        self._heap: list[tuple[float, int, str]] = []
        #: The number of the one heap item of each name that counts.
        self._valid: dict[str, int] = {}
        self._numbers = count()

    def __len__(self) -> int:
        return len(self._valid)

    def __contains__(self, name: object) -> bool:
        return name in self._valid

    def put(self, name: str, at: float) -> None:
        """Note that ``name`` is due at ``at``, and not when it was said before."""
        number = next(self._numbers)
        self._valid[name] = number
        heapq.heappush(self._heap, (at, number, name))
        if len(self._heap) > 2 * len(self._valid) + 64:
            self._heap = [item for item in self._heap if self._valid.get(item[2]) == item[1]]
            heapq.heapify(self._heap)

    def drop(self, name: str) -> None:
        """Take ``name`` off."""
        self._valid.pop(name, None)

    def clear(self) -> None:
        """Take everything off."""
        self._heap.clear()
        self._valid.clear()

    def next_at(self) -> float | None:
        """Return when the first is due; None where nothing is."""
        while self._heap:
            at, number, name = self._heap[0]
            if self._valid.get(name) == number:
                return at
            heapq.heappop(self._heap)
        return None

    def take(self, until: float, most: int) -> list[str]:
        """Take off and return at most ``most`` names that are due by ``until``, earliest first."""
        names: list[str] = []
        while len(names) < most and (at := self.next_at()) is not None and at <= until:
            name = heapq.heappop(self._heap)[2]
            del self._valid[name]
            names.append(name)
        return names
