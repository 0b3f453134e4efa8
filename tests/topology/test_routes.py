from __future__ import annotations

import re
import sys
import types

import pytest
from hypothesis import given
from hypothesis import strategies as st

from amqflow.errors import TopologyError
from amqflow.topology import Route
from amqflow.topology.routes import NOWHERE, Address, Destination, Routes, topic_matches

QUEUE = Address(queue="mine")


def test_without_rules_a_task_goes_to_the_default_queue_by_its_name():
    assert Routes().resolve("a.b") == Destination("", "default", "default")
    assert Routes(default_queue="jobs").resolve("a.b").queue == "jobs"


def test_the_call_wins_over_the_task_over_the_routes():
    routes = Routes({"shop.*": {"queue": "routed", "priority": 1}})
    assert routes.resolve("shop.x") == Destination("", "routed", "routed", 1)
    assert routes.resolve("shop.x", NOWHERE, QUEUE) == Destination("", "mine", "mine", 1)
    call = Address(queue="now", priority=9)
    assert routes.resolve("shop.x", call, QUEUE) == Destination("", "now", "now", 9)
    assert routes.resolve("shop.x", Address(priority=0), QUEUE).priority == 0


def test_an_exchange_and_a_key_leave_the_queue_to_the_broker():
    call = Address(exchange="tasks", routing_key="email.send")
    assert Routes().resolve("a", call, QUEUE) == Destination("tasks", "email.send", None)


def test_a_key_alone_goes_to_the_tasks_exchange_and_else_names_a_queue():
    own = Address(exchange="tasks", routing_key="slow")
    assert Routes().resolve("a", Address(routing_key="fast"), own) == Destination("tasks", "fast")
    assert Routes().resolve("a", Address(routing_key="q")) == Destination("", "q", "q")


def test_exact_names_go_before_globs_and_the_first_rule_wins():
    routes = Routes(
        [
            {"shop.*": "globbed", "shop.email": "exact"},
            ("*.email", {"queue": "late"}),
            (re.compile(r"(video|image)\..*"), {"queue": "media"}),
            Route("*", queue="rest", priority=3),
        ]
    )
    assert routes.resolve("shop.email").queue == "exact"
    assert routes.resolve("shop.x").queue == "globbed"
    assert routes.resolve("mail.email").queue == "late"
    assert routes.resolve("video.x").queue == "media"
    assert routes.resolve("else") == Destination("", "rest", "rest", 3)


@pytest.mark.parametrize(
    "rules",
    [
        {"feed.*": "feeds"},
        {"feed.*": {"queue": "feeds"}},
        ("feed.*", {"queue": "feeds"}),
        [("feed.*", {"queue": "feeds"}), ("web.*", {"queue": "web"})],
        ([("feed.*", {"queue": "feeds"}), ("web.*", {"queue": "web"})],),
        [{"web.*": "web"}, {"feed.*": "feeds"}],
        lambda name, args, kwargs, options, task=None, **_: "feeds",
    ],
)
def test_every_form_of_celerys_task_routes_is_read(rules):
    assert Routes(rules).resolve("feed.import").queue == "feeds"


def test_a_router_sees_the_call_and_is_asked_every_time():
    def by_customer(name, args, kwargs, options, task=None, **_):
        if "vip" in kwargs:
            return {"queue": "vip", "priority": 9}
        return "batch" if options.get("priority") == 0 else None

    routes = Routes([by_customer, {"*": "rest"}])
    assert routes.resolve("t", kwargs={"vip": 1}) == Destination("", "vip", "vip", 9)
    assert routes.resolve("t", Address(priority=0)).queue == "batch"
    assert routes.resolve("t").queue == "rest"


def test_a_router_may_be_named_by_its_path(monkeypatch):
    module = types.ModuleType("routers_of_a_test")
    module.to_feeds = lambda name, args, kwargs, options, task=None, **_: "feeds"
    monkeypatch.setitem(sys.modules, module.__name__, module)
    assert Routes(["routers_of_a_test.to_feeds"]).resolve("a").queue == "feeds"
    assert Routes("routers_of_a_test:to_feeds").resolve("a").queue == "feeds"
    with pytest.raises(TopologyError, match="no importable router"):
        Routes("nowhere.at_all")


@pytest.mark.parametrize(
    ("rules", "says"),
    [
        ({"a": 5}, "expected a queue's name"),
        ({"a": {"que": "x"}}, "unknown option 'que'"),
        ({"a": {"priority": 300}}, "expected 0 to 255"),
        ({"a": {"priority": True}}, "expected 0 to 255"),
        ({"a": {"queue": 7}}, "queue is 7"),
        ([5], "cannot be read"),
        ({5: "x"}, "a name, a glob or a regex"),
    ],
)
def test_a_rule_that_cannot_be_read_is_refused(rules, says):
    with pytest.raises(TopologyError, match=says):
        Routes(rules)


def test_a_router_that_answers_nonsense_is_named():
    with pytest.raises(TopologyError, match=r"router .* for 't'"):
        Routes(lambda *_, **__: {"nope": 1}).resolve("t")


words = st.sampled_from(["a", "b", "", "*"])
patterns = st.lists(words | st.just("#"), min_size=1, max_size=6).map(".".join)


@given(patterns, st.lists(words.filter(lambda w: w != "*"), min_size=1, max_size=6).map(".".join))
def test_topic_matching_agrees_with_its_definition(pattern, key):
    def matches(pattern, key):
        if not pattern:
            return not key
        if pattern[0] == "#":
            return any(matches(pattern[1:], key[at:]) for at in range(len(key) + 1))
        return bool(key) and pattern[0] in {"*", key[0]} and matches(pattern[1:], key[1:])

    assert topic_matches(pattern, key) == matches(pattern.split("."), key.split("."))
