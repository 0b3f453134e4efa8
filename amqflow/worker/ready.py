"""The jobs that may run now, highest priority first.

The rule, as the docs state it: among the messages a worker holds (its prefetch window) the
highest priority runs first, equal priorities in the order they came; which messages the worker
holds is the broker's choice, by the queue's own priority.
"""

from __future__ import annotations

import threading
from heapq import heapify, heappop, heappush
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable

    from amqflow.worker.job import Job
    from amqflow.worker.lanes import Lane


class ReadyHeap:
    """A thread-safe heap: intake pushes in the loop, pool threads may take for themselves."""

    def __init__(self) -> None:
        """Start empty."""
        self._lock = threading.Lock()
        self._heap: list[tuple[int, int, Job]] = []
        self._pushed = 0

    def __len__(self) -> int:
        """Return how many jobs wait."""
        return len(self._heap)

    def push(self, job: Job) -> None:
        """Add a job."""
        with self._lock:
            self._pushed += 1
            heappush(self._heap, (-job.priority, self._pushed, job))

    def pop(self) -> Job | None:
        """Take the first job, or None."""
        with self._lock:
            return heappop(self._heap)[2] if self._heap else None

    def pop_if(self, wanted: Callable[[Job], bool]) -> Job | None:
        """Take the first job if it is wanted; never one behind it, so the order holds."""
        with self._lock:
            if self._heap and wanted(self._heap[0][2]):
                return heappop(self._heap)[2]
            return None

    def take_out(self, wanted: Callable[[Job], bool]) -> list[Job]:
        """Take out all that are wanted, wherever they stand."""
        with self._lock:
            out = [entry[2] for entry in self._heap if wanted(entry[2])]
            if out:
                gone = set(out)
                self._heap = [entry for entry in self._heap if entry[2] not in gone]
                heapify(self._heap)
            return out

    def beyond(self, lane: Lane, keep: int) -> list[Job]:
        """Take out what waits of a lane after its first ``keep`` jobs.

        Not what is claimed to run once: whoever gets it next would wait for our lease.
        """
        with self._lock:
            waiting = sorted(
                (entry for entry in self._heap if entry[2].lane is lane), key=lambda one: one[:2]
            )
            gone = [
                entry[2]
                for entry in waiting[keep:]
                if entry[2].attempt is None or not entry[2].attempt.once
            ]
        return self.take_out(set(gone).__contains__) if gone else []

    def drain(self) -> list[Job]:
        """Take all, first to last."""
        with self._lock:
            jobs = [entry[2] for entry in sorted(self._heap, key=lambda entry: entry[:2])]
            self._heap.clear()
            return jobs
