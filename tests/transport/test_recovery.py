"""What is lost comes back by itself, and what is old is dropped without a word."""

import asyncio
import re
import time
from urllib.parse import quote

import pytest

from amqflow.errors import BrokerUnavailable, ChannelLost, PublishTimeout
from amqflow.transport.seam import CLOSE_TIMEOUT
from tests.servers.toxic import Direction
from tests.servers.wait import until
from tests.transport.suite import ACK, message


async def test_a_lost_confirm_makes_the_same_id_go_out_again(wire, queue):
    async with wire() as w:
        await w.seam.publish(queue, b"first")
        w.change(ACK, lambda _: None)
        publish = asyncio.create_task(
            w.seam.transport.publish(message(b"x", message_id="same"), "", queue, timeout=20)
        )
        await until(lambda: w.proxy.filter is None, message="the confirm was dropped")
        w.proxy.drop_connections()
        await publish
        inbox = await w.seam.consume(queue)
        await inbox.holds(3)
        assert inbox.ids[1:] == ["same", "same"]


async def test_without_retry_a_lost_connection_is_raised(wire, queue):
    async with wire() as w:
        await w.seam.publish(queue)
        w.change(ACK, lambda _: None)
        publish = asyncio.create_task(
            w.seam.transport.publish(message(), "", queue, timeout=20, retry=False)
        )
        await until(lambda: w.proxy.filter is None, message="the confirm was dropped")
        w.proxy.drop_connections()
        with pytest.raises(ChannelLost):
            await publish


async def test_every_connection_closed_under_load_loses_nothing(rabbitmq, vhost, seam, queue):
    inbox = await seam.consume(queue, prefetch=50)
    await seam.publish(queue, b"first")

    def listed():
        return len(rabbitmq.management("GET", f"/api/vhosts/{vhost}/connections")) >= 2

    await until(lambda: asyncio.to_thread(listed), message="the broker lists the connections")
    publishes = [
        asyncio.create_task(
            seam.transport.publish(message(b"%d" % n, message_id=f"{n}"), "", queue, timeout=60)
        )
        for n in range(2000)
    ]
    taken = set()

    def take():
        taken.update(inbox.ids)
        inbox.ack_all()
        return len(taken)

    await until(lambda: take() > 100)
    assert await asyncio.to_thread(close_all, rabbitmq, vhost) >= 2
    await asyncio.gather(*publishes)
    await until(lambda: take() == 2001, deadline=30)


def close_all(broker, vhost) -> int:
    """Close every client's connection to a virtual host, as an operator does; return how many."""
    names = [
        connection["name"]
        for connection in broker.management("GET", f"/api/vhosts/{vhost}/connections")
    ]
    for name in names:
        try:
            broker.management("DELETE", f"/api/connections/{quote(name)}")
        except RuntimeError as error:
            if "404" not in str(error):  # closed already
                raise
    return len(names)


async def test_a_transport_holds_no_more_connections_than_it_declares(rabbitmq, vhost, seam, queue):
    inbox = await seam.consume(queue)
    await seam.publish(queue, *[b"x"] * 200)
    await inbox.holds(100)
    await asyncio.gather(*(seam.ready(queue) for _ in range(50)))

    def held():
        return len(rabbitmq.management("GET", f"/api/vhosts/{vhost}/connections"))

    assert await asyncio.to_thread(held) <= seam.implementation.connections


async def test_a_consumer_comes_back_after_its_queue_was_deleted_and_declared_again(seam, queue):
    inbox = await seam.consume(queue)
    await seam.transport.delete_queue(queue)
    await until(lambda: not inbox.consumer.active)
    assert inbox.consumer.problem
    await seam.transport.declare_queue(queue)
    await seam.comes_back(inbox)
    assert inbox.consumer.problem is None


async def test_a_bad_ack_costs_its_own_channel_only(wire, queue):
    async with wire() as w:
        await w.seam.transport.declare_queue("other")
        neighbour = await w.seam.consume("other")
        await w.seam.publish("other", b"held")
        await neighbour.holds(1)
        inbox = await w.seam.consume(queue)
        await w.seam.publish(queue, b"one", b"two")
        await inbox.holds(2)
        made = w.proxy.connections_made
        # The broker answers an ack of a tag it never gave with 406.
        w.change(ACK, lambda frame: frame[:11] + (999).to_bytes(8, "big") + frame[19:])
        old = list(inbox.deliveries)
        old[0].ack()
        await until(lambda: not old[0].live, message="the channel is closed")
        await inbox.holds(4)
        assert sorted(inbox.bodies[2:]) == [b"one", b"two"]
        assert all(delivery.redelivered for delivery in inbox.deliveries[2:])
        await w.seam.comes_back(inbox)
        assert neighbour.deliveries[0].live
        assert w.proxy.connections_made == made


