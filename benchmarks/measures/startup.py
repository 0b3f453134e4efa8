"""What importing costs, and how long a worker takes from process start to ready."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from typing import TYPE_CHECKING

from benchmarks.contestants import AMQFLOW, CELERY
from benchmarks.process import ROOT, BenchmarkError

if TYPE_CHECKING:
    from benchmarks.contestants import Contestant
    from benchmarks.job import Job
    from benchmarks.session import Session

IMPORT = "import"
READY = "ready"

_LINE = re.compile(r"import time:\s*(\d+) \|\s*(\d+) \|(\s*)(\S+)")

#: Imports all that amqflow imports and is not amqflow, then times amqflow itself.
_ABOVE = """
import json, sys, time, importlib
others = json.loads(sys.argv[1])
for name in others:
    try:
        importlib.import_module(name)
    except ImportError:
        pass
start = time.perf_counter()
import amqflow
print(json.dumps(time.perf_counter() - start))
"""

_LOADED = """
import json, sys
before = set(sys.modules)
import amqflow
print(json.dumps([name for name in sys.modules
                  if name not in before and name.partition(".")[0] != "amqflow"]))
"""


def run(session: Session) -> None:
    """Measure imports and starts, several of each."""
    # As pip leaves an installed package; a source tree may lack it (PYTHONDONTWRITEBYTECODE).
    _python("-m", "compileall", "-q", "amqflow", "benchmarks")
    others = json.loads(_python("-c", _LOADED))
    for _ in range(session.scale.starts):
        _imports(session, others)
    for number in range(session.scale.starts):
        if number % 2:
            _started(session, CELERY, "celery", empty=False)
        session.broker.delete_ladder()
        _started(session, AMQFLOW, "amqflow-empty", empty=True)
        _started(session, AMQFLOW, "amqflow", empty=False)
        if not number % 2:
            _started(session, CELERY, "celery", empty=False)


def _imports(session: Session, others: list[str]) -> None:
    own, total = _import_time("import amqflow", "amqflow")
    above = json.loads(_python("-c", _ABOVE, json.dumps(others)))
    _, celery = _import_time("from celery import Celery", "celery")
    session.say(
        f"  import amqflow: {above * 1000:.1f} ms above its dependencies (importtime: own "
        f"{own * 1000:.1f} ms of {total * 1000:.1f} ms); Celery {celery * 1000:.1f} ms"
    )
    session.results.add(IMPORT, "amqflow", above=above, own=own, total=total)
    session.results.add(IMPORT, "celery", total=celery)


def _import_time(statement: str, package: str) -> tuple[float, float]:
    """Return the seconds a package's own modules took, and all that the statement imported."""
    own = total = 0
    for line in _python("-X", "importtime", "-c", statement, stderr=True).splitlines():
        if found := _LINE.match(line):
            microseconds, cumulative, indent, name = found.groups()
            if name.partition(".")[0] == package:
                own += int(microseconds)
                if len(indent) == 1:
                    total += int(cumulative)
    return own / 1e6, total / 1e6


def _python(*arguments: str, stderr: bool = False) -> str:
    done = subprocess.run(
        [sys.executable, *arguments],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    if done.returncode:
        message = f"python {arguments[0]} …: {done.stderr[-500:]}"
        raise BenchmarkError(message)
    return done.stderr if stderr else done.stdout


def _started(session: Session, contestant: Contestant, key: str, *, empty: bool) -> None:
    job = session.job(contestant, READY, 0, extra={"report_ready": True})
    try:
        if not empty:
            _start(session, contestant, job)
        seconds = _start(session, contestant, job)
    finally:
        session.clean(contestant, job)
    session.say(f"  {key:<26}{seconds * 1000:>9.0f} ms from process start to ready")
    session.results.add(READY, key, seconds=seconds)


def _start(session: Session, contestant: Contestant, job: Job) -> float:
    path = session.path(job, "ready.json")
    with session.start(
        contestant, contestant.worker(job), job.but(report=str(path)), role="worker"
    ) as worker:
        ready = worker.report(path, session.scale.deadline)["ready"]
        return ready - worker.started
