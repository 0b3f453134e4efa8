"""Consumers: what they are given, how many at a time, and what becomes of it when they end."""

import asyncio

import pytest

from amqflow.errors import BrokerUnavailable
from tests.servers.wait import until
from tests.transport.suite import Inbox, message


async def test_deliveries_come_in_order_and_name_where_they_came_from(seam, queue):
    await seam.transport.declare_exchange("events", "topic")
    await seam.transport.bind_queue(queue, "events", "a.#")
    for n in range(20):
        await seam.transport.publish(message(b"%d" % n), "events", f"a.{n}", timeout=10)
    inbox = await seam.consume(queue)
    await inbox.holds(20)
    assert [
        (delivery.queue, delivery.exchange, delivery.routing_key) for delivery in inbox.deliveries
    ] == [(queue, "events", f"a.{n}") for n in range(20)]
    assert all(delivery.live and not delivery.redelivered for delivery in inbox.deliveries)


@pytest.mark.parametrize("kind", ["classic", "quorum"])
async def test_no_more_than_the_prefetch_are_unsettled(seam, kind):
    await seam.transport.declare_queue("work", arguments={"x-queue-type": kind})
    await seam.publish("work", *[b"x"] * 10)
    inbox = await seam.consume("work", prefetch=3)
    await inbox.holds(3)
    await seam.becomes_ready("work", 7)
    inbox.deliveries[1].ack()
    await inbox.holds(4)
    await seam.becomes_ready("work", 6)
    assert len(inbox) == 4


async def test_without_a_prefetch_everything_is_handed_out(seam, queue):
    await seam.publish(queue, *[b"x"] * 1000)
    inbox = await seam.consume(queue, prefetch=0)
    await inbox.holds(1000)


async def test_a_pause_stops_the_flow_and_keeps_what_was_delivered_settleable(seam, queue):
    await seam.publish(queue, b"a", b"b")
    inbox = await seam.consume(queue)
    await inbox.holds(2)
    await inbox.consumer.pause()
    assert not inbox.consumer.active
    assert "paused" in inbox.consumer.problem
    await seam.publish(queue, b"c")
    assert (await seam.transport.declare_queue(queue, passive=True)).consumers == 0
    assert await seam.ready(queue) == 1
    first, second = inbox.deliveries
    assert first.live
    first.ack()
    second.requeue()
    await seam.becomes_ready(queue, 2)
    await inbox.consumer.resume()
    await inbox.holds(4)
    assert sorted(inbox.bodies[2:]) == [b"b", b"c"]
    assert inbox.consumer.active
    assert inbox.consumer.problem is None


@pytest.mark.parametrize("settled", [0, 3, 5])
@pytest.mark.parametrize("kind", ["classic", "quorum"])
async def test_who_subscribes_again_is_given_nothing_twice(seam, kind, settled):
    """Under the tag of before, RabbitMQ's quorum queues delivered what was unsettled anew."""
    await seam.transport.declare_queue("work", arguments={"x-queue-type": kind})
    await seam.publish("work", *[b"%d" % n for n in range(20)])
    inbox = await seam.consume("work", prefetch=8)
    await inbox.holds(8)
    for delivery in inbox.deliveries[:settled]:
        delivery.ack()
    await inbox.consumer.pause()
    for delivery in inbox.deliveries[settled : settled + 2]:
        delivery.ack()
    await inbox.consumer.resume()
    generation = inbox.consumer.generation
    await inbox.holds(8 + settled + 2)
    for number in range(20):
        await inbox.holds(number + 1)
        inbox.deliveries[number].ack()
    await seam.comes_back(inbox)
    assert sorted(map(int, inbox.bodies[:20])) == list(range(20))
    assert len(inbox) == 21
    assert inbox.consumer.generation == generation


async def test_pausing_again_and_again_does_not_pile_up_deliveries(seam, queue):
    await seam.publish(queue, *[b"x"] * 20)
    inbox = await seam.consume(queue, prefetch=4)
    await inbox.holds(4)
    for _ in range(5):
        await inbox.consumer.pause()
        inbox.deliveries.pop(0).ack()  # room for a subscription, and its prefetch with it
        await inbox.consumer.resume()
        await until(lambda: len(inbox) >= 4, message="no more than it may hold")
    assert len(inbox) < 8

    async def drained():
        inbox.ack_all()
        return await seam.ready(queue) == 0

    await until(drained)
    assert inbox.consumer.active


