"""Commands as processes: what `subprocess` would start, forked from one that is warm already."""

import functools
import os
import select
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping
from pathlib import Path
from typing import IO

from tests.servers.nursery import Wanted
from tests.servers.process import Child, wait_ready

ROOT = Path(__file__).parents[2]
Stream = IO[bytes] | int | None


class Command:
    """`python *arguments` as a process of its own, with the face of a `Popen`."""

    def __init__(
        self,
        *arguments: str,
        cwd: str | Path = ROOT,
        env: Mapping[str, str] | None = None,
        stdin: Stream = None,
        stdout: Stream = None,
        stderr: Stream = None,
        session: bool = False,
    ) -> None:
        """Start `-m module …` or a script; streams left out are /dev/null.

        `session` is `start_new_session`.
        """
        self.args = ["python", *map(str, arguments)]
        self.returncode: int | None = None
        self._read = b""
        environment = dict(os.environ if env is None else env)
        wanted = Wanted(self.args[1:], str(cwd), environment, session)
        self._connection = socket.socket(socket.AF_UNIX)
        self._connection.settimeout(60)
        self._connection.connect(str(_nursery().place))
        with Path(os.devnull).open("r+b") as null:
            out = _number(stdout, null)
            err = out if stderr == subprocess.STDOUT else _number(stderr, null)
            wanted.send(self._connection, [_number(stdin, null), out, err])
        self.pid = self._line(60)
        assert self.pid is not None, "the nursery started nothing within a minute"

    def _line(self, timeout: float) -> int | None:
        """Return the next number the nursery says; None where it says none in time."""
        end = time.monotonic() + timeout
        while b"\n" not in self._read:
            left = max(0, end - time.monotonic())
            if not select.select([self._connection], [], [], left)[0]:
                return None
            more = self._connection.recv(64)
            if not more:
                raise RuntimeError(f"the nursery of commands has ended:\n{_nursery().child.tail()}")
            self._read += more
        line, self._read = self._read.split(b"\n", 1)
        return int(line)

    def poll(self) -> int | None:
        """Return the exit code, None while it runs."""
        return self._ended(0)

    def wait(self, timeout: float = 600) -> int:
        """Wait for the end and return the exit code, -n for signal n."""
        code = self._ended(timeout)
        if code is None:
            raise subprocess.TimeoutExpired(self.args, timeout)
        return code

    def _ended(self, timeout: float) -> int | None:
        if self.returncode is None:
            self.returncode = self._line(timeout)
            if self.returncode is not None:
                self._connection.close()
        return self.returncode

    def send_signal(self, number: int) -> None:
        """Send a signal, where it still runs."""
        if self.poll() is None:
            os.kill(self.pid, number)

    def terminate(self) -> None:
        """Send SIGTERM."""
        self.send_signal(signal.SIGTERM)

    def kill(self) -> None:
        """Send SIGKILL."""
        self.send_signal(signal.SIGKILL)


def run(
    *arguments: str, deadline: float = 60, typed: str = "", **options: object
) -> subprocess.CompletedProcess[str]:
    """Run a command to its end and return what it printed: `subprocess.run`, captured, as text.

    Args:
        arguments: of the command.
        deadline: seconds; then it is killed and TimeoutExpired raised.
        typed: its standard input.
        options: of `Command`.
    """
    with (
        tempfile.TemporaryFile() as stdin,
        tempfile.TemporaryFile() as stdout,
        tempfile.TemporaryFile() as stderr,
    ):
        stdin.write(typed.encode())
        stdin.seek(0)
        command = Command(*arguments, stdin=stdin, stdout=stdout, stderr=stderr, **options)
        try:
            code = command.wait(deadline)
        except BaseException:
            command.kill()
            raise
        printed = []
        for stream in (stdout, stderr):
            stream.seek(0)
            printed.append(stream.read().decode())
    return subprocess.CompletedProcess(command.args, code, *printed)


class _Nursery:
    """The warm process of this test process, started with its first command."""

    def __init__(self) -> None:
        # Kept as long as this process: the folder goes with it.
        self._folder = tempfile.TemporaryDirectory(prefix="amqflow-nursery-")
        folder = Path(self._folder.name)
        self.place = folder / "door"
        self.child = Child(
            [sys.executable, "-m", "tests.servers.nursery", str(self.place)],
            env={**os.environ, "PYTHONPATH": str(ROOT)},
            log=folder / "printed",
        )
        wait_ready(self.child, self.place.exists, name="the nursery of commands")


_nursery = functools.cache(_Nursery)


def _number(stream: Stream, null: IO[bytes]) -> int:
    if stream is None or stream == subprocess.DEVNULL:
        return null.fileno()
    return stream if isinstance(stream, int) else stream.fileno()
