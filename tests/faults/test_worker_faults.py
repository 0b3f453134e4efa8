"""What may happen to a worker while it holds tasks (faults 1, 2, 4)."""

import asyncio
import sqlite3
from contextlib import closing

import pytest

from amqflow import AmqFlow
from amqflow.settings import Settings
from amqflow.worker.returns import SUSPECT_AFTER
from tests.faults.ledger import consumed, supervised
from tests.servers.wait import until

pytestmark = pytest.mark.faults
long = pytest.mark.faults_long


async def test_a_worker_killed_in_mid_task_has_it_rerun_elsewhere(stage):
    account, workers = stage.account, stage.workers
    first, _ = workers.start(), workers.start()
    await consumed(stage.app, by=2)
    held = await account.send("hit.hold", count=4) + await account.send("hit.ahold", count=4)
    await account.send("hit.plain", count=40)
    await until(lambda: all(account.runs_of(task_id) for task_id in held), deadline=60)
    workers.lose(first)
    stage.go()
    balance = await account.balance()
    assert set(balance.states.values()) == {"SUCCESS"}
    # Only what the killed worker had begun ran again: its four slots.
    assert 0 < balance.repeated <= 4


async def test_a_worker_killed_while_it_holds_limited_tasks_loses_none(stage):
    """They wait for their start in its memory and in the delays; what it held, another runs."""
    account, workers = stage.account, stage.workers
    first, _ = workers.start(), workers.start()
    await consumed(stage.app, by=2)
    sent = await account.send("hit.limited", count=100)
    await until(lambda: len(account.runs()) >= 20, deadline=60)
    workers.lose(first)
    balance = await account.balance(deadline=90)
    assert balance.states == dict.fromkeys(sent, "SUCCESS")
    assert balance.repeated <= 4


async def test_killed_after_the_effect_and_before_the_ack_the_effect_is_applied_once(stage):
    account, workers = stage.account, stage.workers
    first = workers.start()
    await consumed(stage.app)
    (payment,) = await account.send("hit.pay")
    await until((stage.folder / "effect").exists, deadline=60)
    workers.lose(first)
    workers.start()
    balance = await account.balance()
    assert balance.runs[payment, "0"] == 2, "a duplicate was to be seen"
    with closing(sqlite3.connect(stage.folder / "bank.db")) as bank:
        assert bank.execute("SELECT count(*) FROM tried").fetchone() == (2,)
        assert bank.execute("SELECT count(*) FROM paid").fetchone() == (1,)


@pytest.mark.parametrize("moment", [pytest.param("stored", marks=long), "published"])
async def test_killed_between_store_and_ack_the_redelivery_does_the_rest_without_a_run(
    stage, moment
):
    """A link is the rest: it runs once, whether it was sent before the kill or not."""
    account, workers = stage.account, stage.workers
    first = workers.start(HIT_KILL_AT=moment)
    await consumed(stage.app)
    (parent,) = await account.send("hit.plain", link=stage.app.signature("hit.plain"))
    assert await asyncio.to_thread(first.wait, 20) == -9
    workers.ended()
    workers.start()
    # The link may have reached the first worker before its confirm did, and been claimed: what runs
    # once waits for the lease of who is dead.
    await until(lambda: len(account.runs()) == 2, deadline=Settings().once_lease + 30)
    (link,) = {task_id for task_id, _ in account.runs()} - {parent}
    account.confirmed.append(link)
    balance = await account.balance()
    assert balance.runs == {(parent, "0"): 1, (link, "0"): 1}


@pytest.mark.parametrize(
    ("queue", "culprit", "innocent", "sent"),
    [
        ("quorum", "hit.die", "hit.innocent", {}),
        pytest.param("classic", "hit.pdie", "hit.pinnocent", {"priority": 5}, marks=long),
    ],
)
async def test_a_task_that_kills_its_worker_is_parked_and_its_neighbours_complete(
    stage, queue, culprit, innocent, sent
):
    account, workers = stage.account, stage.workers
    before = await account.send(innocent, count=6, queue=queue, **sent)
    (killer,) = await account.send(culprit, queue=queue, **sent)
    after = await account.send(innocent, count=6, queue=queue, **sent)

    async def parked():
        return await account.ready(f"{queue}.dead") > 0

    options = ("-c", "2", "--prefetch-multiplier", "16")
    died = await supervised(stage.app, workers, parked, queue, *options)
    balance = await account.balance(dead=[queue])
    assert balance.states == {
        **dict.fromkeys([*before, *after], "SUCCESS"),
        killer: "FAILURE",
    }
    assert set(balance.letters) == {killer}
    (letter,) = balance.letters[killer]
    assert letter.reason == "poison"
    assert died == balance.runs[killer, "0"] == SUSPECT_AFTER + Settings().poison_limit
    assert letter.attempts == died
    assert f"{died} times" in letter.exception_message