async def test_acks_on_their_way_when_the_channel_closes_do_not_close_the_connection(wire, queue):
    async with wire() as w:
        await w.seam.transport.declare_queue("other")
        neighbour = await w.seam.consume("other")
        await w.seam.publish("other", b"held")
        await neighbour.holds(1)
        inbox = await w.seam.consume(queue, prefetch=0)
        await w.seam.publish(queue, *[b"x"] * 500)
        await inbox.holds(500)
        made = w.proxy.connections_made
        w.change(ACK, lambda frame: frame[:11] + (9999).to_bytes(8, "big") + frame[19:])
        old = inbox.deliveries[:500]
        for delivery in old:  # one ack a loop turn, over the moment the channel closes
            delivery.ack()
            await asyncio.sleep(0)
        await until(lambda: not old[0].live, message="the channel is closed")
        await w.seam.comes_back(inbox)
        assert neighbour.deliveries[0].live
        assert w.proxy.connections_made == made


@pytest.mark.faults_long
async def test_a_consumer_whose_acks_came_too_late_comes_back(own_rabbitmq, open_seam):
    def set_all(values):
        # Before 3.12 no file takes these settings; channels read them when they open.
        for setting, value in values.items():
            own_rabbitmq.ctl("eval", f"application:set_env(rabbit, {setting}, {value}).")

    seam = open_seam(own_rabbitmq.add_vhost("late"))
    await seam.transport.declare_queue("work")
    await asyncio.to_thread(set_all, {"consumer_timeout": 1000, "channel_tick_interval": 500})
    try:
        inbox = await seam.consume("work")
        await seam.publish("work", b"slow")
        await inbox.holds(2, deadline=40)
        first, again = inbox.deliveries[:2]
        assert not first.live
        assert again.redelivered
        inbox.ack_all()
        await seam.comes_back(inbox)
    finally:
        await asyncio.to_thread(
            set_all, {"consumer_timeout": 1800000, "channel_tick_interval": 60000}
        )


async def test_deliveries_of_an_old_connection_settle_silently(wire, queue):
    async with wire() as w:
        inbox = await w.seam.consume(queue)
        await w.seam.publish(queue, b"a", b"b", b"c")
        await inbox.holds(3)
        old = list(inbox.deliveries)
        w.proxy.drop_connections()
        await inbox.holds(6, deadline=40)
        made = w.proxy.connections_made
        assert not any(delivery.live for delivery in old)
        old[0].ack()
        old[1].requeue()
        old[2].reject()
        new = inbox.deliveries[3:]
        assert sorted(delivery.envelope.body for delivery in new) == [b"a", b"b", b"c"]
        assert all(delivery.redelivered and delivery.live for delivery in new)
        for delivery in new:
            delivery.ack()
        await w.seam.comes_back(inbox)
        assert len(inbox) == 7
        assert w.proxy.connections_made <= made + 1  # the publisher's, which was dropped too


async def test_a_peer_that_falls_silent_is_given_up_within_a_few_heartbeats(wire, queue):
    async with wire(heartbeat=1) as w:
        inbox = await w.seam.consume(queue)
        w.proxy.black_hole()
        started = time.monotonic()
        await until(lambda: not inbox.consumer.active, deadline=40)
        assert time.monotonic() - started < 20  # seconds; TCP alone would wait for minutes
        w.proxy.drop_connections()
        w.proxy.resume()
        await w.seam.comes_back(inbox)


async def test_an_idle_connection_is_not_given_up(wire, queue):
    async with wire(heartbeat=1) as w:
        inbox = await w.seam.consume(queue)
        await w.seam.publish(queue)
        made = w.proxy.connections_made
        await asyncio.sleep(3)  # nothing happens, for three heartbeats: that is the test
        assert inbox.consumer.active
        assert w.proxy.connections_made == made


async def test_nothing_needs_the_broker_to_be_there_first(wire, queue):
    async with wire() as w:
        w.proxy.refuse()
        inbox_queue, got = queue, []
        consumer = w.seam.transport.consume(inbox_queue, got.append, prefetch=10)
        away = re.compile(r"refused|Connect call failed")
        await until(lambda: away.search(consumer.problem or ""), message="it was tried once")
        with pytest.raises(BrokerUnavailable, match=away):
            await consumer.wait_active(0.1)
        assert not consumer.active
        with pytest.raises(PublishTimeout):
            await w.seam.publish(queue, timeout=0.3)
        publish = asyncio.create_task(w.seam.publish(queue, b"late", timeout=20))
        await w.proxy.listen()
        await publish
        await until(lambda: got, deadline=40)
        assert got[0].envelope.body == b"late"


async def test_closing_waits_for_no_broker_that_is_silent(wire, queue):
    async with wire() as w:
        inbox = await w.seam.consume(queue)
        await w.seam.publish(queue)
        await inbox.holds(1)
        w.proxy.black_hole()
        inbox.ack_all()
        started = time.monotonic()
        await w.seam.transport.close()
        assert time.monotonic() - started < 4 * CLOSE_TIMEOUT
        w.proxy.resume()


async def test_a_frame_cut_off_in_the_middle_costs_the_connection_and_no_message(wire, queue):
    async with wire() as w:
        inbox = await w.seam.consume(queue)

        def halve(way, frame):
            if way is Direction.DOWN and frame[0] == 3:
                w.proxy.filter = None
                w.proxy.drop_connections()
                return frame[: len(frame) // 2]
            return frame

        w.proxy.filter = halve
        await w.seam.publish(queue, b"y" * 1000, timeout=20)
        await inbox.holds(1, deadline=40)
        assert set(inbox.bodies) == {b"y" * 1000}
