"""One pool child as its worker sees it: started, told, listened to, killed, waited for."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import socket
import subprocess
import sys
import threading
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from amqflow.errors import ConfigurationError
from amqflow.logs import configured
from amqflow.worker.pools import wire
from amqflow.worker.pools.board import SOFT_SIGNAL, Board, shared_page

if TYPE_CHECKING:
    from collections.abc import Callable

    from amqflow.app import App

#: Where this package is imported from; the child gets the rest of the path by its first frame.
_ROOT: Final = str(Path(__file__).parents[3])
_COMMAND: Final = (
    "import sys; sys.path.insert(0, sys.argv[1]); "
    "from amqflow.worker.pools.child import main; main(*map(int, sys.argv[2:]))"
)


@dataclass(frozen=True, slots=True)
class Recipe:
    """How a process becomes a child: the application by name, and the bounds of its life.

    ``max_memory`` is in KiB.
    """

    module: str
    attribute: str
    modules: tuple[str, ...]
    tasks: tuple[str, ...]
    max_tasks: int | None = None
    max_memory: int | None = None

    @classmethod
    def of(cls, app: App, *, max_tasks: int | None, max_memory: int | None) -> Recipe:
        """Find the names by which a child can import an application and its tasks.

        Raises:
            ConfigurationError: it is no attribute of any module.
        """
        for name, module in list(sys.modules.items()):
            for attribute, value in list(getattr(module, "__dict__", {}).items()):
                if value is app:
                    modules = {_real_name(task.__module__) for task in app.tasks.values()}
                    return cls(
                        _real_name(name),
                        attribute,
                        tuple(sorted(one for one in modules if not one.startswith("amqflow."))),
                        tuple(sorted(app.tasks)),
                        max_tasks,
                        max_memory,
                    )
        message = (
            f"the application {app.main!r} is no attribute of a module, so pool children cannot "
            "import it: write app = AmqFlow(…) at the top level of a module, or use -P threads"
        )
        raise ConfigurationError(message)

    def setup(self) -> bytes:
        """Return the frame that begins a child's life."""
        return wire.frame(
            wire.SETUP,
            {
                "path": [os.path.abspath(entry) for entry in sys.path],  # noqa: PTH100 - "" is here
                "argv": sys.argv,
                "log": configured(),
                "module": self.module,
                "attribute": self.attribute,
                "modules": self.modules,
                "tasks": self.tasks,
                "max_tasks": self.max_tasks,
                "max_memory": self.max_memory,
            },
        )


def _real_name(module: str) -> str:
    """Return the name a module can be imported by; that of ``__main__`` is its file's."""
    if module != "__main__":
        return module
    main = sys.modules["__main__"]
    spec = getattr(main, "__spec__", None)
    if spec is not None:
        return str(spec.name)
    file = getattr(main, "__file__", None)
    if file is None:
        message = "pool children cannot import what was typed at a prompt: use -P threads"
        raise ConfigurationError(message)
    return Path(file).stem


