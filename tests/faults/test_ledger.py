"""Every confirmed id ends exactly once as done or dead, whatever is killed (issue: the ledger)."""

import asyncio

import pytest

from tests.faults.ledger import Balance, Workers, consumed, produce, settle
from tests.servers.rabbitmq import RETRIED


@pytest.fixture
def ledger_app(private_rabbitmq, private_redis, tmp_path, monkeypatch):
    """The ledger's servers, application and log."""
    broker, store = private_rabbitmq(), private_redis()
    monkeypatch.setenv("AMQFLOW_BROKER", broker.url)
    monkeypatch.setenv("AMQFLOW_BACKEND", store.url)
    log = tmp_path / "runs.log"
    log.touch()
    monkeypatch.setenv("LEDGER_LOG", str(log))
    import importlib

    import tests.faults.ledger_app as module

    module = importlib.reload(module)
    workers = Workers(tmp_path)
    yield broker, store, module, workers, log
    codes = workers.close()
    assert codes == [0] * len(codes), "a worker did not stop cleanly"


async def run(ledger_app, count, chaos, deadline):
    broker, store, module, workers, log = ledger_app
    app, balance, ids = module.app, Balance(), {}
    first, second = workers.start(), workers.start()
    await consumed(app, by=2)
    await asyncio.to_thread(broker.settle)
    await asyncio.gather(
        produce(app, module.work, count, balance, ids),
        chaos(broker, store, workers, first, second, lambda: len(log.read_text().splitlines())),
    )
    await settle(app, ids, balance, log, deadline)
    await app.aclose()
    print(balance)
    assert balance.sent + balance.refused == count
    assert not balance.missing
    assert not balance.wrong
    assert balance.done + balance.dead == balance.sent
    return balance


async def runs_reach(ran, number):
    from tests.servers.wait import until

    await until(lambda: ran() >= number, deadline=60)


@pytest.mark.faults
async def test_a_worker_and_the_broker_are_killed(ledger_app):
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

    await run(ledger_app, 400, chaos, deadline=90)


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
