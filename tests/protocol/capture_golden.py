"""Writes the golden messages: what a real Celery producer puts on the wire.

Run it by hand when the pinned Celery changes, and read the difference before committing it:

    python tests/protocol/capture_golden.py

Messages go through kombu's in-memory transport: the bytes and headers a broker would get.
"""

from __future__ import annotations

import base64
import json
import sys
import uuid
from datetime import UTC, date, datetime, time
from decimal import Decimal
from pathlib import Path

import celery
import kombu
from celery import Celery, chain, chord, group

GOLDEN = Path(__file__).parent / "golden"
WHEN = datetime(2031, 5, 6, 7, 8, 9, 250_000, UTC)


def make_app() -> Celery:
    app = Celery("golden", broker="memory://", backend="cache+memory://", set_as_current=False)
    app.conf.task_default_queue = "golden"
    return app


def scenarios(app: Celery) -> dict:
    def sig(name: str, *args, **kwargs):
        return app.signature(f"shop.{name}", args=args, kwargs=kwargs)

    def ids(*signatures):
        return [each.set(task_id=f"member-{number}") for number, each in enumerate(signatures)]

    def send(**options):
        options = {"task_id": "golden-id", "args": [1, "two"]} | options
        return lambda: app.send_task("shop.add", **options)

    return {
        "plain": send(),
        "no_arguments": send(args=[]),
        "kwargs": send(kwargs={"user": {"name": "Zoë", "tags": ["a", None, True]}, "n": 1.5}),
        "eta": send(eta=WHEN),
        "eta_naive": send(eta=WHEN.replace(tzinfo=None)),
        "countdown": send(countdown=3600),
        "expires_at": send(expires=WHEN),
        "expires_in": send(expires=60.5),
        "link": send(link=[sig("log", 1).set(task_id="link-id")]),
        "link_error": send(link_error=[sig("alarm", 2).set(task_id="errback-id")]),
        "timelimit": send(time_limit=20, soft_time_limit=10.5),
        "stamps": lambda: sig("add", 1, "two").apply_async(
            task_id="golden-id", stamped_headers=["customer"], customer="acme"
        ),
        "zlib": send(compression="zlib"),
        "bzip2": send(compression="bzip2"),
        "lzma": send(compression="lzma"),
        "types": send(
            args=[
                WHEN,
                datetime(2031, 1, 2, 3, 4, 5),  # noqa: DTZ001 - a naive one on purpose
                date(2031, 1, 2),
                time(3, 4, 5, 6),
                Decimal("1.10"),
                uuid.UUID("12345678-1234-4234-8234-123456789abc"),
                b"text",
                b"\xff\xfe",
            ]
        ),
        "numbers": send(args=[2**80, -(2**70), 0.1, float("inf"), 1e300]),
        "ignore_result": send(ignore_result=True),
        "reply_to": send(reply_to="golden-replies"),
        "priority": send(priority=7),
        "headers": send(headers={"tenant": "acme", "attempt": 3}),
        "shadow": send(shadow="shop.add-shown"),
        "retry": send(retries=2),
        "chain": lambda: chain(*ids(sig("a", 1), sig("b"), sig("c"))).apply_async(),
        "group": lambda: group(ids(sig("a", 1), sig("b", 2))).apply_async(task_id="group-id"),
        "chord": lambda: chord(
            group(ids(sig("a", 1), sig("b", 2))), sig("total").set(task_id="body-id")
        ).apply_async(),
    }


def drained(app: Celery) -> list[dict]:
    """Take every message that was published, as the transport holds it."""
    messages = []
    with app.connection_for_read() as connection:
        channel = connection.default_channel
        while channel._size("golden"):
            raw = channel._get("golden")
            properties = raw["properties"]
            messages.append(
                {
                    "headers": raw["headers"],
                    "content_type": raw["content-type"],
                    "content_encoding": raw["content-encoding"],
                    "properties": {
                        name: properties[name]
                        for name in ("correlation_id", "reply_to", "delivery_mode", "priority")
                        if name in properties
                    },
                    "body_base64": base64.b64encode(_body(raw, properties)).decode(),
                }
            )
    return messages


def _body(raw: dict, properties: dict) -> bytes:
    if properties.get("body_encoding") == "base64":
        return base64.b64decode(raw["body"])
    return raw["body"].encode() if isinstance(raw["body"], str) else raw["body"]


def main() -> None:
    app = make_app()
    with app.connection_for_write() as connection:
        app.amqp.queues["golden"].bind(connection.default_channel).declare()
    GOLDEN.mkdir(exist_ok=True)
    for name, send in scenarios(app).items():
        send()
        golden = {
            "celery": celery.__version__,
            "kombu": kombu.__version__,
            "messages": drained(app),
        }
        path = GOLDEN / f"{name}.json"
        path.write_text(json.dumps(golden, indent=1, sort_keys=True) + "\n")
        print(path.name, len(golden["messages"]), file=sys.stderr)


if __name__ == "__main__":
    main()
