"""Declares, bindings and deletes, and the broker's refusals in its own words."""

import asyncio

import pytest

from amqflow.errors import (
    AccessRefused,
    BrokerUnavailable,
    ChannelLost,
    NotFound,
    TopologyError,
    TopologyMismatch,
    Unroutable,
)
from amqflow.transport import QueueCounts
from tests.transport.suite import message


@pytest.fixture
async def neighbours(seam):
    """A consumer with a delivery in its hands, checked after the test: refusals harm nobody."""
    await seam.transport.declare_queue("neighbour")
    inbox = await seam.consume("neighbour")
    await seam.publish("neighbour", b"held")
    await inbox.holds(1)
    yield
    assert inbox.deliveries[0].live
    assert inbox.consumer.active
    await seam.comes_back(inbox)


async def test_a_declare_answers_with_the_counts(seam, queue):
    assert await seam.transport.declare_queue(queue) == QueueCounts(queue, 0, 0)
    await seam.publish(queue, b"a", b"b")
    await seam.consume(queue, prefetch=1)
    counts = await seam.transport.declare_queue(queue, passive=True)
    assert (counts.messages, counts.consumers) == (1, 1)


async def test_the_broker_names_a_queue_that_has_no_name(seam):
    counts = await seam.transport.declare_queue("", auto_delete=True)
    assert counts.name.startswith("amq.gen-")
    assert await seam.ready(counts.name) == 0


async def test_the_server_tells_who_it_is(seam, rabbitmq):
    server = await seam.transport.server()
    assert server.product == rabbitmq.product
    assert server.version == rabbitmq.version
    assert server.frame_max >= 4096


async def test_many_calls_at_once_are_answered_each(seam):
    counts = await asyncio.gather(*(seam.transport.declare_queue(f"q{n}") for n in range(60)))
    assert [count.name for count in counts] == [f"q{n}" for n in range(60)]


async def test_what_is_missing_is_not_found(seam, queue, neighbours):
    transport = seam.transport
    calls = [
        transport.declare_queue("missing", passive=True),
        transport.declare_exchange("missing", passive=True),
        transport.bind_queue("missing", "amq.topic", "x"),
        transport.bind_queue(queue, "missing", "x"),
        transport.bind_exchange("missing", "amq.topic", "x"),
        transport.purge_queue("missing"),
    ]
    for answer in await asyncio.gather(*calls, return_exceptions=True):
        assert isinstance(answer, NotFound), answer
        assert "NOT_FOUND" in str(answer)
        assert "'missing'" in str(answer)


async def test_a_declare_that_differs_tells_the_argument_and_both_values(seam, queue, neighbours):
    with pytest.raises(TopologyMismatch, match="x-max-length") as caught:
        await seam.transport.declare_queue(queue, arguments={"x-max-length": 7})
    assert "PRECONDITION_FAILED" in str(caught.value)
    assert "7" in str(caught.value)
    await seam.transport.declare_exchange("events", "topic")
    with pytest.raises(TopologyMismatch, match="type"):
        await seam.transport.declare_exchange("events", "fanout")


async def test_a_reserved_name_is_refused(seam, neighbours):
    with pytest.raises(AccessRefused, match=r"amq\."):
        await seam.transport.declare_queue("amq.mine")
    with pytest.raises(AccessRefused, match=r"amq\."):
        await seam.transport.declare_exchange("amq.mine")


async def test_a_queue_exclusive_to_another_connection_is_refused(
    seam, open_seam, amqp_url, neighbours
):
    await open_seam(amqp_url).transport.declare_queue("mine", exclusive=True)
    with pytest.raises(AccessRefused, match="RESOURCE_LOCKED"):
        await seam.transport.declare_queue("mine", passive=True)


async def test_a_user_without_the_permission_is_refused(rabbitmq, vhost, open_seam, seam, queue):
    rabbitmq.management("PUT", f"/api/users/{vhost}", {"password": "reader", "tags": ""})
    try:
        rights = {"configure": "", "write": "", "read": ".*"}
        rabbitmq.management("PUT", f"/api/permissions/{vhost}/{vhost}", rights)
        url = rabbitmq.vhost_url(vhost).replace("guest:guest", f"{vhost}:reader")
        reader = open_seam(url)
        with pytest.raises(AccessRefused, match="ACCESS_REFUSED"):
            await reader.transport.declare_queue("other")
        with pytest.raises(AccessRefused):
            await reader.transport.publish(message(), "", queue, timeout=5)
        inbox = await reader.consume(queue)
        await seam.publish(queue)
        await inbox.holds(1)
    finally:
        rabbitmq.management("DELETE", f"/api/users/{vhost}")


