"""Three schedulers, one killed again and again, the store paused, the broker killed (at length).

Each slot runs exactly once, or is recorded as missed where the outage outlasted ``max_lateness``.
"""

import asyncio
import importlib
import os
import signal
import subprocess
import time
from collections import Counter
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import datetime

import pytest

from amqflow.errors import AmqflowError
from amqflow.scheduler.redis import RedisScheduleStore
from amqflow.scheduler.words import What
from tests.faults.ledger import ROOT, Workers, consumed
from tests.servers.command import Command
from tests.servers.wait import until

APP = "tests.scheduler.ledger_app"


@dataclass
class Balance:
    """How a run ended; `str()` prints it."""

    slots: int = 0
    ran: int = 0
    missed: int = 0
    killed: int = 0
    taken: int = 0
    lost: list = field(default_factory=list)
    twice: list = field(default_factory=list)
    missed_but_ran: list = field(default_factory=list)
    longest_gap: float = 0.0

    def __str__(self):
        return (
            f"\n  slots due                 {self.slots}\n  ran once                  {self.ran}\n"
            f"  recorded as missed        {self.missed}\n  lost                      {len(self.lost)}\n"
            f"  ran twice                 {len(self.twice)}\n"
            f"  missed and yet ran        {len(self.missed_but_ran)}\n"
            f"  schedulers killed         {self.killed}\n  slots taken over          {self.taken}\n"
        )


class Schedulers:
    """Scheduler processes that a test may kill."""

    def __init__(self, folder):
        self._folder, self._started, self.running = folder, 0, []

    def start(self):
        self._started += 1
        log = (self._folder / f"beat{self._started}.log").open("wb")
        self.running.append(
            Command(
                *("-m", "amqflow", "-A", APP, "beat", "-n", f"b{self._started}"),
                env={**os.environ, "PYTHONPATH": str(ROOT)},
                stdout=log,
                stderr=subprocess.STDOUT,
            )
        )
        log.close()

    def replace_oldest(self):
        """SIGKILL the one that has run longest and start another."""
        oldest = self.running.pop(0)
        oldest.kill()
        oldest.wait(10)
        self.start()

    def close(self):
        for process in self.running:
            process.terminate()
        codes = []
        for process in self.running:
            try:
                codes.append(process.wait(40))
            except subprocess.TimeoutExpired:
                process.kill()
                codes.append(None)
        self.running = []
        return codes

    def logs(self):
        return "\n".join(path.read_text() for path in sorted(self._folder.glob("beat*.log")))


@pytest.fixture
def stage(request, private_rabbitmq, private_redis, tmp_path, monkeypatch):
    """Servers to harm, an application of so many entries, its processes.

    Without ``broken`` the broker is the shared one.
    """

    def setup(entries, lateness, *, broken):
        store, broker = private_redis(), private_rabbitmq() if broken else None
        url = broker.url if broker else request.getfixturevalue("amqp_url")
        log = tmp_path / "runs.log"
        log.touch()
        for name, value in {
            "AMQFLOW_BROKER": url,
            "AMQFLOW_BACKEND": store.url,
            "LEDGER_LOG": str(log),
            "LEDGER_ENTRIES": str(entries),
            "LEDGER_LATENESS": str(lateness),
        }.items():
            monkeypatch.setenv(name, value)
        import tests.scheduler.ledger_app as module

        return broker, store, importlib.reload(module).app, log

    workers, schedulers = Workers(tmp_path, APP), Schedulers(tmp_path)
    yield setup, workers, schedulers
    schedulers.close()
    workers.close()


async def kill(schedulers, every, enough, balance):
    """Kill a scheduler every so many seconds."""
    while not enough.is_set():
        with suppress(TimeoutError):
            await asyncio.wait_for(enough.wait(), every)
        await asyncio.to_thread(schedulers.replace_oldest)
        balance.killed += 1


async def harm(broker, store, break_broker, pause_store, away):
    """Kill the broker, and later pause the store or have it away; after seconds each."""
    if broker is not None:
        await asyncio.sleep(break_broker)
        await asyncio.to_thread(broker.kill9)
        await asyncio.to_thread(broker.start)
    await asyncio.sleep(max(0.0, pause_store - (break_broker or 0.0)))
    if away:
        await asyncio.to_thread(store.kill9)
        await asyncio.sleep(away)
        await asyncio.to_thread(store.start)
        await asyncio.sleep(3)
    else:
        await asyncio.to_thread(store.pause, 2.5)


