"""What a broker holds against what is declared: the plan is a value, compared with golden files."""

from pathlib import Path

import pytest

from amqflow.cli.plan_output import plan_json, plan_lines
from amqflow.topology import BrokerFacts, Exchange, Queue, QueueType, Topology
from amqflow.topology.diff import ORDER, diff
from amqflow.topology.live import Live, LiveBinding, LiveExchange, LiveQueue
from amqflow.topology.load import load_text
from amqflow.topology.plan import Action, Create, Delete, Plan, Replace, Update, kind_of, name_of
from amqflow.topology.policy import Policy

GOLDEN = Path(__file__).parent / "golden"
FILE = """\
version: 1
owns: ["shop.*"]
exchanges:
  shop.tasks: {type: topic}
queues:
  shop.email:
    type: classic
    max_priority: 10
    bindings: [{exchange: shop.tasks, routing_key: "email.*"}]
    dead_letter: {exchange: shop.dead, routing_key: email}
policies:
  shop.short: {pattern: "^shop", definition: {message-ttl: 60000}}
"""
DECLARED = load_text(FILE, "shop.yaml")
FACTS = BrokerFacts((3, 10, 8))
TOPOLOGY = DECLARED.topology("shop", FACTS)


def held(topology, policies=()):
    """Return a broker that holds a topology as it is."""
    return Live(
        tuple(
            LiveExchange(one.name, one.type, arguments=one.declare_arguments())
            for one in topology.exchanges
        ),
        tuple(
            LiveQueue(one.name, one.type.value, arguments=one.declare_arguments(), messages=0)
            for one in topology.queues
        ),
        tuple(
            LiveBinding(one.source, one.destination_kind.value, one.destination, one.routing_key)
            for one in topology.bindings
        ),
        tuple(policies),
    )


APPLIED = held(TOPOLOGY, DECLARED.policies)


def but(live, **changes):
    fields = ("exchanges", "queues", "bindings", "policies", "complete", "unseen")
    return Live(**({name: getattr(live, name) for name in fields} | changes))


def queues_but(live, name, **changes):
    fields = (
        "name",
        "type",
        "durable",
        "auto_delete",
        "exclusive",
        "arguments",
        "messages",
        "partial",
    )
    return tuple(
        LiveQueue(**({field: getattr(one, field) for field in fields} | changes))
        if one.name == name
        else one
        for one in live.queues
    )


def drifted():
    arguments = {"x-queue-type": "classic", "x-max-priority": 5, "x-message-ttl": 1000}
    stray = LiveQueue("shop.old", "classic", messages=12)
    foreign = LiveQueue("foreign", "classic")
    bindings = [one for one in APPLIED.bindings if one.destination != "shop.email"]
    bindings += [
        LiveBinding("shop.tasks", "queue", "shop.email", "old.*"),
        LiveBinding("shop.tasks", "queue", "shop.old", "x"),
    ]
    queues = queues_but(APPLIED, "shop.email", arguments=arguments)
    queues = [one for one in queues if one.name != "shop.email.dead"]
    policies = (
        Policy("shop.short", "^shop", {"message-ttl": 5}, "queues", 0),
        Policy("shop.gone", "^x", {"max-length": 1}),
        Policy("foreign", ".*", {"max-length": 1}),
    )
    return Live(APPLIED.exchanges, (*queues, stray, foreign), tuple(bindings), policies)


# -- golden plans ------------------------------------------------------------------------------

CASES = {
    "empty": (Live(), False),
    "applied": (APPLIED, False),
    "drifted": (drifted(), False),
    "pruned": (drifted(), True),
}


@pytest.mark.parametrize("name", CASES)
def test_a_plan_reads_as_its_golden_file(name):
    """After a change that is meant: write what is printed into the file, and read it."""
    live, prune = CASES[name]
    plan = diff(TOPOLOGY, live, declaration=DECLARED, prune=prune)
    text = "".join(f"{line}\n" for line in map(_plain, plan_lines(plan, full=False)))
    file = GOLDEN / f"plan_{name}.txt"
    print(text)
    assert text == file.read_text()


def _plain(line):
    import click

    return click.unstyle(line)


# -- what changes ------------------------------------------------------------------------------


def test_an_empty_broker_gets_everything_created_and_nothing_else():
    plan = diff(TOPOLOGY, Live(), declaration=DECLARED)
    assert {type(change) for change in plan.changes} == {Create}
    parts = len(TOPOLOGY.exchanges) + len(TOPOLOGY.queues) + len(TOPOLOGY.bindings)
    assert len(plan.changes) == parts + 1
    assert plan.unchanged == 0


