"""A queue becomes another of its name on a live system, and nothing is lost."""

import asyncio
import contextlib
import time
from dataclasses import replace
from urllib.parse import quote

import pytest

from amqflow.errors import AmqflowError, NotFound, ReplaceRefused
from amqflow.management import Management
from amqflow.protocol import Envelope
from amqflow.protocol.headers import EXCHANGE, ROUTING_KEY
from amqflow.provision import apply
from amqflow.provision.live import by_management
from amqflow.provision.migrate import Migration
from amqflow.provision.mover import digest, inbound, outbound
from amqflow.topology import Binding, Queue, QueueType, Topology
from amqflow.topology.names import MovingNames
from amqflow.transport import Delivery
from tests.provision.moving import door, replaced_under_load
from tests.servers.wait import until


@pytest.mark.faults_long
async def test_a_classic_queue_becomes_quorum_under_load_killed_twice(
    tmp_path, amqp_url, rabbitmq, vhost
):
    ledger, _ = await replaced_under_load(
        tmp_path,
        amqp_url,
        rabbitmq.management_url,
        "shop/orders ü 1",
        held=3000,
        rate=200,
        kills=True,
    )
    lost, double = ledger.balance()
    assert not lost
    assert not double
    assert not ledger.refused
    found = rabbitmq.management("GET", f"/api/queues/{vhost}/shop%2Forders%20%C3%BC%201")
    assert found["type"] == "quorum"
    left = [one["name"] for one in rabbitmq.management("GET", f"/api/queues/{vhost}")]
    left += [one["name"] for one in rabbitmq.management("GET", f"/api/exchanges/{vhost}")]
    assert not [name for name in left if name.startswith("amqflow.moving.")]


@pytest.mark.faults_long
async def test_100_000_messages_move_under_load_killed_twice(tmp_path, amqp_url, rabbitmq):
    start = time.monotonic()
    ledger, _ = await replaced_under_load(
        tmp_path, amqp_url, rabbitmq.management_url, "orders", held=100_000, rate=200, kills=True
    )
    lost, double = ledger.balance()
    print(f"{time.monotonic() - start:.0f} s in all, {ledger.migrating:.0f} s of them migrating")
    assert not lost
    assert not double
    assert not ledger.refused


# -- what is refused, before anything is changed ------------------------------------------------


@pytest.fixture
def management(rabbitmq, amqp_url):
    return Management.of(amqp_url, rabbitmq.management_url)


async def refused(transport, management, words):
    before = await by_management(management)
    with pytest.raises(ReplaceRefused, match=words):
        await Migration(Queue("q"), transport, management, patience=20).run()
    assert await by_management(management) == before


async def test_a_stream_that_holds_messages_is_refused(transport, management):
    await transport.declare_queue("q", arguments={"x-queue-type": "stream"})
    await transport.publish(Envelope(b"1", message_id="1"), "", "q", timeout=30)

    async def counted():
        return (await management.get(management.path("queues", "q"))).get("messages")

    await until(counted, deadline=60)
    await refused(transport, management, "is a stream and holds messages")


async def test_a_queue_that_deletes_itself_is_refused(transport, management):
    await transport.declare_queue("q", auto_delete=True)
    await refused(transport, management, "deletes itself")


async def test_a_single_active_consumer_is_refused_while_it_consumes(transport, management):
    await transport.declare_queue("q", arguments={"x-single-active-consumer": True})
    consumer = transport.consume("q", lambda _: None, prefetch=1)
    await consumer.wait_active(30)

    async def counted():
        return (await management.get(management.path("queues", "q"))).get("consumers")

    await until(counted, deadline=60)
    await refused(transport, management, "single active consumer")


async def test_a_policy_that_would_drop_what_waits_is_refused(transport, management):
    await transport.declare_queue("q")
    definition = {"pattern": "q", "definition": {"max-length": 3}, "apply-to": "queues"}
    await management.put(management.path("policies", "all"), definition)
    with pytest.raises(
        ReplaceRefused, match=r"policy 'all' sets max-length on 'amqflow\.moving\.q"
    ):
        await Migration(Queue("q"), transport, management).run()
    with pytest.raises(NotFound):
        await transport.declare_exchange(MovingNames("q").mark, passive=True)


