"""Everything that takes time takes the clock's, so that a test can let hours pass."""

import asyncio

import aio_pika
import pamqp.commands as amqp
import pytest

from amqflow.broker import Broker
from tests.embedded.sansio import Client, SteppedClock
from tests.servers.wait import until

HOUR = 3600


def test_a_message_lives_its_ttl_to_the_millisecond(client, step):
    client.queue("q", x_message_ttl=HOUR * 1000)
    client.publish("q")
    step(HOUR - 0.001)
    assert client.ready("q") == 1
    step(0.001)
    assert client.ready("q") == 0


def test_the_smaller_of_both_ttls_counts(client, step):
    client.queue("q", x_message_ttl=5000)
    client.publish("q", b"short", expiration="1000")
    client.publish("q", b"long", expiration="60000")
    step(1)
    assert client.get("q").body == b"long"
    client.publish("q", b"long", expiration="60000")
    step(5)
    assert client.ready("q") == 0


def test_a_message_expires_at_the_head_only(client, step):
    client.queue("q")
    client.publish("q", b"keeps")
    client.publish("q", b"expires", expiration="1000")
    step(10)
    assert client.ready("q") == 2
    assert client.get("q").body == b"keeps"
    assert client.get("q") is None


def test_what_comes_to_the_head_behind_a_full_consumer_expires(client, step):
    client.queue("dead")
    client.queue("q", x_dead_letter_exchange="", x_dead_letter_routing_key="dead")
    client.publish("q", b"keeps")
    client.publish("q", b"expires", expiration="1000")
    client.call(amqp.Basic.Qos(prefetch_count=1))
    client.consume("q")
    step(1)
    assert client.get("dead").body == b"expires"


def test_what_comes_to_the_head_when_another_is_dropped_expires(client, step):
    client.queue("dead")
    client.queue("q", x_max_length=2, x_dead_letter_exchange="", x_dead_letter_routing_key="dead")
    client.publish("q", b"dropped")
    client.publish("q", b"expires", expiration="1000")
    client.publish("q", b"keeps")
    assert client.get("dead").body == b"dropped"
    step(1)
    assert client.get("dead").body == b"expires"


@pytest.mark.parametrize("kind", ["classic", "quorum"])
def test_what_expires_is_dead_lettered_without_anybody_asking(client, step, kind):
    client.queue("dead")
    client.queue(
        "q",
        x_queue_type=kind,
        x_message_ttl=1000,
        x_dead_letter_exchange="",
        x_dead_letter_routing_key="dead",
    )
    client.publish("q", b"late")
    step(1)
    letter = client.get("dead")
    assert letter.body == b"late"
    assert letter.headers["x-death"][0]["reason"] == "expired"


def test_an_unused_queue_is_deleted_after_its_time(client, step):
    client.queue("q", x_expires=1000)
    step(0.9)
    client.queue("q", x_expires=1000)  # that is use
    step(0.9)
    assert client.ready("q") == 0
    step(1)
    assert client.call(amqp.Queue.Declare(queue="q", passive=True)).reply_code == 404


def test_a_consumer_keeps_a_queue_from_expiring(client, step):
    client.queue("q", x_expires=1000)
    client.consume("q", consumer_tag="c")
    step(HOUR)
    assert client.ready("q") == 0
    client.call(amqp.Basic.Cancel(consumer_tag="c"))
    step(1)
    assert client.call(amqp.Queue.Declare(queue="q", passive=True)).reply_code == 404


def test_a_delivery_never_acknowledged_closes_its_channel_after_half_an_hour(client, node, step):
    client.queue("q")
    client.publish("q")
    client.consume("q")
    client.heard.clear()
    step(HOUR / 2 - 1)
    assert client.methods() == []
    step(1)
    client.listen()
    _, close = client.heard[-1]
    assert close.reply_code == 406
    assert "timed out. Timeout value used: 1800000 ms" in close.reply_text
    assert node.vhosts["/"].queues["q"].length == 1  # it is back


def test_acknowledging_in_time_moves_the_limit_on(client, step):
    client.queue("q")
    client.publish("q", b"first")
    client.consume("q")
    step(1000)
    client.publish("q", b"second")
    client.send(1, amqp.Basic.Ack(1))
    client.heard.clear()
    step(1000)
    assert client.methods() == []
    step(800)
    assert client.methods() == ["Channel.Close"]


def test_a_letter_that_cannot_be_routed_is_tried_again(client, node, step):
    client.queue(
        "q",
        x_queue_type="quorum",
        x_dead_letter_exchange="later",
        x_dead_letter_strategy="at-least-once",
        x_overflow="reject-publish",
        x_message_ttl=1000,
    )
    client.publish("q", b"kept")
    step(1)
    held = node.vhosts["/"].queues["q"].assured
    assert len(held) == 1
    client.call(amqp.Exchange.Declare(exchange="later", exchange_type="fanout"))
    client.queue("dead")
    client.call(amqp.Queue.Bind(queue="dead", exchange="later"))
    step(180)
    assert len(held) == 0
    assert client.get("dead").body == b"kept"


