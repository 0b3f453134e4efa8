"""Settling: ack, requeue, reject; batched, in any order, once."""

import asyncio
import random

import pytest

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
        assert await seam.ready(queue) == len(kept)
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


# -- a note with the acks --------------------------------------------------------------------


async def test_a_note_goes_out_with_the_acks_of_its_loop_turn(seam, queue):
    await seam.transport.declare_queue("notes")
    await seam.publish(queue, b"a", b"b")
    inbox = await seam.consume(queue)
    await inbox.holds(2)
    first, second = inbox.deliveries
    assert inbox.consumer.note(message(b"had a"), "", "notes")
    first.ack()
    await seam.becomes_ready("notes", 1)
    notes = await seam.consume("notes")
    await notes.holds(1)
    assert notes.bodies == [b"had a"]
    await inbox.consumer.close()
    assert second.envelope.body == b"b"
    await seam.becomes_ready(queue, 1)


async def test_where_a_note_finds_no_exchange_none_of_its_acks_is_done(seam, queue):
    await seam.publish(queue, b"a")
    inbox = await seam.consume(queue)
    await inbox.holds(1)
    generation = inbox.consumer.generation
    assert inbox.consumer.note(message(b"had a"), "gone", "")
    inbox.deliveries[0].ack()
    await inbox.holds(2)
    assert inbox.bodies == [b"a", b"a"]
    assert inbox.consumer.generation == generation + 1
    assert not inbox.deliveries[0].live


async def test_a_closed_consumer_takes_no_note(seam, queue):
    inbox = await seam.consume(queue)
    await inbox.consumer.close()
    assert not inbox.consumer.note(message(), "", queue)
    assert await seam.ready(queue) == 0
