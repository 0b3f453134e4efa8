"""Taking messages: basic.get, basic.consume and everything that settles a delivery."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pamqp import commands

from amqflow.broker.declaring import accessible, named
from amqflow.broker.publishing import REPLY_TO
from amqflow.broker.queues.arguments import CLASSIC, STREAM, check_consumer
from amqflow.broker.queues.consumers import Consumer
from amqflow.broker.queues.stream import check_stream_consumer
from amqflow.broker.replies import Refusal, Reply, precondition_failed, resource
from amqflow.broker.users import READ

if TYPE_CHECKING:
    from amqflow.broker.channel import Channel, Pending
    from amqflow.broker.methods import Method


def qos(channel: Channel, method: Method) -> None:
    """Limit what is out: of each later consumer, or (``global``) of all here together."""
    if method.prefetch_size:
        raise Refusal(Reply.NOT_IMPLEMENTED, f"prefetch_size!=0 ({method.prefetch_size})")
    if method.global_:
        channel.prefetch = method.prefetch_count
    else:
        channel.consumer_prefetch = method.prefetch_count
        channel.prefetch = 0
    channel.send(commands.Basic.QosOk)
    channel.wake_all()


def get(channel: Channel, method: Method) -> None:
    """Take one message."""
    vhost, user = channel.connection.entered()
    name = named(channel, method.queue)
    user.check(READ, "queue", name, vhost.name)
    queue = accessible(channel, name)
    if queue.quorum and queue.settings.single_active:
        place = resource("queue", name, vhost.name)
        raise Refusal(
            Reply.RESOURCE_LOCKED,
            f"cannot obtain access to locked {place}. basic.get operations are not supported "
            "by quorum queues with single active consumer",
        )
    entry = queue.get(no_ack=method.no_ack)
    if entry is None:
        channel.send(commands.Basic.GetEmpty)
    else:
        channel.give(queue, entry, no_ack=method.no_ack)


def consume(channel: Channel, method: Method) -> None:
    """Subscribe to a queue."""
    tag = method.consumer_tag
    if tag in channel.consumers:
        raise Refusal(Reply.NOT_ALLOWED, f"attempt to reuse consumer tag '{tag}'")
    if method.queue == REPLY_TO:
        _consume_replies(channel, method)
        return
    vhost, user = channel.connection.entered()
    name = named(channel, method.queue)
    user.check(READ, "queue", name, vhost.name)
    queue = accessible(channel, name)
    arguments = method.arguments or {}
    check_consumer(name, vhost.name, queue.kind, arguments)
    place = resource("queue", name, vhost.name)
    if queue.kind == STREAM:
        check_stream_consumer(place, channel.consumer_prefetch, no_ack=method.no_ack)
    if queue.kind != CLASSIC and channel.prefetch:
        raise Refusal(Reply.NOT_IMPLEMENTED, f"{place} does not support global qos")
    if queue.kind == CLASSIC:
        taken = queue.consumers.exclusive is not None
        alone = queue.settings.single_active or len(queue.consumers) > 0
        if taken or (method.exclusive and alone):
            raise Refusal(Reply.ACCESS_REFUSED, f"{place} in exclusive use")
    consumer = Consumer(
        channel,
        queue,
        tag or channel.connection.node.unique_name("amq.ctag"),
        no_ack=method.no_ack,
        prefetch=channel.consumer_prefetch,
        exclusive=method.exclusive and queue.kind == CLASSIC,
        arguments=arguments,
    )
    channel.consumers[consumer.tag] = consumer
    queue.subscribe(consumer)
    if not method.nowait:
        channel.send(commands.Basic.ConsumeOk, consumer_tag=consumer.tag)
    queue.dispatch()


def _consume_replies(channel: Channel, method: Method) -> None:
    if not method.no_ack:
        raise precondition_failed("reply consumer cannot acknowledge")
    if channel.reply_consumer is not None:
        raise precondition_failed("reply consumer already set")
    node = channel.connection.node
    tag = method.consumer_tag or node.unique_name("amq.ctag")
    token = node.unique_name("g1")
    channel.reply_consumer = (tag, token)
    node.reply_consumers[token] = channel
    if not method.nowait:
        channel.send(commands.Basic.ConsumeOk, consumer_tag=tag)


def cancel(channel: Channel, method: Method) -> None:
    """End a subscription; what it has out stays out. An unknown one is no error."""
    tag = method.consumer_tag
    reply = channel.reply_consumer
    if reply is not None and reply[0] == tag:
        channel.connection.node.reply_consumers.pop(reply[1], None)
        channel.reply_consumer = None
    consumer = channel.consumers.get(tag)
    if consumer is not None:
        channel.forget_consumer(consumer)
    if not method.nowait:
        channel.send(commands.Basic.CancelOk, consumer_tag=tag)
    if consumer is not None:
        consumer.queue.unsubscribe(consumer)


def ack(channel: Channel, method: Method) -> None:
    """Acknowledge one delivery, or all up to one."""
    settled = channel.take(method.delivery_tag, multiple=method.multiple)
    if not _put_off(channel, settled, requeue=None):
        channel.ack(settled)


def nack(channel: Channel, method: Method) -> None:
    """Refuse one delivery, or all up to one."""
    settled = channel.take(method.delivery_tag, multiple=method.multiple)
    if not _put_off(channel, settled, requeue=method.requeue):
        channel.reject(settled, requeue=method.requeue)


def reject(channel: Channel, method: Method) -> None:
    """Refuse one delivery."""
    settled = channel.take(method.delivery_tag, multiple=False)
    if not _put_off(channel, settled, requeue=method.requeue):
        channel.reject(settled, requeue=method.requeue)


def _put_off(channel: Channel, settled: list[Pending], *, requeue: bool | None) -> bool:
    if channel.transaction is None:
        return False
    channel.transaction.settlements.append((requeue, settled))
    return True


def recover(channel: Channel, method: Method) -> None:
    """Requeue everything that is out on this channel."""
    _recover(channel, requeue=method.requeue)
    channel.send(commands.Basic.RecoverOk)


def recover_async(channel: Channel, method: Method) -> None:
    """Requeue everything that is out on this channel, without an answer."""
    _recover(channel, requeue=method.requeue)


def _recover(channel: Channel, *, requeue: bool) -> None:
    if not requeue:
        raise Refusal(Reply.NOT_IMPLEMENTED, "requeue=false")
    channel.reject(channel.take_all(), requeue=True)