def test_deaths_tell_the_clocks_time(client, clock, step):
    client.queue("dead")
    client.queue("q", x_message_ttl=0, x_dead_letter_exchange="", x_dead_letter_routing_key="dead")
    client.publish("q")
    death = client.get("dead").headers["x-death"][0]
    assert death["time"].timestamp() == int(clock.moment)


def test_timers_that_are_due_at_once_run_in_order(node, clock):
    done = []
    for name in "abc":
        node.timers.at(clock.moment + 1, lambda name=name: done.append(name))
    node.timers.at(clock.moment + 0.5, lambda: done.append("first"))
    gone = node.timers.at(clock.moment + 0.7, lambda: done.append("never"))
    gone.cancel()
    clock.step(1)
    assert node.timers.run_due() == 4
    assert done == ["first", "a", "b", "c"]
    assert node.timers.next_due() is None


def test_timers_taken_back_are_not_kept(node, clock):
    kept = node.timers.at(clock.moment + 5, lambda: None)
    for _ in range(10_000):
        node.timers.at(clock.moment + 1800, lambda: None).cancel()
    assert len(node.timers._heap) < 1000
    assert node.timers.next_due() == kept.due
    clock.step(3600)
    assert node.timers.run_due() == 1


@pytest.mark.parametrize(
    "death",
    [
        {"queue": "q", "reason": "expired", "count": "many"},
        {"queue": "q", "reason": "rejected", "count": 2**63 - 1},
        {"queue": {"a": 1}, "reason": ["expired"]},
    ],
)
@pytest.mark.parametrize("strategy", ["at-most-once", "at-least-once"])
def test_what_a_client_writes_into_x_death_stops_no_dead_letter(client, step, death, strategy):
    client.queue("dead")
    client.queue(
        "q",
        x_queue_type="quorum",
        x_overflow="reject-publish",
        x_dead_letter_strategy=strategy,
        x_dead_letter_exchange="",
        x_dead_letter_routing_key="dead",
    )
    client.publish("q", b"late", expiration="1000", headers={"x-death": [death]})
    step(1)
    letter = client.get("dead")
    assert letter.body == b"late"
    assert letter.headers["x-death"][0]["reason"] == "expired"


def test_a_delivery_limit_that_is_no_number_is_none(client):
    client.queue("q", x_queue_type="quorum", x_delivery_limit="many")
    client.publish("q", b"stays")
    for _ in range(3):
        client.get("q", no_ack=False)
        client.send(1, amqp.Basic.Recover(requeue=True))
    assert client.get("q").body == b"stays"


def test_a_dead_letter_key_that_no_method_could_carry_is_refused(client):
    client.queue("q", x_dead_letter_exchange="", x_dead_letter_routing_key="k" * 256)
    assert client.methods() == ["Channel.Close"]


async def test_a_timer_that_fails_holds_up_no_other():
    broker = Broker()
    await broker.start()
    loop = asyncio.get_running_loop()
    loop.set_exception_handler(lambda *_: None)
    try:
        timers, done = broker._node.timers, asyncio.Event()
        timers.at(timers.now() + 0.02, [].pop)
        timers.at(timers.now() + 0.02, done.set)
        await asyncio.wait_for(done.wait(), 5)
    finally:
        loop.set_exception_handler(None)
        await broker.stop()


async def test_over_a_socket_a_stepped_clock_is_noticed_by_itself():
    clock = SteppedClock()
    broker = Broker(clock=clock)
    await broker.start()
    try:
        async with await aio_pika.connect(broker.url) as connection:
            channel = await connection.channel()
            queue = await channel.declare_queue("q", arguments={"x-message-ttl": HOUR * 1000})
            await channel.default_exchange.publish(aio_pika.Message(b"old"), "q")
            clock.step(HOUR)

            async def empty() -> bool:
                found = await channel.declare_queue("q", passive=True)
                return found.declaration_result.message_count == 0

            await until(empty)
            await channel.default_exchange.publish(aio_pika.Message(b"old"), "q")
            clock.step(HOUR)
            assert broker.tick() == 1
            assert await queue.get(fail=False) is None
    finally:
        await broker.stop()


@pytest.mark.parametrize("strategy", ["at-most-once", "at-least-once"])
def test_a_restart_is_a_return_that_counts_to_the_delivery_limit(client, node, strategy):
    client.queue("dead")
    client.queue(
        "q",
        x_queue_type="quorum",
        x_delivery_limit=1,
        x_dead_letter_exchange="",
        x_dead_letter_routing_key="dead",
        x_dead_letter_strategy=strategy,
        x_overflow="reject-publish",
    )
    client.publish("q", b"poison", delivery_mode=2)
    for _ in range(2):
        assert client.get("q", no_ack=False).body == b"poison"
        node.restart()
        client = Client(node).open()
    assert client.get("q") is None
    dead = client.get("dead")
    assert dead.body == b"poison"
    assert dead.headers["x-first-death-reason"] == "delivery_limit"
