"""Entries for `amqflow beat`, and a report of how late each slot was confirmed."""

from __future__ import annotations

import atexit
import json
import time
from pathlib import Path
from typing import Any

from amqflow import AmqFlow, crontab, signals
from amqflow.schedules import schedule
from benchmarks.job import Job

job = Job.from_environment()
app = AmqFlow(job.queue, broker=job.broker, backend=job.backend, task_default_queue=job.queue)
late: list[tuple[float, float]] = []


@app.task(name="tick", ignore_result=True)
async def tick() -> None:
    """Run nowhere: no worker is there."""


def _entry(number: int) -> dict[str, Any]:
    match job["shape"]:
        case "together":
            return {"schedule": 1.0, "relative": True}
        case "spread":
            return {"schedule": schedule(1.0, anchor=number / job.count)}
    half_a_day = (time.gmtime().tm_hour + 12) % 24
    return {"schedule": crontab(minute=number % 60, hour=half_a_day)}


app.conf.beat_schedule = {
    f"e{number}": {"task": "tick", **_entry(number)} for number in range(job.count)
}


@signals.beat_published.connect
def _published(lateness: float, slot: float, **_: object) -> None:
    late.append((slot, lateness))


@atexit.register
def _report() -> None:
    Path(job.report).write_text(json.dumps(late))
