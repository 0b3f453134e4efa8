"""Messages of a real Celery 5.7 producer (see capture_golden.py), read field by field."""

from __future__ import annotations

import base64
import json
import uuid
from dataclasses import fields
from datetime import UTC, date, datetime, time
from decimal import Decimal
from pathlib import Path

import kombu.utils.json as kombu_json
import pytest

from amqflow.protocol import Envelope, TaskMessage, decode, encode

GOLDEN = Path(__file__).parent / "golden"
NAMES = sorted(path.stem for path in GOLDEN.glob("*.json"))
WHEN = datetime(2031, 5, 6, 7, 8, 9, 250_000, UTC)

#: What the wire says differently although it means the same: repr texts, sender, reply queue.
VARYING = {"argsrepr", "kwargsrepr", "origin", "reply_to"}


def envelopes(name: str) -> list[Envelope]:
    captured = json.loads((GOLDEN / f"{name}.json").read_text())["messages"]
    return [
        Envelope(
            body=base64.b64decode(raw["body_base64"]),
            headers=raw["headers"],
            content_type=raw["content_type"],
            content_encoding=raw["content_encoding"],
            **raw["properties"],
        )
        for raw in captured
    ]


def only(name: str) -> TaskMessage:
    (envelope,) = envelopes(name)
    return decode(envelope)


def set_fields(message: TaskMessage) -> dict:
    """Return the fields that differ from those of the plainest message."""
    plainest = TaskMessage("golden-id", "shop.add", args=[1, "two"])
    plainest.root_id = plainest.correlation_id = "golden-id"
    plainest.priority, plainest.stamps = 0, {}
    return {
        field.name: getattr(message, field.name)
        for field in fields(TaskMessage)
        if field.name not in VARYING
        and getattr(message, field.name) != getattr(plainest, field.name)
    }


def test_every_scenario_is_there():
    assert len(NAMES) == 26


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("plain", {}),
        ("no_arguments", {"args": []}),
        ("kwargs", {"kwargs": {"user": {"name": "Zoë", "tags": ["a", None, True]}, "n": 1.5}}),
        ("eta", {"eta": WHEN.timestamp()}),
        ("eta_naive", {"eta": WHEN.timestamp()}),
        ("expires_at", {"expires": WHEN.timestamp()}),
        ("timelimit", {"time_limit": 20, "soft_time_limit": 10.5}),
        ("stamps", {"stamps": {"customer": "acme"}, "stamped_headers": ["customer"]}),
        ("zlib", {"extra": {"compression": "application/x-gzip"}}),
        ("bzip2", {"extra": {"compression": "application/x-bz2"}}),
        ("lzma", {"extra": {"compression": "application/x-lzma"}}),
        ("numbers", {"args": [2**80, -(2**70), 0.1, float("inf"), 1e300]}),
        ("ignore_result", {"ignore_result": True}),
        ("reply_to", {}),
        ("priority", {"priority": 7}),
        ("headers", {"extra": {"tenant": "acme", "attempt": 3}}),
        ("shadow", {"shadow": "shop.add-shown"}),
        ("retry", {"retries": 2}),
        (
            "types",
            {
                "args": [
                    WHEN,
                    datetime(2031, 1, 2, 3, 4, 5),  # noqa: DTZ001 - a naive one was sent
                    date(2031, 1, 2),
                    time(3, 4, 5, 6),
                    Decimal("1.10"),
                    uuid.UUID("12345678-1234-4234-8234-123456789abc"),
                    b"text",
                    b"\xff\xfe",
                ]
            },
        ),
    ],
)
def test_a_message_of_celery_says(name, expected):
    assert set_fields(only(name)) == expected


def test_relative_times_are_moments():
    assert only("countdown").eta > datetime(2026, 1, 1, tzinfo=UTC).timestamp()
    assert only("expires_in").expires > datetime(2026, 1, 1, tzinfo=UTC).timestamp()


def test_where_replies_go():
    assert only("reply_to").reply_to == "golden-replies"


def test_what_only_people_read():
    message = only("plain")
    assert (message.argsrepr, message.kwargsrepr) == ("[1, 'two']", "{}")
    assert "@" in message.origin


def test_links():
    (link,) = only("link").callbacks
    assert (link["task"], link["args"], link["options"]["task_id"]) == ("shop.log", [1], "link-id")
    (errback,) = only("link_error").errbacks
    assert (errback["task"], errback["options"]["task_id"]) == ("shop.alarm", "errback-id")


def test_a_chain_holds_the_rest_last_step_first():
    message = only("chain")
    assert (message.id, message.task) == ("member-0", "shop.a")
    assert [step["task"] for step in message.chain] == ["shop.c", "shop.b"]


def test_members_of_a_group_know_their_index():
    messages = [decode(envelope) for envelope in envelopes("group")]
    assert [message.group_index for message in messages] == [0, 1]
    assert len({message.group for message in messages}) == 1


def test_members_of_a_chord_carry_its_body():
    messages = [decode(envelope) for envelope in envelopes("chord")]
    assert [message.group_index for message in messages] == [0, 1]
    assert {message.chord["task"] for message in messages} == {"shop.total"}


@pytest.mark.parametrize("name", NAMES)
def test_sent_again_it_is_the_same_message(name):
    for envelope in envelopes(name):
        message = decode(envelope)
        again = decode(encode(message))
        again.stamps = again.stamps or {}
        assert again == message


@pytest.mark.parametrize("name", NAMES)
def test_our_writing_of_it_has_only_headers_of_celery_that_mean_the_same(name):
    for envelope in envelopes(name):
        ours = encode(decode(envelope))
        for header, value in ours.headers.items():
            if header in {"eta", "expires"}:
                assert datetime.fromisoformat(value) == datetime.fromisoformat(
                    envelope.headers[header]
                ).replace(tzinfo=UTC)
            else:
                assert value == envelope.headers[header]
        if "compression" not in ours.headers:
            assert kombu_json.loads(ours.body) == kombu_json.loads(envelope.body)
