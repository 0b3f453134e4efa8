"""What is written reads back as the same."""

from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from amqflow.errors import TopologyError
from amqflow.topology import (
    Binding,
    DeadLetter,
    Declaration,
    Delays,
    Exchange,
    Policy,
    Queue,
    QueueType,
    Retention,
    Route,
)
from amqflow.topology.load import load, load_text
from amqflow.topology.write import write

ROOT = Path(__file__).parents[2]


@pytest.mark.parametrize("name", ["minimal", "shop", "cluster"])
def test_the_shipped_files_read_back_as_they_were(name):
    declared = load(ROOT / "topology" / f"{name}.yaml")
    assert load_text(write(declared), declared.source) == declared


def test_every_field_reads_back():
    declared = Declaration(
        "f",
        exchanges=(
            Exchange("e", "topic", durable=False, auto_delete=True, arguments={"x-a": [1, "no"]}),
            Exchange("in", "fanout", internal=True),
        ),
        queues=(
            Queue("plain"),
            Queue(
                "no",
                QueueType.CLASSIC,
                durable=False,
                exclusive=True,
                auto_delete=True,
                max_priority=9,
                message_ttl=0.5,
                expires=90,
                max_length=0,
                max_length_bytes=1 << 20,
                overflow="reject-publish",
                dead_letter=DeadLetter("", "plain"),
                single_active_consumer=True,
                prefetch=3,
                park=frozenset(),
                arguments={"x-b": True, "x-c": {"d": 1.5}},
            ),
            Queue("010", delivery_limit=-1, overflow="drop-head", dead_letter=DeadLetter("e", "k")),
            Queue("1:30", dead_letter=DeadLetter("e", None)),
            Queue("log/ñ 1", QueueType.STREAM, max_age=86_400, max_length_bytes=7),
            Queue("idle", message_ttl=0, overflow="reject-publish"),
        ),
        bindings=(
            Binding("e", "in", "exchange", "a.#"),
            Binding("e", "plain", routing_key=""),
            Binding("e", "plain", routing_key="yes", arguments={"x-match": "all"}),
        ),
        routes=(
            Route("a.*", queue="plain", priority=0),
            Route("*", exchange="e", routing_key="", broadcast=True),
        ),
        consumed=("plain", "no", "010", "1:30"),
        owns=("shop.*", "on"),
        delays=Delays(0.25, 3),
        retention={"010": Retention(5400, 7, 0)},
        policies=(Policy("~", "^a", {"max-length": 5}, "streams", -1),),
    )
    assert load_text(write(declared), "f") == declared


NAMES = st.text(
    st.characters(exclude_categories=("Cs", "Cc", "Cn"), exclude_characters="\x85\u2028\u2029"),
    min_size=1,
    max_size=20,
)


@settings(max_examples=200, deadline=None)
@given(
    st.dictionaries(NAMES, st.tuples(st.integers(0, 10**9), NAMES), min_size=1, max_size=4), NAMES
)
def test_any_names_read_back(parts, exchange):
    try:
        declared = Declaration(
            "f",
            exchanges=(Exchange(exchange, "topic"),),
            queues=tuple(Queue(name, message_ttl=ttl / 1000) for name, (ttl, _) in parts.items()),
            bindings=tuple(
                Binding(exchange, name, routing_key=key) for name, (_, key) in parts.items()
            ),
            consumed=tuple(parts),
        )
        again = load_text(write(declared), "f")
    except TopologyError:
        return  # a name that AMQP or the ladder's keys have no room for
    assert again == declared
