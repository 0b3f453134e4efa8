"""Exchanges, queues and bindings: declared, bound, emptied and deleted."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from pamqp import commands

from amqflow.broker.bindings import Binding
from amqflow.broker.equivalence import check_arguments, check_field
from amqflow.broker.exchange import Exchange
from amqflow.broker.exchanges import KINDS
from amqflow.broker.publishing import REPLY_TO
from amqflow.broker.queues.arguments import (
    QUORUM,
    STREAM,
    check_queue,
    compared,
    queue_type,
)
from amqflow.broker.replies import Refusal, Reply, not_found, precondition_failed, resource
from amqflow.broker.users import CONFIGURE, READ, WRITE

if TYPE_CHECKING:
    from amqflow.broker.channel import Channel
    from amqflow.broker.methods import Method
    from amqflow.broker.queues import Queue
    from amqflow.broker.tables import Table

_RESERVED: Final = "amq."
_ALTERNATE: Final = "alternate-exchange"
_DEAD_LETTERS: Final = "x-dead-letter-exchange"


def named(channel: Channel, name: str) -> str:
    """Return a queue's name; the empty one means the queue declared last on the channel."""
    if name:
        return name
    if not channel.last_queue:
        raise Refusal(Reply.NOT_FOUND, "no previously declared queue")
    return channel.last_queue


def accessible(channel: Channel, name: str) -> Queue:
    """Return a queue the channel's connection may use.

    Raises:
        Refusal: 404, or 405: it is exclusive to another connection.
    """
    vhost, _ = channel.connection.entered()
    queue = vhost.queues.get(name)
    if queue is None:
        raise not_found("queue", name, vhost.name)
    _check_owner(channel, queue)
    return queue


def _check_owner(channel: Channel, queue: Queue, *, exclusive: bool | None = None) -> None:
    """Refuse a queue of another connection, or (``exclusive``) one declared otherwise."""
    owner = queue.owner
    if owner is None and not exclusive:
        return
    if owner is channel.connection and exclusive is not False:
        return
    place = resource("queue", queue.name, queue.vhost.name)
    raise Refusal(
        Reply.RESOURCE_LOCKED,
        f"cannot obtain exclusive access to locked {place}. It could be originally declared on "
        "another connection or the exclusive property value does not match that of the original "
        "declaration.",
    )


def _clean(name: str) -> str:
    return name.replace("\n", "").replace("\r", "")


def _check_reserved(kind: str, name: str) -> None:
    if name.startswith(_RESERVED):
        raise Refusal(
            Reply.ACCESS_REFUSED, f"{kind} name '{name}' contains reserved prefix 'amq.*'"
        )


def _check_not_default(name: str) -> None:
    if not name:
        raise Refusal(Reply.ACCESS_REFUSED, "operation not permitted on the default exchange")


# -- exchanges -----------------------------------------------------------------------------


def exchange_declare(channel: Channel, method: Method) -> None:
    """Create an exchange, or see that it is as declared."""
    vhost, user = channel.connection.entered()
    name = _clean(method.exchange)
    if method.passive:
        _check_not_default(name)
        if name not in vhost.exchanges:
            raise not_found("exchange", name, vhost.name)
    else:
        kind = method.exchange_type
        if kind not in KINDS:
            raise Refusal(Reply.COMMAND_INVALID, f"unknown exchange type '{kind}'")
        _check_not_default(name)
        user.check(CONFIGURE, "exchange", name, vhost.name)
        _declare_exchange(channel, method, name)
    if not method.nowait:
        channel.send(commands.Exchange.DeclareOk)


def _declare_exchange(channel: Channel, method: Method, name: str) -> None:
    vhost, user = channel.connection.entered()
    arguments = method.arguments
    place = resource("exchange", name, vhost.name)
    found = vhost.exchanges.get(name)
    if found is None:
        _check_reserved("exchange", name)
        alternate = arguments.get(_ALTERNATE)
        if alternate is not None:
            _check_string(_ALTERNATE, arguments, place)
            user.check(READ, "exchange", name, vhost.name)
            user.check(WRITE, "exchange", alternate.value, vhost.name)
        vhost.add_exchange(
            Exchange(
                name,
                method.exchange_type,
                durable=method.durable,
                auto_delete=method.auto_delete,
                internal=method.internal,
                arguments=arguments,
            )
        )
        return
    check_field("type", found.type, method.exchange_type, place)
    check_field("durable", found.durable, method.durable, place)
    check_field("auto_delete", found.auto_delete, method.auto_delete, place)
    check_field("internal", found.internal, method.internal, place)
    check_arguments(found.arguments, arguments, [_ALTERNATE], place)


