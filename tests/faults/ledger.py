"""The ledger: what was confirmed against what became of it, while things are killed."""

import asyncio
import os
import subprocess
from collections import Counter
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path

from amqflow.errors import AmqflowError
from tests.servers.command import Command
from tests.servers.wait import until

ROOT = Path(__file__).parents[2]
#: What a publish says whose time is over while the broker blocks publishers.
BLOCKED = "has blocked publishers (memory or disk alarm)"


@dataclass
class Balance:
    """How a run ended; ``str()`` prints it."""

    sent: int = 0
    refused: int = 0
    done: int = 0
    dead: int = 0
    missing: list[int] = field(default_factory=list)
    wrong: list[int] = field(default_factory=list)
    runs: int = 0
    repeated_runs: int = 0
    repeated_letters: int = 0

    def __str__(self) -> str:
        return (
            f"\n  confirmed        {self.sent}\n  refused          {self.refused}\n"
            f"  done             {self.done}\n  dead             {self.dead}\n"
            f"  missing          {len(self.missing)}\n  wrong state      {len(self.wrong)}\n"
            f"  runs             {self.runs}\n  runs repeated    {self.repeated_runs}\n"
            f"  letters repeated {self.repeated_letters}\n"
        )


class Workers:
    """Worker processes that a test may kill."""

    def __init__(self, folder, app="tests.faults.ledger_app"):
        self._folder, self._app = folder, app
        self._running = []
        self._started = 0

    def __len__(self):
        """How many run, as far as is known."""
        return len(self._running)

    def start(self, *options, **environment):
        """Start one; later options win over those given to every worker here."""
        self._started += 1
        log = (self._folder / f"worker{self._started}.log").open("wb")
        process = Command(
            *("-m", "amqflow", "-A", self._app, "worker", "-c", "4"),
            *("-l", "warning", "-n", f"w{self._started}", *options),
            env={**os.environ, "PYTHONPATH": str(ROOT), **environment},
            stdout=log,
            stderr=subprocess.STDOUT,
        )
        log.close()
        self._running.append(process)
        return process

    def logs(self):
        """Return what all of them have printed so far."""
        return "\n".join(path.read_text() for path in sorted(self._folder.glob("worker*.log")))

    def lose(self, process):
        """SIGKILL one; nobody takes its place."""
        process.kill()
        process.wait(10)
        self._running.remove(process)

    def ended(self):
        """Return those that ended by themselves, and forget them."""
        gone = [process for process in self._running if process.poll() is not None]
        for process in gone:
            self._running.remove(process)
        return gone

    def kill(self, process):
        """SIGKILL one and start another."""
        self.lose(process)
        return self.start()

    def close(self):
        for process in self._running:
            process.terminate()
        codes = []
        for process in self._running:
            try:
                codes.append(process.wait(20))
            except subprocess.TimeoutExpired:
                process.kill()
                codes.append(None)
        return codes


async def consumed(app, queue="default", by=1):
    """Wait until a queue has consumers."""

    async def ready():
        try:
            counts = await app.runtime().transport.declare_queue(queue, passive=True)
        except AmqflowError:
            return False
        return counts.consumers >= by

    await until(ready, deadline=40)


@asynccontextmanager
async def blocked(broker, alarm="memory"):
    """Have the broker block those who publish, by an alarm for memory or disk."""

    async def ctl(*arguments):
        return (await asyncio.to_thread(broker.ctl, *arguments)).strip()

    if alarm == "disk":
        command, raised, cleared = "set_disk_free_limit", "1000000GB", "50MB"
    else:
        command, raised = "set_vm_memory_high_watermark", "0.000001"
        mark = await ctl("eval", "vm_memory_monitor:get_vm_memory_high_watermark().")
        cleared = mark if mark.replace(".", "").isdigit() else "0.4"
    await ctl(command, raised)
    try:
        yield
    finally:
        await ctl(command, cleared)


async def supervised(app, workers, done, queue, *options):
    """Start a worker of a queue again whenever it dies, as a supervisor does.

    Ends when ``done`` says so and those left consume; returns how often one died.
    """
    options = ("-Q", queue, *options)
    workers.start(*options)
    died = 0
    while not await done():
        for process in workers.ended():
            assert process.returncode == -9, workers.logs()
            died += 1
            workers.start(*options)
        await asyncio.sleep(0.05)
    died += len(workers.ended())
    if len(workers):
        await consumed(app, queue, by=len(workers))
    return died


async def produce(app, task, count, balance, ids):
    """Send in bursts; every confirmed id is owed an end."""

    async def one(number):
        try:
            sent = await task.aapply_async((number,), timeout=60)
        except AmqflowError:
            balance.refused += 1
        else:
            ids[sent.id] = number

    for start in range(0, count, 50):
        await asyncio.gather(*(one(number) for number in range(start, min(count, start + 50))))
        await asyncio.sleep(0.03)  # a stream, not a burst: faults are to meet work under way
    balance.sent = len(ids)


async def settle(app, ids, balance, log, deadline):
    """Wait until every confirmed id has ended, then compare store, dead letters and runs."""
    store = await app.runtime().opened_store()
    states = {}

    async def all_ended():
        for task_id in [known for known in ids if known not in states]:
            try:
                outcome = await store.get(task_id)
            except AmqflowError:
                return False
            if outcome is not None and outcome.terminal:
                states[task_id] = outcome.state
        return len(states) == len(ids)

    with suppress(AssertionError):  # the balance names what is missing
        await until(all_ended, deadline=deadline, every=0.3)
    letters = await _letters(app, {known for known in ids if states.get(known) == "FAILURE"})
    for task_id, number in ids.items():
        state, fails = states.get(task_id), number % 10 == 7
        if state is None:
            balance.missing.append(number)
        elif (state == "FAILURE") != fails or (letters[task_id] > 0) != fails:
            balance.wrong.append(number)
        elif fails:
            balance.dead += 1
        else:
            balance.done += 1
    runs = Counter(tuple(line.split()[:2]) for line in log.read_text().splitlines())
    balance.runs = sum(runs.values())
    balance.repeated_runs = balance.runs - len(runs)
    balance.repeated_letters = sum(count - 1 for count in letters.values())


async def _letters(app, expected):
    """Count the dead letters by task id, once all that are expected were seen."""
    letters = Counter()
    consumer = app.runtime().transport.consume(
        "default.dead",
        lambda delivery: letters.update([delivery.envelope.headers["id"]]),
        prefetch=0,
    )
    with suppress(AssertionError):
        await until(lambda: expected <= letters.keys(), deadline=20)
    await consumer.close()
    return letters
