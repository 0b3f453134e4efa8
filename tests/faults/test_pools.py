"""The faults of a broker, a message and a signal, met by a worker of each pool, with the ledger.

Every confirmed id ends once, whatever the pool. A kill of a worker of processes, of one of its
children, and a task that always kills its child are in `make test`, everything else is with
`make faults`.
"""

import asyncio
import os
import pickle
import signal
import zlib
from pathlib import Path

import pytest

from amqflow import PublishTimeout
from amqflow.protocol import Envelope, Limits, new_id
from amqflow.provision import apply
from amqflow.settings import Settings
from amqflow.topology import BrokerFacts
from amqflow.worker.returns import SUSPECT_AFTER
from tests.faults.conftest import staged
from tests.faults.ledger import BLOCKED, blocked, consumed, supervised
from tests.servers.wait import until

pytestmark = pytest.mark.faults

#: At what a pool is started with; solo runs one at a time.
SLOTS = {"asyncio": "4", "threads": "4", "processes": "2", "solo": "1"}
#: Seconds in which a worker told to stop has left once its short tasks have ended.
AT_ONCE = 20


def pools(*sampled):
    """Return every pool; those not sampled are long."""
    return [
        pool if pool in sampled else pytest.param(pool, marks=pytest.mark.faults_long)
        for pool in SLOTS
    ]


@pytest.fixture
async def hit(private_rabbitmq, redis_url, tmp_path, monkeypatch):
    """The tasks of ``worker_app`` on a broker of the test's own."""
    broker = private_rabbitmq()
    async with staged(broker.url, redis_url, tmp_path, monkeypatch) as stage:
        stage.broker = broker
        yield stage


async def started(stage, pool, count=2, *options):
    workers = [
        stage.workers.start("-Q", "default", "-P", pool, "-c", SLOTS[pool], *options)
        for _ in range(count)
    ]
    await consumed(stage.app, by=count)
    return workers