def test_an_applied_broker_needs_nothing():
    plan = diff(TOPOLOGY, APPLIED, declaration=DECLARED, prune=True)
    assert not plan
    assert plan.unchanged == len(TOPOLOGY.exchanges) + len(TOPOLOGY.queues) + len(
        TOPOLOGY.bindings
    ) + len(DECLARED.policies)


def test_changes_come_in_the_order_in_which_they_are_applied():
    plan = diff(TOPOLOGY, drifted(), declaration=DECLARED, prune=True)
    steps = [(change.action.value, kind_of(change)) for change in plan.changes]
    assert steps == sorted(steps, key=ORDER.index)
    assert len({*steps}) > 5


def test_a_changed_argument_is_a_replace_that_names_both_values():
    plan = diff(TOPOLOGY, drifted(), declaration=DECLARED)
    (change,) = plan.replaces
    assert name_of(change) == "shop.email"
    assert change.source == "shop.yaml:6:3"
    seen = {one.argument: (one.live, one.declared) for one in change.differences}
    assert seen["x-max-priority"] == (5, 10)
    assert seen["x-message-ttl"] == (1000, None)
    assert "type" not in seen


@pytest.mark.parametrize(
    ("field", "value"),
    [("type", "stream"), ("durable", False), ("auto_delete", True), ("exclusive", True)],
)
def test_every_property_that_differs_is_found(field, value):
    live = but(APPLIED, queues=queues_but(APPLIED, "shop.email", **{field: value}))
    (change,) = diff(TOPOLOGY, live, declaration=DECLARED).changes
    assert isinstance(change, Replace)
    assert [(one.argument, one.live) for one in change.differences] == [(field, value)]


def test_an_exchange_of_another_type_is_a_replace():
    topology = Topology((Exchange("a", "topic"),))
    (change,) = diff(topology, Live((LiveExchange("a", "direct"),))).changes
    assert isinstance(change, Replace)
    assert change.differences[0].live == "direct"


def test_a_queue_declared_without_a_type_is_what_the_broker_made_of_it():
    live = Live(queues=(LiveQueue("a", "classic"),))
    assert not diff(Topology(queues=(Queue("a", QueueType.CLASSIC),)), live)


def test_an_age_in_other_units_is_the_same_age():
    queue = Queue("log", QueueType.STREAM, max_age=86400.0)
    live = LiveQueue("log", "stream", arguments={"x-queue-type": "stream", "x-max-age": "1D"})
    assert not diff(Topology(queues=(queue,)), Live(queues=(live,)))
    other = LiveQueue("log", "stream", arguments={"x-queue-type": "stream", "x-max-age": "2D"})
    assert diff(Topology(queues=(queue,)), Live(queues=(other,)))


def test_what_workers_alone_look_at_is_no_difference():
    live = Live(queues=(LiveQueue("a", "quorum", arguments={"x-queue-type": "quorum"}),))
    assert not diff(Topology(queues=(Queue("a", prefetch=5, park=frozenset(), why="x"),)), live)


def test_a_policy_that_differs_is_updated_in_place():
    (change,) = diff(TOPOLOGY, drifted(), declaration=DECLARED).of(Action.UPDATE, "policy")
    assert isinstance(change, Update)
    assert [(one.argument, one.live, one.declared) for one in change.differences] == [
        ("message-ttl", 5, 60000)
    ]


# -- deletes -----------------------------------------------------------------------------------


def test_only_what_is_owned_and_not_declared_is_deleted_and_only_when_pruning():
    kept = diff(TOPOLOGY, drifted(), declaration=DECLARED)
    assert not kept.count(Action.DELETE)
    pruned = diff(TOPOLOGY, drifted(), declaration=DECLARED, prune=True)
    deletes = [change for change in pruned.changes if isinstance(change, Delete)]
    assert {name_of(change) for change in deletes} == {
        "shop.old",
        "shop.gone",
        "shop.tasks --old.*--> shop.email",
    }
    assert set(kept.kept) == set(deletes)
    assert "holds 12 messages" in next(one for one in deletes if name_of(one) == "shop.old").reason


