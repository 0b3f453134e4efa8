"""Tasks for every pool: well behaved, late, and as bad as tasks get."""

import asyncio
import contextlib
import ctypes
import logging
import os
import signal
import sys
import threading
import time
from pathlib import Path

from amqflow import AmqFlow, Ignore, Reject, SoftTimeLimitExceeded, signals
from amqflow.middleware import Middleware

FOLDER = Path(os.environ.get("POOL_FOLDER", "."))


def note(name, words):
    """Append one line in one write."""
    with (FOLDER / name).open("ab", buffering=0) as file:
        file.write(f"{words}\n".encode())


class Hooked(Middleware):
    def before_execute(self, request):
        if request.task.endswith("hooked"):
            note("hooks", f"before {request.id} {os.getpid()}")

    def after_execute(self, request, result, error):
        if request.task.endswith("hooked"):
            note("hooks", f"after {request.id} {result} {type(error).__name__}")


app = AmqFlow("pool", middleware=[Hooked()])


@signals.worker_process_init.connect
def born(**_):
    note("born", os.getpid())


@signals.worker_process_shutdown.connect
def gone(pid=None, **_):
    note("gone", pid)


@signals.task_prerun.connect
def prerun(task_id=None, task=None, **_):
    if task.name == "told":
        note("told", f"prerun {task_id} {os.getpid()} {threading.get_ident()}")


@signals.task_postrun.connect
def postrun(task_id=None, task=None, state=None, retval=None, **_):
    if task.name == "told":
        note("told", f"postrun {state} {retval!r} {os.getpid()} {threading.get_ident()}")


@app.task(name="add")
def add(a: int, b: int = 1) -> int:
    return a + b


@app.task(name="aadd")
async def aadd(a: int, b: int = 1) -> int:
    await asyncio.sleep(0)
    return a + b


@app.task(name="swapped", bind=True)
def swapped(self, value: int) -> int:
    raise self.replace(add.s(value, 10))


@app.task(name="broken")
def broken() -> None:
    raise KeyError("broken")


@app.task(name="errback")
def errback(request, exc, traceback) -> None:
    (FOLDER / "errback").write_text(f"{request.id} {type(exc).__name__} {'Traceback' in traceback}")


@app.task(name="told", bind=True)
def told(self) -> list:
    return [self.request.id, os.getpid(), threading.get_ident()]


@app.task(name="hooked")
def hooked() -> int:
    return os.getpid()


@app.task(name="ahooked")
async def ahooked() -> int:
    return os.getpid()


@app.task(name="request", bind=True)
def request(self) -> dict:
    known = self.request
    return {
        "id": known.id,
        "root": known.root_id,
        "retries": known.retries,
        "queue": known.delivery_info["queue"],
        "limits": list(known.timelimit),
        "header": known.headers.get("tenant"),
        "host": known.hostname,
        "deadline": known.deadline is not None,
        "current": __import__("amqflow").current_task.name,
    }


@app.task(name="progress", bind=True)
def progress(self) -> None:
    for done in range(3):
        self.update_state(state="PROGRESS", meta={"done": done})
    while not (FOLDER / "go").exists():
        time.sleep(0.01)


@app.task(name="retried", bind=True, max_retries=2)
def retried(self) -> int:
    if self.request.retries < 2:
        raise self.retry(countdown=0)
    return self.request.retries


@app.task(name="aretried", bind=True, autoretry_for=(OSError,), default_retry_delay=0)
async def aretried(self) -> int:
    if self.request.retries < 1:
        raise OSError("again")
    return self.request.retries


@app.task(name="fails")
def fails() -> None:
    raise ValueError("bad", 3)


@app.task(name="ignored")
def ignored() -> None:
    note("ignored", os.getpid())
    raise Ignore


@app.task(name="rejected")
def rejected() -> None:
    raise Reject("not today")


@app.task(name="parent", bind=True)
def parent(self) -> str:
    return add.delay(20, 22).id


@app.task(name="aparent", bind=True)
async def aparent(self) -> str:
    return (await add.adelay(20, 22)).id


@app.task(name="replaces", bind=True)
def replaces(self):
    raise self.replace(add.s(40, 2))


@app.task(name="total")
def total(numbers: list) -> int:
    return sum(numbers)


@app.task(name="logs")
def logs() -> None:
    logging.getLogger("mine").warning("a line of mine")


@app.task(name="hold")
def hold(name: str) -> int:
    note(f"{name}.held", os.getpid())
    while not (FOLDER / "go").exists():
        time.sleep(0.005)
    return os.getpid()


@app.task(name="ahold")
async def ahold(name: str) -> int:
    note(f"{name}.held", os.getpid())
    while not (FOLDER / "go").exists():  # noqa: ASYNC110 - another process's file is no event
        await asyncio.sleep(0.005)
    return os.getpid()


def wait_here():
    time.sleep(60)


@app.task(name="late", bind=True)
def late(self, name: str = "late") -> None:
    note(name, time.time())
    try:
        wait_here()
    except SoftTimeLimitExceeded:
        note(f"{name}.soft", time.time())
        raise


@app.task(name="spins")
def spins(name: str = "spins") -> None:
    """Python code that never waits: a thread sees its soft limit here."""
    note(name, time.time())
    try:
        while True:
            sum(range(1000))
    except SoftTimeLimitExceeded:
        note(f"{name}.soft", time.time())
        raise


async def await_here():
    await asyncio.sleep(60)


@app.task(name="alate")
async def alate(name: str = "alate") -> None:
    note(name, time.time())
    try:
        await await_here()
    except SoftTimeLimitExceeded:
        note(f"{name}.soft", time.time())
        raise


