"""aio-pika alone, and the aiormq channel under it: what client and broker can do, no task queue."""

from __future__ import annotations

import asyncio
import signal
import sys
from typing import TYPE_CHECKING

import aio_pika
import uvloop
from pamqp import commands

from benchmarks.job import Job, fail
from benchmarks.publishing import pipelined
from benchmarks.tally import Tally

if TYPE_CHECKING:
    import aiormq.abc

JOB = Job.from_environment()
TALLY = Tally(JOB)

#: A body about as large as the contestants' own.
BODY = b'[[%d], {}, {"callbacks": null, "errbacks": null, "chain": null, "chord": null}]'


def _number(body: bytes) -> int:
    return int(body[2 : body.index(b"]")])


async def _channel(connection: aio_pika.abc.AbstractConnection) -> aio_pika.abc.AbstractChannel:
    channel = await connection.channel()
    await channel.set_qos(prefetch_count=JOB.prefetch)
    arguments = {} if JOB.classic else {"x-queue-type": "quorum"}
    await channel.declare_queue(JOB.queue, durable=True, arguments=arguments)
    return channel


async def publish() -> None:
    """Publish with aio-pika's own `Exchange.publish`."""
    async with await aio_pika.connect_robust(JOB.broker) as connection:
        exchange = (await _channel(connection)).default_exchange

        async def send(number: int) -> None:
            message = aio_pika.Message(
                BODY % number, delivery_mode=aio_pika.DeliveryMode.PERSISTENT
            )
            await exchange.publish(message, JOB.queue)

        await pipelined(JOB, send)


async def publish_underlay() -> None:
    """Publish with the `basic_publish` of the channel under aio-pika."""
    async with await aio_pika.connect_robust(JOB.broker) as connection:
        channel = await (await _channel(connection)).get_underlay_channel()

        async def send(number: int) -> None:
            await channel.basic_publish(
                BODY % number,
                routing_key=JOB.queue,
                properties=commands.Basic.Properties(delivery_mode=2),
                mandatory=True,
                wait=False,
            )

        await pipelined(JOB, send)


async def consume() -> None:
    """Consume with aio-pika's `Queue.consume`, each message acked on its own."""
    async with await aio_pika.connect_robust(JOB.broker) as connection:
        queue = await (await _channel(connection)).get_queue(JOB.queue)

        async def on_message(message: aio_pika.abc.AbstractIncomingMessage) -> None:
            TALLY.ran(_number(message.body))
            await message.ack()

        await queue.consume(on_message)
        await _told_to_stop()


async def consume_underlay() -> None:
    """Consume with the channel under aio-pika, all messages of a loop turn acked at once."""
    async with await aio_pika.connect_robust(JOB.broker) as connection:
        channel = await (await _channel(connection)).get_underlay_channel()
        last = 0
        acks: set[asyncio.Task[None]] = set()

        async def on_message(message: aiormq.abc.DeliveredMessage) -> None:
            nonlocal last
            TALLY.ran(_number(message.body))
            if last == 0:
                asyncio.get_running_loop().call_soon(ack)
            last = message.delivery.delivery_tag or 0

        def ack() -> None:
            nonlocal last
            tag, last = last, 0
            task = asyncio.ensure_future(channel.basic_ack(tag, multiple=True, wait=False))
            acks.add(task)
            task.add_done_callback(acks.discard)

        await channel.basic_consume(JOB.queue, on_message)
        await _told_to_stop()


async def _told_to_stop() -> None:
    stop = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, stop.set)
    await stop.wait()


VERBS = {
    "publish": publish,
    "publish-underlay": publish_underlay,
    "consume": consume,
    "consume-underlay": consume_underlay,
}

if __name__ == "__main__":
    if sys.argv[1] not in VERBS:
        fail(f"no verb {sys.argv[1]!r}")
    uvloop.run(VERBS[sys.argv[1]]())
