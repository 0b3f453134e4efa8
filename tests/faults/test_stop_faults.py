"""What a stop may do to tasks: nothing is lost, nothing is failed by it (fault 6)."""

import asyncio
import contextlib
import os
import signal
import subprocess
import time
from pathlib import Path

import pytest

from amqflow.settings import Settings
from amqflow.worker.returns import SUSPECT_AFTER
from tests.faults.ledger import ROOT, consumed
from tests.servers.command import Command
from tests.servers.process import free_port
from tests.servers.wait import until

pytestmark = pytest.mark.faults
long = pytest.mark.faults_long

#: Seconds in which a worker told twice has left: less than one on an idle machine, and less on any
#: than the 30 it would wait for its last settlements.
AT_ONCE = 20
#: One signal is as good as the other to most of the tests.
SIGNALS = [signal.SIGTERM, pytest.param(signal.SIGINT, marks=long)]


@pytest.mark.parametrize("number", SIGNALS)
async def test_told_once_running_tasks_end_and_the_others_are_handed_back(stage, number):
    account, workers = stage.account, stage.workers
    worker = workers.start("-Q", "default")
    await consumed(stage.app)
    running = await account.send("hit.hold", count=2) + await account.send("hit.ahold", count=2)
    await until(lambda: len(account.runs()) == 4, deadline=60)
    waiting = await account.send("hit.plain", count=8)
    await until(lambda: _is(account.ready(), 0))
    worker.send_signal(number)
    await until(lambda: _is(account.ready(), 8), message="handed back while the others run")
    assert worker.poll() is None
    stage.go()
    assert await asyncio.to_thread(worker.wait, 20) == 0
    workers.ended()
    assert set(await account.states()) == set(running)
    workers.start("-Q", "default")
    balance = await account.balance()
    assert balance.states == dict.fromkeys(running + waiting, "SUCCESS")
    assert balance.repeated == 0
    assert await account.ready("default.dead") == 0


@pytest.mark.parametrize("number", SIGNALS)
async def test_told_twice_it_leaves_at_once_and_another_worker_runs_them(stage, number):
    account, workers = stage.account, stage.workers
    worker = workers.start("-Q", "default")
    await consumed(stage.app)
    running = await account.send("hit.hold", count=2) + await account.send("hit.ahold", count=2)
    await until(lambda: len(account.runs()) == 4, deadline=60)
    waiting = await account.send("hit.plain", count=8)
    worker.send_signal(number)
    await until(lambda: _is(account.ready(), 8))
    worker.send_signal(number)
    assert await asyncio.to_thread(worker.wait, AT_ONCE) == 0
    workers.ended()
    assert await account.ready() == 12
    workers.start("-Q", "default")
    balance = await account.balance()
    assert balance.states == dict.fromkeys(running + waiting, "SUCCESS")
    assert balance.repeated == 4
    assert await account.ready("default.dead") == 0


async def test_told_twice_a_coroutine_that_refuses_to_be_cancelled_holds_nobody_up(stage):
    account, workers = stage.account, stage.workers
    worker = workers.start("-l", "info", "-Q", "default")
    await consumed(stage.app)
    await account.send("hit.unlimited")
    await until(account.runs, deadline=60)
    worker.send_signal(signal.SIGTERM)
    await until(lambda: "stopping" in workers.logs(), message="it has heard the first")
    worker.send_signal(signal.SIGTERM)
    assert await asyncio.to_thread(worker.wait, AT_ONCE) == 0
    workers.ended()
    stage.go()
    workers.start("-Q", "default")
    balance = await account.balance()
    assert balance.repeated == 1


