"""Child processes of the harness: each has a deadline, and none outlives it."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

from benchmarks.job import now

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from types import TracebackType

ROOT = Path(__file__).parents[1]

#: Seconds between two looks for a report; below what any measure resolves.
LOOK = 0.02


class BenchmarkError(Exception):
    """A child failed or was late, or its result is not what it must be."""


class Child:
    """A process in a session of its own, ended with the block that started it."""

    def __init__(
        self,
        argv: Sequence[str],
        environment: Mapping[str, str],
        log: Path,
        *,
        name: str,
        told: signal.Signals = signal.SIGTERM,
    ) -> None:
        """Start ``argv`` with ``environment`` over ours; what it prints goes to ``log``.

        ``told`` is the signal that :meth:`stop` asks it to end by.
        """
        self.name = name
        self._told = told
        self._log = log
        # setpriv (util-linux) lets the kernel kill the child when we are killed ourselves.
        guard = ["setpriv", "--pdeathsig", "KILL"] if shutil.which("setpriv") else []
        with log.open("wb") as output:
            self.started = now()
            self._process = subprocess.Popen(
                [*guard, *argv],
                cwd=ROOT,
                env=_inherited() | {"PYTHONPATH": str(ROOT)} | dict(environment),
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )

    def __enter__(self) -> Self:
        """Return the running child."""
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        """End the child and everything it started."""
        self.stop()

    @property
    def pid(self) -> int:
        """The child's process id."""
        return self._process.pid

    def tail(self, lines: int = 20) -> str:
        """Return the last lines it printed."""
        return "\n".join(self._log.read_text(errors="replace").splitlines()[-lines:])

    def printed(self) -> str:
        """Return all it printed."""
        return self._log.read_text(errors="replace")

    def finish(self, deadline: float) -> None:
        """Wait until it ends by itself, with success."""
        try:
            code = self._process.wait(deadline)
        except subprocess.TimeoutExpired:
            message = f"{self.name} did not end in {deadline:.0f} s:\n{self.tail()}"
            raise BenchmarkError(message) from None
        if code:
            message = f"{self.name} ended with {code}:\n{self.tail()}"
            raise BenchmarkError(message)

    def report(self, path: Path, deadline: float) -> dict[str, Any]:
        """Wait for the report it writes to ``path``."""
        end = now() + deadline
        while not path.exists():
            if self._process.poll() is not None:
                message = f"{self.name} ended with {self._process.returncode}:\n{self.tail()}"
                raise BenchmarkError(message)
            if now() > end:
                message = f"{self.name} reported nothing in {deadline:.0f} s:\n{self.tail()}"
                raise BenchmarkError(message)
            time.sleep(LOOK)
        numbers: dict[str, Any] = json.loads(path.read_text())
        return numbers

    def resident(self) -> int | None:
        """Return its resident memory in bytes; None where the system does not tell."""
        status = Path(f"/proc/{self.pid}/status")
        if not status.exists():
            return None
        for line in status.read_text().splitlines():
            if line.startswith("VmRSS:"):
                return int(line.split()[1]) * 1024
        return None

    def stop(self, deadline: float = 15.0) -> None:
        """Ask it to end, and kill what is left of its session after ``deadline`` seconds."""
        if self._process.poll() is None:
            self._process.send_signal(self._told)
            with contextlib.suppress(subprocess.TimeoutExpired):
                self._process.wait(deadline)
        # Workers of its own that outlived it; the group's id is the child's.
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self._process.pid, signal.SIGKILL)
        self._process.wait()


def _inherited() -> dict[str, str]:
    """Return our environment without amqflow's settings: a job says all a child is to know.

    AMQFLOW_BACKEND would make amqflow keep results where its peers keep none.
    """
    return {name: value for name, value in os.environ.items() if not name.startswith("AMQFLOW_")}


def python(module: str, *arguments: str) -> list[str]:
    """Return the command that runs a module in this interpreter."""
    return [sys.executable, "-m", module, *arguments]
