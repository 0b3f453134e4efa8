from __future__ import annotations

import asyncio
import contextlib

import pytest

from amqflow.errors import AccessRefused, TopologyMismatch
from amqflow.provision import Action, apply
from amqflow.topology import BrokerFacts, Exchange, Queue, QueueNeeds, QueueType, Topology, derive

NEEDS = {"default": QueueNeeds(), "email": QueueNeeds(uses_priority=True)}


@pytest.fixture
def topology(rabbitmq):
    return derive("shop", NEEDS, BrokerFacts(rabbitmq.version))


def on_the_broker(rabbitmq, vhost, what):
    """What the broker itself lists."""
    found = rabbitmq.management("GET", f"/api/{what}/{vhost}")
    return [item for item in found if not item.get("name", "x").startswith(("amq.r", "amq.d"))]


def bindings_on(rabbitmq, vhost):
    return {
        (b["source"], b["destination_type"], b["destination"], b["routing_key"])
        for b in rabbitmq.management("GET", f"/api/bindings/{vhost}")
        if b["source"]
    }


def expected_bindings(topology):
    return {
        (b.source, b.destination_kind.value, b.destination, b.routing_key)
        for b in topology.bindings
    }


async def test_an_empty_broker_gets_every_part(transport, topology, rabbitmq, vhost):
    told = []
    changes = await apply(topology, transport, on_created=told.append)
    assert {change.action for change in changes} == {Action.CREATED}
    assert len(changes) == len(topology.exchanges) + len(topology.queues) + len(topology.bindings)
    assert sorted(told, key=str) == sorted(changes, key=str)
    assert all(change.why for change in changes)

    queues = {q["name"]: q["arguments"] for q in on_the_broker(rabbitmq, vhost, "queues")}
    assert queues == {queue.name: queue.declare_arguments() for queue in topology.queues}
    exchanges = {e["name"]: e["type"] for e in on_the_broker(rabbitmq, vhost, "exchanges")}
    assert {e.name: e.type for e in topology.exchanges}.items() <= exchanges.items()
    assert bindings_on(rabbitmq, vhost) == expected_bindings(topology)


async def test_a_second_run_finds_everything_present(transport, topology, rabbitmq, vhost):
    await apply(topology, transport)
    told = []
    changes = await apply(topology, transport, on_created=told.append)
    assert {change.action for change in changes} == {Action.PRESENT}
    assert told == []
    assert bindings_on(rabbitmq, vhost) == expected_bindings(topology)


async def test_a_part_somebody_deleted_comes_back(transport, topology, rabbitmq, vhost):
    await apply(topology, transport)
    await transport.delete_queue("amqflow.delay.5.0")
    await transport.delete_exchange("amqflow.shop.dead")
    created = [c for c in await apply(topology, transport) if c.action is Action.CREATED]
    assert {c.name for c in created if c.kind != "binding"} == {
        "amqflow.delay.5.0",
        "amqflow.shop.dead",
    }
    assert bindings_on(rabbitmq, vhost) == expected_bindings(topology)


@pytest.mark.parametrize("after", [1, 20, 45, 70, 120])
async def test_a_run_cut_off_half_way_is_finished_by_the_next(
    connect, topology, rabbitmq, vhost, after
):
    told = []

    def cut_off(change):
        told.append(change)
        if len(told) == after:
            task.cancel()

    async with connect() as first:
        task = asyncio.create_task(apply(topology, first, on_created=cut_off))
        with pytest.raises(asyncio.CancelledError):
            await task

    async with connect() as second:
        changes = await apply(topology, second)
    assert {c.name for c in told} <= {c.name for c in changes}
    assert len(on_the_broker(rabbitmq, vhost, "queues")) == len(topology.queues)
    assert bindings_on(rabbitmq, vhost) == expected_bindings(topology)


async def test_workers_that_start_at_once_all_succeed(connect, topology, rabbitmq, vhost):
    async with contextlib.AsyncExitStack() as stack:
        doors = [await stack.enter_async_context(connect()) for _ in range(4)]
        await asyncio.gather(*(apply(topology, door) for door in doors))
    assert len(on_the_broker(rabbitmq, vhost, "queues")) == len(topology.queues)
    assert bindings_on(rabbitmq, vhost) == expected_bindings(topology)


async def test_a_queue_that_differs_is_named_with_argument_values_and_way_out(transport):
    await transport.declare_queue("email", arguments={"x-queue-type": "classic"})
    topology = Topology(queues=(Queue("email", QueueType.CLASSIC, max_priority=10),))
    with pytest.raises(TopologyMismatch) as caught:
        await apply(topology, transport)
    assert str(caught.value).startswith(
        "queue 'email' exists with other arguments: x-max-priority is declared '10', the broker "
        "has not set."
    )
    assert "use another name" in str(caught.value)


async def test_an_exchange_of_another_type_is_a_mismatch(transport):
    await transport.declare_exchange("tasks", "direct")
    with pytest.raises(TopologyMismatch, match="type is declared 'topic', the broker has 'direct'"):
        await apply(Topology((Exchange("tasks", "topic"),)), transport)


async def test_several_differences_come_in_one_error_and_the_rest_is_made(transport):
    await transport.declare_queue("a", arguments={"x-queue-type": "classic"})
    await transport.declare_queue("b", arguments={"x-queue-type": "classic"})
    topology = Topology(queues=(Queue("a"), Queue("b"), Queue("c")))
    with pytest.raises(TopologyMismatch, match=r"(?s)2 parts.*queue 'a'.*queue 'b'"):
        await apply(topology, transport)
    assert (await transport.declare_queue("c", passive=True)).name == "c"


async def test_two_resolutions_on_one_vhost_are_refused_in_a_few_lines(transport):
    facts = BrokerFacts((await transport.server()).version)
    await apply(derive("shop", {}, facts), transport)
    with pytest.raises(TopologyMismatch, match="shared by all applications") as caught:
        await apply(derive("mail", {}, facts, resolution=0.2), transport)
    assert len(str(caught.value).splitlines()) < 10


async def test_a_user_who_may_not_configure_is_told(connect, rabbitmq, vhost):
    rabbitmq.management("PUT", f"/api/users/{vhost}", {"password": "p", "tags": ""})
    rabbitmq.management(
        "PUT",
        f"/api/permissions/{vhost}/{vhost}",
        {"configure": "^$", "write": ".*", "read": ".*"},
    )
    url = rabbitmq.vhost_url(vhost)
    address = url.split("@", 1)[1]
    async with connect(f"amqp://{vhost}:p@{address}") as door:
        with pytest.raises(AccessRefused):
            await apply(Topology(queues=(Queue("q"),)), door)
    rabbitmq.management("DELETE", f"/api/users/{vhost}")
