"""basic.publish with its content, and what the publisher is told."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from amqflow.broker import properties as props
from amqflow.broker.message import Message, check_delivery_mode, check_expiration, routing_keys
from amqflow.broker.replies import (
    Refusal,
    Reply,
    not_found,
    precondition_failed,
    resource,
)
from amqflow.broker.users import WRITE

if TYPE_CHECKING:
    from amqflow.broker.channel import Channel
    from amqflow.broker.methods import Method
    from amqflow.broker.properties import Properties
    from amqflow.broker.queues import Queue
    from amqflow.broker.vhost import VirtualHost

REPLY_TO: Final = "amq.rabbitmq.reply-to"


def publish(channel: Channel, method: Method, properties: Properties, body: bytes) -> None:
    """Route a message to its queues.

    Raises:
        Refusal: it may not be published.
    """
    connection = channel.connection
    vhost, user = connection.entered()
    if method.immediate:
        raise Refusal(Reply.NOT_IMPLEMENTED, "immediate=true")
    name = method.exchange
    user.check(WRITE, "exchange", name, vhost.name)
    exchange = vhost.exchanges.get(name)
    if exchange is None:
        raise not_found("exchange", name, vhost.name)
    if exchange.internal:
        place = resource("exchange", name, vhost.name)
        raise Refusal(Reply.ACCESS_REFUSED, f"cannot publish to internal {place}")
    properties = _reply_address(channel, properties)
    user.check_claim(properties.string(props.USER_ID))
    check_expiration(properties.expiration)
    check_delivery_mode(properties.number(props.DELIVERY_MODE))
    keys, properties = routing_keys(method.routing_key, properties)
    message = Message(name, keys, properties, body)
    queues = vhost.route(exchange, message)
    if not name:
        _deliver_replies(vhost, message)
    if channel.transaction is not None:
        channel.transaction.publishes.append((message, queues, method.mandatory))
    elif channel.confirms:
        _publish_confirmed(channel, message, queues, mandatory=method.mandatory)
    else:
        if method.mandatory and not queues:
            channel.return_message(message)
        for queue in queues:
            queue.publish(message)


def _publish_confirmed(
    channel: Channel, message: Message, queues: list[Queue], *, mandatory: bool
) -> None:
    number = channel.next_publish()
    node = channel.connection.node
    vhost, _ = channel.connection.entered()
    fate = node.faults.fate_of_publish(vhost.name)
    if fate is not None and fate.kind == "nack":
        channel.refuse(number)
        return
    # A return goes out before the confirm of the same publish.
    if mandatory and not queues:
        channel.return_message(message)
    taken = True
    for queue in queues:
        taken &= queue.publish(message)
    if not taken:
        channel.refuse(number)
    elif fate is None:
        channel.confirm(number)
    else:
        channel.hold(number)
        if fate.kind == "delay":
            due = node.timers.now() + fate.seconds
            node.timers.at(due, lambda: channel.confirm_late(number))


def _reply_address(channel: Channel, properties: Properties) -> Properties:
    """Return properties whose reply address is one the broker can find again."""
    if properties.string(props.REPLY_TO) != REPLY_TO:
        return properties
    if channel.reply_consumer is None:
        raise precondition_failed("fast reply consumer does not exist")
    return properties.with_string(props.REPLY_TO, f"{REPLY_TO}.{channel.reply_consumer[1]}")


def _deliver_replies(vhost: VirtualHost, message: Message) -> None:
    for key in message.keys:
        if key.startswith(REPLY_TO):
            found = vhost.node.reply_consumers.get(key[len(REPLY_TO) + 1 :])
            if found is not None:
                found.deliver_reply(message)
