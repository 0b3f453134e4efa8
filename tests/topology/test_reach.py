from amqflow.topology import Binding, DestinationKind, Exchange, Queue, Topology
from amqflow.topology.reach import reach

E = DestinationKind.EXCHANGE


def made(*bindings, exchanges=(), queues="abc"):
    return Topology(tuple(exchanges), tuple(map(Queue, queues)), tuple(bindings))


def queues(topology, exchange, key="", headers=None):
    return list(reach(topology, exchange, key, headers or {}).queues)


def test_the_default_exchange_knows_queues_by_name():
    topology = made()
    assert queues(topology, "", "a") == ["a"]
    assert queues(topology, "", "z") == []


def test_each_type_takes_what_the_broker_would():
    topology = made(
        Binding("d", "a", routing_key="k"),
        Binding("t", "a", routing_key="k.*"),
        Binding("t", "b", routing_key="#"),
        Binding("f", "a", routing_key="ignored"),
        Binding("f", "b"),
        Binding("amq.topic", "c", routing_key="x"),
        exchanges=[Exchange("d"), Exchange("t", "topic"), Exchange("f", "fanout")],
    )
    assert queues(topology, "d", "k") == ["a"]
    assert queues(topology, "d", "K") == []
    assert queues(topology, "t", "k.1") == ["a", "b"]
    assert queues(topology, "t", "k.1.2") == ["b"]
    assert queues(topology, "f", "any") == ["a", "b"]
    assert queues(topology, "amq.topic", "x") == ["c"]


def test_headers_match_all_or_any():
    topology = made(
        Binding("h", "a", arguments={"x-match": "all", "one": 1, "two": 2}),
        Binding("h", "b", arguments={"x-match": "any", "one": 1, "two": 2}),
        Binding("h", "c"),
        exchanges=[Exchange("h", "headers")],
    )
    assert queues(topology, "h", headers={"one": 1, "two": 2}) == ["a", "b", "c"]
    assert queues(topology, "h", headers={"one": 1}) == ["b", "c"]
    assert queues(topology, "h", headers={"one": 5}) == ["c"]
    assert queues(topology, "h") == ["c"], "no arguments take everything"


def test_exchanges_pass_on_once_even_in_a_circle():
    topology = made(
        Binding("one", "two", E),
        Binding("two", "one", E),
        Binding("two", "a"),
        Binding("two", "a", routing_key="again"),
        exchanges=[Exchange("one", "fanout"), Exchange("two", "fanout")],
    )
    assert queues(topology, "one") == ["a"]
    assert len(reach(topology, "one", "").bindings) == 4


def test_what_no_binding_takes_goes_to_the_alternate_exchange():
    topology = made(
        Binding("t", "a", routing_key="k"),
        Binding("rest", "b"),
        exchanges=[
            Exchange("t", "topic", arguments={"alternate-exchange": "rest"}),
            Exchange("rest", "fanout"),
        ],
    )
    assert queues(topology, "t", "k") == ["a"]
    assert queues(topology, "t", "other") == ["b"]


def test_what_nobody_can_tell_offline_is_said():
    topology = made(
        Binding("f", "hash", E), exchanges=[Exchange("f", "fanout"), Exchange("hash", "x-hash")]
    )
    assert reach(topology, "f", "").unknown == ("hash",)
    assert reach(topology, "nope", "").unknown == ("nope",)
