"""Dead letters: why, where to, and what the x-death header tells."""

import pamqp.commands as amqp
import pytest

SOON = 50  # milliseconds


class Letters:
    """A queue whose dead letters arrive in another, through a direct exchange."""

    def __init__(self, channel, name, kind, arguments) -> None:
        self.channel = channel
        self.queue, self.dead, self.exchange = name, f"{name}-dead", f"{name}-dlx"
        channel.exchange(self.exchange, "topic")
        channel.queue(self.dead)
        channel.bind(self.dead, self.exchange, "#")
        channel.queue(
            self.queue,
            arguments={"x-queue-type": kind, "x-dead-letter-exchange": self.exchange} | arguments,
        )
        channel.confirm()

    def publish(self, body=b"1", **options) -> None:
        self.channel.publish(body, self.queue, **options)
        while not isinstance(self.channel.event(), amqp.Basic.Ack | amqp.Basic.Nack):
            pass

    def reject(self) -> None:
        self.channel.holds(self.queue, 1)
        self.channel.reject(self.channel.get(self.queue).tag, requeue=False)

    def letter(self, queue=None):
        queue = queue or self.dead
        self.channel.holds(queue, 1)
        return self.channel.get(queue, no_ack=True)


@pytest.fixture(params=["classic", "quorum"])
def kind(request) -> str:
    return request.param


@pytest.fixture
def letters(channel, connect, name, kind):
    """Make a queue with dead letters: `letters(x_message_ttl=50)`."""
    made = []

    def make(**arguments) -> Letters:
        named = {key.replace("_", "-"): value for key, value in arguments.items()}
        made.append(Letters(channel, f"{name}-{len(made)}", kind, named))
        return made[-1]

    yield make
    last = connect().channel()
    for each in made:
        last.call(amqp.Queue.Delete(queue=each.queue))
        last.call(amqp.Queue.Delete(queue=each.dead))
        last.call(amqp.Exchange.Delete(exchange=each.exchange))


def death(queue, reason, *, count=1, exchange="", keys=None, **more):
    return {
        "count": count,
        "reason": reason,
        "queue": queue,
        "exchange": exchange,
        "routing-keys": keys or [queue],
    } | more


@pytest.mark.parametrize("how", ["reject", "nack"])
def test_what_is_rejected_is_dead_lettered_with_its_story(letters, how):
    way = letters()
    way.publish(b"body", headers={"mine": 1}, message_id="m", priority=3)
    way.channel.holds(way.queue, 1)
    message = way.channel.get(way.queue)
    getattr(way.channel, how)(message.tag, requeue=False)
    letter = way.letter()
    assert letter.body == b"body"
    assert letter.route == (way.exchange, way.queue)
    assert not letter.redelivered
    assert letter.deaths == [death(way.queue, "rejected")]
    first = {
        "x-first-death-exchange": "",
        "x-first-death-queue": way.queue,
        "x-first-death-reason": "rejected",
    }
    assert first.items() <= letter.headers.items()
    assert letter.headers["mine"] == 1
    assert letter.properties.message_id == "m"
    assert letter.properties.priority == 3


def test_the_last_death_is_told_by_newer_brokers(letters, differs):
    way = letters()
    way.publish()
    way.reject()
    told = {key for key in way.letter().headers if key.startswith("x-last-death")}
    assert told == differs("headers of the last death")


def test_a_death_has_its_time(letters):
    way = letters()
    way.publish()
    way.reject()
    (first,) = way.letter().headers["x-death"]
    assert first["time"].tzinfo is not None


def test_what_expires_by_its_queue_is_dead_lettered(letters):
    way = letters(x_message_ttl=SOON)
    way.publish()
    assert way.letter().deaths == [death(way.queue, "expired")]


def test_what_expires_by_itself_loses_its_expiration_and_remembers_it(letters):
    way = letters()
    way.publish(expiration=str(SOON))
    letter = way.letter()
    assert letter.deaths == [death(way.queue, "expired", **{"original-expiration": str(SOON)})]
    assert letter.properties.expiration is None


def test_what_is_rejected_loses_its_expiration_too(letters):
    way = letters()
    way.publish(expiration="60000")
    way.reject()
    letter = way.letter()
    assert letter.deaths == [death(way.queue, "rejected", **{"original-expiration": "60000"})]
    assert letter.properties.expiration is None


def test_what_a_full_queue_drops_is_dead_lettered(letters):
    way = letters(x_max_length=1)
    way.publish(b"1")
    way.publish(b"2")
    letter = way.letter()
    assert letter.body == b"1"
    assert letter.deaths == [death(way.queue, "maxlen")]
    assert way.channel.drain(way.queue) == [b"2"]