def test_a_file_that_owns_nothing_deletes_nothing():
    declared = load_text(FILE.replace('owns: ["shop.*"]\n', ""), "shop.yaml")
    plan = diff(TOPOLOGY, drifted(), declaration=declared, prune=True)
    assert not plan.count(Action.DELETE)
    assert plan.kept == ()


def test_what_stands_for_a_replacement_is_never_deleted():
    live = but(
        APPLIED, exchanges=(*APPLIED.exchanges, LiveExchange("amqflow.moving.shop.x/in", "fanout"))
    )
    declared = load_text(FILE.replace('"shop.*"', '"*"'), "shop.yaml")
    plan = diff(TOPOLOGY, live, declaration=declared, prune=True)
    assert not [one for one in plan.changes if "moving" in name_of(one)]


# -- a replacement that was cut off -------------------------------------------------------------


@pytest.mark.parametrize("there", [True, False])
def test_a_replacement_that_was_begun_goes_on_whatever_stands(there):
    queues = APPLIED.queues
    if not there:
        queues = tuple(one for one in queues if one.name != "shop.email")
    mark = LiveExchange("amqflow.moving.shop.email/mark", "fanout")
    live = but(APPLIED, queues=queues, exchanges=(*APPLIED.exchanges, mark))
    plan = diff(TOPOLOGY, live, declaration=DECLARED)
    (change,) = plan.replaces
    assert change.begun
    assert name_of(change) == "shop.email"


def test_a_replacement_of_a_queue_nobody_declares_any_more_is_told():
    live = Live(queues=(LiveQueue("amqflow.moving.gone/hold", "quorum"),))
    (said,) = diff(TOPOLOGY, live, declaration=DECLARED).unseen
    assert "queue 'gone'" in said
    assert "'amqflow.moving.gone/hold'" in said


def test_a_queue_with_slashes_in_its_name_is_told_from_the_parts_of_a_replacement():
    mark = LiveExchange("amqflow.moving.a/b/mark", "fanout")
    assert Live(exchanges=(mark,)).moving == {"a/b"}


# -- blind -------------------------------------------------------------------------------------


def test_without_the_management_api_bindings_are_bound_again_and_count_as_no_change():
    live = but(APPLIED, bindings=(), complete=False, unseen=("bindings",))
    plan = diff(TOPOLOGY, live, declaration=DECLARED)
    assert not plan
    assert len(plan.unverified) == len(TOPOLOGY.bindings)
    assert plan.unseen == ("bindings",)
    some = but(live, queues=tuple(one for one in live.queues if one.name != "shop.email"))
    changes = diff(TOPOLOGY, some, declaration=DECLARED).changes
    assert {kind_of(change) for change in changes} == {"queue", "binding"}


# -- the fingerprint ---------------------------------------------------------------------------


def print_of(topology=TOPOLOGY, live=APPLIED):
    return diff(topology, live, declaration=DECLARED).fingerprint


def test_the_fingerprint_changes_with_what_the_plan_was_made_from():
    assert print_of() == print_of()
    assert print_of(live=drifted()) != print_of()
    changed = but(APPLIED, queues=queues_but(APPLIED, "shop.email", durable=False))
    assert print_of(live=changed) != print_of()
    assert print_of(live=but(APPLIED, bindings=APPLIED.bindings[1:])) != print_of()
    assert print_of(topology=DECLARED.topology("other", FACTS)) != print_of()


def test_the_fingerprint_ignores_messages_and_what_is_nobody_of_ours():
    busy = but(APPLIED, queues=queues_but(APPLIED, "shop.email", messages=99))
    assert print_of(live=busy) == print_of()
    foreign = but(APPLIED, queues=(*APPLIED.queues, LiveQueue("foreign", "classic")))
    assert print_of(live=foreign) == print_of()
    backwards = but(APPLIED, queues=APPLIED.queues[::-1], bindings=APPLIED.bindings[::-1])
    assert print_of(live=backwards) == print_of()


def test_json_holds_every_change_with_reason_and_source():
    found = plan_json(diff(TOPOLOGY, drifted(), declaration=DECLARED, prune=True))
    assert found["counts"] == {"create": 3, "update": 1, "replace": 1, "delete": 3}
    assert all(one["reason"] and one["source"] for one in found["changes"])
    (replace,) = [one for one in found["changes"] if one["action"] == "replace"]
    assert {"argument": "x-max-priority", "live": 5, "declared": 10} in replace["differences"]


def test_an_empty_plan_is_false():
    assert not Plan()
