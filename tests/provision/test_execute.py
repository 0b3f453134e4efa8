"""A plan carried out, and what a broker may answer in the middle of it."""

import asyncio

import pytest

from amqflow.errors import (
    AccessRefused,
    BrokerUnavailable,
    ManagementUnavailable,
    NotFound,
    ReplaceRefused,
    TopologyMismatch,
)
from amqflow.management import Management
from amqflow.protocol import Envelope
from amqflow.provision.execute import execute
from amqflow.provision.live import by_declares, by_management
from amqflow.topology import Binding, DestinationKind, Exchange, Queue, QueueType, Topology
from amqflow.topology.diff import diff
from amqflow.topology.live import LiveQueue
from amqflow.topology.plan import Action, Create, Delete, Plan, Replace, name_of
from amqflow.topology.policy import Policy
from amqflow.transport import open_transport
from tests.servers.toxic import TcpProxy
from tests.servers.wait import until

TOPOLOGY = Topology(
    (Exchange("e", "topic"), Exchange("f", "fanout", arguments={"alternate-exchange": "e"})),
    (
        Queue("a", message_ttl=60.0, max_length=10),
        Queue("b", QueueType.CLASSIC, max_priority=3),
        Queue("s", QueueType.STREAM, max_age=86400.0),
    ),
    (
        Binding("e", "a", routing_key="x.#"),
        Binding("e", "a", routing_key="x.#", arguments={"k": "v", "n": 3}),
        Binding("f", "e", DestinationKind.EXCHANGE),
    ),
)


@pytest.fixture
def management(rabbitmq, amqp_url):
    return Management.of(amqp_url, rabbitmq.management_url)


async def by(how, transport, management, topology=TOPOLOGY):
    if how == "management":
        return await by_management(management)
    return await by_declares(topology, transport, "not asked")


# -- seen --------------------------------------------------------------------------------------


@pytest.mark.parametrize("how", ["management", "declares"])
async def test_what_was_applied_is_seen_as_declared(transport, management, how):
    first = diff(TOPOLOGY, await by(how, transport, management))
    assert {change.action for change in first.changes} == {Action.CREATE}
    done = []
    await execute(first, transport, on_done=done.append)
    assert set(map(name_of, done)) == set(map(name_of, first.changes))
    again = diff(TOPOLOGY, await by(how, transport, management))
    assert not again
    assert bool(again.unverified) == (how == "declares")
    await execute(again, transport)
    assert not diff(TOPOLOGY, await by_management(management))


OTHER = {
    "type": ("a", {"x-queue-type": "classic", "x-message-ttl": 60000, "x-max-length": 10}, {}),
    "argument": ("a", {"x-queue-type": "quorum", "x-message-ttl": 5, "x-max-length": 10}, {}),
    "missing": ("b", {"x-queue-type": "classic"}, {}),
    "added": ("b", {"x-queue-type": "classic", "x-max-priority": 3, "x-expires": 9999999}, {}),
    "durable": ("b", {"x-queue-type": "classic", "x-max-priority": 3}, {"durable": False}),
    "auto": ("b", {"x-queue-type": "classic", "x-max-priority": 3}, {"auto_delete": True}),
    "text": (
        "b",
        {"x-queue-type": "classic", "x-max-priority": 3, "x-dead-letter-exchange": "it's 'x'"},
        {},
    ),
}


@pytest.mark.parametrize("case", OTHER)
async def test_every_kind_of_difference_is_seen_both_ways(transport, management, case):
    name, arguments, flags = OTHER[case]
    await transport.declare_queue(name, arguments=arguments, **flags)
    seen = {}
    for how in ("management", "declares"):
        found = diff(TOPOLOGY, await by(how, transport, management))
        (change,) = found.replaces
        assert change.part.name == name
        seen[how] = {one.argument: (one.live, one.declared) for one in change.differences}
    assert seen["declares"].items() <= seen["management"].items()
    assert seen["declares"]


async def test_an_exchange_that_differs_is_seen_both_ways(transport, management):
    await transport.declare_exchange("e", "direct")
    await transport.declare_exchange("f", "fanout")
    for how in ("management", "declares"):
        found = diff(TOPOLOGY, await by(how, transport, management))
        assert {change.part.name for change in found.replaces} == {"e", "f"}


async def test_looking_by_declares_creates_nothing(transport, management):
    await by_declares(TOPOLOGY, transport, "x")
    live = await by_management(management)
    assert (live.queues, live.exchanges, live.bindings) == ((), (), ())


async def test_a_replacement_that_was_begun_is_seen_both_ways(transport, management):
    await execute(diff(TOPOLOGY, await by_management(management)), transport)
    await transport.declare_exchange("amqflow.moving.a/mark", "fanout")
    for how in ("management", "declares"):
        (change,) = diff(TOPOLOGY, await by(how, transport, management)).replaces
        assert change.begun


# -- policies and deletes ----------------------------------------------------------------------


async def test_policies_are_set_changed_and_deleted(transport, management):
    policy = Policy("p/ü 1", "^a$", {"max-length": 5}, "queues", 2)
    await execute(Plan((Create(policy, "x", "x"),)), transport, management=management)
    assert (await by_management(management)).policies == (policy,)
    delete = Plan((Delete(policy, "x", "x"),))
    for _ in range(2):  # that it is gone already is no error
        await execute(delete, transport, management=management)
    assert (await by_management(management)).policies == ()


