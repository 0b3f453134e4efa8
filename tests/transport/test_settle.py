"""Settling: ack, requeue, reject; batched, in any order, once."""

import asyncio
import random

import pytest

from amqflow.errors import ChannelLost, NotFound
from tests.transport.suite import message


@pytest.mark.parametrize("kind", ["classic", "quorum"])
async def test_ack_removes_requeue_hands_back_and_reject_dead_letters(seam, kind):
    await seam.transport.declare_queue("dead")
    arguments = {
        "x-queue-type": kind,
        "x-dead-letter-exchange": "",
        "x-dead-letter-routing-key": "dead",
    }
    await seam.transport.declare_queue("work", arguments=arguments)
    inbox = await seam.consume("work")
    for body in (b"ack", b"requeue", b"reject"):
        await seam.publish("work", body)
    await inbox.holds(3)
    done, back, refused = inbox.deliveries
    done.ack()
    back.requeue()
    refused.reject()
    await inbox.holds(4)
    again = inbox.deliveries[3]
    assert again.envelope.body == b"requeue"
    assert again.redelivered
    await seam.becomes_ready("dead", 1)
    again.ack()
    await inbox.consumer.close()
    await seam.becomes_ready("work", 0)


async def test_acks_in_any_order_settle_just_what_was_acked(wire, queue):
    async with wire() as w:
        seam, chance = w.seam, random.Random(7)
        await seam.publish(queue, *[b"%d" % n for n in range(400)])
        inbox = await seam.consume(queue, prefetch=0)
        await inbox.holds(400)
        kept = {n for n in range(400) if n % 10 == 3}
        order = [n for n in range(400) if n not in kept]
        chance.shuffle(order)
        await seam.ready(queue)
        made = w.proxy.connections_made
        for turn, n in enumerate(order):
            (inbox.deliveries[n].reject if n % 7 == 0 else inbox.deliveries[n].ack)()
            if turn % 5 == 0:
                await asyncio.sleep(0)
        assert all(delivery.live for delivery in inbox.deliveries)
        await inbox.consumer.close()
        await seam.becomes_ready(queue, len(kept))
        left = await seam.consume(queue)
        await left.holds(len(kept))
        assert {int(body) for body in left.bodies} == kept
        assert w.proxy.connections_made == made


async def test_settling_twice_is_settling_once(seam, queue):
    await seam.publish(queue, b"a", b"b", b"c")
    inbox = await seam.consume(queue)
    await inbox.holds(3)
    for delivery in inbox.deliveries:
        delivery.ack()
        delivery.ack()
        delivery.requeue()
        delivery.reject()
    await asyncio.sleep(0)
    inbox.deliveries[0].ack()
    await seam.comes_back(inbox)
    assert len(inbox) == 4
    await inbox.consumer.close()
    assert await seam.ready(queue) == 1  # the proof, which nobody acked


async def test_what_was_acked_is_acked_when_the_transport_closes(open_seam, amqp_url, seam, queue):
    other = open_seam(amqp_url)
    await seam.publish(queue, *[b"x"] * 300)
    inbox = await other.consume(queue, prefetch=0)
    await inbox.holds(300)
    inbox.ack_all()
    await other.transport.close()
    assert await seam.ready(queue) == 0


# -- acks and a message as one step -----------------------------------------------------------


async def test_a_commit_acks_and_publishes_as_one_step(seam, queue):
    await seam.transport.declare_queue("notes")
    await seam.publish(queue, b"a", b"b", b"c")
    inbox = await seam.consume(queue, transactional=True)
    await inbox.holds(3)
    first, second, third = inbox.deliveries
    await inbox.consumer.commit([first, third], message(b"had a and c"), "", "notes")
    notes = await seam.consume("notes")
    await notes.holds(1)
    assert notes.bodies == [b"had a and c"]
    second.ack()  # and is never committed
    await inbox.consumer.close()
    await seam.becomes_ready(queue, 1)


async def test_where_a_commit_finds_no_exchange_nothing_is_acked(seam, queue):
    await seam.publish(queue, b"a")
    inbox = await seam.consume(queue, transactional=True)
    await inbox.holds(1)
    generation = inbox.consumer.generation
    with pytest.raises((NotFound, ChannelLost)):
        await inbox.consumer.commit(inbox.deliveries, message(b"had a"), "gone", "")
    await inbox.holds(2)
    assert inbox.bodies == [b"a", b"a"]
    assert inbox.consumer.generation == generation + 1
    assert not inbox.deliveries[0].live
    with pytest.raises(ChannelLost):
        await inbox.consumer.commit(inbox.deliveries, message(b"had a"), "", queue)


async def test_a_closed_consumer_commits_nothing(seam, queue):
    await seam.publish(queue, b"a")
    inbox = await seam.consume(queue, transactional=True)
    await inbox.holds(1)
    await inbox.consumer.close()
    with pytest.raises(ChannelLost):
        await inbox.consumer.commit(inbox.deliveries, message(), "", queue)
    await seam.becomes_ready(queue, 1)
