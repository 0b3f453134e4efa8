"""What the broker may do to a worker and a producer (faults 5, 7, 8, 14, 17, 18)."""

import asyncio
import signal

import pytest

from amqflow import AmqFlow, PublishTimeout, Unroutable
from amqflow.errors import NotFound, TopologyMismatch
from amqflow.worker import Worker
from tests.applications import Bench
from tests.faults.ledger import BLOCKED, Workers, blocked, consumed
from tests.servers.wait import until

pytestmark = pytest.mark.faults
long = pytest.mark.faults_long


def echo_app(broker_url, store_url):
    app = AmqFlow("faults", broker=broker_url, backend=store_url)

    @app.task(name="f.echo")
    async def echo(x):
        await asyncio.sleep(0.002)
        return x

    return app, echo


async def flow(echo, count):
    """Send and await results, in small bursts; every one must come back."""
    results = []
    for start in range(0, count, 20):
        results += await asyncio.gather(
            *(echo.aapply_async((n,), timeout=60) for n in range(start, start + 20))
        )
        await asyncio.sleep(0.02)
    values = await asyncio.gather(*(result.aget(timeout=60) for result in results))
    assert values == list(range(count))


async def test_all_connections_closed_under_load(rabbitmq, vhost, amqp_url, redis_url):
    app, echo = echo_app(amqp_url, redis_url)
    async with Bench(app).working():
        closing = asyncio.create_task(closed(rabbitmq, vhost))
        while not closing.done():
            await flow(echo, 100)
        assert closing.result() >= 2  # one consumes, one publishes
        await flow(echo, 100)


async def closed(rabbitmq, vhost):
    """Close the connections as soon as the management API, which is late, knows them."""
    return await until(lambda: asyncio.to_thread(rabbitmq.close_connections, vhost), deadline=60)


@long
async def test_the_broker_application_is_stopped_and_started(private_rabbitmq, redis_url):
    broker = private_rabbitmq()
    app, echo = echo_app(broker.url, redis_url)
    async with Bench(app).working():

        async def stop_and_start():
            await asyncio.to_thread(broker.ctl, "stop_app")
            await asyncio.to_thread(broker.ctl, "start_app")

        await asyncio.gather(flow(echo, 400), stop_and_start())


@long
@pytest.mark.parametrize("alarm", ["memory", "disk"])
async def test_a_blocked_broker_is_named_and_consuming_goes_on(private_rabbitmq, redis_url, alarm):
    broker = private_rabbitmq()
    app, echo = echo_app(broker.url, redis_url)
    go = asyncio.Event()

    @app.task(name="f.hold")
    async def hold():
        await go.wait()

    bench = Bench(app)
    async with bench.working(slots=2, multiplier=1):
        held = [await hold.adelay() for _ in range(2)]
        waiting = await asyncio.gather(*(echo.adelay(n) for n in range(60)))
        await until(lambda: bench.count("default"), deadline=30)
        async with blocked(broker, alarm):
            assert BLOCKED in await until(lambda: refused(echo), deadline=60)
            go.set()
            # Sent before, fetched and acked now.
            values = await asyncio.gather(*(one.aget(timeout=60) for one in [*held, *waiting]))
            assert values == [None, None, *range(60)]
            assert BLOCKED in await refused(echo), "still"
        assert await (await echo.aapply_async((3,), timeout=60)).aget(timeout=60) == 3


async def refused(echo):
    """Return what a publish says that is held until its time is over; "" where none is."""
    try:
        await echo.aapply_async((2,), timeout=1.5)
    except PublishTimeout as error:
        return str(error)
    return ""


async def test_a_deleted_queue_is_noticed_and_consumed_again(bench):
    @bench.app.task(name="f.ok")
    def ok():
        return 1

    async with bench.working() as worker:
        assert await (await ok.adelay()).aget(timeout=30) == 1
        transport = bench.app.runtime().transport
        consumer = next(known for lane, known in worker._consumers if lane.source == "default")
        await transport.delete_queue("default")
        await until(lambda: not consumer.active, deadline=30)
        assert consumer.problem
        with pytest.raises(Unroutable):
            await ok.adelay()
        from amqflow.provision import apply
        from amqflow.topology import BrokerFacts

        facts = BrokerFacts((await transport.server()).version)
        await apply(bench.app.derived_topology(facts), transport)
        await until(lambda: consumer.active, deadline=60)
        assert await (await ok.adelay()).aget(timeout=30) == 1


async def test_a_different_queue_on_the_broker_is_explained(bench):
    transport = bench.app.runtime().transport
    await transport.declare_queue("default", arguments={"x-queue-type": "classic"})
    with pytest.raises(TopologyMismatch, match="x-dead-letter-exchange is declared"):
        await Worker(bench.app).run()
    # Other channels live on.
    assert (await transport.declare_queue("default", passive=True)).messages == 0


async def test_a_missing_exchange_is_named_and_harms_nobody(bench):
    @bench.app.task(name="f.ok")
    def ok():
        return 1

    async with bench.working():
        good = [ok.adelay() for _ in range(100)]
        bad = [ok.aapply_async(exchange="nope", routing_key="x") for _ in range(5)]
        answers = await asyncio.gather(*good, *bad, return_exceptions=True)
        assert all(isinstance(answer, NotFound) for answer in answers[100:])
        assert all([await result.aget(timeout=30) == 1 for result in answers[:100]])


@long
async def test_a_frozen_worker_comes_back_to_a_task_that_is_done(
    private_rabbitmq, redis_url, tmp_path, monkeypatch
):
    """Its late result is refused by the fence: the outcome that stands is the second worker's."""
    broker = private_rabbitmq()
    monkeypatch.setenv("AMQFLOW_BROKER", broker.url)
    monkeypatch.setenv("AMQFLOW_BACKEND", redis_url)
    monkeypatch.setenv("LEDGER_LOG", str(tmp_path / "runs.log"))
    workers = Workers(tmp_path, "tests.faults.frozen_app")
    app = AmqFlow("frozen", broker=broker.url, backend=redis_url)
    frozen = workers.start()
    try:
        await consumed(app)
        result = await app.asend_task("frozen.who", kwargs={"folder": str(tmp_path)})
        await until((tmp_path / "started").exists, deadline=40)
        frozen.send_signal(signal.SIGSTOP)
        broker.ctl("close_all_connections", "frozen worker")
        workers.start()
        winner = await result.aget(timeout=40)
        frozen.send_signal(signal.SIGCONT)
        await until((tmp_path / "finished-late").exists, deadline=60)
        log = tmp_path / "worker1.log"
        await until(
            lambda: b"refused" in log.read_bytes() or b"again" in log.read_bytes(), deadline=60
        )
        assert await app.AsyncResult(result.id).aget(timeout=30) == winner
        assert winner != frozen.pid
    finally:
        frozen.send_signal(signal.SIGCONT)
        workers.close()
        await app.aclose()
