"""What ``amqflow dev`` does: host, keep children, start them again when files change."""

from __future__ import annotations

import asyncio
import os
import signal
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

from amqflow import rendezvous
from amqflow.dev.changes import changes
from amqflow.dev.children import PAUSE, SAID, USAGE, Child
from amqflow.dev.hosting import Host, HostOptions
from amqflow.errors import AmqflowError, NoEmbeddedBroker
from amqflow.settings import redact

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from pathlib import Path

    from amqflow.rendezvous import Rendezvous

#: Seconds between two looks whether a broker that was joined is still there.
LOOK: Final = 1.0
#: Files of one change that are named.
NAMED: Final = 3


@dataclass(frozen=True, slots=True)
class DevOptions:
    """What the command line says.

    ``commands`` are the arguments of each child by its label; ``broker`` is the URL of a real
    broker, None: an embedded one named ``name``; ``backend`` is the URL of a result store, None:
    the application's; ``watched`` is empty where nothing is reloaded.
    """

    commands: Mapping[str, Sequence[str]]
    name: str = rendezvous.DEFAULT_NAME
    broker: str | None = None
    backend: str | None = None
    host: HostOptions = field(default_factory=HostOptions)
    watched: Sequence[Path] = ()


class Dev:
    """One run of ``amqflow dev``."""

    def __init__(self, options: DevOptions, say: Callable[[str], None]) -> None:
        """Prepare; ``say`` prints a line for people."""
        self._options = options
        self._say = say
        self._stop = asyncio.Event()
        self._children: list[Child] = []
        self._again: set[asyncio.Task[None]] = set()
        self._failure: AmqflowError | None = None
        self._code = 0
        self._restarted = False

    async def run(self) -> int:
        """Run until told to stop; return the exit code.

        Raises:
            AmqflowError: the broker cannot be hosted, files cannot be watched, or the broker that
                was joined has gone.
        """
        loop = asyncio.get_running_loop()
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            loop.add_signal_handler(number, self._told)
        async with AsyncExitStack() as around:
            environment = {"AMQFLOW_BROKER": await self._broker(around)}
            if self._options.backend is not None:
                environment["AMQFLOW_BACKEND"] = self._options.backend
            self._children = [
                Child(label, arguments, environment, self._ended)
                for label, arguments in self._options.commands.items()
            ]
            try:
                await asyncio.gather(*(child.start() for child in self._children))
                await self._serve()
            finally:
                await self._end()
        if self._failure is not None:
            raise self._failure
        return self._code

    # -- the broker ------------------------------------------------------------------------

    async def _broker(self, around: AsyncExitStack) -> str:
        """Host or join a broker; return its URL."""
        options = self._options
        if options.broker is not None:
            self._say(f"amqflow dev on {redact(options.broker)}")
            self._say_watched()
            return options.broker
        try:
            there = rendezvous.find(options.name)
        except NoEmbeddedBroker:
            host = await around.enter_async_context(Host(options.name, options.host))
            self._say("amqflow dev: broker and results in memory, for development only")
            self._introduce(host.entry)
        else:
            self._say(f"amqflow dev: joined the broker of process {there.pid}")
            self._introduce(there)
            watching = asyncio.get_running_loop().create_task(self._look_after(there))
            around.callback(watching.cancel)
        return rendezvous.url_of(options.name)

    def _introduce(self, entry: Rendezvous) -> None:
        self._say(f"  broker      {entry.broker}")
        if entry.management is not None:
            self._say(f"  management  {entry.management}")
        self._say_watched()
        self._say(
            f'  join it     AmqFlow(broker="{entry.url}") or AMQFLOW_BROKER={entry.url}, '
            "in any terminal of this user"
        )

    def _say_watched(self) -> None:
        if self._options.watched:
            folders = ", ".join(map(str, self._options.watched))
            self._say(f"  watching    {folders}: saving a file starts the worker again")

    async def _look_after(self, there: Rendezvous) -> None:
        """End when what was joined has ended."""
        while True:
            await asyncio.sleep(LOOK)
            try:
                found = rendezvous.find(there.name)
            except NoEmbeddedBroker:
                found = None
            if found != there:
                message = f"the embedded broker of process {there.pid} has ended, and so does this"
                self._failure = AmqflowError(message)
                self._stop.set()
                return

    # -- the children ----------------------------------------------------------------------

    async def _serve(self) -> None:
        if not self._options.watched:
            await self._stop.wait()
            return
        async for files in changes(self._options.watched, self._stop):
            if self._stop.is_set():
                return
            more = f" and {len(files) - NAMED} more" if len(files) > NAMED else ""
            self._say(f"amqflow dev: {', '.join(files[:NAMED])}{more} changed, starting again")
            await self._restart()

    async def _restart(self) -> None:
        self._restarted = True
        for task in self._again:
            task.cancel()
        await asyncio.gather(*(child.stop() for child in self._children))
        if not self._stop.is_set():
            await asyncio.gather(*(child.start() for child in self._children))

    def _ended(self, child: Child, code: int) -> None:
        """Decide what becomes of a child that ended unasked."""
        if self._stop.is_set():
            return
        if not self._options.watched or (code == USAGE and not self._restarted):
            self._code = code if code > 0 else 1
            self._say(f"amqflow dev: the {child.label} has ended ({_how(code)})")
            self._stop.set()
        elif code in SAID:
            self._say(
                f"amqflow dev: the {child.label} cannot run; its messages wait in the broker for "
                "the next change"
            )
        else:
            self._say(f"amqflow dev: the {child.label} has ended ({_how(code)}), starting again")
            task = asyncio.get_running_loop().create_task(self._revive(child))
            self._again.add(task)
            task.add_done_callback(self._again.discard)

    async def _revive(self, child: Child) -> None:
        await asyncio.sleep(PAUSE)
        if not self._stop.is_set() and not child.running:
            await child.start()

    # -- the end ---------------------------------------------------------------------------

    def _told(self) -> None:
        """Stop: the first time running tasks end, the second time children leave at once."""
        if not self._stop.is_set():
            self._say("amqflow dev: stopping; once more to leave running tasks (they run again)")
            self._stop.set()
            return
        for child in self._children:
            child.tell()

    async def _end(self) -> None:
        for task in self._again:
            task.cancel()
        for child in self._children:
            child.tell()
        await asyncio.gather(*(child.wait() for child in self._children))


def _how(code: int) -> str:
    return f"killed by {signal.Signals(-code).name}" if code < 0 else f"exit code {code}"


def environment_name() -> str:
    """Return the name in ``AMQFLOW_BROKER=embedded://name``, the default where it is not set."""
    url = os.environ.get("AMQFLOW_BROKER")
    return (
        rendezvous.name_of(url) if url and rendezvous.is_embedded(url) else rendezvous.DEFAULT_NAME
    )