def test_a_full_queue_may_nack_and_dead_letter_what_it_rejects(channel, connect, name):
    way = Letters(channel, name, "classic", {"x-max-length": 1, "x-overflow": "reject-publish-dlx"})
    assert isinstance(channel.published(b"1", name), amqp.Basic.Ack)
    assert isinstance(channel.published(b"2", name), amqp.Basic.Nack)
    letter = way.letter()
    assert letter.body == b"2"
    assert letter.deaths == [death(name, "maxlen")]


def test_a_full_queue_that_rejects_dead_letters_nothing(channel, name):
    way = Letters(channel, name, "classic", {"x-max-length": 1, "x-overflow": "reject-publish"})
    way.publish(b"1")
    way.publish(b"2")
    assert channel.quiet(0.05)
    assert channel.get(way.dead) is None


def test_letters_keep_their_order(letters):
    way = letters(x_message_ttl=SOON)
    for number in range(30):
        way.publish(str(number).encode())
    way.channel.holds(way.dead, 30)
    assert way.channel.drain(way.dead) == [str(number).encode() for number in range(30)]


# Keys


def test_a_letters_key_may_be_given(letters):
    way = letters(x_dead_letter_routing_key="given")
    way.publish()
    way.reject()
    letter = way.letter()
    assert letter.route == (way.exchange, "given")
    assert letter.deaths == [death(way.queue, "rejected")]


def test_an_empty_key_is_a_key(letters):
    way = letters(x_dead_letter_routing_key="")
    way.publish()
    way.reject()
    assert way.letter().route == (way.exchange, "")


def test_letters_keep_the_exchange_and_keys_they_were_published_with(letters, channel, name):
    way = letters()
    channel.bind(way.queue, "amq.topic", f"{name}.#")
    channel.publish(b"1", f"{name}.a", exchange="amq.topic", headers={"CC": [f"{name}.b"]})
    way.reject()
    letter = way.letter()
    assert letter.route == (way.exchange, f"{name}.a")
    assert letter.deaths == [
        death(way.queue, "rejected", exchange="amq.topic", keys=[f"{name}.a", f"{name}.b"])
    ]


def test_letters_follow_cc_where_no_key_is_given(letters, channel, name):
    way = letters()
    copy = channel.queue(exclusive=True)
    channel.bind(copy, way.exchange, "copy")
    channel.publish(b"1", way.queue, headers={"CC": ["copy"]})
    way.reject()
    assert way.letter().headers["CC"] == ["copy"]
    assert way.letter(copy).body == b"1"


def test_a_given_key_ends_cc(letters, channel, differs):
    way = letters(x_dead_letter_routing_key="given")
    copy = channel.queue(exclusive=True)
    channel.bind(copy, way.exchange, "copy")
    channel.publish(b"1", way.queue, headers={"CC": ["copy"]})
    way.reject()
    letter = way.letter()
    assert ("CC" in letter.headers) is differs("a letter with a given key keeps its CC header")
    assert letter.deaths == [death(way.queue, "rejected", keys=[way.queue, "copy"])]
    assert channel.get(copy) is None


def test_bcc_is_not_told_and_not_followed(letters, channel, differs):
    way = letters()
    copy = channel.queue(exclusive=True)
    channel.bind(copy, way.exchange, "copy")
    channel.publish(b"1", way.queue, headers={"BCC": ["copy"]})
    way.reject()
    letter = way.letter()
    assert "BCC" not in letter.headers
    assert letter.deaths == [death(way.queue, "rejected")]
    assert (channel.get(copy) is not None) is differs("letters follow BCC")


# Again and again


def test_a_story_that_a_client_publishes_again(letters, channel, differs):
    way = letters()
    way.publish()
    for _ in range(3):
        way.reject()
        letter = way.letter()
        channel.publish(letter.body, way.queue, headers=letter.headers)
    way.reject()
    count = differs("x-death count after 4 rejections of a message its client publishes again")
    assert way.letter().deaths == [death(way.queue, "rejected", count=count)]


def test_another_queue_adds_a_death_in_front(letters, channel):
    first, second = letters(), letters()
    channel.bind(second.queue, first.exchange, "#")
    first.publish()
    first.reject()
    second.reject()
    letter = second.letter()
    assert letter.deaths == [
        death(second.queue, "rejected", exchange=first.exchange, keys=[first.queue]),
        death(first.queue, "rejected"),
    ]
    assert letter.headers["x-first-death-queue"] == first.queue


