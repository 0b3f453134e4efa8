"""What follows from a file: homes, suspects, exchanges, and what a broker's version decides."""

from pathlib import Path

import pytest

from amqflow.topology import (
    BrokerFacts,
    DeadLetter,
    QueueNeeds,
    TopologyFileError,
    dead_queue,
    derive,
    suspect_queue,
)
from amqflow.topology.load import load, load_text
from amqflow.topology.reach import reach

ROOT = Path(__file__).parents[2]
OLD = BrokerFacts((3, 10, 8))
NEW = BrokerFacts((4, 0, 5))
STRICT = BrokerFacts((4, 3, 0))
VERSIONS = pytest.mark.parametrize("facts", [OLD, NEW, STRICT], ids=str)


def whole(queues, facts=OLD, exchanges="{}", **options):
    text = f"version: 1\nexchanges: {exchanges}\nqueues: {queues}\n"
    return load_text(text).topology("shop", facts, **options)


@VERSIONS
def test_a_plain_file_is_what_is_derived_without_one(facts):
    declared = load_text("version: 1\nqueues: {default: , email: {prefetch: 20}}\n")
    derived = derive("shop", {"default": QueueNeeds(), "email": QueueNeeds(prefetch=20)}, facts)
    found = declared.topology("shop", facts)
    assert set(found.queues) == set(derived.queues)
    assert set(found.exchanges) == set(derived.exchanges)
    assert set(found.bindings) == set(derived.bindings)


@VERSIONS
@pytest.mark.parametrize("name", ["minimal", "shop", "cluster"])
def test_every_end_of_the_shipped_files_exists(facts, name):
    declared = load(ROOT / "topology" / f"{name}.yaml")
    topology = declared.topology("shop", facts)
    for binding in topology.bindings:
        topology.exchange(binding.source)
        kind = topology.queue if binding.destination_kind == "queue" else topology.exchange
        kind(binding.destination)
    for queue in declared.consumed:
        topology.queue(dead_queue(queue))
        topology.queue(suspect_queue(queue))
    for queue in topology.queues:
        if queue.dead_letter:
            topology.exchange(queue.dead_letter.exchange)


LETTERS = {
    "its own": ("{}", ""),
    "derived exchange": ("{}", "dead_letter: {exchange: dead}"),
    "derived exchange and key": ("{}", "dead_letter: {exchange: dead, routing_key: k.1}"),
    "direct": ("{dead: {type: direct}}", "dead_letter: {exchange: dead, routing_key: k}"),
    "topic": ("{dead: {type: topic}}", "dead_letter: {exchange: dead, routing_key: k.x}"),
    "fanout": ("{dead: {type: fanout}}", "dead_letter: {exchange: dead}"),
    "headers": ("{dead: {type: headers}}", "dead_letter: {exchange: dead}"),
    "built in": ("{}", "dead_letter: {exchange: amq.topic, routing_key: k}"),
    "default exchange": ("{}", 'dead_letter: {exchange: ""}'),
    "the application's": ("{}", "dead_letter: {exchange: amqflow.shop.dead}"),
    "own key on direct": (
        "{dead: {type: direct}}",
        "dead_letter: {exchange: dead, routing_key: ~}",
    ),
    "own key on topic": ("{dead: {type: topic}}", "dead_letter: {exchange: dead, routing_key: ~}"),
}


@VERSIONS
@pytest.mark.parametrize("kind", ["quorum", "classic"])
@pytest.mark.parametrize(("exchanges", "letter"), LETTERS.values(), ids=list(LETTERS))
def test_what_the_broker_dead_letters_arrives_in_the_home(facts, kind, exchanges, letter):
    fields = f"type: {kind}, bindings: [{{exchange: amq.direct, routing_key: mail}}]"
    topology = whole(
        f"{{email: {{{fields}{', ' if letter else ''}{letter}}}}}", facts, exchanges=exchanges
    )
    queue = topology.queue("email")
    assert queue.dead_letter.at_least_once is (kind == "quorum")
    # Its own key: what comes by its binding, and what is sent to the queue by its name.
    keys = [queue.dead_letter.routing_key] if queue.dead_letter.routing_key else ["mail", "email"]
    for key in keys:
        assert "email.dead" in reach(topology, queue.dead_letter.exchange, key).queues
    suspects = topology.queue("email.suspect").dead_letter
    assert "email.dead" in reach(topology, suspects.exchange, suspects.routing_key).queues
    # Where workers park: the default exchange, by the home's name.
    assert reach(topology, "", "email.dead").queues == ("email.dead",)


