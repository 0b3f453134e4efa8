"""How long planning and applying a topology of many queues takes, as users type it."""

from __future__ import annotations

import os
import subprocess
import time
from typing import TYPE_CHECKING

from benchmarks.process import ROOT, BenchmarkError, python

if TYPE_CHECKING:
    from pathlib import Path

    from benchmarks.session import Session

TOPOLOGY = "topology"
#: What the command is called: the application's name in what is derived.
NAME = "bench-topology"


def run(session: Session) -> None:
    """Plan on an empty broker, apply, plan again, and take it all away, each a command."""
    for _ in range(session.scale.rounds):
        count = session.scale.queues
        many, none = session.file("many.yaml"), session.file("none.yaml")
        queues = "".join(
            f"  {NAME}.q{number}: {{consumed: false, bindings: "
            f"[{{exchange: {NAME}.tasks, routing_key: q{number}}}]}}\n"
            for number in range(count)
        )
        head = f'version: 1\nowns: ["{NAME}.*"]\nexchanges:\n  {NAME}.tasks: {{type: topic}}\n'
        many.write_text(f"{head}queues:\n{queues}")
        none.write_text(head)
        try:
            empty = _command(session, "plan", many)
            applied = _command(session, "apply", many)
            full = _command(session, "plan", many, "--detailed-exitcode")
        finally:
            _command(session, "apply", none, "--prune", "--yes")
        session.results.add(
            TOPOLOGY, "amqflow", count=count, empty=empty, applied=applied, full=full
        )
    session.broker.delete_application(NAME)
    session.broker.delete((), (f"{NAME}.tasks",))


def _command(session: Session, verb: str, file: Path, *options: str) -> float:
    """Run a command to its end; return the seconds from its start."""
    start = time.perf_counter()
    done = subprocess.run(
        python("amqflow", "topology", verb, str(file), "--name", NAME, *options),
        cwd=ROOT,
        env={**os.environ, "AMQFLOW_BROKER": session.broker.url},
        capture_output=True,
        text=True,
        timeout=session.scale.deadline,
        check=False,
    )
    if done.returncode:
        raise BenchmarkError(f"topology {verb}: {done.stdout[-500:]}{done.stderr[-500:]}")
    return time.perf_counter() - start
