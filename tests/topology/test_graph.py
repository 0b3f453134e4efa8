from amqflow.topology import BrokerFacts
from amqflow.topology.definitions import definitions
from amqflow.topology.graph import mermaid
from amqflow.topology.load import load_text

TEXT = """
version: 1
exchanges: {tasks: {type: topic}}
queues:
  'a "1"': {bindings: [{exchange: tasks, routing_key: "a.#"}], dead_letter: {exchange: dead}}
  b: {type: classic, max_priority: 3, dead_letter: {exchange: ""}}
routes: [{task: "shop.*", exchange: tasks, routing_key: a.x}, {queue: b}]
policies: {p: {pattern: "^b$", definition: {max-length: 5}}}
"""
DECLARED = load_text(TEXT)
TOPOLOGY = DECLARED.topology("shop", BrokerFacts((3, 10, 8)))


def test_a_chart_shows_routes_bindings_and_dead_letters():
    assert (
        mermaid(DECLARED, TOPOLOGY, derived=False)
        == """\
flowchart LR
  e0{{"tasks<br/>topic"}}
  e1{{"dead<br/>direct"}}
  q2[("a #quot;1#quot;<br/>quorum")]
  q3[("b<br/>classic, priority 0-3")]
  e0 -->|"a.#35;"| q2
  q2 -.->|"a #quot;1#quot;"| e1
  r4(["shop.*"])
  r4 ==>|"a.x"| e0
  r5(["*"])
  r5 ==> q3
"""
    )


def test_a_chart_shows_ways_between_exchanges_and_leaves_priorities_out():
    declared = load_text("""
version: 1
exchanges: {one: {type: fanout}, two: {type: fanout, bindings: [{exchange: one}]}}
queues: {q: {bindings: [{exchange: two}]}}
routes: [{task: urgent, priority: 3}, {exchange: one}]
""")
    topology = declared.topology("shop", BrokerFacts((3, 10, 8)))
    chart = mermaid(declared, topology, derived=False).splitlines()
    assert "  e0 --> e1" in chart
    assert not any("urgent" in line for line in chart)


def test_a_chart_of_everything_has_homes_and_suspects_but_no_ladder():
    chart = mermaid(DECLARED, TOPOLOGY)
    assert "b.dead" in chart
    assert "b.suspect" in chart
    assert "amqflow.delay" not in chart


def test_definitions_are_what_the_broker_imports():
    found = definitions(TOPOLOGY, DECLARED.policies, "shop")
    assert {part["vhost"] for kind in found.values() for part in kind} == {"shop"}
    queues = {queue["name"]: queue for queue in found["queues"]}
    assert queues["b"] == {
        "name": "b",
        "vhost": "shop",
        "type": "classic",
        "durable": True,
        "auto_delete": False,
        "arguments": TOPOLOGY.queue("b").declare_arguments(),
    }
    assert "amqflow.delay.0" in queues
    assert found["policies"] == [
        {
            "name": "p",
            "vhost": "shop",
            "pattern": "^b$",
            "apply-to": "queues",
            "priority": 0,
            "definition": {"max-length": 5},
        }
    ]
    assert len(found["bindings"]) == len(TOPOLOGY.bindings)
