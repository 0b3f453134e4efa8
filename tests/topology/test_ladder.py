from __future__ import annotations

import math
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from amqflow.errors import TopologyError
from amqflow.topology import BrokerFacts, DestinationKind, Ladder
from amqflow.topology.ladder import EXIT, escape, unescape
from amqflow.topology.routes import topic_matches

LADDER = Ladder()
TWO_LANES = Ladder.on(BrokerFacts((4, 0, 5)))
names = st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=40).filter(
    lambda name: len(escape(name).encode()) <= 199
)


def walk(ladder, exchange, key, queue):
    """Route as a broker would; return the queues waited in and where the message came out."""
    topology = ladder.parts()
    exits = [ladder.exit_binding(queue), ladder.exit_binding(queue + "x")]
    waited = []
    while True:
        bindings = [*topology.bindings_by_source.get(exchange, ())]
        bindings += exits if exchange == EXIT else []
        taken = [b for b in bindings if topic_matches(b.routing_key, key)]
        assert len(taken) == 1, "every exchange hands a message to exactly one place"
        (binding,) = taken
        if binding.destination_kind is DestinationKind.EXCHANGE:
            exchange = binding.destination
        elif exchange == EXIT:
            return waited, binding.destination
        else:
            level = topology.queue(binding.destination)
            waited.append(level)
            assert level.dead_letter is not None
            assert level.dead_letter.routing_key is None, "the message keeps its way"
            exchange = level.dead_letter.exchange


@given(
    names,
    st.integers(0, LADDER.max_ticks),
    st.sampled_from([LADDER, TWO_LANES]),
    st.none() | st.integers(0, 9),
)
def test_the_levels_visited_add_up_to_the_delay(queue, ticks, ladder, priority):
    exchange, key = ladder.entry_at(queue, ticks, priority)
    waited, destination = walk(ladder, exchange, key, queue)
    assert destination == queue
    assert sum(round(level.message_ttl * 1000) for level in waited) == ticks * 100
    ttls = [level.message_ttl for level in waited]
    assert all(above > below for above, below in pairwise(ttls)), "downwards only"
    assert (exchange == EXIT) == (ticks == 0)
    if waited:
        assert waited[0].name.startswith(exchange), "it enters at its highest set bit"


@given(st.floats(0, 1e9), st.sampled_from([0.001, 0.01, 0.1, 0.25, 1.0, 60.0]))
def test_a_delay_is_rounded_up_never_down(delay, resolution):
    ladder = Ladder(resolution, levels=22)
    ticks = ladder.ticks(delay)
    if delay <= ladder.reach:
        assert ticks * resolution >= delay - 1e-5 * resolution
        assert (ticks - 1) * resolution < delay or ticks == 0
    else:
        assert ticks == ladder.max_ticks


@given(st.floats(0, 1e9), st.sampled_from([0.001, 0.01, 0.1, 0.25, 1.0, 60.0]))
def test_early_is_less_than_a_tick_early_never_late(delay, resolution):
    ladder = Ladder(resolution, levels=22)
    if delay <= ladder.reach:
        ticks = ladder.ticks(delay, early=True)
        assert ticks * resolution <= delay + 1e-5 * resolution
        assert (ticks + 1) * resolution > delay


@pytest.mark.parametrize(
    ("delay", "ticks"),
    [(-5, 0), (0, 0), (1e-4, 1), (0.1, 1), (0.3, 3), (0.7, 7), (1.1, 11), (0.11, 2)],
)
def test_ticks_of_plain_delays(delay, ticks):
    assert LADDER.ticks(delay) == ticks


def test_beyond_the_reach_it_stays_as_long_as_the_ladder_can():
    assert LADDER.ticks(math.inf) == LADDER.ticks(1e12) == 2**28 - 1
    assert LADDER.reach == pytest.approx(26_843_545.5)
    assert LADDER.entry("q", math.inf)[0] == "amqflow.delay.27"


@given(names)
def test_a_name_is_one_literal_word_and_comes_back(name):
    word = escape(name)
    assert not set(word) & set(".*#")
    assert unescape(word) == name


@given(names, names)
def test_two_names_are_two_words(one, other):
    assert (escape(one) == escape(other)) == (one == other)


def test_bindings_never_use_a_hash():
    for binding in (*LADDER.parts().bindings, LADDER.exit_binding("a.#.b")):
        assert "#" not in binding.routing_key


def test_high_priorities_have_a_lane_of_their_own_where_they_would_hide_others():
    assert TWO_LANES.entry("q", 0.1, 4)[0] == "amqflow.delay.0"
    assert TWO_LANES.entry("q", 0.1)[0] == "amqflow.delay.0"
    assert TWO_LANES.entry("q", 0.1, 5)[0] == "amqflow.delay.high.0"
    assert LADDER.entry("q", 0.1, 9)[0] == "amqflow.delay.0"
    assert len(TWO_LANES.parts().queues) == 2 * (28 + 9) + 1


def test_neighbours_of_a_burst_wait_in_two_queues():
    even, odd = (walk(LADDER, *LADDER.entry_at("q", ticks), "q")[0] for ticks in (100, 101))
    assert [level.name for level in even] == [f"amqflow.delay.{k}.0" for k in (6, 5, 2)]
    assert [level.name for level in odd] == [
        *(f"amqflow.delay.{k}.1" for k in (6, 5, 2)),
        "amqflow.delay.0",
    ]


def test_levels_lose_nothing_and_know_no_limit():
    queue = LADDER.parts().queue("amqflow.delay.3.1")
    assert queue.declare_arguments() == {
        "x-queue-type": "quorum",
        "x-message-ttl": 800,
        "x-overflow": "reject-publish",
        "x-dead-letter-exchange": "amqflow.delay.2",
        "x-dead-letter-strategy": "at-least-once",
    }
    assert TWO_LANES.parts().queue("amqflow.delay.high.0").delivery_limit == -1
    assert LADDER.parts().exchange(EXIT).arguments == {"alternate-exchange": "amqflow.undelivered"}


def test_a_name_too_long_for_the_key_is_refused_with_the_room_there_is():
    assert len(LADDER.entry("q" * 199, 1)[1].encode()) == 255
    with pytest.raises(TopologyError, match="199 are left"):
        LADDER.entry("a." * 60, 1)
    with pytest.raises(TopologyError, match="UTF-8"):
        LADDER.entry("\ud800", 1)


@pytest.mark.parametrize(
    "options",
    [
        {"resolution": 0.0001},
        {"resolution": 0.0015},
        {"resolution": 0},
        {"resolution": -1},
        {"resolution": 60.0},
        {"levels": 0},
        {"levels": 101},
        {"lanes": 3},
    ],
)
def test_an_impossible_ladder_is_refused(options):
    with pytest.raises(TopologyError, match="delays: "):
        Ladder(**options)
