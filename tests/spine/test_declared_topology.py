"""An application whose broker a file declares: workers check it and work by it."""

import pytest

from amqflow import AmqFlow
from amqflow.abc import DeadReason
from amqflow.errors import TopologyMismatch, Unroutable
from amqflow.provision import apply
from amqflow.topology import BrokerFacts
from tests.applications import Bench

FILE = """\
version: 1
exchanges:
  tasks: {type: topic}
  dead: {type: topic}
queues:
  default: {}
  email:
    type: classic
    max_priority: 10
    prefetch: 3
    bindings: [{exchange: tasks, routing_key: "email.*"}]
    dead_letter: {exchange: dead, routing_key: email}
    park: [failed]
  audit:
    consumed: false
    bindings: [{exchange: dead, routing_key: "#"}]
delays: {resolution: 50ms, levels: 12}
routes:
  - {task: "shop.email.*", exchange: tasks, routing_key: email.send, priority: 5}
  - {task: "*", queue: default}
"""


@pytest.fixture
def path(tmp_path):
    path = tmp_path / "shop.yaml"
    path.write_text(FILE)
    return path


@pytest.fixture
async def shop(path, amqp_url, redis_url):
    app = AmqFlow("shop", broker=amqp_url, backend=redis_url, topology=path)

    @app.task(name="shop.email.send", max_retries=1, default_retry_delay=0.2, bind=True)
    def send(self, to: str) -> str:
        if to == "again" and self.request.retries == 0:
            raise self.retry()
        if to == "nobody":
            raise LookupError(to)
        return f"{to} by {self.request.delivery_info['routing_key']}"

    yield Bench(app)
    await app.aclose()


async def applied(bench):
    transport = bench.app.runtime().transport
    facts = BrokerFacts((await transport.server()).version)
    await apply(bench.app.derived_topology(facts), transport)


async def test_a_worker_on_an_empty_broker_names_the_command_that_applies_the_file(shop, path):
    with pytest.raises(TopologyMismatch, match=f"run: amqflow topology apply {path}$") as refused:
        async with shop.working():
            pass
    assert "exchange 'tasks' is missing" in str(refused.value)
    transport = shop.app.runtime().transport
    with pytest.raises(Exception, match="no queue 'default'"):
        await transport.declare_queue("default", passive=True)


async def test_a_producer_on_an_empty_broker_names_it_too(shop, path):
    send = shop.app.tasks["shop.email.send"]
    with pytest.raises(Exception, match=f"amqflow topology apply {path}"):
        await send.adelay("a@b.c")
    with pytest.raises(Unroutable, match=f"amqflow topology apply {path}"):
        await send.aapply_async(("a@b.c",), queue="default")


async def test_a_queue_of_other_arguments_is_refused_with_both_values(shop):
    transport = shop.app.runtime().transport
    await transport.declare_queue("email", arguments={"x-max-priority": 3})
    with pytest.raises(TopologyMismatch, match="is declared 'dead', the broker has not set"):
        async with shop.working():
            pass


async def test_tasks_go_by_the_files_routes_and_delays_and_dead_letters(shop):
    await applied(shop)
    send = shop.app.tasks["shop.email.send"]
    async with shop.working() as worker:
        assert [lane.prefetch for lane, _ in worker._consumers if lane.source == "email"] == [3]
        result = await send.adelay("a@b.c")
        assert result.queue == "email"
        assert await result.aget(10) == "a@b.c by email.send"
        again = await send.adelay("again")
        assert (await again.aget(10)).startswith("again by")
        late = await send.aapply_async(("late",), countdown=0.3)
        assert (await late.aget(10)).startswith("late by")
        bad = await send.adelay("nobody")
        with pytest.raises(LookupError):
            await bad.aget(10)
        ((_, letter),) = await shop.dead("email")
        assert letter.reason == DeadReason.FAILED
        # Workers park straight into the home: who listens to the exchange gets no second copy.
        assert await shop.count("audit") == 0
        assert worker.app.delays.resolution == 0.05


async def test_what_a_queue_does_not_park_only_fails(shop):
    await applied(shop)
    async with shop.working():
        result = await shop.app.asend_task("shop.email.none", ["x"])
        with pytest.raises(Exception, match="no task named"):
            await result.aget(10)
        assert await shop.count("email.dead") == 0


async def test_a_worker_consumes_what_its_tasks_reach(shop):
    assert set(shop.app.work_queues()) == {"default", "email"}
    shop.app.conf.task_default_queue = "other"
    assert set(shop.app.work_queues()) == {"email"}
