"""Times starts of an embedded broker with HTTP API and result store, as `app.running()` does."""

from __future__ import annotations

import asyncio
from typing import Final

from amqflow.dev.hosting import Host
from benchmarks.job import Job, now, write_report

STARTS: Final = "benchmarks.apps.embedded_start"


async def starts(job: Job) -> None:
    """Start and stop ``job.count`` of them; the first brings the imports that later ones have."""
    async with Host(None):
        pass
    took = []
    for _ in range(job.count):
        begun = now()
        async with Host(None):
            took.append(now() - begun)
    write_report(job.report, {"seconds": took})


if __name__ == "__main__":
    asyncio.run(starts(Job.from_environment()))
