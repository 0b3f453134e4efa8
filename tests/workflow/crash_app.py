"""A worker that dies by SIGKILL at a named instant of a chord's way, when the test arms it.

Run as a program it imports everything, waits for a line on its standard input, and only then
works: the next worker is warm when one dies. Nothing in amqflow knows of these instants: the
hooks are put around its methods here.
"""

import asyncio
import os
import signal
from functools import wraps
from pathlib import Path

from amqflow import AmqFlow
from amqflow.producer import Producer
from amqflow.worker import Worker, WorkerOptions, intake
from amqflow.workflow.records import Verdict
from amqflow.workflow.stores import Lifetimes
from amqflow.workflow.stores.redis import RedisChords
from amqflow.workflow.wire import COMPLETIONS
from tests.servers.wait import until

FOLDER = Path(os.environ["CRASH_FOLDER"])

app = AmqFlow("crash", once_lease=1.0, workflow_deadline=600)


def note(what):
    """Append a line; a kill right after it loses nothing."""
    log = os.open(FOLDER / "runs.log", os.O_WRONLY | os.O_APPEND | os.O_CREAT)
    os.write(log, f"{what}\n".encode())
    os.close(log)


def passing(instant):
    """Die here, if the test has armed this instant; once."""
    try:
        (FOLDER / f"armed-{instant}").unlink()
    except FileNotFoundError:
        return
    os.kill(os.getpid(), signal.SIGKILL)


async def spared():
    """Wait until no worker is going to die.

    One that dies while it runs body or errback leaves a run behind that counts as one more, and
    rightly so; the instants are others.
    """
    await until(lambda: not any(FOLDER.glob("armed-*")), deadline=60)


@app.task(name="crash.member")
async def member(number):
    note(f"member {number}")
    return number


@app.task(name="crash.bad")
async def bad(number):
    note(f"member {number}")
    raise ValueError(number)


@app.task(name="crash.body", bind=True)
async def body(self, numbers):
    await spared()
    note(f"body {self.request.id}")
    return sum(numbers)


@app.task(name="crash.errback", bind=True)
async def errback(self, request, exc, traceback):
    await spared()
    note(f"errback {self.request.id}")


def around(kind, name, *, before=None, after=None):
    """Put hooks around a coroutine method; ``after`` sees its answer."""
    real = getattr(kind, name)

    @wraps(real)
    async def hooked(self, *args, **kwargs):
        if before is not None:
            before(*args)
        answer = await real(self, *args, **kwargs)
        if after is not None:
            after(answer, *args)
        return answer

    setattr(kind, name, hooked)


def of_members(outgoing):
    return outgoing.envelope.type == COMPLETIONS


def counted(answers, _batch):
    if any(answer.verdict in {Verdict.READY, Verdict.FAILED} for answer in answers):
        passing("30-counted")


def install():
    around(
        Producer,
        "publish",
        before=lambda letter, *_: passing("28-ran") if of_members(letter) else None,
        after=lambda _, letter, *__: passing("29-completed") if of_members(letter) else None,
    )
    around(RedisChords, "count", after=counted)
    around(
        RedisChords,
        "end",
        before=lambda *_: passing("31-published"),
        after=lambda *_: passing("32-fired"),
    )
    # Recovery waits for leases to run out: short ones here, nothing else differs.
    real = Lifetimes.of
    Lifetimes.of = lambda *args: Lifetimes(real(*args).record, real(*args).tombstone, lease=1.0)
    intake.BUSY_DELAY = 0.3


async def main():
    worker = Worker(app, WorkerOptions(concurrency=8, hostname=f"crash-{os.getpid()}"))
    loop = asyncio.get_running_loop()
    loop.add_signal_handler(signal.SIGTERM, worker.stop)
    await worker.run()


if __name__ == "__main__":
    install()
    asyncio.run(main())