def _check_string(name: str, arguments: Table, place: str) -> None:
    field = arguments[name]
    if field.type != "longstr":
        raise precondition_failed(f"invalid type '{field.type}' for arg '{name}' in {place}")


def exchange_delete(channel: Channel, method: Method) -> None:
    """Delete an exchange; one that is not there is no error."""
    vhost, user = channel.connection.entered()
    name = _clean(method.exchange)
    _check_not_default(name)
    if name.startswith(_RESERVED):
        place = resource("exchange", name, vhost.name)
        raise Refusal(Reply.ACCESS_REFUSED, f"deletion of system {place} not allowed")
    user.check(CONFIGURE, "exchange", name, vhost.name)
    found = vhost.exchanges.get(name)
    if found is not None:
        if method.if_unused and found.bindings:
            raise precondition_failed(f"{resource('exchange', name, vhost.name)} in use")
        vhost.delete_exchange(found)
    if not method.nowait:
        channel.send(commands.Exchange.DeleteOk)


def exchange_bind(channel: Channel, method: Method) -> None:
    """Bind an exchange to another."""
    _bind(
        channel,
        Binding(
            _clean(method.source),
            _clean(method.destination),
            to_queue=False,
            routing_key=method.routing_key,
            arguments=method.arguments,
        ),
    )
    if not method.nowait:
        channel.send(commands.Exchange.BindOk)


def exchange_unbind(channel: Channel, method: Method) -> None:
    """Take a binding between exchanges away; one that is not there is no error."""
    _unbind(
        channel,
        Binding(
            _clean(method.source),
            _clean(method.destination),
            to_queue=False,
            routing_key=method.routing_key,
            arguments=method.arguments,
        ),
    )
    if not method.nowait:
        channel.send(commands.Exchange.UnbindOk)


# -- queues --------------------------------------------------------------------------------


def queue_declare(channel: Channel, method: Method) -> None:
    """Create a queue, or see that it is as declared, or (passive) that it is there."""
    name = _clean(method.queue)
    if name.startswith(REPLY_TO):
        _declare_reply_queue(channel, method, name)
        return
    declare = _declare_passively if method.passive else _declare_queue
    queue = declare(channel, method, name)
    queue.touch()
    queue.expire()
    channel.last_queue = queue.name
    if not method.nowait:
        channel.send(
            commands.Queue.DeclareOk,
            queue=queue.name,
            message_count=queue.length,
            consumer_count=queue.consumer_count,
        )


def _declare_reply_queue(channel: Channel, method: Method, name: str) -> None:
    """Answer for a queue that is none: the one all replies go to, or that of one consumer."""
    token = name[len(REPLY_TO) + 1 :]
    if name != REPLY_TO and token not in channel.connection.node.reply_consumers:
        vhost, _ = channel.connection.entered()
        raise not_found("queue", name, vhost.name)
    channel.last_queue = name
    if not method.nowait:
        channel.send(commands.Queue.DeclareOk, queue=name, message_count=0, consumer_count=1)


def _declare_passively(channel: Channel, _method: Method, name: str) -> Queue:
    return accessible(channel, name)


def _declare_queue(channel: Channel, method: Method, name: str) -> Queue:
    connection = channel.connection
    vhost, user = connection.entered()
    arguments = method.arguments
    durable = method.durable and not method.exclusive
    if name:
        _check_reserved("queue", name)
    else:
        if queue_type(arguments) in {QUORUM, STREAM}:
            kind = f"rabbit_{queue_type(arguments)}_queue"
            raise precondition_failed(f"Cannot declare a server-named queue for type {kind}")
        name = connection.node.unique_name("amq.gen")
    user.check(CONFIGURE, "queue", name, vhost.name)
    place = resource("queue", name, vhost.name)
    found = vhost.queues.get(name)
    if found is not None:
        _check_owner(channel, found, exclusive=method.exclusive)
        check_field("durable", found.durable, durable, place)
        check_field("auto_delete", found.auto_delete, method.auto_delete, place)
        check_arguments(found.arguments, arguments, compared(found.kind), place)
        return found
    if _DEAD_LETTERS in arguments:
        _check_string(_DEAD_LETTERS, arguments, place)
        user.check(READ, "queue", name, vhost.name)
        user.check(WRITE, "exchange", arguments[_DEAD_LETTERS].value, vhost.name)
    check_queue(name, vhost.name, arguments)
    kind = queue_type(arguments)
    if kind in {QUORUM, STREAM}:
        _check_replicated(method, durable=durable, place=place)
    return vhost.add_queue(
        name,
        kind,
        durable=durable,
        auto_delete=method.auto_delete,
        owner=connection if method.exclusive else None,
        arguments=arguments,
    )


