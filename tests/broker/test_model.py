"""The same steps on RabbitMQ and on the embedded broker, chosen by hypothesis: the same answers."""

from dataclasses import dataclass, field

import pamqp.commands as amqp
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.broker.client import Channel, Connection
from tests.broker.test_fuzz import fuzz

# Queues whose behaviour does not depend on time.
KINDS = {
    "plain": {},
    "short": {"x-max-length": 3},
    "narrow": {"x-max-length-bytes": 12},
    "refusing": {"x-max-length": 3, "x-overflow": "reject-publish"},
    "refusing and dead-lettering": {"x-max-length": 3, "x-overflow": "reject-publish-dlx"},
    "ranked": {"x-max-priority": 3},
    "ranked and short": {"x-max-priority": 3, "x-max-length": 3},
}

STEPS = st.one_of(
    st.tuples(
        st.just("publish"),
        st.integers(1, 4),
        st.sampled_from([None, 0, 1, 3, 9]),
        st.integers(1, 5),
    ),
    st.tuples(st.just("get")),
    st.tuples(st.just("get")),
    st.tuples(st.sampled_from(["ack", "nack", "reject", "drop"]), st.integers(0, 5), st.booleans()),
    st.tuples(st.just("recover")),
    st.tuples(st.just("reopen")),
    st.tuples(st.just("purge")),
    st.tuples(st.just("consume"), st.integers(0, 3), st.booleans()),
)


@dataclass
class Player:
    """One of the brokers, doing the steps."""

    connection: Connection
    name: str
    kind: str
    channel: Channel = field(init=False)
    held: list[int] = field(default_factory=list)
    number: int = 0

    def __post_init__(self) -> None:
        self.channel = self.connection.channel().confirm()
        self.dead = f"{self.name}-dead"
        self.channel.queue(self.dead, exclusive=True)
        self.channel.queue(
            self.name,
            exclusive=True,
            arguments=KINDS[self.kind]
            | {"x-dead-letter-exchange": "", "x-dead-letter-routing-key": self.dead},
        )

    def do(self, step: tuple) -> object:
        """Do a step; return what the broker answered."""
        verb, *arguments = step
        return getattr(self, verb)(*arguments)

    def publish(self, times: int, priority: int | None, size: int) -> list[str]:
        answers = []
        for _ in range(times):
            self.number += 1
            body = f"{self.number}".rjust(size, "-").encode()
            answers.append(self.channel.published(body, self.name, priority=priority).name)
        return answers

    def get(self) -> object:
        message = self.channel.get(self.name)
        if message is None:
            return None
        self.held.append(message.tag)
        return message.tag, message.body, message.redelivered, message.method.message_count

    def _settle(self, which: int, *, multiple: bool, method) -> None:
        if not self.held:
            return
        tag = self.held[which % len(self.held)]
        method(tag, multiple)
        self.held = [each for each in self.held if each != tag and not (multiple and each < tag)]
        self.channel.sync()

    def ack(self, which: int, multiple: bool) -> None:
        self._settle(which, multiple=multiple, method=lambda t, m: self.channel.ack(t, multiple=m))

    def nack(self, which: int, multiple: bool) -> None:
        self._settle(which, multiple=multiple, method=lambda t, m: self.channel.nack(t, multiple=m))

    def drop(self, which: int, multiple: bool) -> None:
        self._settle(
            which,
            multiple=multiple,
            method=lambda t, m: self.channel.nack(t, multiple=m, requeue=False),
        )

    def reject(self, which: int, _multiple: bool) -> None:
        self._settle(which, multiple=False, method=lambda t, _: self.channel.reject(t))

    def recover(self) -> None:
        self.channel.recover()
        self.held = []

    def reopen(self) -> None:
        self.channel.close()
        del self.connection.channels[self.channel.number]
        self.channel = self.connection.channel().confirm()
        self.held = []

    def purge(self) -> int:
        return self.channel.call(amqp.Queue.Purge(queue=self.name)).message_count

    def consume(self, prefetch: int, no_ack: bool) -> list[tuple[bytes, bool]]:
        """Take up to `prefetch` messages through a consumer and leave them outstanding."""
        ready = self.channel.ready(self.name)
        number = ready if no_ack else min(prefetch or ready, ready)
        self.channel.qos(prefetch)
        tag = self.channel.consume(self.name, no_ack=no_ack)
        messages = self.channel.deliveries(number)
        self.channel.cancel(tag)
        self.channel.inbox.clear()
        if not no_ack:
            self.held += [message.tag for message in messages]
        return [(message.body, message.redelivered) for message in messages]

    def rest(self) -> list[bytes]:
        """Take and return what is left in the queue."""
        return self.channel.drain(self.name)

    def letters(self, number: int) -> object:
        """Return the dead letters with their reasons, when there are `number`."""
        self.channel.holds(self.dead, number)
        letters = []
        while message := self.channel.get(self.dead, no_ack=True):
            letters.append(
                (message.body, [(death["reason"], death["count"]) for death in message.deaths])
            )
        return letters

    def end(self) -> None:
        for queue in (self.name, self.dead):
            self.channel.call(amqp.Queue.Delete(queue=queue))
        self.channel.close()
        del self.connection.channels[self.channel.number]


@pytest.fixture
def players(_rabbitmq, _embedded):
    """A connection to each broker, the rabbitmq of the resolver first."""
    connections = _rabbitmq.connect(), _embedded.connect()
    yield connections
    for connection in connections:
        connection.drop()


@fuzz(50)
@given(kind=st.sampled_from(sorted(KINDS)), steps=st.lists(STEPS, min_size=4, max_size=25))
def test_both_brokers_answer_alike(players, name, kind, steps):
    one, two = (Player(connection, name, kind) for connection in players)
    for number, step in enumerate(steps):
        answers = one.do(step), two.do(step)
        assert answers[0] == answers[1], f"step {number}, {step}, on a {kind} queue"
    assert one.rest() == two.rest()
    letters = two.letters(two.channel.ready(two.dead))
    assert one.letters(len(letters)) == letters
    one.end()
    two.end()


WORDS = st.lists(st.sampled_from(["a", "b", "", "*", "#"]), min_size=0, max_size=4).map(".".join)
KEYS = st.lists(st.sampled_from(["a", "b", ""]), min_size=0, max_size=5).map(".".join)


@fuzz(60)
@given(patterns=st.sets(WORDS, min_size=1, max_size=4), key=KEYS)
def test_both_brokers_route_topics_alike(players, name, patterns, key):
    routed = []
    for connection in players:
        channel = connection.channel()
        channel.exchange(name, "topic")
        queues = {pattern: channel.queue(exclusive=True) for pattern in sorted(patterns)}
        for pattern, queue in queues.items():
            channel.bind(queue, name, pattern)
        channel.publish(b"1", key, exchange=name)
        routed.append({pattern for pattern, queue in queues.items() if channel.drain(queue)})
        channel.call(amqp.Exchange.Delete(exchange=name))
        for queue in queues.values():
            channel.call(amqp.Queue.Delete(queue=queue))
        channel.close()
        del connection.channels[channel.number]
    assert routed[0] == routed[1]
