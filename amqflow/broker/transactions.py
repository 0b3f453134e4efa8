"""Transactions: publishes and acknowledgements that wait for tx.commit."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pamqp import commands

from amqflow.broker.replies import precondition_failed

if TYPE_CHECKING:
    from collections.abc import Iterator

    from amqflow.broker.channel import Channel, Pending
    from amqflow.broker.message import Message
    from amqflow.broker.methods import Method
    from amqflow.broker.queues import Queue


class Transaction:
    """What a channel has done since the last commit or rollback."""

    def __init__(self) -> None:
        """Begin with nothing done."""
        self.publishes: list[tuple[Message, list[Queue], bool]] = []
        #: Acknowledged (None), requeued (True) or rejected (False) deliveries, in order.
        self.settlements: list[tuple[bool | None, list[Pending]]] = []

    def settled(self) -> Iterator[Pending]:
        """Yield every delivery an acknowledgement waits for."""
        for _, pending in self.settlements:
            yield from pending


def select(channel: Channel, _method: Method) -> None:
    """Begin to work in transactions."""
    if channel.confirms:
        raise precondition_failed("cannot switch from confirm to tx mode")
    if channel.transaction is None:
        channel.transaction = Transaction()
    channel.send(commands.Tx.SelectOk)


def commit(channel: Channel, _method: Method) -> None:
    """Do what was put off; refused publishes fail it, as in RabbitMQ, the rest is done."""
    done = _current(channel)
    channel.transaction = Transaction()
    taken = True
    for message, queues, mandatory in done.publishes:
        for queue in queues:
            taken &= queue.publish(message)
        if mandatory and not queues:
            channel.return_message(message)
    for requeue, pending in done.settlements:
        if requeue is None:
            channel.ack(pending)
        else:
            channel.reject(pending, requeue=requeue)
    if not taken:
        raise precondition_failed("partial tx completion")
    channel.send(commands.Tx.CommitOk)


def rollback(channel: Channel, _method: Method) -> None:
    """Forget the publishes; what was acknowledged is out again, not delivered again."""
    undone = _current(channel)
    channel.transaction = Transaction()
    channel.put_back(undone.settled())
    channel.send(commands.Tx.RollbackOk)


def _current(channel: Channel) -> Transaction:
    if channel.transaction is None:
        raise precondition_failed("channel is not transactional")
    return channel.transaction
