"""Direct reply-to: answers without a queue, through amq.rabbitmq.reply-to."""

import pamqp.commands as amqp
import pytest

from tests.broker.client import PASSIVE, refused

REPLY_TO = "amq.rabbitmq.reply-to"


@pytest.fixture
def asker(channel):
    """A channel that awaits direct replies."""
    channel.consume(REPLY_TO, no_ack=True)
    return channel


def asked(asker, other, queue):
    """Publish a request; return the address to answer to as the server sees it."""
    other.queue(queue)
    asker.publish(b"question", queue, reply_to=REPLY_TO)
    other.holds(queue, 1)
    return other.get(queue, no_ack=True).properties.reply_to


def test_a_request_carries_an_address_made_for_it(asker, other, name):
    address = asked(asker, other, name)
    assert address.startswith(f"{REPLY_TO}.")
    assert address != REPLY_TO


def test_an_answer_arrives_where_the_question_came_from(asker, other, name):
    address = asked(asker, other, name)
    other.publish(b"answer", address, correlation_id="c")
    answer = asker.delivery()
    assert (answer.body, answer.route) == (b"answer", ("", address))
    assert answer.properties.correlation_id == "c"
    assert not answer.redelivered


def test_many_answers_may_come(asker, other, name):
    address = asked(asker, other, name)
    for number in range(5):
        other.publish(str(number).encode(), address)
    assert asker.bodies(5) == [b"0", b"1", b"2", b"3", b"4"]


def test_an_answer_under_confirm_is_confirmed(asker, other, name):
    address = asked(asker, other, name)
    assert isinstance(other.confirm().published(b"1", address), amqp.Basic.Ack)
    assert asker.delivery().body == b"1"


def test_a_mandatory_answer_arrives_and_returns_all_the_same(asker, other, name):
    address = asked(asker, other, name)
    other.confirm().publish(b"1", address, mandatory=True)
    returned, ack = other.events(2)
    assert returned.method.reply_text == "NO_ROUTE"
    assert isinstance(ack, amqp.Basic.Ack)
    assert asker.delivery().body == b"1"


def test_an_answer_to_a_channel_that_is_gone_returns_as_unroutable(connect, other, name):
    gone = connect()
    asker = gone.channel()
    asker.consume(REPLY_TO, no_ack=True)
    address = asked(asker, other, name)
    gone.close()
    other.confirm().publish(b"1", address, mandatory=True)
    assert other.event().method.reply_text == "NO_ROUTE"


def test_an_address_that_is_none_returns_as_unroutable(other):
    other.publish(b"1", f"{REPLY_TO}.nonsense", mandatory=True)
    assert other.event().method.reply_text == "NO_ROUTE"


def test_the_address_can_be_looked_at(asker, other, name):
    address = asked(asker, other, name)
    assert other.queue_of_any_name(address.encode(), PASSIVE) == address


def test_an_address_that_is_gone_is_not_found(connect, other, served, name):
    gone = connect()
    asker = gone.channel()
    asker.consume(REPLY_TO, no_ack=True)
    address = asked(asker, other, name)
    gone.close()
    with refused(
        "channel",
        404,
        f"NOT_FOUND - no queue '{address}' in vhost '{served.vhost}'",
        "Queue.Declare",
    ):
        other.queue_of_any_name(address.encode(), PASSIVE)


def test_awaiting_replies_with_acks_is_refused(channel):
    with refused(
        "channel",
        406,
        "PRECONDITION_FAILED - reply consumer cannot acknowledge",
        "Basic.Consume",
    ):
        channel.consume(REPLY_TO)


def test_awaiting_replies_twice_on_a_channel_is_refused(asker):
    with refused(
        "channel", 406, "PRECONDITION_FAILED - reply consumer already set", "Basic.Consume"
    ):
        asker.consume(REPLY_TO, no_ack=True)


def test_asking_without_awaiting_replies_is_refused(channel, queue):
    with refused(
        "channel",
        406,
        "PRECONDITION_FAILED - fast reply consumer does not exist",
        "Basic.Publish",
    ):
        channel.publish(b"1", queue, reply_to=REPLY_TO)
        channel.wait_closed()


def test_a_cancelled_reply_consumer_may_be_set_again(channel, other, name):
    channel.consume(REPLY_TO, "mine", no_ack=True)
    channel.cancel("mine")
    channel.consume(REPLY_TO, "mine", no_ack=True)
    other.publish(b"1", asked(channel, other, name))
    assert channel.delivery().method.consumer_tag == "mine"


def test_another_channel_of_the_connection_has_its_own(connection, asker, other, name):
    second = connection.channel()
    second.consume(REPLY_TO, no_ack=True)
    other.queue(name)
    second.publish(b"2", name, reply_to=REPLY_TO)
    other.holds(name, 1)
    other.publish(b"for the second", other.get(name, no_ack=True).properties.reply_to)
    assert second.delivery().body == b"for the second"
    assert asker.quiet(0.05)


def test_reply_to_other_queues_is_left_alone(channel, queue):
    channel.publish(b"1", queue, reply_to="elsewhere")
    assert channel.get(queue).properties.reply_to == "elsewhere"


def test_the_pseudo_queue_seems_to_be_there_and_has_no_messages(channel):
    assert channel.queue(REPLY_TO) == REPLY_TO
    assert channel.counts(REPLY_TO) == (0, 1)
    assert channel.call(amqp.Queue.Delete(queue=REPLY_TO)).message_count == 0


def test_nobody_can_publish_to_the_pseudo_queue(channel):
    channel.publish(b"1", REPLY_TO, mandatory=True)
    assert channel.event().method.reply_text == "NO_ROUTE"


@pytest.mark.parametrize(
    ("use", "blamed"),
    [
        (lambda channel: channel.get(REPLY_TO), "Basic.Get"),
        (lambda channel: channel.call(amqp.Queue.Purge(queue=REPLY_TO)), "Queue.Purge"),
        (lambda channel: channel.bind(REPLY_TO, "amq.direct"), "Queue.Bind"),
    ],
    ids=["get", "purge", "bind"],
)
def test_the_pseudo_queue_is_none_for_anything_but_consuming(channel, served, use, blamed):
    text = f"NOT_FOUND - no queue '{REPLY_TO}' in vhost '{served.vhost}'"
    with refused("channel", 404, text, blamed):
        use(channel)
