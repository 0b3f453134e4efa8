"""What survives when a message is published again, and what must not."""

from __future__ import annotations

from dataclasses import fields, replace
from datetime import UTC, datetime

from amqflow.protocol import (
    Envelope,
    dead_headers,
    encode,
    headers,
    replayable,
    republishable,
    republished,
)
from amqflow.protocol.message import TaskMessage

BROKERS = {
    "x-death": [{"queue": "q", "count": 1}],
    "x-first-death-exchange": "e",
    "x-first-death-queue": "q",
    "x-first-death-reason": "expired",
    "x-last-death-exchange": "e",
    "x-last-death-queue": "q",
    "x-last-death-reason": "expired",
    "x-delivery-count": 2,
    "x-acquired-count": 3,
    "CC": ["a"],
    "BCC": ["b"],
}


def test_the_broker_s_headers_are_not_republished():
    kept = {"task": "t", "x-tenant": "acme", headers.EPOCH: 1}
    mixed = BROKERS | kept
    assert republishable(mixed) == kept
    assert mixed.keys() == BROKERS.keys() | kept.keys()


def test_a_moment_of_a_rate_limit_is_for_one_delivery():
    """A retry, a replay, a moved copy and a call that passes its headers on ask anew."""
    mark = {headers.RATE: {"start": "2031-01-01T00:00:00+00:00", "epoch": 0, "attempt": 0}}
    delivered = Envelope(b"", {"task": "t", **mark})
    assert headers.RATE not in republishable(delivered.headers)
    assert headers.RATE not in replayable(delivered.headers)
    assert headers.RATE not in republished(delivered).headers
    assert headers.RATE not in encode(TaskMessage("i", "t", extra=mark)).headers
    assert republished(delivered, **mark).headers == delivered.headers


def test_no_headers_are_none():
    assert republishable(None) == replayable(None) == {}


def test_a_replay_carries_nothing_of_the_death_but_where_it_belongs():
    kept = {"task": "t", headers.EPOCH: 1}
    dead = dead_headers(
        "failed", time=1.0, worker="w", queue="q", exchange="e", routing_key="k", traceback="x"
    )
    parked = kept | BROKERS | dead | {headers.REDELIVERED: 1}
    assert replayable(parked) == kept | {
        headers.EXCHANGE: "e",
        headers.ROUTING_KEY: "k",
        headers.QUEUE: "q",
    }


def test_a_copy_differs_in_what_must_not_be_kept_and_nothing_else():
    delivered = Envelope(
        body=b"x",
        headers={"task": "t", **BROKERS},
        content_type="a",
        content_encoding="b",
        delivery_mode=1,
        priority=3,
        correlation_id="c",
        reply_to="r",
        expiration="5000",
        message_id="m",
        timestamp=datetime(2031, 1, 1, tzinfo=UTC),
        type="t",
        user_id="guest",
        app_id="app",
    )
    assert all(getattr(delivered, field.name) for field in fields(Envelope))
    expected = replace(
        delivered, headers={"task": "t", headers.EPOCH: 2}, user_id=None, expiration=None
    )
    assert republished(delivered, **{headers.EPOCH: 2}) == expected
    assert delivered.expiration == "5000"
    assert headers.EPOCH not in delivered.headers


def test_a_fresh_message_is_republished_as_it_is():
    envelope = encode(TaskMessage("i", "t", priority=2, timestamp=5.0))
    assert republished(envelope) == envelope
    assert republished(envelope).headers is not envelope.headers