async def test_a_queue_that_is_as_wanted_already_is_left_alone(transport, management):
    await transport.declare_queue("q", arguments=Queue("q").declare_arguments())
    before = await by_management(management)
    start = time.monotonic()
    await Migration(Queue("q"), transport, management).run()
    assert await by_management(management) == before
    assert time.monotonic() - start < 7


# -- a message on its way ----------------------------------------------------------------------


def delivered(envelope, *, exchange="tasks", routing_key="k.1"):
    return Delivery(
        None, 1, envelope, queue="q", exchange=exchange, routing_key=routing_key, redelivered=False
    )


def test_a_message_comes_back_as_it_went():
    old = Envelope(
        b"body",
        {"id": "1", "x-delivery-count": 3, "n": 2**40},
        priority=7,
        expiration="60000",
        message_id="1",
        reply_to="r",
        user_id="guest",
    )
    aside = outbound(delivered(old), "r1")
    assert aside.expiration is None  # it must not die where nothing takes its dead letter
    assert aside.user_id is None
    back = inbound(delivered(aside, exchange="amqflow.moving.q/in"))
    assert back == replace(
        old,
        headers={"id": "1", "n": 2**40, EXCHANGE: "tasks", ROUTING_KEY: "k.1"},
        user_id=None,
    )


def test_what_a_broker_dead_lettered_keeps_its_story():
    death = [{"queue": "x", "reason": "rejected", "exchange": "", "routing-keys": ["x"]}]
    aside = outbound(delivered(Envelope(b"", {"x-death": death}, message_id="1")), "r1")
    assert inbound(delivered(aside)).headers == {"x-death": death}


def test_a_receipt_tells_a_message_from_every_other_one():
    one = Envelope(b"a", {"id": "1"}, message_id="1")
    again = replace(one, headers={"id": "1", "x-delivery-count": 2})
    assert digest(delivered(one)) == digest(delivered(again))
    others = [
        delivered(replace(one, body=b"b")),
        delivered(replace(one, headers={"id": "1", "retries": 1})),
        delivered(replace(one, message_id="2")),
        delivered(one, routing_key="k.2"),
    ]
    assert len({digest(other) for other in (delivered(one), *others)}) == 5


def test_a_message_without_an_id_gets_one():
    assert outbound(delivered(Envelope(b"")), "r1").message_id


def test_a_copy_of_a_later_run_is_another_copy():
    one = delivered(Envelope(b"a", {"id": "1"}, message_id="1"))
    copies = [digest(delivered(outbound(one, run))) for run in ("r1", "r1", "r2")]
    assert copies[0] == copies[1] != copies[2]


# -- what a mover that died has left -----------------------------------------------------------


@pytest.fixture
def at_once(monkeypatch):
    """Nobody publishes by the queue's name and no count is old: nothing needs to be waited for."""
    for name, seconds in (("LEASE", 0.5), ("GRACE", 0.5), ("COUNTED", 6.0)):
        monkeypatch.setattr(f"amqflow.provision.migrate.{name}", seconds)


@pytest.fixture
async def second(amqp_url):
    """A door of its own, for what is to die."""
    async with door(amqp_url) as transport:
        yield transport


async def taken_from(transport, queue, count):
    """Take messages out of a queue, as a worker does."""
    bodies = []

    def take(delivery):
        bodies.append(delivery.envelope.body)
        delivery.ack()

    consumer = transport.consume(queue, take, prefetch=10)
    await until(lambda: len(bodies) >= count, deadline=60)
    await consumer.close()
    return bodies


async def filled(transport, count):
    await transport.declare_queue("q")
    bodies = [b"%d" % number for number in range(count)]
    for body in bodies:
        await transport.publish(Envelope(body, message_id=body.decode()), "", "q", timeout=30)
    return bodies


async def dead_after_its_confirms(transport, management, monkeypatch):
    """Run a migration up to copies that are confirmed, and never ack an original."""
    with monkeypatch.context() as patch:
        copied = []

        async def end(mover):
            copied.extend(mover._taken)

        patch.setattr("amqflow.provision.mover.Mover._end_taken", end)
        running = asyncio.create_task(Migration(Queue("q"), transport, management).run())
        names = MovingNames("q")
        await until(lambda: copied and len(copied[-1]), deadline=60)
        await until(lambda: counted(transport, names.hold), deadline=60)
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)
    await transport.close()


async def counted(transport, queue):
    return (await transport.declare_queue(queue, passive=True)).messages