async def run(
    stage, *, entries, lateness, seconds, every, break_broker, pause_store, workers=1, away=0.0
):
    setup, working, schedulers = stage
    broker, store, app, log = setup(entries, lateness, broken=break_broker is not None)
    for _ in range(workers):
        working.start("-c", "20")
    await consumed(app, by=workers)
    if broker is not None:
        await asyncio.to_thread(broker.settle)
    for _ in range(3):
        schedulers.start()
    await until(log.read_text, deadline=60, message=schedulers.logs())
    balance, enough = Balance(), asyncio.Event()

    killing = asyncio.create_task(kill(schedulers, every, enough, balance))
    harming = asyncio.create_task(harm(broker, store, break_broker, pause_store, away))
    await asyncio.sleep(seconds)
    await harming
    enough.set()
    await killing
    # All that is due by now is decided by whoever lives; what the last dead one held as well.
    due = time.time()
    kept = RedisScheduleStore(store.url, app.main, history=400)
    names = [f"e{number}" for number in range(entries)]

    async def decided():
        with suppress(AmqflowError):
            standings = await kept.standings(names)
            waits = (await kept.beat("test", 1)).overdue
            return not waits and all(standing.cursor >= due * 1000 for standing in standings)

    await until(decided, deadline=90, every=0.3, message=schedulers.logs()[-3000:])
    codes = await asyncio.to_thread(schedulers.close)
    # The youngest may not have got as far as its signal handlers.
    assert set(codes) <= {0, -signal.SIGTERM}, schedulers.logs()[-3000:]
    await settled(app, kept, names, balance, log)
    await kept.close()
    await app.aclose()
    logs = schedulers.logs()
    balance.taken = sum(int(line.split("slots=")[1].split()[0]) for line in logs.splitlines()
                        if "took over" in line)  # fmt: skip
    print(balance)
    assert not balance.lost, (balance.lost[:10], logs[-3000:])
    assert not balance.twice
    assert not balance.missed_but_ran
    assert balance.ran + balance.missed == balance.slots
    return balance


async def settled(app, kept, names, balance, log):
    """Wait until what was published has run, and compare what ran with what was due."""
    expected, missed = set(), set()
    for name, standing in zip(names, await kept.standings(names), strict=True):
        first = standing.start // 1000 + 1
        expected |= {(name, slot) for slot in range(first, standing.cursor // 1000 + 1)}
        for record in await kept.history(name, 400):
            if record.what is What.MISSED:
                last = (record.last or record.slot) // 1000
                missed |= {(name, slot) for slot in range(record.slot // 1000, last + 1)}
            else:
                assert record.what is What.RAN, record

    def ran():
        lines = [line.split() for line in log.read_text().splitlines()]
        return Counter(
            (name, round(datetime.fromisoformat(slot).timestamp())) for name, slot, _ in lines
        )

    with suppress(AssertionError):  # the balance names what is missing
        await until(lambda: ran().keys() >= expected - missed, deadline=120, every=0.5)
    runs = ran()
    balance.slots, balance.missed = len(expected), len(missed & expected)
    balance.ran = sum(1 for slot in expected if runs[slot] == 1)
    balance.lost = sorted(expected - missed - runs.keys())
    balance.twice = sorted(slot for slot, count in runs.items() if count > 1)
    balance.missed_but_ran = sorted(missed & runs.keys())


@pytest.mark.faults
async def test_slots_run_once_while_schedulers_are_killed_and_the_store_is_paused(stage):
    balance = await run(
        stage, entries=40, lateness=60, seconds=4, every=1.5, break_broker=None, pause_store=1
    )
    assert balance.killed >= 2
    assert balance.missed == 0, "nothing was away for a minute"
    assert balance.slots >= 40 * 3


@pytest.mark.faults_long
async def test_slots_run_once_while_schedulers_are_killed_and_the_servers_fail(stage):
    balance = await run(
        stage, entries=40, lateness=60, seconds=9, every=3, break_broker=2, pause_store=6
    )
    assert balance.killed >= 2
    assert balance.missed == 0, "nothing was away for a minute"
    assert balance.slots >= 40 * 7


@pytest.mark.faults_long
async def test_a_thousand_entries_each_second_for_a_minute(stage):
    balance = await run(
        stage,
        entries=1000,
        lateness=60,
        seconds=60,
        every=10,
        break_broker=15,
        pause_store=40,
        workers=2,
    )
    assert balance.killed >= 5
    assert balance.slots >= 50_000


@pytest.mark.faults_long
async def test_what_an_outage_outlasts_is_recorded_as_missed(stage):
    balance = await run(
        stage, entries=100, lateness=2, seconds=10, every=6, break_broker=3, pause_store=6, away=6
    )
    assert balance.missed >= 200
