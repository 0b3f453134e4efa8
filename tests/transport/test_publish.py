"""Publishes: confirmed, mandatory, pipelined, each with its own answer and deadline."""

import asyncio
import time
from datetime import UTC, datetime

import pytest

from amqflow.errors import (
    AccessRefused,
    AmqflowError,
    ChannelLost,
    EncodeError,
    MessageTooLarge,
    NotFound,
    PublishNacked,
    PublishTimeout,
    Unroutable,
)
from amqflow.protocol import Envelope
from tests.servers.toxic import Direction
from tests.servers.wait import until
from tests.transport.suite import ACK, PUBLISH, message

MANY = 5000
LARGEST = 20 * 2**20


@pytest.mark.parametrize("kind", ["classic", "quorum"])
async def test_a_publish_returns_when_the_broker_has_the_message(seam, kind):
    await seam.transport.declare_queue("work", arguments={"x-queue-type": kind})
    await seam.publish("work")
    assert await seam.ready("work") == 1


async def test_every_property_arrives_as_it_was_sent(seam, queue):
    sent = Envelope(
        b"\x00body\xff",
        {"text": "é", "number": -7, "big": 2**40, "flag": True, "none": None, "deep": {"a": [1]}},
        content_type="text/plain",
        content_encoding="latin-1",
        priority=3,
        correlation_id="correlation",
        reply_to="answers",
        expiration="60000",
        message_id="id",
        timestamp=datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC),
        type="kind",
        user_id="guest",
        app_id="suite",
    )
    inbox = await seam.consume(queue)
    await seam.transport.publish(sent, "", queue, timeout=10)
    await inbox.holds(1)
    [delivery] = inbox.deliveries
    assert delivery.envelope == sent
    assert (delivery.queue, delivery.exchange, delivery.routing_key) == (queue, "", queue)
    assert not delivery.redelivered


