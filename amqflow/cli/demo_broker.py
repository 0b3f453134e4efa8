"""A broker and a result store for the time of a demo, where none is configured."""

from __future__ import annotations

import asyncio
import os
import sys
import tempfile
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Final

from amqflow import rendezvous
from amqflow.app import App
from amqflow.errors import BrokerUnavailable, NoEmbeddedBroker

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

#: Seconds it may take to start, on a machine that is busy.
START_TIMEOUT: Final = 30.0
#: Seconds it may take to stop.
STOP_TIMEOUT: Final = 10.0

VARIABLE: Final = "AMQFLOW_BROKER"


@asynccontextmanager
async def broker_for(run: str) -> AsyncIterator[None]:
    """Run an embedded broker in a process of its own, unless another broker is configured.

    This process and its children find it in the environment.
    """
    if App().conf.settings.broker_url is not None:
        yield
        return
    name = f"demo-{run}"
    with tempfile.TemporaryFile() as lines:
        process = await asyncio.create_subprocess_exec(
            # It ends with us, however we end: our end closes its standard input.
            *(sys.executable, "-m", "amqflow.dev.child", "broker", "--name", name),
            *("--port", "0", "--management-port", "0"),
            stdin=asyncio.subprocess.PIPE,
            stdout=lines,
            stderr=lines,
            # Ctrl-C is the demo's: it stops its broker itself, last.
            start_new_session=True,
        )
        before = os.environ.get(VARIABLE)
        try:
            await _answers(name, process)
            os.environ[VARIABLE] = rendezvous.url_of(name)
            yield
        except NoEmbeddedBroker as error:
            lines.seek(0)
            said = lines.read().decode(errors="replace").strip()
            raise BrokerUnavailable(
                f"the embedded broker did not start: {said or error}"
            ) from error
        finally:
            os.environ.pop(VARIABLE, None)
            if before is not None:
                os.environ[VARIABLE] = before
            await _stop(process)


async def _answers(name: str, process: asyncio.subprocess.Process) -> None:
    """Wait until the broker is found under its name."""
    deadline = asyncio.get_running_loop().time() + START_TIMEOUT
    while True:
        try:
            rendezvous.find(name)
        except NoEmbeddedBroker:
            late = asyncio.get_running_loop().time() > deadline
            if late or process.returncode is not None:
                raise
            await asyncio.sleep(0.02)
        else:
            return


async def _stop(process: asyncio.subprocess.Process) -> None:
    if process.returncode is None:
        process.terminate()
    try:
        async with asyncio.timeout(STOP_TIMEOUT):
            await process.wait()
    except TimeoutError:
        process.kill()
