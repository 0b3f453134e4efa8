"""Counts what a worker runs; the same few lines in every contestant's worker process."""

from __future__ import annotations

import mmap
import struct
import threading
import time
from typing import TYPE_CHECKING, Any, Self

from benchmarks.job import Job, cpu_seconds, now, write_report

if TYPE_CHECKING:
    from pathlib import Path

#: Seconds between two looks of the reporting thread.
LOOK = 0.02
#: Seconds it waits after the last expected task, for runs nobody expected.
SURPLUS = 0.25


class Tally:
    """Notes each run; a thread started by the first one writes the report when all are there."""

    def __init__(self, job: Job) -> None:
        """Expect ``job.count`` runs."""
        self._job = job
        self._runs: list[tuple[int, float]] = []
        self._lock = threading.Lock()
        self._reporter: threading.Thread | None = None
        self._cpu = 0.0

    def ran(self, number: int) -> None:
        """Note that task ``number`` ran now: all a no-op task does."""
        if self._reporter is None:
            self._start()
        # One append: atomic, so that threads need no lock.
        self._runs.append((number, now()))

    def note(self, number: int, value: float) -> None:
        """Note that task ``number`` ran, with a value in place of the moment."""
        if self._reporter is None:
            self._start()
        self._runs.append((number, value))

    def _start(self) -> None:
        with self._lock:
            if self._reporter is None:
                self._cpu = cpu_seconds()
                self._reporter = threading.Thread(target=self._report, daemon=True)
                self._reporter.start()

    def _report(self) -> None:
        runs, expected = self._runs, self._job.count
        while len(runs) < expected:
            time.sleep(LOOK)
        cpu = cpu_seconds() - self._cpu
        time.sleep(SURPLUS)
        moments = [moment for _, moment in runs]
        report = {
            "ran": len(runs),
            "distinct": len({number for number, _ in runs}),
            "first": min(moments),
            "last": max(moments),
            "cpu": cpu,
        }
        if self._job.records:
            report["runs"] = list(runs)
        write_report(self._job.report, report)


#: A moment, and how often the task ran.
_ENTRY = struct.Struct("=dB7x")


class Board:
    """Notes the runs of several processes in a file that all of them map into memory."""

    def __init__(self, path: Path | str, count: int) -> None:
        """Use the file at ``path``; whoever comes first makes it, with room for ``count`` runs."""
        self._count = count
        with open(path, "a+b") as file:  # noqa: PTH123 - a text from a job, or a path
            file.truncate(count * _ENTRY.size)
            self._map = mmap.mmap(file.fileno(), count * _ENTRY.size)

    def __enter__(self) -> Self:
        """Return the board."""
        return self

    def __exit__(self, *_: object) -> None:
        """Let go of the file."""
        self._map.close()

    def ran(self, number: int) -> None:
        """Note that task ``number`` ran now: all a no-op task does."""
        at = number * _ENTRY.size
        _, runs = _ENTRY.unpack_from(self._map, at)
        _ENTRY.pack_into(self._map, at, now(), runs + 1)

    @property
    def full(self) -> bool:
        """Whether every task has run."""
        return all(runs for _, runs in _ENTRY.iter_unpack(self._map[:]))

    def read(self) -> tuple[list[int], float, float]:
        """Return how often each ran, and when the first and the last did."""
        entries = list(_ENTRY.iter_unpack(self._map[:]))
        moments = [moment for moment, _ in entries]
        return [runs for _, runs in entries], min(moments), max(moments)


def tally_of(job: Job) -> Any:
    """Return what a worker's no-op tasks note their runs in."""
    board = dict(job.extra).get("board")
    return Tally(job) if board is None else Board(board, job.count)
