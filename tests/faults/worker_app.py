"""Tasks that meet a kill or a stop where it hurts; every run leaves a line in the ledger's log.

A task that *holds* stays in its first run until the test touches ``go``; the test kills its
worker meanwhile, or stops it. Any later run goes through.
"""

import asyncio
import os
import signal
import sqlite3
import time
from contextlib import closing, suppress
from pathlib import Path

from amqflow import AmqFlow, signals
from amqflow.middleware import Middleware
from tests.faults.ledger_app import note


class Stored(Middleware):
    """Dies where the environment says so, once the outcome stands."""

    def after_settle(self, message, outcome):
        """Die before anything that follows is published."""
        if os.environ.get("HIT_KILL_AT") == "stored":
            _kill_once(message)


app = AmqFlow("hit", middleware=[Stored()])
FOLDER = Path(os.environ["LEDGER_LOG"]).parent


def first(task_id):
    """Say whether this is the first run of an id, on any worker."""
    try:
        (FOLDER / f"{task_id}.first").touch(exist_ok=False)
    except FileExistsError:
        return False
    return True


async def aheld():
    """Wait for the file of another process, which no event of this one can tell."""
    while not may_go():  # noqa: ASYNC110
        await asyncio.sleep(0.01)


def may_go():
    return (FOLDER / "go").exists()


@app.task(bind=True, name="hit.hold")
def hold(self) -> int:
    note(self.request.id, self.request.retries)
    if first(self.request.id):
        while not may_go():
            time.sleep(0.01)
    return os.getpid()


@app.task(bind=True, name="hit.ahold")
async def ahold(self) -> int:
    note(self.request.id, self.request.retries)
    if first(self.request.id):
        await aheld()
    return os.getpid()


@app.task(bind=True, name="hit.limited", rate_limit="20/s")
def limited(self) -> int:
    note(self.request.id, self.request.retries)
    return os.getpid()


@app.task(bind=True, name="hit.always")
def always(self) -> None:
    """Hold in every run."""
    note(self.request.id, self.request.retries)
    while not may_go():
        time.sleep(0.01)


@app.task(bind=True, name="hit.aalways")
async def aalways(self) -> None:
    note(self.request.id, self.request.retries)
    await aheld()


@app.task(bind=True, name="hit.early", acks_late=False)
def early(self) -> int:
    note(self.request.id, self.request.retries)
    if first(self.request.id):
        while not may_go():
            time.sleep(0.01)
    return os.getpid()


@app.task(bind=True, name="hit.aearly", acks_late=False)
async def aearly(self) -> int:
    note(self.request.id, self.request.retries)
    if first(self.request.id):
        await aheld()
    return os.getpid()


@app.task(bind=True, name="hit.pay")
def pay(self) -> None:
    """Pay once: the id is the key that a second payment breaks on."""
    note(self.request.id, self.request.retries)
    with closing(sqlite3.connect(FOLDER / "bank.db", timeout=10)) as bank, bank:
        bank.execute("CREATE TABLE IF NOT EXISTS tried (id TEXT)")
        bank.execute("CREATE TABLE IF NOT EXISTS paid (id TEXT PRIMARY KEY)")
        bank.execute("INSERT INTO tried VALUES (?)", (self.request.id,))
        bank.execute("INSERT OR IGNORE INTO paid VALUES (?)", (self.request.id,))
    if first(self.request.id):
        (FOLDER / "effect").touch()
        while not may_go():
            time.sleep(0.01)


@app.task(bind=True, name="hit.plain")
def plain(self, *results: object, **named: object) -> int:
    note(self.request.id, self.request.retries)
    return os.getpid()


@app.task(bind=True, name="hit.aplain")
async def aplain(self) -> int:
    note(self.request.id, self.request.retries)
    await asyncio.sleep(0.01)
    return os.getpid()


@app.task(
    bind=True, name="hit.flaky", autoretry_for=(OSError,), retry_backoff=4, retry_jitter=False
)
def flaky(self) -> None:
    note(self.request.id, self.request.retries)
    if not self.request.retries:
        raise OSError("come back in four seconds")


@app.task(
    bind=True, name="hit.again", autoretry_for=(OSError,), retry_backoff=1, retry_jitter=False
)
async def again(self) -> None:
    note(self.request.id, self.request.retries)
    if not self.request.retries:
        raise OSError("come back in a second")


@app.task(bind=True, name="hit.die", queue="quorum")
def die(self) -> None:
    note(self.request.id, self.request.retries)
    time.sleep(0.05)  # its neighbours are to be under way
    os.kill(os.getpid(), signal.SIGKILL)


@app.task(bind=True, name="hit.innocent", queue="quorum")
def innocent(self) -> None:
    note(self.request.id, self.request.retries)
    time.sleep(0.02)


@app.task(bind=True, name="hit.pdie", queue="classic", priority=5)
def pdie(self) -> None:
    note(self.request.id, self.request.retries)
    time.sleep(0.05)
    os.kill(os.getpid(), signal.SIGKILL)


@app.task(bind=True, name="hit.pinnocent", queue="classic", priority=5)
def pinnocent(self) -> None:
    note(self.request.id, self.request.retries)
    time.sleep(0.02)


@app.task(bind=True, name="hit.stubborn", time_limit=0.3)
async def stubborn(self) -> str:
    """Swallow every cancellation until the test says ``go``."""
    note(self.request.id, self.request.retries)
    while not may_go():
        with suppress(asyncio.CancelledError):
            await asyncio.sleep(0.01)
    return "too late"


@app.task(bind=True, name="hit.unstoppable", time_limit=0.3)
async def unstoppable(self) -> str:
    """Swallow whatever comes until the test says ``go``, even GeneratorExit."""
    note(self.request.id, self.request.retries)
    while not may_go():
        with suppress(BaseException):
            await asyncio.sleep(0.01)
    return "too late"


@app.task(bind=True, name="hit.unlimited")
async def unlimited(self) -> str:
    """Swallow every cancellation until the test says ``go``."""
    note(self.request.id, self.request.retries)
    while not may_go():
        with suppress(asyncio.CancelledError):
            await asyncio.sleep(0.01)
    return "at last"


@app.task(bind=True, name="hit.late", time_limit=0.3)
async def late(self) -> str:
    """Swallow one cancellation and return a value all the same."""
    note(self.request.id, self.request.retries)
    try:
        await asyncio.sleep(60)
    except asyncio.CancelledError:
        return "too late"
    return "not limited"


def _kill_once(sender, **_named):
    """Die where the environment says, once."""
    try:
        (FOLDER / "killed").touch(exist_ok=False)
    except FileExistsError:
        return
    os.kill(os.getpid(), signal.SIGKILL)


if os.environ.get("HIT_KILL_AT") == "published":
    # What follows is confirmed, the ack is not sent.
    signals.after_task_publish.connect(_kill_once, weak=False)