async def test_a_consumer_that_was_closed_hands_back_what_is_unsettled(seam, queue):
    await seam.publish(queue, *[b"%d" % n for n in range(6)])
    inbox = await seam.consume(queue)
    await inbox.holds(6)
    for delivery in inbox.deliveries[:3]:
        delivery.ack()
    await inbox.consumer.close()
    assert not inbox.consumer.active
    assert await seam.ready(queue) == 3
    assert not inbox.deliveries[5].live
    inbox.deliveries[5].ack()
    again = await seam.consume(queue)
    await again.holds(3)
    assert again.bodies == [b"3", b"4", b"5"]
    assert all(delivery.redelivered for delivery in again.deliveries)
    await inbox.consumer.close()  # twice is once


async def test_a_consumer_closed_at_once_leaves_nothing_behind(seam, queue):
    for _ in range(10):
        consumer = seam.transport.consume(queue, Inbox(), prefetch=1)
        await asyncio.sleep(0)
        await consumer.close()

    async def nobody():
        return (await seam.transport.declare_queue(queue, passive=True)).consumers == 0

    await until(nobody)


async def test_an_exclusive_consumer_keeps_others_waiting_until_it_leaves(seam, queue):
    first = await seam.consume(queue, exclusive=True)
    inbox = Inbox()
    inbox.consumer = seam.transport.consume(queue, inbox, prefetch=1, exclusive=True)
    await until(lambda: "exclusive" in (inbox.consumer.problem or ""))
    assert not inbox.consumer.active
    assert first.consumer.active
    await first.consumer.close()
    await seam.comes_back(inbox)


async def test_a_missing_queue_is_reported_and_consumed_when_it_appears(seam):
    inbox = Inbox()
    inbox.consumer = seam.transport.consume("later", inbox, prefetch=1)
    with pytest.raises(BrokerUnavailable, match="later"):
        await inbox.consumer.wait_active(0.3)
    assert "NOT_FOUND" in inbox.consumer.problem
    await seam.transport.declare_queue("later")
    await seam.comes_back(inbox)


async def test_consumers_of_one_queue_share_it(seam, queue):
    inboxes = [await seam.consume(queue, prefetch=1) for _ in range(3)]
    await seam.publish(queue, *[b"%d" % n for n in range(3)])
    await until(lambda: all(len(inbox) == 1 for inbox in inboxes))


async def test_arguments_of_a_subscription_reach_the_broker(seam, queue):
    low = await seam.consume(queue)
    high = await seam.consume(queue, arguments={"x-priority": 10})
    await seam.publish(queue, *[b"x"] * 10)
    await high.holds(10)
    assert not len(low)


async def test_a_callback_that_raises_costs_its_own_delivery_only(wire, queue):
    async with wire() as w:
        inbox = Inbox()

        def take(delivery):
            if delivery.envelope.body == b"bad":
                raise ValueError(delivery.envelope.body)
            inbox(delivery)

        consumer = w.seam.transport.consume(queue, take, prefetch=10)
        await consumer.wait_active(10)
        made = w.proxy.connections_made
        for body in (b"a", b"bad", b"b"):
            await w.seam.publish(queue, body)
        await inbox.holds(2)
        inbox.ack_all()
        await w.seam.publish(queue, b"c")
        await inbox.holds(1)
        inbox.ack_all()
        assert consumer.active
        assert w.proxy.connections_made <= made + 1  # the publisher's
        await consumer.close()
        assert await w.seam.ready(queue) == 1  # "bad" is still there


@pytest.mark.parametrize("where", ["message_id", "header name", "header table"])
async def test_properties_that_cannot_be_read_are_left_out_of_the_delivery(
    wire, seam, queue, where
):
    """A foreign client may write anything; the body arrives, for somebody to park it."""
    spoil = {
        "message_id": (b"broken", b"\xffroken"),
        "header name": (b"header", b"\xffeader"),
        "header table": (b"\x06headerS", b"\x06header?"),
    }[where]
    async with wire() as w:
        inbox = await w.seam.consume(queue)

        def passed(_, frame):
            return frame.replace(*spoil) if frame[0] == 2 else frame

        w.proxy.filter = passed
        made = w.proxy.connections_made
        sent = message(b"body", message_id="broken", headers={"header": "value"})
        await seam.transport.publish(sent, "", queue, timeout=10)  # past the proxy
        await inbox.holds(1)
        [delivery] = inbox.deliveries
        assert delivery.envelope.body == b"body"
        assert delivery.envelope.message_id is None
        assert delivery.envelope.headers == {}
        delivery.ack()
        w.proxy.filter = None
        await w.seam.comes_back(inbox)
        assert w.proxy.connections_made <= made + 1  # the publisher's
