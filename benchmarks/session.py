"""One run of the harness: its broker, its scale, its folder, and how its children start."""

from __future__ import annotations

import secrets
import sys
from typing import TYPE_CHECKING, Any

from benchmarks.job import Job
from benchmarks.process import Child

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

    from benchmarks.broker import Broker
    from benchmarks.contestants import Contestant
    from benchmarks.results import Results
    from benchmarks.scale import Scale


class Session:
    """What every measure needs."""

    def __init__(
        self,
        broker: Broker,
        backend: str,
        scale: Scale,
        results: Results,
        folder: Path,
        say: Callable[[str], None] = lambda line: print(line, file=sys.stderr),
    ) -> None:
        """Work on a broker and a Redis, keeping the children's files in ``folder``."""
        self.broker = broker
        self.backend = backend
        self.scale = scale
        self.results = results
        self.say = say
        self._folder = folder
        self._runs = 0
        # Apart from another run on the same broker, and from what one that was killed left.
        self._token = secrets.token_hex(3)

    def job(self, contestant: Contestant, measure: str, count: int, **fields: Any) -> Job:
        """Return a job on a queue of its own."""
        self._runs += 1
        extra = {"broker_version": list(self.broker.facts.version)} | fields.pop("extra", {})
        return Job(
            broker=self.broker.url,
            queue=f"bench-{self._token}-{self._runs}-{measure}-{contestant.key}",
            count=count,
            classic=contestant.classic,
            is_async=contestant.is_async,
            extra=tuple(extra.items()),
            **fields,
        )

    def path(self, job: Job, kind: str) -> Path:
        """Return a fresh path for a job's file of some kind."""
        self._runs += 1
        return self._folder / f"{job.queue}.{self._runs}.{kind}"

    def file(self, name: str) -> Path:
        """Return a fresh path for a file that a measure writes."""
        self._runs += 1
        return self._folder / f"{self._runs}.{name}"

    def start(self, contestant: Contestant, argv: Sequence[str], job: Job, *, role: str) -> Child:
        """Start a child on a job."""
        return Child(
            argv,
            job.environment() | contestant.environment(job),
            self.path(job, f"{role}.log"),
            name=f"{contestant.key} {role}",
            told=contestant.told,
        )

    def run(
        self, contestant: Contestant, argv: Sequence[str], job: Job, *, role: str
    ) -> dict[str, Any]:
        """Run a child to its end and return its report."""
        report = self.path(job, f"{role}.json")
        with self.start(contestant, argv, job.but(report=str(report)), role=role) as child:
            numbers = child.report(report, self.scale.deadline)
            child.finish(self.scale.deadline)
        return numbers

    def clean(self, contestant: Contestant, job: Job) -> None:
        """Delete what a job's contestant declared."""
        if contestant.queues is None:
            self.broker.delete_application(job.queue)
            return
        queues = [job.queue, *(name.format(queue=job.queue) for name in contestant.queues)]
        exchanges = [name.format(queue=job.queue) for name in contestant.exchanges]
        self.broker.delete(queues, exchanges)
