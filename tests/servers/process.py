"""Child processes that cannot outlive this one, however it ends."""

import contextlib
import os
import random
import shutil
import signal
import socket
import subprocess
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

# Below the range Linux takes for outgoing connections (32768-60999): a server that was killed
# finds its port free when it is started again.
PORTS = range(20_000, 32_000)

# The kernel sends PDEATHSIG when the *thread* that started the child ends, so one thread starts
# them all and lives as long as the interpreter; a test's own thread may end at any time.
_SPAWNER = ThreadPoolExecutor(1, thread_name_prefix="servers")


class ServerUnavailableError(RuntimeError):
    """A test server is not there or did not start; the message says what to install or read."""


def free_port() -> int:
    """Return a port of loopback that nobody listens on."""
    for port in random.sample(PORTS, 200):
        with socket.socket() as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            with contextlib.suppress(OSError):
                probe.bind(("127.0.0.1", port))
                return port
    raise ServerUnavailableError(f"no free port between {PORTS.start} and {PORTS.stop}")


def accepts(port: int) -> bool:
    """Say whether something on loopback accepts connections on `port`."""
    try:
        socket.create_connection(("127.0.0.1", port), timeout=1).close()
    except OSError:
        return False
    return True


class Child:
    """A server process in a session of its own, killed by the kernel when this process dies."""

    def __init__(self, argv: Sequence[str], *, env: Mapping[str, str], log: Path) -> None:
        """Start `argv`, appending what it prints to `log`."""
        self._log = log
        self._process = _SPAWNER.submit(self._spawn, list(argv), dict(env)).result()

    def _spawn(self, argv: list[str], env: dict[str, str]) -> subprocess.Popen[bytes]:
        # setpriv (util-linux) sets PDEATHSIG and execs: no preexec_fn, which is not safe among
        # threads. Where it does not exist the run's own clean-up has to do.
        guard = ["setpriv", "--pdeathsig", "KILL"] if shutil.which("setpriv") else []
        with self._log.open("ab") as log:
            return subprocess.Popen(
                [*guard, *argv],
                env=env,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,  # Ctrl-C in the terminal is for pytest, not for the server
            )

    @property
    def pid(self) -> int:
        """The server's process id: every wrapper on the way has exec'ed."""
        return self._process.pid

    @property
    def alive(self) -> bool:
        """Whether the process still runs."""
        return self._process.poll() is None

    def tail(self, lines: int = 15) -> str:
        """Return the last lines it printed."""
        return "\n".join(self._log.read_text(errors="replace").splitlines()[-lines:])

    def terminate(self, deadline: float) -> None:
        """Ask it to end; kill it when it has not within `deadline` seconds."""
        self._process.terminate()
        try:
            self._process.wait(deadline)
        except subprocess.TimeoutExpired:
            self.kill()

    def kill(self) -> None:
        """SIGKILL the process and what it started."""
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self._process.pid, signal.SIGKILL)
        self._process.wait()


def wait_ready(child: Child, ready: Callable[[], bool], *, name: str, deadline: float = 60) -> None:
    """Return when `ready()` is true; raise with the child's last lines if it dies or is late."""
    end = time.monotonic() + deadline
    while not ready():
        if not child.alive:
            raise ServerUnavailableError(
                f"{name} ended while starting; it printed:\n{child.tail()}"
            )
        if time.monotonic() > end:
            raise ServerUnavailableError(
                f"{name} was not ready after {deadline:.0f} s; it printed:\n{child.tail()}"
            )
        time.sleep(0.02)