@pytest.mark.parametrize("size", [0, 1, 131064, 131065, 2**20, LARGEST])
async def test_bodies_of_no_one_and_many_frames_arrive_whole(seam, queue, rabbitmq, size):
    if rabbitmq.version >= (4,):
        size = min(size, 16 * 2**20)  # its own limit
    body = bytes(range(256)) * (size // 256) + b"x" * (size % 256)
    inbox = await seam.consume(queue)
    await seam.publish(queue, body, timeout=60)
    await inbox.holds(1, deadline=60)
    assert inbox.bodies == [body]
    inbox.ack_all()


async def test_thousands_in_flight_are_all_confirmed_and_there_once(seam, queue):
    await asyncio.gather(
        *(
            seam.transport.publish(message(b"%d" % n, message_id=f"{n}"), "", queue, timeout=60)
            for n in range(MANY)
        )
    )
    assert await seam.ready(queue) == MANY
    inbox = await seam.consume(queue, prefetch=0)
    await inbox.holds(MANY, deadline=30)
    assert inbox.bodies == [b"%d" % n for n in range(MANY)]


async def test_what_no_queue_takes_is_raised_at_its_caller_alone(seam, queue):
    keys = [queue if n % 5 else f"nowhere-{n}" for n in range(100)]
    answers = await asyncio.gather(
        *(seam.transport.publish(message(), "", key, timeout=10) for key in keys),
        return_exceptions=True,
    )
    for key, answer in zip(keys, answers, strict=True):
        if key == queue:
            assert answer is None
        else:
            assert isinstance(answer, Unroutable)
            assert key in str(answer)
    assert await seam.ready(queue) == 80


async def test_messages_without_an_id_are_confirmed_and_returned_too(seam, queue):
    answers = await asyncio.gather(
        *(
            seam.transport.publish(message(message_id=None), "", key, timeout=10)
            for key in [queue, "nowhere", queue, "nowhere"]
        ),
        return_exceptions=True,
    )
    assert [type(answer) for answer in answers] == [type(None), Unroutable] * 2
    assert await seam.ready(queue) == 2


async def test_a_full_queue_that_rejects_is_a_nack_told_at_once_without_retry(seam):
    await full(seam)
    with pytest.raises(PublishNacked, match="reject-publish") as refused:
        await seam.transport.publish(message(), "", "full", timeout=30, retry=False)
    assert "times" not in str(refused.value), "it was sent again"


async def test_a_nack_is_tried_again_until_there_is_room(seam):
    await full(seam)
    held = asyncio.create_task(seam.transport.publish(message(b"late"), "", "full", timeout=30))
    done, _ = await asyncio.wait([held], timeout=0.2)
    assert not done
    await seam.transport.purge_queue("full")
    await held
    inbox = await seam.consume("full")
    await inbox.holds(1)
    assert inbox.bodies == [b"late"]


async def test_a_nack_that_lasts_is_raised_and_says_how_often(seam):
    await full(seam)
    with pytest.raises(PublishNacked, match=r"refused \d+ times"):
        await seam.transport.publish(message(), "", "full", timeout=3)


async def full(seam) -> None:
    """Declare a queue of one place, and take it."""
    arguments = {"x-max-length": 1, "x-overflow": "reject-publish", "x-queue-type": "classic"}
    await seam.transport.declare_queue("full", arguments=arguments)
    await seam.publish("full", b"first")


async def test_a_missing_exchange_is_named_and_harms_nobody(seam, queue):
    inbox = await seam.consume(queue, prefetch=0)
    await seam.publish(queue, b"held")
    await inbox.holds(1)
    answers = await asyncio.gather(
        *(
            seam.transport.publish(message(), "" if n % 10 else "missing", queue, timeout=10)
            for n in range(300)
        ),
        return_exceptions=True,
    )
    for n, answer in enumerate(answers):
        assert isinstance(answer, NotFound) if n % 10 == 0 else answer is None
    assert "missing" in str(answers[0])
    await inbox.holds(1 + 270)
    assert not any(delivery.redelivered for delivery in inbox.deliveries)
    assert inbox.deliveries[0].live


async def test_an_exchange_deleted_after_its_first_use_is_named_and_the_rest_goes_through(
    wire, queue
):
    async with wire() as w:
        transport = w.seam.transport
        await transport.declare_exchange("events", "fanout")
        await transport.bind_queue(queue, "events")
        await transport.publish(message(), "events", "", timeout=10)
        await transport.delete_exchange("events")
        made = w.proxy.connections_made
        answers = await asyncio.gather(
            transport.publish(message(), "events", "", timeout=10),
            *(transport.publish(message(), "", queue, timeout=10) for _ in range(500)),
            return_exceptions=True,
        )
        assert isinstance(answers[0], NotFound)
        assert answers[1:] == [None] * 500
        # Nothing was written on the closed channel: the connection stands.
        assert w.proxy.connections_made == made


async def test_one_id_is_in_flight_once(wire, queue):
    async with wire() as w:
        await w.seam.publish(queue)
        seen = []

        def count_and_hold(way, frame):
            if frame[7:11] == PUBLISH:
                seen.append(frame)
            return None if way is Direction.DOWN and frame[7:11] == ACK else frame

        w.proxy.filter = count_and_hold
        both = [
            asyncio.create_task(
                w.seam.transport.publish(message(message_id="one"), "", queue, timeout=timeout)
            )
            for timeout in (0.5, 5)
        ]
        with pytest.raises(PublishTimeout):
            await both[0]
        assert len(seen) == 1
        await until(lambda: len(seen) == 2, message="the second goes out")
        w.proxy.filter = None
        await w.seam.publish(queue)  # its confirm may cover the one that was dropped
        w.proxy.drop_connections()
        await both[1]


async def test_a_silent_broker_is_a_timeout_that_leaves_it_open(wire, queue):
    async with wire() as w:
        await w.seam.publish(queue)
        w.proxy.black_hole()
        started = time.monotonic()
        with pytest.raises(PublishTimeout, match="may or may not be there"):
            await w.seam.transport.publish(message(), "", queue, timeout=0.5)
        assert time.monotonic() - started < 15
        w.proxy.resume()
        await w.seam.publish(queue)


@pytest.mark.faults_long
async def test_a_blocked_broker_is_the_reason_and_everything_else_goes_on(own_rabbitmq, open_seam):
    seam = open_seam(own_rabbitmq.add_vhost("blocked"))
    await seam.transport.declare_queue("work")
    inbox = await seam.consume("work")
    await seam.publish("work", b"before", b"before")
    await inbox.holds(2)
    limit = "disk_free_limit"
    await asyncio.to_thread(own_rabbitmq.ctl, f"set_{limit}", "1000000GB")
    try:
        with pytest.raises(PublishTimeout, match="blocked publishers"):
            await seam.transport.publish(message(), "", "work", timeout=1)
        waiting = asyncio.create_task(
            seam.transport.publish(message(b"after"), "", "work", timeout=60)
        )
        inbox.deliveries.pop().requeue()
        await inbox.holds(2)  # consuming
        assert (await seam.transport.declare_queue("work", passive=True)).consumers == 1  # asking
    finally:
        await asyncio.to_thread(own_rabbitmq.ctl, f"set_{limit}", "50MB")
    await waiting
    await until(lambda: b"after" in inbox.bodies, message="the one that waited arrives")


async def test_properties_that_fit_no_frame_are_refused_before_they_close_the_connection(
    wire, queue
):
    async with wire() as w:
        await w.seam.publish(queue)
        made = w.proxy.connections_made
        for headers in ({"x": "y" * 2**18}, {"x": [0] * 2**17}):
            with pytest.raises(MessageTooLarge, match="properties"):
                await w.seam.transport.publish(message(headers=headers), "", queue, timeout=10)
        await w.seam.publish(queue)
        assert w.proxy.connections_made == made


@pytest.mark.parametrize(
    "properties",
    [{"headers": {"x": object()}}, {"correlation_id": "c" * 300}, {"headers": {"k" * 300: 1}}],
    ids=["no AMQP type", "a long property", "a long header name"],
)
async def test_properties_amqp_cannot_write_are_refused_and_the_next_goes_through(
    seam, queue, properties
):
    with pytest.raises(EncodeError):
        await seam.transport.publish(message(**properties), "", queue, timeout=10)
    await seam.publish(queue)
    assert await seam.ready(queue) == 1


@pytest.mark.slow
async def test_a_body_the_broker_finds_too_large_is_refused_and_its_neighbours_go_through(
    own_rabbitmq, open_seam
):
    seam = open_seam(own_rabbitmq.add_vhost("large"))
    await seam.transport.declare_queue("work")
    bodies = [b"x" * (2**20 + 1) if n == 50 else b"small" for n in range(100)]
    answers = await asyncio.gather(
        *(seam.transport.publish(message(body), "", "work", timeout=20) for body in bodies),
        return_exceptions=True,
    )
    assert isinstance(answers.pop(50), MessageTooLarge)
    assert answers == [None] * 99


@pytest.mark.parametrize(
    ("properties", "kind"),
    [({"user_id": "somebody"}, AccessRefused), ({"expiration": "soon"}, EncodeError)],
    ids=["another user's id", "no expiration"],
)
async def test_what_the_broker_closes_the_channel_for_is_told_to_its_caller_alone(
    seam, queue, properties, kind
):
    answers = await asyncio.gather(
        *(
            seam.transport.publish(
                message(**(properties if n == 50 else {})), "", queue, timeout=10
            )
            for n in range(100)
        ),
        return_exceptions=True,
    )
    assert isinstance(answers.pop(50), kind)
    assert answers == [None] * 99


async def test_closing_ends_what_is_in_flight_with_an_error(wire, queue):
    async with wire() as w:
        await w.seam.publish(queue)
        w.change(ACK, lambda _: None)
        held = asyncio.create_task(
            w.seam.transport.publish(message(), "", queue, timeout=30, retry=False)
        )
        await until(lambda: w.proxy.filter is None, message="the confirm was dropped")
        await w.seam.transport.close()
        with pytest.raises(ChannelLost):
            await held
        with pytest.raises(AmqflowError, match="closed"):
            await w.seam.publish(queue)
