from __future__ import annotations

import pytest

from amqflow.abc import DeadReason
from amqflow.errors import TopologyError
from amqflow.topology import (
    AppNames,
    Binding,
    BrokerFacts,
    DeadLetter,
    Exchange,
    Queue,
    QueueType,
    Topology,
)
from amqflow.topology.model import DEFAULT_PARK


def test_a_queue_declares_the_brokers_own_arguments_and_units():
    queue = Queue(
        "email",
        QueueType.CLASSIC,
        max_priority=10,
        message_ttl=1.5,
        expires=60,
        max_length=7,
        dead_letter=DeadLetter("dead", "email"),
        single_active_consumer=True,
        arguments={"x-queue-leader-locator": "balanced"},
    )
    assert queue.declare_arguments() == {
        "x-queue-type": "classic",
        "x-max-priority": 10,
        "x-message-ttl": 1500,
        "x-expires": 60_000,
        "x-max-length": 7,
        "x-dead-letter-exchange": "dead",
        "x-dead-letter-routing-key": "email",
        "x-single-active-consumer": True,
        "x-queue-leader-locator": "balanced",
    }


def test_zero_is_set_and_none_is_not():
    assert Queue("q", message_ttl=0, max_length=0).declare_arguments() == {
        "x-queue-type": "quorum",
        "x-message-ttl": 0,
        "x-max-length": 0,
    }


def test_a_stream_keeps_its_age_in_the_brokers_text():
    queue = Queue("log", QueueType.STREAM, max_age=86400)
    assert queue.declare_arguments() == {"x-queue-type": "stream", "x-max-age": "86400s"}


@pytest.mark.parametrize(
    ("make", "says"),
    [
        (lambda: Queue(""), "without a name"),
        (lambda: Queue("amq.mine"), "belong to the broker"),
        (lambda: Queue("é" * 128), "256 bytes; AMQP allows 255"),
        (lambda: Queue("\ud800"), "cannot be written as UTF-8"),
        (lambda: Queue("a\nb"), "line break"),
        (lambda: Exchange("amq.topic2"), "exchange 'amq.topic2'"),
        (lambda: Queue("q", exclusive=True), "quorum queue has no exclusive"),
        (lambda: Queue("q", durable=False), "always durable"),
        (lambda: Queue("q", QueueType.CLASSIC, delivery_limit=5), "no delivery_limit"),
        (lambda: Queue("q", QueueType.STREAM, message_ttl=1), "stream queue has no message_ttl"),
        (lambda: Queue("q", QueueType.CLASSIC, max_priority=256), "takes 1 to 255"),
        (lambda: Queue("q", QueueType.CLASSIC, max_priority=0), "max_priority is 0"),
        (lambda: Queue("q", message_ttl=-1), "cannot be negative"),
        (lambda: Queue("q", expires=0), "1 ms or more"),
        (lambda: Queue("q", message_ttl=315_360_001), "at most 3650 days"),
        (lambda: Queue("q", dead_letter=DeadLetter("d", at_least_once=True)), "reject-publish"),
        (
            lambda: Queue(
                "q",
                QueueType.CLASSIC,
                overflow="reject-publish",
                dead_letter=DeadLetter("d", at_least_once=True),
            ),
            "needs a quorum queue",
        ),
        (lambda: Queue("q", arguments={"x-message-ttl": 5}), "write message_ttl instead"),
        (lambda: Binding("", "q"), "default exchange takes no bindings"),
        (lambda: Binding("e", "q", routing_key="k" * 256), "256 bytes"),
        (lambda: AppNames("x" * 250), "AMQP allows 255"),
        (lambda: AppNames(""), "needs a name"),
    ],
)
def test_what_a_broker_would_refuse_is_refused_here(make, says):
    with pytest.raises(TopologyError, match=says):
        make()


def test_merging_keeps_equal_parts_once():
    one = Topology((Exchange("e", why="a"),), (Queue("q"),), (Binding("e", "q"),))
    both = one.merge(Topology((Exchange("e", why="b"),), (Queue("r"),), (Binding("e", "q"),)))
    assert [queue.name for queue in both.queues] == ["q", "r"]
    assert len(both.exchanges) == 1
    assert len(both.bindings) == 1
    assert both.queue("r").name == "r"
    assert both.bindings_by_source["e"][0].destination == "q"


def test_merging_names_the_argument_and_both_values():
    one = Topology(queues=(Queue("email", max_length=5),))
    with pytest.raises(TopologyError, match=r"queue 'email'.*max_length: 5 and not set"):
        one.merge(Topology(queues=(Queue("email"),)))
    one = Topology(queues=(Queue("email", arguments={"x-a": 1}),))
    with pytest.raises(TopologyError, match="different x-a: 1 and 2"):
        one.merge(Topology(queues=(Queue("email", arguments={"x-a": 2}),)))
    with pytest.raises(TopologyError, match="different type: quorum and classic"):
        Topology(queues=(Queue("q"), Queue("q", QueueType.CLASSIC)))


def test_an_unknown_name_says_which_there_are():
    with pytest.raises(TopologyError, match="no queue 'c'; it has: a, b"):
        Topology(queues=(Queue("b"), Queue("a"))).queue("c")


def test_parts_are_hashable_values():
    assert len({Queue("q", arguments={"x-a": []}), Queue("q", arguments={"x-a": []})}) == 1


def test_what_the_caller_chose_is_not_parked_by_default():
    assert not {DeadReason.EXPIRED, DeadReason.REVOKED} & DEFAULT_PARK
    assert DeadReason.POISON in DEFAULT_PARK


@pytest.mark.parametrize(
    ("version", "limit", "strict", "lanes"),
    [
        ("3.10.8", None, False, False),
        ("3.13.7-rc.1", None, False, False),
        ("4.0.5", -1, False, True),
        ("4.2.0", -1, False, True),
        ("4.3.0-alpha+3", -1, True, False),
        ("5.0", -1, True, False),
    ],
)
def test_the_version_decides_what_the_broker_knows(version, limit, strict, lanes):
    facts = BrokerFacts.parse(version)
    assert facts.no_delivery_limit == limit
    assert facts.quorum_priorities is strict
    assert facts.expires_by_priority is lanes


@pytest.mark.parametrize("version", ["3.9.29", "banana", "", "4"])
def test_a_version_too_old_or_unreadable_is_refused(version):
    with pytest.raises(TopologyError):
        BrokerFacts.parse(version)
