from pathlib import Path

import pytest

from amqflow.topology import BrokerFacts
from amqflow.topology.load import load, load_text
from amqflow.topology.routes import Address, Routes
from amqflow.topology.trace import trace

SHOP = load(Path(__file__).parents[2] / "topology" / "shop.yaml")
FACTS = BrokerFacts((3, 10, 8))


def traced(declared, task, *args, **kwargs):
    return trace(declared, declared.topology("shop", FACTS), task, *args, **kwargs)


def test_a_trace_names_every_step():
    found = traced(SHOP, "shop.email.send")
    assert found.route_index == 1
    assert (found.destination.exchange, found.destination.routing_key) == (
        "shop.tasks",
        "email.send",
    )
    assert found.destination.priority == 5
    assert [binding.destination for binding in found.bindings] == ["shop.email"]
    (stop,) = found.stops
    assert (stop.queue, stop.consumed, stop.parked) == ("shop.email", True, "shop.email.dead")
    assert stop.homes == ("shop.audit", "shop.email.dead")
    assert found.problem is None


def test_a_route_by_queue_and_the_last_resort():
    assert traced(SHOP, "anything").stops[0].queue == "shop.default"
    alone = load_text("version: 1\nqueues: {default: }\n")
    assert traced(alone, "anything").stops[0].queue == "default"
    other = load_text("version: 1\nqueues: {email: }\n")
    found = traced(other, "anything")
    assert found.problem == "there is no queue 'default'; declare or route it"


def test_options_of_the_call_and_of_the_task_win_over_routes():
    found = traced(SHOP, "shop.email.send", Address(queue="shop.orders"))
    assert ([stop.queue for stop in found.stops], found.route) == (["shop.orders"], None)
    found = traced(SHOP, "shop.email.send", own=Address(queue="shop.reports"))
    assert [stop.queue for stop in found.stops] == ["shop.reports"]
    routes = Routes({"shop.email.*": "shop.default"})
    found = traced(SHOP, "shop.email.send", routes=routes)
    assert ([stop.queue for stop in found.stops], found.route) == (["shop.default"], None)


@pytest.mark.parametrize(
    ("call", "says"),
    [
        (Address(queue="shop.emial"), "there is no queue 'shop.emial'; did you mean `shop.email`?"),
        (Address(queue="shop.audit"), "reaches no queue that workers take tasks from"),
        (
            Address(exchange="shop.tasks", routing_key="x"),
            "no binding of 'shop.tasks' takes key 'x'",
        ),
        (Address(exchange="nope", routing_key="x"), "exchange 'nope' is not in the file"),
        (Address(exchange="shop.events"), "reaches no queue that workers take tasks from"),
    ],
)
def test_a_call_that_runs_nowhere_says_why(call, says):
    assert says in traced(SHOP, "t", call).problem


FAN = """
version: 1
exchanges: {news: {type: fanout}}
queues: {a: {bindings: [{exchange: news}]}, b: {bindings: [{exchange: news}]}}
"""


def test_several_queues_are_a_problem_unless_meant():
    found = traced(load_text(FAN), "t", Address(exchange="news"))
    assert "reaches 2 consumed queues and would run in each" in found.problem
    declared = load_text(FAN + "routes: [{exchange: news, broadcast: true}]\n")
    found = traced(declared, "t")
    assert found.problem is None
    assert found.broadcast
    assert [stop.queue for stop in found.stops] == ["a", "b"]
    overruled = traced(declared, "t", Address(exchange="news"))
    assert overruled.problem, "the call did not say that it means both"
