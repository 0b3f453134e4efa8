"""A process that has imported amqflow and forks a command whenever it is asked for one.

Importing amqflow takes a second of a slow machine's time, and the tests start commands by the
hundred. Forked ones are processes as any others: own pid, environment, folder, streams, signals
and exit code. `tests.servers.command` asks for them.
"""

import contextlib
import ctypes
import gc
import importlib
import json
import os
import pkgutil
import runpy
import selectors
import signal
import socket
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

#: Left out of what is imported beforehand: the pytest plugin, and what runs on import.
_NOT = ("amqflow.testing", "amqflow.__main__", "amqflow.cli.__main__")
#: Imported late by what amqflow imports.
_ALSO = ("redis.asyncio", "uvloop", "asyncio.subprocess", "rich.table", "rich.progress")
_LENGTH = 8
#: prctl(2): what the kernel sends to a fork whose nursery has ended.
_PR_SET_PDEATHSIG = 1


@dataclass(frozen=True, slots=True)
class Wanted:
    """What to run: the arguments of `python`, where and with which environment."""

    arguments: list[str]
    folder: str
    environment: dict[str, str]
    session: bool

    @property
    def script(self) -> Path:
        """The file that runs, where it is no module."""
        return Path(self.folder, self.arguments[0])

    @classmethod
    def read(cls, connection: socket.socket) -> tuple["Wanted", list[int]]:
        """Receive a request and the three standard streams that come with it."""
        received, streams, _, _ = socket.recv_fds(connection, 65_536, 3)
        while len(received) < _LENGTH or len(received) < _LENGTH + int(received[:_LENGTH]):
            more = connection.recv(65_536)
            if not more:
                raise ConnectionError("the test went away")
            received += more
        return cls(**json.loads(received[_LENGTH:])), list(streams)

    def send(self, connection: socket.socket, streams: list[int]) -> None:
        """Send the request with its three streams."""
        fields = {name: getattr(self, name) for name in self.__slots__}
        body = json.dumps(fields).encode()
        message = str(len(body)).encode().rjust(_LENGTH) + body
        sent = socket.send_fds(connection, [message], streams)
        connection.sendall(message[sent:])


def become(wanted: Wanted, streams: list[int], path: list[str]) -> None:
    """Make this fork what a new interpreter would be, up to the command's own imports."""
    for number, stream in enumerate(streams):
        os.dup2(stream, number)
        os.close(stream)
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    signal.signal(signal.SIGINT, signal.default_int_handler)
    if wanted.session:
        os.setsid()
    os.chdir(wanted.folder)
    os.environ.clear()
    os.environ.update(wanted.environment)
    time.tzset()
    tempfile.tempdir = None
    added = wanted.environment.get("PYTHONPATH", "").split(os.pathsep)
    first = wanted.folder if wanted.arguments[0] == "-m" else str(wanted.script.parent)
    sys.path[:] = [first, *filter(None, added), *path]
    sys.argv[:] = wanted.arguments[1:] if wanted.arguments[0] == "-m" else wanted.arguments
    sys.orig_argv[:] = [sys.executable, *wanted.arguments]
    sys.stdout.reconfigure(line_buffering=os.isatty(1))


def serve(listener: socket.socket, path: list[str]) -> Wanted:
    """Fork a process per connection and tell it the exit code; return in each fork."""
    asleep, awake = socket.socketpair()
    for end in (asleep, awake):
        end.setblocking(False)
    signal.signal(signal.SIGCHLD, lambda *_: None)
    signal.set_wakeup_fd(awake.fileno())
    running: dict[int, socket.socket] = {}
    selector = selectors.DefaultSelector()
    selector.register(listener, selectors.EVENT_READ)
    selector.register(asleep, selectors.EVENT_READ)
    while True:
        for key, _ in selector.select():
            if key.fileobj is asleep:
                with contextlib.suppress(BlockingIOError):
                    asleep.recv(4096)
                _tell_ends(running)
                continue
            connection, _ = listener.accept()
            wanted, streams = Wanted.read(connection)
            if not (pid := os.fork()):
                signal.set_wakeup_fd(-1)
                # As objects: one that is only closed below closes somebody else's file later.
                for ours in (selector, listener, asleep, awake, connection, *running.values()):
                    ours.close()
                become(wanted, streams, path)
                return wanted
            for stream in streams:
                os.close(stream)
            running[pid] = connection
            with contextlib.suppress(OSError):
                connection.sendall(b"%d\n" % pid)


def _tell_ends(running: dict[int, socket.socket]) -> None:
    while running:
        pid, status = os.waitpid(-1, os.WNOHANG)
        if not pid:
            return
        with contextlib.suppress(OSError), running.pop(pid) as connection:
            connection.sendall(b"%d\n" % os.waitstatus_to_exitcode(status))


def warm() -> None:
    """Import what commands import."""
    import amqflow

    for module in pkgutil.walk_packages(amqflow.__path__, "amqflow."):
        if not module.name.startswith(_NOT):
            importlib.import_module(module.name)
    for name in _ALSO:
        importlib.import_module(name)
    gc.collect()
    gc.freeze()  # a fork's collections do not copy what it shares


def main(place: Path) -> None:
    """Serve at a socket; each fork comes out of it and runs its command."""
    # Without what finds `tests` and this process's own PYTHONPATH: a command brings its own.
    added = os.environ.get("PYTHONPATH", "").split(os.pathsep)
    path = [entry for entry in sys.path[1:] if entry not in added]
    warm()
    # It answers from the moment it is there.
    new = place.with_suffix(".new")
    listener = socket.socket(socket.AF_UNIX)
    listener.bind(str(new))
    listener.listen(64)
    new.rename(place)
    wanted = serve(listener, path)
    if wanted.arguments[0] == "-m":
        runpy.run_module(wanted.arguments[1], run_name="__main__", alter_sys=True)
    else:
        runpy.run_path(wanted.arguments[0], run_name="__main__")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
