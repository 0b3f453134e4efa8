"""Which queues hold the dead letters of a declared topology."""

from pathlib import Path

import pytest

from amqflow.deadletters.filters import Filters
from amqflow.deadletters.homes import find_homes
from amqflow.topology import BrokerFacts
from amqflow.topology.load import load, load_text

ROOT = Path(__file__).parents[2]
FACTS = BrokerFacts((3, 10, 8))


def homes(declared, **filters):
    found = find_homes(declared.topology("shop", FACTS), Filters(**filters))
    return {home.name: home.queues for home in found}


@pytest.mark.parametrize("name", ["minimal", "shop", "cluster"])
def test_each_consumed_queue_of_the_shipped_files_has_one_home(name):
    declared = load(ROOT / "topology" / f"{name}.yaml")
    assert homes(declared) == {
        f"{queue}.dead": (queue, f"{queue}.suspect") for queue in declared.consumed
    }


LISTENED = """
version: 1
exchanges: {dead: {type: topic}}
queues:
  a: {dead_letter: {exchange: dead}}
  log: {type: stream, bindings: [{exchange: dead, routing_key: "#"}]}
  copies: {consumed: false, bindings: [{exchange: dead, routing_key: "#"}]}
"""


def test_who_listens_to_dead_letters_is_no_home():
    assert homes(load_text(LISTENED)) == {"a.dead": ("a", "a.suspect")}
    assert list(homes(load_text(LISTENED), queues=("a",))) == ["a.dead"]


def test_where_the_broker_sends_elsewhere_both_queues_count():
    declared = load_text("""
version: 1
queues:
  a: {dead_letter: {exchange: "", routing_key: failures}}
  failures: {consumed: false}
""")
    assert homes(declared) == {"a.dead": ("a", "a.suspect"), "failures": ("a", "a.suspect")}