@long
async def test_several_culprits_are_parked_and_two_supervised_workers_finish_the_rest(stage):
    account, workers = stage.account, stage.workers
    killers, innocents = [], []
    for _ in range(3):
        innocents += await account.send("hit.innocent", count=5, queue="quorum")
        killers += await account.send("hit.die", queue="quorum")

    async def parked():
        return await account.ready("quorum.dead") >= len(killers)

    options = ("-c", "2", "--prefetch-multiplier", "16")
    workers.start("-Q", "quorum", *options)
    await supervised(stage.app, workers, parked, "quorum", *options)
    balance = await account.balance(dead=["quorum"])
    assert balance.states == {
        **dict.fromkeys(innocents, "SUCCESS"),
        **dict.fromkeys(killers, "FAILURE"),
    }
    assert set(balance.letters) == set(killers)


# -- promises that are smaller -------------------------------------------------------------


@pytest.mark.parametrize("task", ["hit.early", pytest.param("hit.aearly", marks=long)])
async def test_a_task_acked_before_its_run_is_not_run_again(stage, task):
    """``acks_late=False``: at most once, outside every promise, and so are its prefetched ones."""
    account, workers = stage.account, stage.workers
    first = workers.start("-Q", "default", "-c", "1")
    await consumed(stage.app)
    (started,) = await account.send(task)
    await until(lambda: account.runs_of(started), deadline=60)
    (prefetched,) = await account.send(task)
    await until(lambda: _empty(account))
    workers.lose(first)
    stage.go()
    workers.start("-Q", "default")
    account.confirmed.clear()
    account.confirmed.append(prefetched)  # it had not started: it was not acked
    await account.send("hit.plain", count=5)
    balance = await account.balance()
    assert balance.runs[started, "0"] == 1
    assert balance.runs[prefetched, "0"] == 1
    assert await _empty(account)


async def _empty(account, queue="default"):
    return await account.ready(queue) == 0


async def test_a_reply_of_a_killed_worker_comes_from_the_rerun(stage, amqp_url, monkeypatch):
    monkeypatch.setenv("AMQFLOW_BACKEND", "rpc://")
    app, workers = AmqFlow("hit", broker=amqp_url, backend="rpc://"), stage.workers
    try:
        first = workers.start()
        await consumed(app)
        result = await app.asend_task("hit.hold")
        await until(lambda: stage.account.runs_of(result.id), deadline=60)
        workers.lose(first)
        second = workers.start()
        assert await result.aget(timeout=60) == second.pid
        assert stage.account.runs_of(result.id) == 2
    finally:
        await app.aclose()


@long
async def test_results_in_a_workers_own_memory_cost_no_task(stage, monkeypatch):
    """``memory://`` fences nothing between processes; the broker's redelivery still stands."""
    monkeypatch.setenv("AMQFLOW_BACKEND", "memory://")
    account, workers = stage.account, stage.workers
    first = workers.start()
    await consumed(stage.app)
    (held,) = await account.send("hit.hold")
    others = await account.send("hit.plain", count=10)
    await until(lambda: len(account.runs()) == 11, deadline=60)
    workers.lose(first)
    workers.start()
    await until(lambda: account.runs_of(held) == 2, deadline=60)
    await until(lambda: _empty(account))
    assert {task_id for task_id, _ in account.runs()} == {held, *others}


# -- hard limits of coroutines -------------------------------------------------------------


@pytest.mark.parametrize(
    "task",
    [
        pytest.param("hit.late", marks=long),
        "hit.stubborn",
        pytest.param("hit.unstoppable", marks=long),
    ],
)
async def test_a_coroutine_that_swallows_its_hard_limit_is_failed_and_frees_its_slot(stage, task):
    account, workers = stage.account, stage.workers
    worker = workers.start("-Q", "default", "-c", "1")
    await consumed(stage.app)
    limited = await account.send(task, count=2)
    others = await account.send("hit.aplain", count=3)
    balance = await account.balance(dead=["default"], deadline=60)
    assert balance.states == {
        **dict.fromkeys(limited, "FAILURE"),
        **dict.fromkeys(others, "SUCCESS"),
    }
    assert balance.repeated == 0
    assert {letter.exception for [letter] in balance.letters.values()} == {
        "amqflow.errors.TimeLimitExceeded"
    }
    stage.go()
    worker.terminate()
    assert await asyncio.to_thread(worker.wait, 10) == 0
    workers.ended()
