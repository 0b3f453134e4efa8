"""Transactions: publishes and acks that count at commit."""

import pamqp.commands as amqp
import pytest

from tests.broker.client import Message, refused


@pytest.fixture
def tx(connection):
    """A channel in a transaction."""
    channel = connection.channel()
    channel.call(amqp.Tx.Select())
    return channel


def commit(channel) -> None:
    assert isinstance(channel.call(amqp.Tx.Commit()), amqp.Tx.CommitOk)


def rollback(channel) -> None:
    assert isinstance(channel.call(amqp.Tx.Rollback()), amqp.Tx.RollbackOk)


def test_publishes_are_seen_after_the_commit(channel, queue, tx):
    tx.publish_all(range(3), queue)
    tx.sync()
    assert channel.get(queue) is None
    commit(tx)
    assert channel.drain(queue) == [b"0", b"1", b"2"]


def test_publishes_are_gone_after_a_rollback(channel, queue, tx):
    tx.publish(b"1", queue)
    rollback(tx)
    commit(tx)
    assert channel.get(queue) is None


def test_after_a_commit_a_new_transaction_begins(channel, queue, tx):
    for body in (b"1", b"2"):
        tx.publish(body, queue)
        commit(tx)
    tx.publish(b"3", queue)
    rollback(tx)
    assert channel.drain(queue) == [b"1", b"2"]


def test_acks_count_at_commit(channel, queue, tx):
    channel.publish_all(range(2), queue)
    channel.holds(queue, 2)
    tx.ack(tx.get(queue).tag)
    commit(tx)
    tx.ack(tx.get(queue).tag)
    tx.close()
    message = channel.get(queue)
    assert (message.body, message.redelivered) == (b"1", True)
    assert channel.get(queue) is None


def test_a_rollback_gives_acked_deliveries_back_to_the_client(channel, queue, tx):
    channel.publish(b"1", queue)
    channel.holds(queue, 1)
    message = tx.get(queue)
    tx.ack(message.tag)
    rollback(tx)
    assert channel.get(queue) is None  # not redelivered: the client still holds it
    tx.ack(message.tag)
    commit(tx)


def test_rejects_count_at_commit(channel, queue, tx):
    channel.publish(b"1", queue)
    channel.holds(queue, 1)
    tx.reject(tx.get(queue).tag)
    tx.sync()
    assert channel.get(queue) is None
    commit(tx)
    assert channel.get(queue).redelivered


def test_mandatory_messages_return_at_commit_before_its_ok(tx):
    tx.publish(b"1", "nowhere", mandatory=True)
    tx.sync()
    assert not tx.inbox
    commit(tx)
    (returned,) = tx.inbox
    assert isinstance(returned, Message)
    assert returned.method.reply_text == "NO_ROUTE"


def test_an_open_transaction_ends_with_its_channel(channel, queue, tx):
    tx.publish(b"1", queue)
    tx.close()
    assert channel.get(queue) is None


@pytest.mark.parametrize(
    ("method", "text"),
    [
        (amqp.Tx.Commit(), "PRECONDITION_FAILED - channel is not transactional"),
        (amqp.Tx.Rollback(), "PRECONDITION_FAILED - channel is not transactional"),
    ],
    ids=["commit", "rollback"],
)
def test_commit_and_rollback_need_a_transaction(channel, method, text):
    with refused("channel", 406, text, method.name):
        channel.call(method)


def test_select_twice_is_fine(tx):
    assert isinstance(tx.call(amqp.Tx.Select()), amqp.Tx.SelectOk)


def test_a_transaction_on_a_channel_that_confirms_is_refused(channel):
    channel.confirm()
    with refused(
        "channel", 406, "PRECONDITION_FAILED - cannot switch from confirm to tx mode", "Tx.Select"
    ):
        channel.call(amqp.Tx.Select())


def test_an_unknown_tag_is_refused_at_once(channel, tx):
    with refused("channel", 406, "PRECONDITION_FAILED - unknown delivery tag 9", "Basic.Ack"):
        tx.ack(9)
        tx.wait_closed()


def test_a_publish_to_a_missing_exchange_is_refused_at_once(tx, served, name):
    text = f"NOT_FOUND - no exchange '{name}' in vhost '{served.vhost}'"
    with refused("channel", 404, text, "Basic.Publish"):
        tx.publish(b"1", exchange=name)
        tx.wait_closed()


def test_declares_and_gets_are_not_part_of_it(channel, queue, tx):
    channel.publish(b"1", queue)
    channel.holds(queue, 1)
    assert tx.get(queue, no_ack=True).body == b"1"
    rollback(tx)
    assert channel.get(queue) is None
