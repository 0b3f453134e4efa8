"""Counts what a worker runs; the same few lines in every contestant's worker process."""

from __future__ import annotations

import threading
import time

from benchmarks.job import Job, cpu_seconds, now, write_report

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
