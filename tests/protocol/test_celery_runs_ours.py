"""A real Celery 5.7 worker runs what we encode, moved headers and all."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from decimal import Decimal

import pytest
from celery import Celery
from celery.worker.request import Request
from kombu.message import Message

from amqflow.protocol import Envelope, TaskMessage, encode

WHEN = datetime(2031, 5, 6, 7, 8, 9, 250_000, UTC)


@pytest.fixture
def app():
    app = Celery("ours", broker="memory://", backend=None, set_as_current=False)

    @app.task(name="shop.show", bind=True, shared=False)
    def show(self, *args, **kwargs):
        request = self.request
        return {
            "args": args,
            "kwargs": kwargs,
            "id": request.id,
            "root_id": request.root_id,
            "retries": request.retries,
            "timelimit": request.timelimit,
            "callbacks": request.callbacks,
        }

    app.finalize()
    return app


def delivered(envelope: Envelope) -> Message:
    """What kombu makes of the envelope when it comes from a broker."""
    return Message(
        body=envelope.body,
        content_type=envelope.content_type,
        content_encoding=envelope.content_encoding,
        headers=envelope.headers,
        properties={"correlation_id": envelope.correlation_id, "reply_to": envelope.reply_to},
        accept={"application/json"},
    )


def run(app: Celery, message: TaskMessage, **options) -> dict:
    """Run it as Celery's worker does: strategy's Request, then the traced task."""
    arrived = delivered(encode(message, **options))
    assert not arrived.errors
    request = Request(
        arrived,
        app=app,
        task=app.tasks[message.task],
        headers=arrived.headers,
        body=arrived.body,
        decoded=False,
    )
    state = request.execute()
    assert not isinstance(state, Exception)
    return state


def test_the_smallest_message(app):
    assert run(app, TaskMessage("an-id", "shop.show")) == {
        "args": (),
        "kwargs": {},
        "id": "an-id",
        "root_id": "an-id",
        "retries": 0,
        "timelimit": None,
        "callbacks": None,
    }


def test_arguments_of_every_type(app):
    args = [WHEN, WHEN.date(), Decimal("1.10"), b"\xff", 2**70, "Zoë", [None, True]]
    shown = run(app, TaskMessage("an-id", "shop.show", args=args, kwargs={"n": {"m": 1.5}}))
    assert list(shown["args"]) == args
    assert shown["kwargs"] == {"n": {"m": 1.5}}


@pytest.mark.parametrize("compression", ["zlib", "bzip2", "lzma"])
def test_compressed_bodies(app, compression):
    args = ["x" * 10_000]
    shown = run(app, TaskMessage("i", "shop.show", args=args), compression=compression)
    assert list(shown["args"]) == args


def test_headers_that_moved_into_the_body_disturb_nothing(app):
    message = TaskMessage(
        "an-id",
        "shop.show",
        args=[1],
        root_id="the-root",
        retries=3,
        time_limit=20,
        soft_time_limit=10,
        eta=WHEN.timestamp(),
        expires=WHEN.timestamp(),
        extra={"large": "x" * 200_000, "amqflow-epoch": 2, "exact": 0.1},
    )
    assert b'"amqflow": {"headers":' in encode(message).body
    shown = run(app, message)
    assert (shown["args"], shown["root_id"], shown["retries"]) == ((1,), "the-root", 3)
    assert list(shown["timelimit"]) == [20, 10]


def test_times_are_read_as_the_same_moments(app):
    message = TaskMessage("i", "shop.show", eta=WHEN.timestamp(), expires=WHEN.timestamp() + 1)
    arrived = delivered(encode(message))
    request = Request(
        arrived,
        app=app,
        task=app.tasks["shop.show"],
        headers=arrived.headers,
        body=arrived.body,
        decoded=False,
    )
    assert request.eta == WHEN
    assert (request.expires - WHEN).total_seconds() == 1


def test_the_body_is_the_json_kombu_writes():
    body = json.loads(encode(TaskMessage("i", "t", args=[1], kwargs={"a": "é"})).body)
    nothing = {"callbacks": None, "errbacks": None, "chain": None, "chord": None}
    assert body == [[1], {"a": "é"}, nothing]