class ChildProcess(asyncio.Protocol):
    """A spawned child; everything is called in the worker's loop.

    ``on_frame`` gets (child, kind, body) of what it says, ``on_death`` (child, exit code) once,
    after everything it had said.
    """

    def __init__(
        self,
        recipe: Recipe,
        *,
        on_frame: Callable[[ChildProcess, bytes, Any], None],
        on_death: Callable[[ChildProcess, int], None],
    ) -> None:
        """Spawn it; :meth:`listen` connects."""
        self._loop = asyncio.get_running_loop()
        self._on_frame = on_frame
        self._on_death = on_death
        self._frames = wire.Frames()
        self._control_frames = wire.Frames()
        self._asking: asyncio.Future[str] | None = None
        self._transport: asyncio.Transport | None = None
        self.exited = asyncio.Event()
        self._data, theirs = socket.socketpair()
        self._control, control = socket.socketpair()
        for ours in (self._data, self._control):
            ours.setblocking(False)  # noqa: FBT003 - the socket module takes it by position
        #: For what is left to read when it has died: a copy it forked may hold the other end open.
        self._rest = self._data.dup()
        life, self._life = os.pipe()
        page = shared_page()
        self.board = Board(page)
        with theirs, control:
            fds = (theirs.fileno(), control.fileno(), life, page)
            self._process = subprocess.Popen(  # noqa: S603 - our own interpreter and module
                [sys.executable, "-c", _COMMAND, _ROOT, *map(str, fds)],
                pass_fds=fds,
                stdin=subprocess.DEVNULL,
                process_group=0,  # Ctrl-C is for the worker; a kill takes what a task started along
            )
        os.close(life)
        os.close(page)
        self._first = recipe.setup()

    @property
    def pid(self) -> int:
        """Its process id."""
        return self._process.pid

    async def listen(self) -> None:
        """Connect and say what it is to be."""
        await self._loop.create_unix_connection(lambda: self, sock=self._data)
        self.say(self._first)
        self._first = b""
        self._loop.add_reader(self._control, self._answered)
        threading.Thread(target=self._wait, name=f"amqflow-child-{self.pid}", daemon=True).start()

    def say(self, frame: bytes) -> None:
        """Send a frame; to one that has died it says nothing."""
        if self._transport is not None and not self._transport.is_closing():
            self._transport.write(frame)

    def connection_made(self, transport: Any) -> None:
        """Keep the transport."""
        self._transport = transport

    def data_received(self, data: bytes) -> None:
        """Cut what came into frames."""
        for kind, told in self._frames.feed(data):
            self._on_frame(self, kind, told)

    def read_outbox(self) -> None:
        """Take the ends a child has not sent yet; it sends them all the same, later."""
        for kind, told in wire.Frames().feed(self.board.outbox()):
            self._on_frame(self, kind, told)

    # -- where it is -----------------------------------------------------------------------

    async def where(self, timeout: float) -> str:
        """Return the stack of its task; empty where it does not answer within ``timeout``."""
        self._asking = self._loop.create_future()
        try:
            async with asyncio.timeout(timeout):
                await self._loop.sock_sendall(self._control, wire.WHERE)
                return await self._asking
        except (TimeoutError, OSError):
            return ""
        finally:
            self._asking = None

    def _answered(self) -> None:
        try:
            data = self._control.recv(65536)
        except BlockingIOError:
            return
        except OSError:
            data = b""
        if not data:
            self._loop.remove_reader(self._control)
            return
        for _, stack in self._control_frames.feed(data):
            if self._asking is not None and not self._asking.done():
                self._asking.set_result(stack)

    # -- its end ---------------------------------------------------------------------------

    def limit(self, number: int) -> None:
        """Tell it that a job has reached its soft limit, where it lives."""
        with contextlib.suppress(ProcessLookupError):
            if self._process.returncode is None:
                self.board.limit(number)
                os.kill(self.pid, SOFT_SIGNAL)

    def kill(self) -> None:
        """Kill it and what its tasks started."""
        with contextlib.suppress(ProcessLookupError):
            if self._process.returncode is None:
                os.killpg(self.pid, signal.SIGKILL)

    def _wait(self) -> None:
        code = self._process.wait()
        with contextlib.suppress(RuntimeError):  # the loop is closed: the worker has left
            self._loop.call_soon_threadsafe(self._died, code)

    @property
    def code(self) -> int:
        """Its exit code; 0 while it lives."""
        return self._process.returncode or 0

    def _died(self, code: int) -> None:
        if self._transport is not None and not self._transport.is_closing():
            self._transport.pause_reading()
            with contextlib.suppress(OSError):
                while data := self._rest.recv(65536):
                    self.data_received(data)
            self._transport.abort()
        self.read_outbox()
        self._loop.remove_reader(self._control)
        self._control.close()
        os.close(self._life)
        self._rest.close()
        self.exited.set()
        self._on_death(self, code)
        self.board.close()


def how_it_died(code: int) -> str:
    """Say an exit code for people: ``killed by SIGKILL``, ``exit code 3``."""
    if code >= 0:
        return f"exit code {code}"
    try:
        return f"killed by {signal.Signals(-code).name}"
    except ValueError:
        return f"killed by signal {-code}"