@app.task(name="caught")
def caught() -> str:
    try:
        while True:
            sum(range(1000))
    except SoftTimeLimitExceeded:
        return "in time"


@app.task(name="acaught")
async def acaught() -> str:
    try:
        await await_here()
    except SoftTimeLimitExceeded:
        return "in time"
    return "never"


# -- as bad as tasks get ------------------------------------------------------------------------


@app.task(name="swallows")
def swallows() -> None:
    end = time.monotonic() + 20
    while time.monotonic() < end and not (FOLDER / "go").exists():
        with contextlib.suppress(SoftTimeLimitExceeded):
            time.sleep(0.01)


@app.task(name="meets")
def meets(me: str, other: str, patience: float) -> bool:
    """Say whether the other one runs at the same time."""
    if (FOLDER / f"{other}.left").exists():
        return False
    (FOLDER / f"{me}.here").touch()
    end = time.monotonic() + patience
    while not (met := (FOLDER / f"{other}.here").exists()) and time.monotonic() < end:
        time.sleep(0.01)
    (FOLDER / f"{me}.left").touch()
    return met


@app.task(name="dozes")
def dozes(name: str, seconds: float) -> None:
    """Wait in one system call, and tell when the soft limit was seen."""
    note(name, time.time())
    try:
        time.sleep(seconds)
    except SoftTimeLimitExceeded:
        note(f"{name}.soft", time.time())
        raise


@app.task(name="outlives")
def outlives(name: str) -> None:
    """Heed no limit, and tell of having outlived it."""
    note(name, os.getpid())
    while not (FOLDER / f"{name}.go").exists():
        time.sleep(0.01)
    note(f"{name}.outlived", os.getpid())


@app.task(name="aoutlives")
async def aoutlives(name: str) -> None:
    note(name, os.getpid())
    try:
        while not (FOLDER / f"{name}.go").exists():
            with contextlib.suppress(asyncio.CancelledError):
                await asyncio.sleep(0.01)
        note(f"{name}.outlived", os.getpid())
    finally:
        note(f"{name}.ended", os.getpid())


@app.task(name="exits")
def exits() -> None:
    sys.exit(3)


@app.task(name="aexits")
async def aexits() -> None:
    sys.exit(3)


@app.task(name="forks")
def forks() -> str:
    child = os.fork()
    if child:
        os.waitpid(child, 0)
        note("forked", "original")
        return "original"
    note("forked", "copy")
    return "copy"


@app.task(name="megabyte")
def megabyte() -> None:
    logging.getLogger("mine").warning("x" * 1024 * 1024)


@app.task(name="unwritable")
def unwritable():
    return threading.Lock()


@app.task(name="big")
def big(size: int) -> str:
    return "y" * size


@app.task(name="segfaults")
def segfaults() -> None:
    note("segfaults.ran", os.getpid())
    ctypes.string_at(0)


@app.task(name="vanishes")
def vanishes() -> None:
    note("vanishes.ran", os.getpid())
    os._exit(7)


@app.task(name="vanishes_once")
def vanishes_once() -> int:
    try:
        (FOLDER / "vanished").touch(exist_ok=False)
    except FileExistsError:
        return os.getpid()
    os.kill(os.getpid(), signal.SIGKILL)
    return 0


@app.task(name="not_again", reject_on_worker_lost=False)
def not_again() -> None:
    note("not_again.ran", os.getpid())
    os._exit(7)


@app.task(name="eats")
def eats() -> int:
    import resource

    resource.setrlimit(resource.RLIMIT_AS, (600 * 1024 * 1024,) * 2)
    return len(bytearray(2 * 1024 * 1024 * 1024))


@app.task(name="hoards")
def hoards(megabytes: int) -> int:
    hoard.append(bytearray(os.urandom(1024) * 1024 * megabytes))
    return os.getpid()


hoard = []


@app.task(name="handler_raises")
def handler_raises(after: float) -> int:
    """Leave an alarm behind whose handler raises, in the task or after it."""

    def handler(*_):
        raise RuntimeError("from a signal handler")

    signal.signal(signal.SIGALRM, handler)
    signal.setitimer(signal.ITIMER_REAL, 0.05)
    time.sleep(after)
    return os.getpid()


@app.task(name="ahandler_raises")
async def ahandler_raises() -> str:
    """The same while a coroutine waits; only a main thread can have signal handlers."""

    def handler(*_):
        raise RuntimeError("from a signal handler")

    before = signal.signal(signal.SIGALRM, handler)
    signal.setitimer(signal.ITIMER_REAL, 0.05)
    await asyncio.sleep(0.3)
    signal.signal(signal.SIGALRM, before)
    return "ended"


@app.task(name="takes_signal")
def takes_signal(handler: str) -> int:
    """Take the signal that soft limits come by, for good."""
    signal.signal(signal.SIGUSR1, (lambda *_: None) if handler == "own" else signal.SIG_IGN)
    return os.getpid()


@app.task(name="counted")
def counted(number: int) -> int:
    note("counted", number)
    return number


@app.task(name="sometimes")
def sometimes(number: int) -> int:
    """Take no time, but for -1, which waits for ``go``."""
    while number < 0 and not (FOLDER / "go").exists():
        time.sleep(0.005)
    return number


@app.task(name="pid")
def pid() -> int:
    return os.getpid()


@app.task(name="starts_a_process")
def starts_a_process() -> None:
    import subprocess

    process = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"])
    note("started", process.pid)
    process.wait()