@pytest.mark.parametrize("kind", ["quorum", "classic"])
async def test_a_queue_with_messages_or_consumers_is_not_deleted(transport, kind):
    await transport.declare_queue("old", arguments={"x-queue-type": kind})
    await transport.publish(Envelope(b"1", message_id="1"), "", "old", timeout=10)
    plan = Plan((Delete(LiveQueue("old", kind), "x", "x"),))
    with pytest.raises(TopologyMismatch, match="holds 1 messages"):
        await execute(plan, transport)
    await transport.purge_queue("old")
    consumer = transport.consume("old", lambda _: None, prefetch=1)
    await consumer.wait_active(30)
    with pytest.raises(TopologyMismatch, match="1 consumers"):
        await execute(plan, transport)
    await consumer.close()

    async def unused():
        return not (await transport.declare_queue("old", passive=True)).consumers

    await until(unused, deadline=30)
    await execute(plan, transport)
    with pytest.raises(NotFound):
        await transport.declare_queue("old", passive=True)


async def test_a_message_a_consumer_holds_counts_too(transport, management):
    await transport.declare_queue("old")
    await transport.publish(Envelope(b"1", message_id="1"), "", "old", timeout=10)

    async def counted():
        found = await management.get(management.path("queues", "old"))
        return found.get("messages") == 1

    await until(counted, deadline=30)
    held = []
    consumer = transport.consume("old", held.append, prefetch=1)
    await until(lambda: held, deadline=30)
    await consumer.pause()  # no consumer, none ready, one held
    plan = Plan((Delete(LiveQueue("old", "classic"), "x", "x"),))
    with pytest.raises(TopologyMismatch, match="holds 1 messages"):
        await execute(plan, transport, management=management)


# -- what a broker may answer in the middle ------------------------------------------------------


async def test_replaces_are_refused_before_anything_is_done(transport):
    plan = Plan((Create(Queue("a"), "x", "x"), Replace(Queue("b"), "differs", "x")))
    with pytest.raises(ReplaceRefused, match=r"'b'.*--migrate"):
        await execute(plan, transport)
    with pytest.raises(NotFound):
        await transport.declare_queue("a", passive=True)


async def test_406_in_the_middle_names_part_argument_and_values(transport, management):
    plan = diff(TOPOLOGY, await by_management(management))
    await transport.declare_queue("b", arguments={"x-max-priority": 9})
    done = []
    with pytest.raises(TopologyMismatch, match=r"queue 'b'.*x-max-priority.*'3'.*'9'"):
        await execute(plan, transport, on_done=done.append)
    assert {"a", "s"} <= set(map(name_of, done))
    assert not {one for one in done if name_of(one).startswith("e --")}
    await transport.delete_queue("b")
    await execute(diff(TOPOLOGY, await by_management(management)), transport)
    assert not diff(TOPOLOGY, await by_management(management))


async def test_404_in_the_middle_is_told_and_the_next_run_finishes(transport, management):
    """Somebody deletes what was just created, before it is bound."""
    plan = diff(TOPOLOGY, await by_management(management))
    bindings = Plan(tuple(change for change in plan.changes if isinstance(change.part, Binding)))
    with pytest.raises(NotFound):
        await execute(bindings, transport)
    await execute(diff(TOPOLOGY, await by_management(management)), transport)
    assert not diff(TOPOLOGY, await by_management(management))


async def test_403_in_the_middle_is_told(transport, rabbitmq, vhost, amqp_url, management):
    rabbitmq.management("PUT", f"/api/users/{vhost}", {"password": "p", "tags": "management"})
    rabbitmq.management(
        "PUT",
        f"/api/permissions/{vhost}/{vhost}",
        {"configure": "^(a|e|f)$", "write": ".*", "read": ".*"},
    )
    try:
        address = amqp_url.split("@", 1)[1]
        theirs = open_transport(f"amqp://{vhost}:p@{address}")
        done = []
        try:
            plan = diff(TOPOLOGY, await by_management(management))
            with pytest.raises(AccessRefused):
                await execute(plan, theirs, on_done=done.append)
        finally:
            await theirs.close()
        assert "a" in set(map(name_of, done))
        policy = Plan((Create(Policy("p", "x", {"max-length": 1}), "x", "x"),))
        place = rabbitmq.management_url.split("@", 1)[1]
        api = Management.of(amqp_url, f"http://{vhost}:p@{place}")
        with pytest.raises(AccessRefused, match=vhost):
            await execute(policy, transport, management=api)
    finally:
        rabbitmq.management("DELETE", f"/api/users/{vhost}")


async def test_a_broker_that_falls_silent_in_the_middle_is_told_in_time(
    amqp_url, management, monkeypatch
):
    async with TcpProxy(amqp_url) as proxy:
        behind = open_transport(proxy.url)
        try:
            plan = diff(TOPOLOGY, await by_management(management))
            silent = asyncio.Event()

            def silence(_):
                silent.set()
                proxy.black_hole()
                for module in ("calls", "link"):
                    monkeypatch.setattr(f"amqflow.transport.aiopika.{module}.CALL_TIMEOUT", 0.5)

            with pytest.raises(BrokerUnavailable, match="did not answer in time"):
                await execute(plan, behind, on_done=silence)
            assert silent.is_set()
        finally:
            proxy.resume()
            await behind.close()


async def test_an_api_that_goes_away_in_the_middle_is_told(transport, amqp_url):
    away = Management.of(amqp_url, "http://127.0.0.1:1")
    plan = Plan((Create(Queue("a"), "x", "x"), Create(Policy("p", "x", {}), "x", "x")))
    done = []
    with pytest.raises(ManagementUnavailable):
        await execute(plan, transport, management=away, on_done=done.append)
    assert [name_of(one) for one in done] == ["a"]
