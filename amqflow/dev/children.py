"""The processes ``amqflow dev`` keeps: started again after a change, or after a crash."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import sys
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

#: Seconds a child has for its running tasks after a change before it is told again.
PATIENCE: Final = 5.0
#: Seconds it has after that, until it is killed.
LAST: Final = 5.0
#: How a child is told to stop before it is killed. Two signals of one number that come while it
#: is busy are one.
ASKING: Final = (signal.SIGTERM, signal.SIGINT)
#: Seconds before a child that crashed is started again.
PAUSE: Final = 1.0
#: Exit codes of a child that has said in a sentence why it cannot run: failed, and usage.
USAGE: Final = 2
SAID: Final = frozenset({1, USAGE})


@dataclass(slots=True)
class Child:
    """One command that runs for as long as ``amqflow dev`` does.

    ``ended`` is told the exit code when it ends unasked.
    """

    label: str
    arguments: Sequence[str]
    environment: Mapping[str, str]
    ended: Callable[[Child, int], None]
    _process: asyncio.subprocess.Process | None = None
    _watch: asyncio.Task[None] | None = None
    _asked: bool = False
    _told: int = field(default=0)

    @property
    def running(self) -> bool:
        """Whether its process lives."""
        return self._process is not None and self._process.returncode is None

    async def start(self) -> None:
        """Start its process."""
        self._asked, self._told = False, 0
        process = self._process = await asyncio.create_subprocess_exec(
            sys.executable,
            "-m",
            "amqflow.dev.child",
            *self.arguments,
            env={**os.environ, **self.environment},
            # Its end is how the child learns of ours.
            stdin=asyncio.subprocess.PIPE,
            # Ctrl-C in the terminal is ours: the child is told by us, once.
            start_new_session=True,
        )
        self._watch = asyncio.get_running_loop().create_task(self._wait(process))

    def tell(self) -> None:
        """Tell it to stop: once to finish what runs, twice to leave; a third time it is killed."""
        self._asked = True
        if self.running and self._process is not None:
            self._told += 1
            if self._told <= len(ASKING):
                self._process.send_signal(ASKING[self._told - 1])
            else:
                self._kill(self._process)

    async def stop(self) -> None:
        """Stop it and wait until it has: nothing of a killed child is lost, it runs again."""
        if self._watch is None or self._process is None:
            return
        self.tell()
        for patience in (PATIENCE, LAST):
            done, _ = await asyncio.wait([self._watch], timeout=patience)
            if done:
                return
            self.tell()
        await self._watch

    async def wait(self) -> None:
        """Wait until its process has ended."""
        if self._watch is not None:
            await asyncio.wait([self._watch])

    def _kill(self, process: asyncio.subprocess.Process) -> None:
        """End it and what it has started, at once."""
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)

    async def _wait(self, process: asyncio.subprocess.Process) -> None:
        code = await process.wait()
        if not self._asked:
            self.ended(self, code)
