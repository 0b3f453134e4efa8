"""Names and routing keys: any UTF-8 of at most 255 bytes, both ways."""

import pytest

from amqflow.errors import NotFound, TopologyError, Unroutable
from tests.transport.suite import message

NAMES = {
    "umlauts": "größe",
    "signs": "user*'%&\"=?!$;<>|\\^~`{}[]()",
    "kanji": "注文.処理",
    "emoji": "queue 🐇",
    "255 bytes": "x" * 255,
    "255 bytes in few characters": "é" * 127 + "x",
}


@pytest.fixture(params=NAMES.values(), ids=NAMES.keys())
def name(request):
    return request.param


async def test_any_name_is_declared_bound_published_to_consumed_and_deleted(seam, name):
    transport = seam.transport
    await transport.declare_exchange(name, "direct")
    await transport.declare_exchange(name, "direct", passive=True)
    assert (await transport.declare_queue(name)).name == name
    await transport.bind_queue(name, name, name)
    await transport.bind_exchange(name, "amq.direct", name, {name[:60]: name})
    inbox = await seam.consume(name)
    await transport.publish(message(b"1"), name, name, timeout=10)
    await transport.publish(message(b"2"), "amq.direct", name, timeout=10)
    await transport.publish(message(b"3"), "", name, timeout=10)
    await inbox.holds(3)
    seen = [(delivery.exchange, delivery.routing_key) for delivery in inbox.deliveries]
    assert seen == [(name, name), ("amq.direct", name), ("", name)]
    assert {delivery.queue for delivery in inbox.deliveries} == {name}
    inbox.ack_all()
    await inbox.consumer.close()
    await transport.unbind_exchange(name, "amq.direct", name, {name[:60]: name})
    await transport.unbind_queue(name, name, name)
    assert await transport.purge_queue(name) == 0
    assert await transport.delete_queue(name) == 0
    await transport.delete_exchange(name)


async def test_any_name_comes_back_in_the_brokers_refusals(seam, rabbitmq, name):
    if rabbitmq.version >= (4,):
        # It fails (541) where its own words would be cut off within a character.
        name = name[:90]
    with pytest.raises(Unroutable) as unroutable:
        await seam.transport.publish(message(), "", name, timeout=10)
    assert repr(name) in str(unroutable.value)
    with pytest.raises(NotFound) as missing:
        await seam.transport.publish(message(), name, "", timeout=10)
    assert repr(name) in str(missing.value)
    with pytest.raises(NotFound):
        await seam.transport.declare_queue(name, passive=True)


async def test_a_consumer_of_any_name_comes_back(wire, seam):
    await seam.transport.declare_queue("größe*")
    async with wire() as w:
        inbox = await w.seam.consume("größe*")
        w.proxy.drop_connections()
        await w.seam.comes_back(inbox)


@pytest.mark.parametrize("bad", ["x" * 256, "é" * 128, "\ud800"], ids=["long", "wide", "no UTF-8"])
async def test_names_that_fit_no_short_string_are_refused_in_a_sentence(seam, queue, bad):
    transport = seam.transport
    calls = {
        "declare queue": lambda: transport.declare_queue(bad),
        "declare exchange": lambda: transport.declare_exchange(bad),
        "bind queue": lambda: transport.bind_queue(queue, "amq.topic", bad),
        "bind exchange": lambda: transport.bind_exchange(bad, "amq.topic"),
        "unbind queue": lambda: transport.unbind_queue(bad, "amq.topic"),
        "unbind exchange": lambda: transport.unbind_exchange("amq.topic", bad),
        "delete queue": lambda: transport.delete_queue(bad),
        "delete exchange": lambda: transport.delete_exchange(bad),
        "purge": lambda: transport.purge_queue(bad),
        "publish to an exchange": lambda: transport.publish(message(), bad, "", timeout=5),
        "publish by a key": lambda: transport.publish(message(), "", bad, timeout=5),
    }
    for doing, call in calls.items():
        with pytest.raises(TopologyError, match=r"255|UTF-8"):
            await call()
            pytest.fail(doing)
    with pytest.raises(TopologyError, match=r"255|UTF-8"):
        transport.consume(bad, print, prefetch=1)
    await seam.publish(queue)