def _check_replicated(method: Method, *, durable: bool, place: str) -> None:
    for wrong, name in (
        (method.auto_delete, "auto-delete"),
        (method.exclusive, "exclusive-owner"),
        (not durable, "non-durable"),
    ):
        if wrong:
            raise precondition_failed(f"invalid property '{name}' for {place}")


def queue_bind(channel: Channel, method: Method) -> None:
    """Bind a queue to an exchange."""
    _bind(channel, _queue_binding(channel, method))
    if not method.nowait:
        channel.send(commands.Queue.BindOk)


def queue_unbind(channel: Channel, method: Method) -> None:
    """Take a binding of a queue away; one that is not there is no error."""
    _unbind(channel, _queue_binding(channel, method))
    channel.send(commands.Queue.UnbindOk)


def _queue_binding(channel: Channel, method: Method) -> Binding:
    key = method.routing_key
    if not method.queue and not key:
        key = named(channel, "")
    return Binding(
        _clean(method.exchange),
        _clean(named(channel, method.queue)),
        to_queue=True,
        routing_key=key,
        arguments=method.arguments,
    )


def queue_purge(channel: Channel, method: Method) -> None:
    """Drop a queue's ready messages."""
    vhost, user = channel.connection.entered()
    name = named(channel, method.queue)
    user.check(READ, "queue", name, vhost.name)
    count = accessible(channel, name).purge()
    if not method.nowait:
        channel.send(commands.Queue.PurgeOk, message_count=count)


def queue_delete(channel: Channel, method: Method) -> None:
    """Delete a queue; one that is not there is no error."""
    vhost, user = channel.connection.entered()
    name = _clean(named(channel, method.queue))
    user.check(CONFIGURE, "queue", name, vhost.name)
    queue = vhost.queues.get(name)
    count = 0
    if queue is not None:
        _check_owner(channel, queue)
        place = resource("queue", name, vhost.name)
        for asked, flag in ((method.if_unused, "if-unused"), (method.if_empty, "if-empty")):
            if asked and queue.quorum:
                raise Refusal(
                    Reply.NOT_IMPLEMENTED,
                    f"cannot delete {place}. queue.delete operations with {flag} flag set are "
                    "not supported by quorum queues",
                )
        queue.expire()
        if method.if_empty and queue.ready:
            raise precondition_failed(f"{place} not empty")
        if method.if_unused and len(queue.consumers):
            raise precondition_failed(f"{place} in use")
        count = vhost.delete_queue(queue)
    if not method.nowait:
        channel.send(commands.Queue.DeleteOk, message_count=count)


# -- bindings ------------------------------------------------------------------------------


def _bind(channel: Channel, binding: Binding) -> None:
    _check_ends(channel, binding)
    vhost, _ = channel.connection.entered()
    if binding.source not in vhost.exchanges:
        raise not_found("exchange", binding.source, vhost.name)
    if binding.to_queue:
        accessible(channel, binding.destination)
    elif binding.destination not in vhost.exchanges:
        raise not_found("exchange", binding.destination, vhost.name)
    vhost.bind(binding)


def _unbind(channel: Channel, binding: Binding) -> None:
    _check_ends(channel, binding)
    vhost, _ = channel.connection.entered()
    queue = vhost.queues.get(binding.destination) if binding.to_queue else None
    if queue is not None:
        _check_owner(channel, queue)
    vhost.unbind(binding)


def _check_ends(channel: Channel, binding: Binding) -> None:
    vhost, user = channel.connection.entered()
    user.check(WRITE, binding.kind, binding.destination, vhost.name)
    if not binding.to_queue:
        _check_not_default(binding.destination)
    _check_not_default(binding.source)
    user.check(READ, "exchange", binding.source, vhost.name)
