"""The fault switch: what it promises, seen by a client."""

import pamqp.commands as amqp
import pytest

from amqflow.broker.channel_methods import METHODS
from amqflow.broker.replies import Reply
from tests.embedded.sansio import Client


@pytest.fixture
def publisher(client):
    """A client in confirm mode with a queue `q`."""
    client.call(amqp.Confirm.Select())
    client.queue("q")
    client.heard.clear()
    return client


def confirms(client: Client) -> list[tuple[str, int, bool]]:
    client.listen()
    found = [
        (method.name, method.delivery_tag, method.multiple)
        for _, method in client.heard
        if isinstance(method, amqp.Basic.Ack | amqp.Basic.Nack)
    ]
    client.heard.clear()
    return found


def test_a_dropped_confirm_never_comes_and_later_ones_do_not_speak_for_it(publisher, node):
    node.faults.drop_confirms()
    for _ in range(3):
        publisher.publish("q")
    assert confirms(publisher) == [("Basic.Ack", 2, False), ("Basic.Ack", 3, False)]
    assert publisher.ready("q") == 3  # the message is there


def test_a_delayed_confirm_comes_by_the_clock(publisher, node, step):
    node.faults.delay_confirms(5, count=2)
    for _ in range(3):
        publisher.publish("q")
    assert confirms(publisher) == [("Basic.Ack", 3, False)]
    step(4.9)
    assert confirms(publisher) == []
    step(0.1)
    assert [tag for _, tag, _ in confirms(publisher)] == [1, 2]


def test_a_refused_publish_is_nacked_and_gone(publisher, node):
    node.faults.refuse_publishes(2)
    for _ in range(3):
        publisher.publish("q")
    assert confirms(publisher) == [
        ("Basic.Nack", 1, False),
        ("Basic.Nack", 2, False),
        ("Basic.Ack", 3, False),
    ]
    assert publisher.ready("q") == 1


def test_faults_queue_up_in_order_and_keep_to_their_vhost(publisher, node):
    node.add_vhost("other")
    node.faults.refuse_publishes(vhost="other")
    node.faults.drop_confirms()
    node.faults.refuse_publishes()
    for _ in range(3):
        publisher.publish("q")
    assert confirms(publisher) == [("Basic.Nack", 2, False), ("Basic.Ack", 3, False)]


def test_clear_takes_all_back(publisher, node):
    node.faults.drop_confirms(None)
    publisher.publish("q")
    assert confirms(publisher) == []
    node.faults.clear()
    publisher.publish("q")
    assert confirms(publisher) == [("Basic.Ack", 2, False)]


def test_channels_are_closed_with_the_error_asked_for(client, node):
    client.queue("q")
    client.publish("q")
    client.consume("q")
    client.heard.clear()
    assert node.faults.close_channels(Reply.RESOURCE_LOCKED, "by a test") == 1
    client.listen()
    number, close = client.heard[-1]
    assert (number, close.reply_code) == (1, 405)
    assert close.reply_text == "RESOURCE_LOCKED - by a test"
    assert node.vhosts["/"].queues["q"].length == 1
    client.send(1, amqp.Channel.CloseOk())
    assert client.open().get("q").method.redelivered


def test_connections_are_closed_by_force(client, node):
    client.heard.clear()
    assert node.faults.close_connections("by a test") == 1
    client.listen()
    _, close = client.heard[-1]
    assert (close.reply_code, close.reply_text) == (320, "CONNECTION_FORCED - by a test")
    assert client.socket.closed


def test_connections_are_cut_without_a_word(client, node):
    client.queue("q")
    client.heard.clear()
    assert node.faults.cut_connections() == 1
    assert client.methods() == []
    assert client.socket.closed
    assert not node.connections


def test_an_alarm_blocks_those_who_publish_and_nobody_else(client, node):
    reader = Client(node).open()
    client.queue("q")
    node.faults.block("low on memory")
    assert not client.socket.paused
    client.heard.clear()
    client.publish("q")
    assert client.socket.paused
    assert [m.reason for _, m in client.heard if m.name == "Connection.Blocked"] == [
        "low on memory"
    ]
    assert reader.get("q").body == b"x"
    assert not reader.socket.paused
    client.heard.clear()
    node.faults.unblock()
    assert client.methods() == ["Connection.Unblocked"]
    assert not client.socket.paused


def test_a_mistake_of_the_brokers_own_is_541_and_ends_one_connection(client, node, monkeypatch):
    other = Client(node).open()
    monkeypatch.setitem(METHODS, amqp.Basic.Qos.index, lambda *_: [].pop())
    assert client.call(amqp.Basic.Qos()).reply_code == 541
    other.queue("q")
    other.publish("q", b"unharmed")
    assert other.get("q").body == b"unharmed"
