"""The methods of a channel, as a table: what a client may call, and who answers."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from pamqp import commands

from amqflow.broker import access, consuming, declaring, transactions
from amqflow.broker.replies import Refusal, Reply, precondition_failed

if TYPE_CHECKING:
    from collections.abc import Callable

    from amqflow.broker.channel import Channel
    from amqflow.broker.methods import Method


def _access_request(channel: Channel, _method: Method) -> None:
    channel.send(access.RequestOk, ticket=1)


def _flow(channel: Channel, method: Method) -> None:
    if not method.active:
        raise Refusal(Reply.NOT_IMPLEMENTED, "active=false")
    channel.send(commands.Channel.FlowOk, active=True)


def _confirm_select(channel: Channel, method: Method) -> None:
    if channel.transaction is not None:
        raise precondition_failed("cannot switch from tx to confirm mode")
    channel.confirms = True
    if not method.nowait:
        channel.send(commands.Confirm.SelectOk)


#: By the index pamqp gives a method: its class and method id. basic.publish has content and is
#: answered when that is complete; channel.open and close change the channel itself.
METHODS: Final[dict[int, Callable[[Channel, Any], None]]] = {
    access.Request.index: _access_request,
    commands.Basic.Ack.index: consuming.ack,
    commands.Basic.Cancel.index: consuming.cancel,
    commands.Basic.Consume.index: consuming.consume,
    commands.Basic.Get.index: consuming.get,
    commands.Basic.Nack.index: consuming.nack,
    commands.Basic.Qos.index: consuming.qos,
    commands.Basic.Recover.index: consuming.recover,
    commands.Basic.RecoverAsync.index: consuming.recover_async,
    commands.Basic.Reject.index: consuming.reject,
    commands.Channel.Flow.index: _flow,
    commands.Confirm.Select.index: _confirm_select,
    commands.Exchange.Bind.index: declaring.exchange_bind,
    commands.Exchange.Declare.index: declaring.exchange_declare,
    commands.Exchange.Delete.index: declaring.exchange_delete,
    commands.Exchange.Unbind.index: declaring.exchange_unbind,
    commands.Queue.Bind.index: declaring.queue_bind,
    commands.Queue.Declare.index: declaring.queue_declare,
    commands.Queue.Delete.index: declaring.queue_delete,
    commands.Queue.Purge.index: declaring.queue_purge,
    commands.Queue.Unbind.index: declaring.queue_unbind,
    commands.Tx.Commit.index: transactions.commit,
    commands.Tx.Rollback.index: transactions.rollback,
    commands.Tx.Select.index: transactions.select,
}