async def test_what_a_worker_took_from_a_dead_mover_is_not_there_twice(
    transport, second, management, monkeypatch, at_once
):
    bodies = await filled(transport, 5)
    await dead_after_its_confirms(second, management, monkeypatch)
    taken = await taken_from(transport, "q", 3)
    await Migration(Queue("q"), transport, management).run()
    taken += await taken_from(transport, "q", len(bodies) - len(taken))
    assert sorted(taken) == bodies
    assert await counted(transport, "q") == 0


@pytest.mark.faults_long
async def test_a_lost_channel_in_the_middle_doubles_nothing(
    transport, second, management, rabbitmq, vhost, at_once
):
    bodies = await filled(transport, 3000)
    running = asyncio.create_task(Migration(Queue("q"), second, management).run())
    names = MovingNames("q")

    async def under_way():
        with contextlib.suppress(AmqflowError):
            return await counted(transport, names.hold) > 300

    await until(under_way, deadline=60, every=0.01)
    await asyncio.to_thread(cut, rabbitmq, vhost)
    await running
    taken = await taken_from(transport, "q", len(bodies))
    assert sorted(taken) == sorted(bodies)
    assert await counted(transport, "q") == 0


def cut(rabbitmq, vhost):
    """Close every connection of a virtual host."""
    for one in rabbitmq.management("GET", f"/api/vhosts/{vhost}/connections"):
        with contextlib.suppress(Exception):  # it is gone already
            rabbitmq.management("DELETE", "/api/connections/" + quote(one["name"]))


@pytest.mark.faults_long
async def test_a_queue_that_refuses_keeps_all_others_aside(transport, second, management, at_once):
    """A receipt is written even where the queue itself refuses its copy."""
    bodies = await filled(transport, 30)
    wanted = Queue("q", type=QueueType.CLASSIC, max_length=5, overflow="reject-publish")
    names = MovingNames("q")
    running = asyncio.create_task(Migration(wanted, second, management).run())

    async def all_tried():
        with contextlib.suppress(AmqflowError):
            return await counted(transport, names.receipts("back")) >= len(bodies)

    await until(all_tried, deadline=60)
    running.cancel()
    await asyncio.gather(running, return_exceptions=True)
    await second.close()
    taken = []

    def take(delivery):
        taken.append(delivery.envelope.body)
        delivery.ack()

    consumer = transport.consume("q", take, prefetch=10)
    await Migration(wanted, transport, management).run()
    await until(lambda: set(taken) == set(bodies), deadline=60)
    await consumer.close()


@pytest.mark.faults_long
async def test_what_a_worker_binds_meanwhile_does_not_double_it(
    transport, second, management, at_once
):
    bodies = await filled(transport, 200)
    await transport.declare_exchange("tasks", "topic")
    await transport.bind_queue("q", "tasks", "k")
    running = asyncio.create_task(Migration(Queue("q"), second, management).run())
    await until(lambda: moving(transport), deadline=60, every=0.01)
    await apply(Topology(bindings=(Binding("tasks", "q", routing_key="k"),)), transport)
    for number in range(1000, 1020):
        body = b"%d" % number
        await transport.publish(Envelope(body, message_id=str(number)), "tasks", "k", timeout=30)
        bodies.append(body)
    await running
    taken = await taken_from(transport, "q", len(bodies))
    assert sorted(taken) == sorted(bodies)
    assert await counted(transport, "q") == 0
    found = await management.get(management.path("queues", "q") + "/bindings")
    assert [(one["source"], one["routing_key"]) for one in found if one["source"]] == [
        ("tasks", "k")
    ]


async def moving(transport):
    with contextlib.suppress(AmqflowError):
        await transport.declare_exchange(MovingNames("q").mark, passive=True)
        return await counted(transport, MovingNames("q").hold) >= 100


@pytest.mark.faults_long
async def test_of_two_migrations_at_once_one_is_told_and_nothing_is_lost(
    transport, second, management, at_once
):
    bodies = await filled(transport, 2000)
    ends = await asyncio.gather(
        Migration(Queue("q"), second, management).run(),
        Migration(Queue("q"), transport, management).run(),
        return_exceptions=True,
    )
    for end in ends:
        assert end is None or isinstance(end, AmqflowError), end
    await Migration(Queue("q"), transport, management).run()
    taken = await taken_from(transport, "q", len(bodies))
    assert sorted(taken) == sorted(bodies)
    assert await counted(transport, "q") == 0