def test_a_named_exchange_is_the_files_where_declared_else_made():
    made = whole("{a: {dead_letter: {exchange: dead}}, b: {dead_letter: {exchange: dead}}}")
    assert made.exchange("dead").type == "direct"
    assert made.exchange("dead").why
    declared = whole("{a: {dead_letter: {exchange: dead}}}", exchanges="{dead: {type: topic}}")
    assert declared.exchange("dead").type == "topic"


def test_homes_are_kept_as_the_queue_says():
    topology = whole("{email: {dead_letter: {max_age: 2w, max_length: 9}}}")
    assert topology.queue("email.dead").declare_arguments() == {
        "x-queue-type": "quorum",
        "x-message-ttl": 14 * 86_400_000,
        "x-max-length": 9,
    }


def test_who_declares_a_home_or_a_suspects_queue_shapes_it():
    topology = whole(
        "{email: , email.dead: {type: classic, message_ttl: 1h}, email.suspect: {delivery_limit: 40}}"
    )
    assert topology.queue("email.dead").type == "classic"
    assert topology.queue("email.suspect").delivery_limit == 40
    assert "email.dead" in reach(topology, "amqflow.shop.dead", "email").queues
    assert "email.dead.dead" not in topology.queues_by_name


def test_queues_nobody_consumes_have_nothing_around_them():
    topology = whole("{log: {type: stream}, parking: {consumed: false}, email: }")
    names = set(topology.queues_by_name)
    assert {"log", "parking", "email", "email.dead", "email.suspect"} <= names
    assert not {"log.dead", "parking.dead", "parking.suspect"} & names
    assert topology.queue("parking").dead_letter is None
    exits = {b.destination for b in topology.bindings_by_source["amqflow.delay.exit"]}
    assert "email" in exits
    assert "parking" not in exits


@pytest.mark.parametrize(("facts", "limit"), [(OLD, None), (NEW, -1), (STRICT, -1)], ids=str)
def test_a_quorum_queue_without_a_limit_has_none(facts, limit):
    queues = "{a: , b: {delivery_limit: 30}, c: {consumed: false}, d: {type: classic}}"
    topology = whole(queues, facts)
    found = [topology.queue(name).delivery_limit for name in "abcd"]
    assert found == [limit, 30, limit, None]


def test_priorities_of_quorum_queues_need_a_broker_that_has_them():
    declared = load_text("version: 1\nqueues:\n  a:\n    max_priority: 5\n", "f.yaml")
    with pytest.raises(TopologyFileError) as caught:
        declared.topology("shop", NEW)
    assert str(caught.value) == (
        "f.yaml:4:5: queues.a.max_priority: quorum queues of RabbitMQ 4.0.5 have no priorities; "
        "write type: classic, or leave max_priority out"
    )
    arguments = declared.topology("shop", STRICT).queue("a").declare_arguments()
    assert "x-max-priority" not in arguments, "from 4.3 they need no saying"


def test_the_ladder_and_the_poison_limit_are_as_asked():
    declared = load_text("version: 1\nqueues: {a: }\ndelays: {resolution: 1s, levels: 5}\n")
    topology = declared.topology("shop", OLD, poison_limit=7)
    assert topology.queue("amqflow.delay.4.0").message_ttl == 16
    assert "amqflow.delay.5" not in topology.exchanges_by_name
    assert topology.queue("a.suspect").delivery_limit == 27


def test_worker_settings_stay_with_the_queue():
    topology = whole("{a: {prefetch: 7, park: [poison]}}")
    assert topology.queue("a").prefetch == 7
    assert topology.queue("a").park == {"poison"}


def test_routes_come_along():
    declared = load_text("version: 1\nqueues: {a: }\nroutes: [{queue: a}]\n")
    assert declared.topology("shop", OLD).routes == declared.routes


def test_the_files_own_parts_are_at_hand_without_the_derived():
    declared = load_text("version: 1\nqueues: {a: {dead_letter: {exchange: dead}}}\n")
    assert [queue.name for queue in declared.own.queues] == ["a"]
    assert declared.own.exchanges == ()
    assert declared.own.queue("a").dead_letter == DeadLetter("dead", "a", at_least_once=True)