@long
@pytest.mark.parametrize("task", ["hit.always", "hit.aalways"])
async def test_a_task_that_every_stop_hands_back_is_no_poison(stage, task):
    """Deploy after deploy: what has not started, or was cut off, is not to blame for it."""
    account, workers = stage.account, stage.workers
    await account.send(task, count=3)
    deploys = SUSPECT_AFTER + Settings().poison_limit + 1
    for deploy in range(deploys):
        worker = workers.start("-l", "info", "-Q", "default", "-c", "1")
        await until(lambda n=deploy: account.runs().total() > n, deadline=60)
        await until(lambda: _is(account.ready(), 0))
        worker.send_signal(signal.SIGTERM)
        await until(lambda n=deploy: workers.logs().count("stopping") > n, message="it has heard")
        worker.send_signal(signal.SIGTERM)
        assert await asyncio.to_thread(worker.wait, AT_ONCE) == 0
        workers.ended()
        assert await account.ready() == 3
    stage.go()
    workers.start("-Q", "default")
    balance = await account.balance()
    assert set(balance.states.values()) == {"SUCCESS"}
    assert await account.ready("default.dead") == 0


async def consumers(app, queue="default"):
    counts = await app.runtime().transport.declare_queue(queue, passive=True)
    return counts.consumers


async def _is(count, expected):
    return await count == expected


# -- before it is ready --------------------------------------------------------------------


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
@pytest.mark.parametrize("away", ["broker", pytest.param("store", marks=long)])
async def test_told_before_it_is_ready_it_waits_for_nobody(
    away, number, amqp_url, redis_url, tmp_path
):
    dead = free_port()
    environment = {
        "AMQFLOW_BROKER": f"amqp://127.0.0.1:{dead}/" if away == "broker" else amqp_url,
        "AMQFLOW_BACKEND": f"redis://127.0.0.1:{dead}/0" if away == "store" else redis_url,
    }
    log = tmp_path / "worker.log"
    with log.open("wb") as out:
        worker = starting(environment, tmp_path, out)
    try:
        await until(lambda: b"waiting for the" in log.read_bytes(), deadline=60)
        worker.send_signal(number)
        assert await asyncio.to_thread(worker.wait, AT_ONCE) == 0
    finally:
        worker.kill()
    assert b"Traceback" not in log.read_bytes(), log.read_text()


async def test_told_in_the_middle_of_its_start_nothing_is_held(stage, amqp_url, redis_url):
    """At whatever point of the start: exit code 0, no consumer, every task runs afterwards."""
    account = stage.account
    await account.send("hit.plain", count=8)
    environment = {"AMQFLOW_BROKER": amqp_url, "AMQFLOW_BACKEND": redis_url}
    for wait in (0.0, 0.03, 0.06, 0.1, 0.15, 0.2):
        log = stage.folder / f"start{wait}.log"
        with log.open("wb") as out:
            worker = starting(environment, stage.folder, out)
        try:
            # Its first connection: the signals are caught from before that on.
            await until(lambda pid=worker.pid: _connected(pid), deadline=60, every=0.005)
            await asyncio.sleep(wait)  # the moment is the parameter
            began = time.monotonic()
            worker.send_signal(signal.SIGTERM)
            assert await asyncio.to_thread(worker.wait, AT_ONCE) == 0, log.read_text()
            assert time.monotonic() - began < AT_ONCE
        finally:
            worker.kill()
        await until(lambda: _is(consumers(stage.app), 0))
        assert b"Traceback" not in log.read_bytes(), log.read_text()
    stage.workers.start("-Q", "default")
    await consumed(stage.app)
    balance = await account.balance()
    assert set(balance.states.values()) == {"SUCCESS"}


def starting(environment, folder, out):
    return Command(
        *("-m", "amqflow", "-A", "tests.faults.worker_app", "worker", "-c", "2"),
        env={
            **os.environ,
            "PYTHONPATH": str(ROOT),
            "LEDGER_LOG": str(folder / "runs.log"),
            **environment,
        },
        stdout=out,
        stderr=subprocess.STDOUT,
    )


def _connected(pid):
    """Say whether a process holds a TCP connection that stands."""
    inodes = set()
    with contextlib.suppress(OSError):
        for entry in Path(f"/proc/{pid}/fd").iterdir():
            with contextlib.suppress(OSError):
                inodes.add(str(entry.readlink()))
    rows = [line.split() for line in Path("/proc/net/tcp").read_text().splitlines()[1:]]
    return any(row[3] == "01" and f"socket:[{row[9]}]" in inodes for row in rows)
