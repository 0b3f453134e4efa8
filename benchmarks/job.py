"""What one child process is to do, handed to it through its environment."""

from __future__ import annotations

import json
import os
import resource
import sys
import time
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

VARIABLE = "AMQFLOW_BENCH_JOB"


@dataclass(frozen=True)
class Job:
    """One child's work: the same fields for every contestant.

    Args:
        broker: AMQP URL.
        backend: Redis URL where results are kept; empty: results are ignored.
        queue: Name of the queue; names the application too, so that runs stay apart.
        count: Messages to publish, or tasks to run before the report is written.
        warm_up: Of these, the first ones that are not timed.
        report: File the child writes its numbers to.
        classic: Work on a classic queue (peers always do).
        is_async: The task is an ``async def``.
        records: Put each task's number and moment into the report.
        threads: Tasks that run at once.
        prefetch: Messages held beyond the broker, over all threads.
        pause: Seconds each task sleeps.
        extra: What only one measure needs.
    """

    broker: str
    queue: str
    count: int
    report: str = ""
    backend: str = ""
    warm_up: int = 0
    classic: bool = True
    is_async: bool = False
    records: bool = False
    threads: int = 8
    prefetch: int = 32
    pause: float = 0.0
    extra: tuple[tuple[str, Any], ...] = ()

    @classmethod
    def from_environment(cls) -> Job:
        """Read the job this process was started for."""
        values = json.loads(os.environ[VARIABLE])
        values["extra"] = tuple((name, value) for name, value in values["extra"])
        return cls(**values)

    def environment(self) -> dict[str, str]:
        """Return the variable that carries this job."""
        return {VARIABLE: json.dumps(asdict(self))}

    def but(self, **changes: Any) -> Job:
        """Return this job with other values."""
        return replace(self, **changes)

    def __getitem__(self, name: str) -> Any:
        """Return a value of ``extra``."""
        return dict(self.extra)[name]


def write_report(path: str, numbers: dict[str, Any]) -> None:
    """Write a report as one step, so that a reader never sees half of it."""
    part = Path(path + ".part")
    part.write_text(json.dumps(numbers))
    part.replace(path)


def cpu_seconds() -> float:
    """Return the CPU time this process has used, all threads, user and system."""
    used = resource.getrusage(resource.RUSAGE_SELF)
    return used.ru_utime + used.ru_stime


def now() -> float:
    """Return a moment in seconds that processes of one machine agree on, and that never steps.

    CLOCK_MONOTONIC and mach_absolute_time count for the whole machine.
    """
    return time.monotonic()


def fail(reason: str) -> None:
    """End this child with a reason the harness shows."""
    sys.exit(f"benchmark child: {reason}")