async def test_what_the_broker_does_not_know_is_told_in_its_words(seam, neighbours):
    # Refusals for which the broker closes a whole connection.
    with pytest.raises(TopologyError, match=r"exchange type .*x-no-such-type"):
        await seam.transport.declare_exchange("odd", "x-no-such-type")
    await seam.transport.declare_queue("quorum", arguments={"x-queue-type": "quorum"})
    with pytest.raises(TopologyError, match="not supported by quorum queues"):
        await seam.transport.delete_queue("quorum", if_empty=True)
    assert await seam.ready("quorum") == 0


async def test_an_argument_amqp_cannot_write_is_named(seam, neighbours):
    with pytest.raises(TopologyError, match="x-odd"):
        await seam.transport.declare_queue("odd", arguments={"x-odd": object()})
    await seam.transport.declare_queue("odd")


async def test_a_binding_is_made_and_taken_away(seam, queue):
    transport = seam.transport
    await transport.declare_exchange("events", "topic")
    await transport.bind_queue(queue, "events", "a.*")
    await transport.publish(message(), "events", "a.b", timeout=10)
    await transport.unbind_queue(queue, "events", "a.*")
    with pytest.raises(Unroutable):
        await transport.publish(message(), "events", "a.b", timeout=10)
    await transport.unbind_queue(queue, "events", "a.*")  # gone already: no error
    assert await seam.ready(queue) == 1


async def test_a_binding_with_arguments_is_taken_away_by_the_same_arguments(seam, queue):
    transport = seam.transport
    await transport.declare_exchange("by-header", "headers")
    red, blue = ({"x-match": "all", "colour": colour} for colour in ("red", "blue"))
    await transport.bind_queue(queue, "by-header", "", red)
    await transport.bind_queue(queue, "by-header", "", blue)
    await transport.unbind_queue(queue, "by-header", "", red)
    await transport.publish(message(headers={"colour": "blue"}), "by-header", "", timeout=10)
    with pytest.raises(Unroutable):
        await transport.publish(message(headers={"colour": "red"}), "by-header", "", timeout=10)


async def test_exchanges_are_bound_to_each_other_and_unbound(seam, queue):
    transport = seam.transport
    await transport.declare_exchange("front", "topic")
    await transport.declare_exchange("back", "fanout", internal=True)
    await transport.bind_queue(queue, "back")
    await transport.bind_exchange("back", "front", "a.#", {"note": "x"})
    await transport.publish(message(), "front", "a.b", timeout=10)
    assert await seam.ready(queue) == 1
    await transport.unbind_exchange("back", "front", "a.#", {"note": "x"})
    with pytest.raises(Unroutable):
        await transport.publish(message(), "front", "a.b", timeout=10)


async def test_a_queue_is_deleted_on_condition(seam, queue, neighbours):
    transport = seam.transport
    await seam.publish(queue, b"a", b"b")
    with pytest.raises(TopologyMismatch, match="not empty"):
        await transport.delete_queue(queue, if_empty=True)
    inbox = await seam.consume(queue)
    with pytest.raises(TopologyMismatch, match="in use"):
        await transport.delete_queue(queue, if_unused=True)
    await inbox.holds(2)
    await inbox.consumer.close()
    assert await transport.purge_queue(queue) == 2
    await transport.delete_queue(queue, if_empty=True, if_unused=True)
    with pytest.raises(NotFound):
        await seam.ready(queue)


async def test_deleting_tells_how_many_went_and_twice_is_no_error(seam, queue):
    await seam.publish(queue, b"a", b"b", b"c")
    assert await seam.transport.delete_queue(queue) == 3
    assert await seam.transport.delete_queue(queue) == 0


async def test_an_exchange_is_deleted_on_condition(seam, queue, neighbours):
    transport = seam.transport
    await transport.declare_exchange("events", "topic")
    await transport.bind_queue(queue, "events", "x")
    with pytest.raises(TopologyMismatch, match="in use"):
        await transport.delete_exchange("events", if_unused=True)
    await transport.unbind_queue(queue, "events", "x")
    await transport.delete_exchange("events", if_unused=True)
    await transport.delete_exchange("events")
    with pytest.raises(NotFound):
        await transport.declare_exchange("events", "topic", passive=True)


async def test_a_call_ends_when_the_broker_falls_silent(wire, queue):
    async with wire(heartbeat=1) as w:
        await w.seam.ready(queue)
        w.proxy.black_hole()
        async with asyncio.timeout(6):
            with pytest.raises((BrokerUnavailable, ChannelLost)):
                await w.seam.ready(queue)
        w.proxy.drop_connections()
        w.proxy.resume()
        assert await w.seam.ready(queue) == 0
