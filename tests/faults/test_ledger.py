"""Every confirmed id ends exactly once as done or dead, whatever is killed (issue: the ledger).

Every wait has a deadline, and so has the whole: what is late is told with the workers' logs.
"""

import asyncio
import importlib

import pytest

from tests.faults.ledger import Balance, Workers, consumed, produce, settle
from tests.servers.rabbitmq import RETRIED
from tests.servers.wait import until

#: Seconds in which everything is sent, the broker's restart included, and 30 ms for each.
PRODUCED = 120
#: Seconds in which an application, or what is cancelled, ends.
CLOSED = 30


@pytest.fixture
def ledger_app(private_rabbitmq, private_redis, tmp_path, monkeypatch):
    """The ledger's servers, application and log."""
    broker, store = private_rabbitmq(), private_redis()
    monkeypatch.setenv("AMQFLOW_BROKER", broker.url)
    monkeypatch.setenv("AMQFLOW_BACKEND", store.url)
    log = tmp_path / "runs.log"
    log.touch()
    monkeypatch.setenv("LEDGER_LOG", str(log))
    import tests.faults.ledger_app as module

    module = importlib.reload(module)
    workers = Workers(tmp_path)
    yield broker, store, module, workers, log
    codes = workers.close()
    assert codes == [0] * len(codes), f"a worker did not stop cleanly\n{workers.logs()}"


async def run(ledger_app, count, chaos, deadline):
    broker, store, module, workers, log = ledger_app
    app, balance, ids = module.app, Balance(), {}
    first, second = workers.start(), workers.start()
    try:
        await consumed(app, by=2)
        await asyncio.to_thread(broker.settle)
        async with asyncio.timeout(PRODUCED + count * 0.03):
            await both(
                produce(app, module.work, count, balance, ids),
                chaos(broker, store, workers, first, second, lambda: lines(log)),
            )
        await settle(app, ids, balance, log, deadline)
    except Exception as error:
        error.add_note(
            f"{len(ids)} of {count} confirmed, {lines(log)} runs\n{workers.logs()[-5000:]}"
        )
        raise
    finally:
        async with asyncio.timeout(CLOSED):
            await app.aclose()
    print(balance)
    assert balance.sent + balance.refused == count
    assert not balance.missing
    assert not balance.wrong
    assert balance.done + balance.dead == balance.sent
    return balance


async def both(producing, chaos):
    """Wait for both; where one fails the other is not left behind."""
    tasks = [asyncio.create_task(producing), asyncio.create_task(chaos)]
    try:
        await asyncio.gather(*tasks)
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.wait(tasks, timeout=CLOSED)


def lines(log):
    return len(log.read_text().splitlines())


async def runs_reach(ran, number):
    await until(lambda: ran() >= number, deadline=60)


@pytest.mark.faults
async def test_a_worker_and_the_broker_are_killed(ledger_app, monkeypatch):
    """Without retries: what a kill of the broker meets in the ladder may come minutes late."""
    monkeypatch.setenv("LEDGER_FLAKY", "-1")

    async def chaos(broker, store, workers, first, second, ran):
        await runs_reach(ran, 40)
        workers.kill(first)
        await runs_reach(ran, 80)
        await asyncio.to_thread(broker.kill9)
        await asyncio.to_thread(broker.start)

    await run(ledger_app, 300, chaos, deadline=90)


@pytest.mark.faults_long
async def test_a_worker_and_the_broker_are_killed_while_some_wait_for_their_retry(ledger_app):
    async def chaos(broker, store, workers, first, second, ran):
        await runs_reach(ran, 60)
        workers.kill(first)
        await runs_reach(ran, 150)
        await asyncio.to_thread(broker.kill9)
        await asyncio.to_thread(broker.start)

    await run(ledger_app, 600, chaos, deadline=RETRIED)


@pytest.mark.faults
async def test_the_store_is_killed_and_comes_back(ledger_app):
    async def chaos(broker, store, workers, first, second, ran):
        await runs_reach(ran, 60)
        await asyncio.to_thread(store.kill9)
        await asyncio.to_thread(store.start)

    await run(ledger_app, 300, chaos, deadline=90)


@pytest.mark.faults_long
async def test_the_ledger_of_5000(ledger_app):
    async def chaos(broker, store, workers, first, second, ran):
        await runs_reach(ran, 400)
        third = workers.kill(first)
        await runs_reach(ran, 900)
        await asyncio.to_thread(broker.kill9)
        await asyncio.to_thread(broker.start)
        await runs_reach(ran, 1600)
        workers.kill(second)
        await runs_reach(ran, 2400)
        await asyncio.to_thread(store.kill9)
        await asyncio.to_thread(store.start)
        await runs_reach(ran, 3200)
        workers.kill(third)

    balance = await run(ledger_app, 5000, chaos, deadline=240)
    assert balance.refused == 0