def test_deaths_are_told_apart_by_queue_and_reason_and_the_last_comes_first(
    letters, channel, differs
):
    one, two = letters(), letters()
    for source, target in ((one, two), (two, one)):
        channel.unbind(source.dead, source.exchange, "#")
        channel.bind(target.queue, source.exchange, "#")
    one.publish(expiration=str(SOON))
    channel.holds(one.queue, 0)
    for way in (two, one, two, one):
        way.reject()
    channel.holds(two.queue, 1)
    message = channel.get(two.queue)
    key = [one.queue]
    names = ["one rejected", "two rejected", "one expired"]
    deaths = [
        death(one.queue, "rejected", exchange=two.exchange, keys=key, count=2),
        death(two.queue, "rejected", exchange=one.exchange, keys=key, count=2),
        death(one.queue, "expired", **{"original-expiration": str(SOON)}),
    ]
    order = [names[deaths.index(each)] for each in message.deaths]
    assert order == differs("x-death after: one expired, two, one, two, one rejected")
    assert message.headers["x-first-death-reason"] == "expired"


def test_a_cycle_without_a_rejection_is_dropped(letters, channel):
    way = letters(x_message_ttl=SOON)
    channel.unbind(way.dead, way.exchange, "#")
    channel.bind(way.queue, way.exchange, "#")
    way.publish()
    assert channel.holds(way.queue, 0)
    assert channel.quiet(2 * SOON / 1000)
    assert channel.ready(way.queue) == 0


def test_a_cycle_over_two_queues_is_dropped(letters, channel):
    first, second = letters(x_message_ttl=SOON), letters(x_message_ttl=SOON)
    channel.bind(second.queue, first.exchange, "#")
    channel.bind(first.queue, second.exchange, "#")
    first.publish()
    first.letter()
    second.letter()
    assert channel.quiet(3 * SOON / 1000)
    assert (channel.ready(first.dead), channel.ready(second.dead)) == (0, 0)


def test_a_cycle_with_a_rejection_goes_on_and_counts(letters, channel):
    way = letters()
    channel.unbind(way.dead, way.exchange, "#")
    channel.bind(way.queue, way.exchange, "#")
    way.publish()
    for _ in range(4):
        way.reject()
    channel.holds(way.queue, 1)
    assert channel.get(way.queue).deaths == [death(way.queue, "rejected", count=4)]


# Nowhere


def test_without_a_dead_letter_exchange_what_is_rejected_is_gone(channel, queue):
    channel.publish(b"1", queue)
    channel.reject(channel.get(queue).tag, requeue=False)
    channel.sync()
    assert channel.get(queue) is None


def test_a_dead_letter_exchange_that_is_not_there_drops(letters, channel):
    way = letters()
    channel.call(amqp.Exchange.Delete(exchange=way.exchange))
    way.publish()
    way.reject()
    channel.sync()
    assert channel.ready(way.queue) == 0
    channel.exchange(way.exchange, "topic")
    channel.bind(way.dead, way.exchange, "#")
    way.publish(b"2")
    way.reject()
    assert way.letter().body == b"2"


def test_the_default_exchange_may_be_the_dead_letter_exchange(channel, queue, name, kind, connect):
    channel.queue(
        name,
        arguments={
            "x-queue-type": kind,
            "x-dead-letter-exchange": "",
            "x-dead-letter-routing-key": queue,
        },
    )
    channel.publish(b"1", name)
    channel.holds(name, 1)
    channel.reject(channel.get(name).tag, requeue=False)
    channel.holds(queue, 1)
    assert channel.get(queue).deaths == [death(name, "rejected")]
    connect().channel().call(amqp.Queue.Delete(queue=name))


def test_deleting_or_purging_a_queue_dead_letters_nothing(letters, channel):
    way = letters()
    way.publish()
    way.publish()
    channel.holds(way.queue, 2)
    channel.call(amqp.Queue.Purge(queue=way.queue))
    way.publish()
    channel.call(amqp.Queue.Delete(queue=way.queue))
    assert channel.quiet(0.05)
    assert channel.get(way.dead) is None


def test_letters_are_never_returned_as_mandatory(letters, channel):
    way = letters()
    channel.unbind(way.dead, way.exchange, "#")
    way.publish(mandatory=True)
    way.reject()
    assert channel.quiet(0.05)


# At least once


def test_at_least_once_letters_arrive_too(channel, connect, name):
    way = Letters(
        channel,
        name,
        "quorum",
        {"x-dead-letter-strategy": "at-least-once", "x-overflow": "reject-publish"},
    )
    for number in range(10):
        way.publish(str(number).encode())
    channel.holds(name, 10)
    channel.qos(10)
    channel.consume(name, "mine")
    channel.deliveries(10)
    channel.nack(10, multiple=True, requeue=False)
    channel.holds(way.dead, 10)
    first = channel.get(way.dead)
    assert first.body == b"0"
    assert first.deaths == [death(name, "rejected")]
    channel.call(amqp.Queue.Delete(queue=name))
