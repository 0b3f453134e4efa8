from __future__ import annotations

import pytest

from amqflow.provision.mismatch import describe
from amqflow.topology import Exchange, Queue, QueueType

# What RabbitMQ 3.10.8 says, as the transport hands it on.
TEXTS = {
    "inequivalent arg 'x-max-priority' for queue 'c' in vhost 'm': received the value '10' of "
    "type 'byte' but current is none": ("x-max-priority", "declared '10'", "has not set"),
    "inequivalent arg 'x-delivery-limit' for queue 'c' in vhost 'm': received '24' but current "
    "is '23'": ("x-delivery-limit", "declared '24'", "has '23'"),
    "inequivalent arg 'x-dead-letter-exchange' for queue 'c' in vhost 'm': received none but "
    "current is the value 'x' of type 'longstr'": (
        "x-dead-letter-exchange",
        "declared not set",
        "has 'x'",
    ),
    "inequivalent arg 'durable' for queue 'it's ' received 'a' in vhost 'm': received 'false' "
    "but current is 'true'": ("durable", "declared 'false'", "has 'true'"),
}


@pytest.mark.parametrize("text", TEXTS, ids=range(len(TEXTS)))
def test_the_brokers_words_become_argument_and_both_values(text):
    said = describe(Queue("c", QueueType.CLASSIC), f"declaring: PRECONDITION_FAILED - {text}")
    for part in ("queue 'c'", *TEXTS[text], "delete"):
        assert part in said


def test_an_argument_the_type_does_not_take():
    text = (
        "invalid arg 'x-max-priority' for queue 'q' in vhost 'm' of queue type rabbit_quorum_queue"
    )
    said = describe(Queue("q", max_priority=10), text)
    assert "does not take x-max-priority=10 on queue 'q' of type quorum" in said


def test_a_ladder_of_another_resolution_says_who_shares_it():
    text = (
        "inequivalent arg 'x-message-ttl' for queue 'amqflow.delay.0' in vhost 'm': received "
        "'500' but current is '100'"
    )
    said = describe(Queue("amqflow.delay.0", message_ttl=0.5), text)
    assert "shared by all applications" in said


def test_unknown_words_are_kept():
    assert "something new" in describe(Exchange("e"), "something new")
