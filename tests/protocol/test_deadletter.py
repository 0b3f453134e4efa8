"""Why a message died reads the same, whoever wrote it down."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from amqflow.abc import DeadReason, ExceptionInfo
from amqflow.protocol import (
    DeadLetter,
    TaskMessage,
    dead_headers,
    decode,
    encode,
    fingerprint,
    last_death,
    table_size,
)

TRACEBACK = """Traceback (most recent call last):
  File "/srv/a/amqflow/worker/execute.py", line 10, in run
    value = task(*args)
  File "/srv/a/shop/email.py", line 20, in send
    connect(host)
  File "/srv/a/shop/smtp.py", line 30, in connect
    raise OSError("no route")
OSError: no route
"""


def parked(**changes):
    given = {
        "reason": DeadReason.FAILED,
        "time": 1_900_000_000.25,
        "worker": "w1@host",
        "queue": "email",
        "exchange": "tasks",
        "routing_key": "email.send",
        "attempts": 4,
        "task": "shop.send",
        "exception": ExceptionInfo("OSError", "builtins", ("no route",), "no route"),
        "traceback": TRACEBACK,
    }
    return dead_headers(**(given | changes))


def death(queue: str, reason: str = "expired", **changes) -> dict:
    return {
        "count": 1,
        "reason": reason,
        "queue": queue,
        "time": datetime(2031, 1, 1, tzinfo=UTC),
        "exchange": "tasks",
        "routing-keys": ["email.send", "more"],
    } | changes


def test_what_a_worker_wrote_is_read_back():
    headers = encode(TaskMessage("an-id", "shop.send")).headers | parked()
    assert DeadLetter.read(headers) == DeadLetter(
        reason="failed",
        by_broker=False,
        task_id="an-id",
        task="shop.send",
        queue="email",
        exchange="tasks",
        routing_key="email.send",
        time=1_900_000_000.25,
        attempts=4,
        worker="w1@host",
        exception="builtins.OSError",
        exception_message="no route",
        traceback=TRACEBACK,
        fingerprint=fingerprint("shop.send", "builtins.OSError", TRACEBACK),
    )


def test_a_parked_message_is_still_a_task_message():
    envelope = encode(TaskMessage("an-id", "shop.send", args=[1]))
    envelope.headers |= parked()
    message = decode(envelope)
    assert message.args == [1]
    assert message.extra["amqflow-dead-reason"] == "failed"


def test_long_texts_are_bounded_and_a_traceback_keeps_its_end():
    huge = ExceptionInfo("E", "m", (), "x" * 10**6)
    headers = parked(exception=huge, traceback=TRACEBACK * 10**4)
    assert table_size(headers) < 20_000
    assert headers["amqflow-traceback"].endswith("OSError: no route\n")
    assert headers["amqflow-fingerprint"] == fingerprint("shop.send", "m.E", TRACEBACK)


@pytest.mark.parametrize("reason", list(DeadReason))
def test_every_reason_is_plain_text_on_the_wire(reason):
    value = parked(reason=reason)["amqflow-dead-reason"]
    assert type(value) is str
    assert DeadLetter.read({"amqflow-dead-reason": value}).reason == reason


@pytest.mark.parametrize(
    ("written", "read"),
    [
        ("delivery_limit", "poison"),
        ("expired", "expired"),
        ("maxlen", "maxlen"),
        ("rejected", "rejected"),
    ],
)
def test_the_broker_s_reasons_in_our_words(written, read):
    headers = {"id": "an-id", "task": "t", "retries": 2, "x-death": [death("email", written)]}
    assert DeadLetter.read(headers) == DeadLetter(
        reason=read,
        by_broker=True,
        task_id="an-id",
        task="t",
        queue="email",
        exchange="tasks",
        routing_key="email.send",
        time=datetime(2031, 1, 1, tzinfo=UTC).timestamp(),
        attempts=2,
        fingerprint=fingerprint("t", read),
    )


def test_the_first_address_wins_over_the_last_hop():
    headers = {
        "x-death": [death("email")],
        "amqflow-exchange": "orders",
        "amqflow-routing-key": "new",
    }
    letter = DeadLetter.read(headers)
    assert (letter.exchange, letter.routing_key) == ("orders", "new")


def test_hops_of_the_delay_ladder_are_no_deaths():
    ladder = [death(f"amqflow.delay.{level}") for level in range(3)]
    assert DeadLetter.read({"x-death": ladder}) is None
    assert last_death({"x-death": [*ladder, death("email"), death("older")]})["queue"] == "email"


def test_a_message_that_lives_is_no_dead_letter():
    assert DeadLetter.read(None) is None
    assert DeadLetter.read({}) is None
    assert DeadLetter.read(encode(TaskMessage("i", "t")).headers) is None


def test_a_worker_knows_more_than_the_broker():
    assert not DeadLetter.read(parked() | {"x-death": [death("email")]}).by_broker


NOISE = st.none() | st.integers() | st.text() | st.binary() | st.lists(st.integers())


@given(
    st.fixed_dictionaries({}, optional=dict.fromkeys([*parked(), "id", "task"], NOISE)),
    NOISE | st.lists(NOISE | st.dictionaries(st.sampled_from([*death("q")]), NOISE)),
)
def test_broken_headers_never_raise(headers, deaths):
    letter = DeadLetter.read(headers | {"x-death": deaths})
    assert letter is None or isinstance(letter.reason, str)


class TestFingerprint:
    def test_it_names_a_cause_not_a_line_a_folder_or_a_value(self):
        moved = TRACEBACK.replace("line 30", "line 99").replace("/srv/a", "/home/b")
        moved = moved.replace('"no route"', '"other"').replace("no route\n", "other\n")
        assert fingerprint("t", "OSError", moved) == fingerprint("t", "OSError", TRACEBACK)

    @pytest.mark.parametrize(
        ("old", "new"), [("in connect", "in login"), ("smtp.py", "imap.py"), ("in send", "in push")]
    )
    def test_another_place_is_another_cause(self, old, new):
        other = fingerprint("t", "OSError", TRACEBACK.replace(old, new))
        assert other != fingerprint("t", "OSError", TRACEBACK)

    def test_another_task_or_type_is_another_cause(self):
        prints = {
            fingerprint("t", "OSError", TRACEBACK),
            fingerprint("u", "OSError", TRACEBACK),
            fingerprint("t", "KeyError", TRACEBACK),
            fingerprint("t", "OSError"),
        }
        assert len(prints) == 4

    def test_the_depth_of_a_recursion_does_not_count(self):
        frame = '  File "/srv/a/shop/smtp.py", line 30, in connect\n    connect(host)\n'
        deeper = TRACEBACK.replace("    raise", frame * 50 + "    raise")
        assert fingerprint("t", "OSError", deeper) == fingerprint("t", "OSError", TRACEBACK)

    def test_of_chained_exceptions_the_last_counts(self):
        cause = TRACEBACK.replace("connect", "resolve")
        chained = f"{cause}\nThe above exception was the direct cause:\n\n{TRACEBACK}"
        assert fingerprint("t", "OSError", chained) == fingerprint("t", "OSError", TRACEBACK)