async def flow(stage, count=60):
    """Send a stream of tasks of several kinds."""
    for _ in range(count // 6):
        await stage.account.send("hit.plain", count=3)
        await stage.account.send("hit.aplain", count=2)
        await stage.account.send("hit.again")
        await asyncio.sleep(0.02)  # a stream, not a burst: the fault is to meet work under way


async def balanced(stage, *, repeated=None):
    balance = await stage.account.balance(deadline=60)
    assert set(balance.states.values()) == {"SUCCESS"}
    if repeated is not None:
        assert balance.repeated == repeated
    return balance


@pytest.mark.parametrize("pool", pools("processes"))
async def test_a_worker_killed_in_mid_task_has_it_rerun_elsewhere(stage, pool):
    """Fault 1."""
    first, _ = await started(stage, pool)
    tasks = ["hit.hold"] if pool == "solo" else ["hit.hold", "hit.ahold"]
    held = [one for task in tasks for one in await stage.account.send(task)]
    if pool == "solo":
        held += await stage.account.send("hit.hold")
    await until(lambda: all(map(stage.account.runs_of, held)), deadline=40)
    await stage.account.send("hit.plain", count=20)
    stage.workers.lose(first)
    stage.go()
    balance = await balanced(stage)
    assert balance.repeated <= int(SLOTS[pool])


@pytest.mark.parametrize("pool", pools())
async def test_killed_after_the_effect_it_is_applied_once(stage, pool):
    """Fault 2."""
    (first,) = await started(stage, pool, 1)
    (payment,) = await stage.account.send("hit.pay")
    await until((stage.folder / "effect").exists, deadline=40)
    stage.workers.lose(first)
    await started(stage, pool, 1)
    balance = await balanced(stage)
    assert balance.runs[payment, "0"] == 2


async def test_a_killed_pool_child_costs_the_one_task_it_ran(stage):
    """Fault 3."""
    (worker,) = await started(stage, "processes", 1)
    held = await stage.account.send("hit.hold") + await stage.account.send("hit.ahold")
    await until(lambda: all(map(stage.account.runs_of, held)), deadline=40)
    waiting = await stage.account.send("hit.plain", count=20)
    listed = Path(f"/proc/{worker.pid}/task/{worker.pid}/children")
    child, *_ = (await asyncio.to_thread(listed.read_text)).split()
    os.kill(int(child), signal.SIGKILL)
    await until(lambda: stage.account.runs().total() > len(held), deadline=40)
    stage.go()
    balance = await balanced(stage, repeated=1)
    assert {task_id for (task_id, _), count in balance.runs.items() if count > 1} < {*held}
    assert {balance.runs[task_id, "0"] for task_id in waiting} == {1}
    assert worker.poll() is None
    assert stage.workers.logs().count("a pool child died in the middle of a task") == 1


@pytest.mark.parametrize("pool", pools("processes"))
async def test_a_task_that_always_kills_its_process_is_parked_and_its_neighbours_complete(
    stage, pool
):
    """Fault 4; where the process is a pool child, its worker lives."""
    account = stage.account
    innocent = await account.send("hit.innocent", count=6, queue="quorum")
    (killer,) = await account.send("hit.die", queue="quorum")
    innocent += await account.send("hit.innocent", count=6, queue="quorum")

    async def parked():
        return await account.ready("quorum.dead") > 0

    options = ("-P", pool, "-c", SLOTS[pool], "--prefetch-multiplier", "16")
    died = await supervised(stage.app, stage.workers, parked, "quorum", *options)
    balance = await account.balance(dead=["quorum"], deadline=60)
    assert balance.states == {**dict.fromkeys(innocent, "SUCCESS"), killer: "FAILURE"}
    assert set(balance.letters) == {killer}
    (letter,) = balance.letters[killer]
    runs = SUSPECT_AFTER + Settings().poison_limit
    assert (letter.reason, letter.attempts) == ("poison", runs)
    assert f"{runs} times" in letter.exception_message
    assert balance.runs[killer, "0"] == runs
    assert died == (0 if pool == "processes" else runs)


@pytest.mark.parametrize("pool", pools())
async def test_a_frozen_workers_late_result_is_refused(hit, pool):
    """Fault 5."""
    (frozen,) = await started(hit, pool, 1)
    (held,) = await hit.account.send("hit.hold")
    await until(lambda: hit.account.runs_of(held), deadline=40)
    frozen.send_signal(signal.SIGSTOP)
    await asyncio.to_thread(hit.broker.ctl, "close_all_connections", "frozen")
    (other,) = await started(hit, pool, 1)
    winner = await hit.app.AsyncResult(held).aget(timeout=60)
    hit.go()
    frozen.send_signal(signal.SIGCONT)
    frozen.send_signal(signal.SIGTERM)  # it leaves when its late result is settled
    assert await asyncio.to_thread(frozen.wait, 40) == 0, hit.workers.logs()
    hit.workers.ended()
    assert await hit.app.AsyncResult(held).aget(timeout=30) == winner
    assert other.poll() is None
    await balanced(hit, repeated=1)


@pytest.mark.parametrize("pool", pools())
@pytest.mark.parametrize("times", [1, 2])
async def test_a_stop_loses_and_fails_nothing(stage, pool, times):
    """Fault 6."""
    (worker,) = await started(stage, pool, 1, "-l", "info")
    await stage.account.send("hit.hold")
    await until(stage.account.runs, deadline=40)
    await stage.account.send("hit.plain", count=8)
    worker.send_signal(signal.SIGTERM)
    await until(lambda: "stopping" in stage.workers.logs(), deadline=60)
    if times == 2:
        worker.send_signal(signal.SIGTERM)
    else:
        stage.go()
    assert await asyncio.to_thread(worker.wait, 20) == 0, stage.workers.logs()
    stage.workers.ended()
    stage.go()
    await started(stage, pool, 1)
    await balanced(stage, repeated=times - 1)
    assert await stage.account.ready("default.dead") == 0


@pytest.mark.parametrize("pool", pools())
async def test_a_stop_under_a_thousand_short_tasks_loses_none_and_repeats_none(stage, pool):
    """It leaves as soon as what runs has ended; all that it has begun is settled by then."""
    await stage.account.send("hit.plain", count=800)
    await stage.account.send("hit.aplain", count=200)
    (worker,) = await started(stage, pool, 1)
    await until(lambda: stage.account.runs().total() > 20, deadline=40, every=0.005)
    worker.send_signal(signal.SIGTERM)
    assert await asyncio.to_thread(worker.wait, AT_ONCE) == 0, stage.workers.logs()
    stage.workers.ended()
    begun = stage.account.runs()
    assert set(await stage.account.states()) == {task_id for task_id, _ in begun}
    assert await stage.account.ready() == 1000 - len(begun) > 0
    await started(stage, pool, 1)
    balance = await balanced(stage, repeated=0)
    assert balance.runs.total() == 1000


@pytest.mark.parametrize("pool", pools())
async def test_all_connections_closed_under_load(hit, pool):
    """Fault 7."""
    await started(hit, pool)

    async def close():
        await until(lambda: hit.account.runs().total() > 10, deadline=40)
        await asyncio.to_thread(hit.broker.ctl, "close_all_connections", "test")

    await asyncio.gather(flow(hit), close())
    await consumed(hit.app, by=2)
    await balanced(hit)


@pytest.mark.parametrize("pool", pools())
@pytest.mark.parametrize("how", ["stopped", "killed"])
async def test_the_broker_goes_and_comes_back_under_load(hit, pool, how):
    """Faults 8 and 9."""
    await started(hit, pool)

    async def again():
        await until(lambda: hit.account.runs().total() > 10, deadline=40)
        if how == "killed":
            await asyncio.to_thread(hit.broker.kill9)
            await asyncio.to_thread(hit.broker.start)
        else:
            await asyncio.to_thread(hit.broker.ctl, "stop_app")
            await asyncio.to_thread(hit.broker.ctl, "start_app")

    if how == "killed":
        await asyncio.to_thread(hit.broker.settle)
    await hit.account.send("hit.plain", count=30)
    await asyncio.gather(hit.account.send("hit.aplain", count=30, timeout=60), again())
    await consumed(hit.app, by=2)
    await balanced(hit)


@pytest.mark.parametrize("pool", pools())
async def test_a_blocked_broker_holds_publishes_and_consuming_goes_on(hit, pool):
    """Fault 14."""
    await started(hit, pool, 1, "--prefetch-multiplier", "1")
    account = hit.account
    before = await account.send("hit.hold", count=int(SLOTS[pool]))
    await until(lambda: all(map(account.runs_of, before)), deadline=40)
    before += await account.send("hit.plain", count=40)
    before += await account.send("hit.aplain", count=40)
    assert await account.ready() > 0
    async with blocked(hit.broker):
        assert BLOCKED in await until(lambda: refused(hit), deadline=60)
        sending = asyncio.create_task(account.send("hit.again", count=5, timeout=120))
        hit.go()

        async def consumed_all():
            return await account.states() == dict.fromkeys(before, "SUCCESS")

        await until(consumed_all, deadline=60)  # sent before, fetched and acked now
        assert BLOCKED in await refused(hit), "still"
        assert not sending.done()
    await sending
    await balanced(hit)


async def refused(hit):
    """Return what a publish says that is held until its time is over; "" where none is."""
    try:
        await hit.app.asend_task("hit.plain", timeout=1.0)
    except PublishTimeout as error:
        return str(error)
    return ""


@pytest.mark.parametrize("pool", pools())
async def test_a_short_consumer_timeout_is_survived_and_explained(hit, pool):
    """Fault 15."""
    for name, value in (("consumer_timeout", 1500), ("channel_tick_interval", 1000)):
        setting = f"application:set_env(rabbit, {name}, {value})."
        await asyncio.to_thread(hit.broker.ctl, "eval", setting)
    await started(hit, pool, 1 if pool != "solo" else 2)
    (held,) = await hit.account.send("hit.hold")
    await until(lambda: hit.account.runs_of(held) > 1, deadline=60)
    await hit.app.AsyncResult(held).aget(timeout=40)
    hit.go()
    await hit.account.send("hit.plain", count=5)
    await balanced(hit, repeated=1)
    assert "took longer than its consumer_timeout" in hit.workers.logs()
    assert "raise consumer_timeout in rabbitmq.conf" in hit.workers.logs()


@pytest.mark.parametrize("pool", pools())
async def test_a_deleted_queue_is_noticed_and_consumed_again(hit, pool):
    """Fault 17."""
    await started(hit, pool, 1)
    await hit.account.send("hit.plain", count=5)
    await balanced(hit)
    transport = hit.app.runtime().transport
    await transport.delete_queue("default")
    await until(lambda: "the queue was deleted" in hit.workers.logs(), deadline=60)
    facts = BrokerFacts((await transport.server()).version)
    await apply(hit.app.derived_topology(facts), transport)
    await consumed(hit.app)
    await hit.account.send("hit.plain", count=5)
    await balanced(hit)


def bad_messages():
    """Return messages that are no tasks of ours, each to be parked with a reason."""
    headers = {"task": "hit.plain", "id": new_id(), "lang": "py"}
    deep = b"[" * 10_000 + b"]" * 10_000
    return {
        "bad JSON": Envelope(b"[[1, 2", dict(headers)),
        "no task": Envelope(b"[[], {}, {}]", {}),
        "unknown task": Envelope(b"[[], {}, {}]", {**headers, "task": "hit.nobody"}),
        "wrong arguments": Envelope(b'[[], {"x": 1}, {}]', {**headers, "task": "hit.hold"}),
        "nested": Envelope(b"[[" + deep + b"], {}, {}]", dict(headers)),
        "20 MiB": Envelope(b'[["' + b"x" * (20 << 20) + b'"], {}, {}]', dict(headers)),
        "a pickle": Envelope(
            pickle.dumps(([], {}, {})), dict(headers), content_type="application/x-python-serialize"
        ),
        "a bomb": Envelope(
            zlib.compress(b"[[" + b" " * Limits().max_inflated + b"], {}, {}]"),
            {**headers, "compression": "application/x-gzip"},
        ),
    }


@pytest.mark.parametrize("pool", pools())
async def test_messages_that_are_no_tasks_are_parked_and_the_rest_goes_on(hit, pool):
    """Fault 19."""
    await started(hit, pool, 1)
    bad = bad_messages()
    transport = hit.app.runtime().transport
    for envelope in bad.values():
        envelope.message_id = new_id()
        if "id" in envelope.headers:  # of its own: what one has come to is not the others'
            envelope.headers["id"] = envelope.message_id
        await transport.publish(envelope, "", "default", timeout=20)
    await hit.account.send("hit.plain", count=5)
    await balanced(hit)
    await until(lambda: _is(hit.account.ready("default.dead"), len(bad)), deadline=40)
    letters = await hit.account.dead()
    assert {letter.reason for letter in letters} == {
        "undecodable",
        "unknown-task",
        "invalid-arguments",
    }


@pytest.mark.parametrize("pool", pools())
async def test_a_rolling_restart_of_two_workers_under_load(stage, pool):
    """A deploy: each worker in turn is told to stop and another takes its place."""
    first, second = await started(stage, pool, 2, "-l", "info")

    async def deploy():
        for number, old in enumerate((first, second)):
            await until(lambda: stage.account.runs().total() > 20, deadline=60)
            await started(stage, pool, 1, "-l", "info")
            # Who is told to leave before it has signal handlers does not leave in good order.
            ready = 3 + number
            await until(lambda n=ready: stage.workers.logs().count("slots=") >= n, deadline=60)
            old.send_signal(signal.SIGTERM)
            assert await asyncio.to_thread(old.wait, 30) == 0, stage.workers.logs()

    await asyncio.gather(flow(stage, 180), deploy())
    stage.workers.ended()
    await balanced(stage, repeated=0)
    assert await stage.account.ready("default.dead") == 0


async def _is(count, expected):
    return await count == expected
