"""Which tasks are short: those that may wait a moment for each other's system calls."""

from __future__ import annotations

from typing import Final

#: Seconds a short task takes at most: what a system call or two costs.
SHORT: Final = 0.001
#: Runs in a row that must have been short.
RUNS: Final = 3


class ShortTasks:
    """Remembers, by name, how many of a task's last runs in a row were short."""

    __slots__ = ("_runs",)

    def __init__(self) -> None:
        """Know nothing: a task is long until it has shown otherwise."""
        self._runs: dict[str, int] = {}

    def ran(self, task: str, seconds: float) -> None:
        """Count a run."""
        self._runs[task] = self._runs.get(task, 0) + 1 if seconds <= SHORT else 0

    def is_short(self, task: str) -> bool:
        """Whether the next run is likely to be short."""
        return self._runs.get(task, 0) >= RUNS
