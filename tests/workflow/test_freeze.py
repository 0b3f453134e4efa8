"""Freezing and unfolding, as data: ids a rerun makes again, options in their place, records."""

import json

import pytest

from amqflow.abc import FAILURE, SUCCESS, Outcome
from amqflow.canvas import Signature, chain, chord, group
from amqflow.errors import ConfigurationError, Undecodable
from amqflow.protocol import NESTING, TaskMessage
from amqflow.protocol import headers as h
from amqflow.tasks.inherit import Inheritance
from amqflow.workflow.completion import following, membership
from amqflow.workflow.conclude import failed, fired
from amqflow.workflow.freeze import (
    DerivedIds,
    errbacks_of,
    first_id,
    freeze,
    fresh_ids,
    ids_of,
    result_id,
)
from amqflow.workflow.records import (
    End,
    Ending,
    Failure,
    Fate,
    Known,
    Membership,
    Spec,
    State,
    member_id,
)
from amqflow.workflow.replace import replacing
from amqflow.workflow.unfold import Place, Unfolder
from amqflow.workflow.wire import Completions, Watch

UNFOLDER = Unfolder("shop", "redis")


def task(name, *args, **options):
    return Signature(name, args, {}, options)


WHOLE = chain(
    task("a", 1),
    chord([task("b"), chain(task("c"), group([task("d"), task("e")]))], task("f")),
    group([task("g"), task("h")]),
)


def frozen(node, ids=None, **options):
    return freeze(node.to_dict(), ids or DerivedIds("parent", "test"), **options)


def test_a_rerun_makes_the_same_ids_and_a_caller_makes_fresh_ones():
    assert frozen(WHOLE) == frozen(WHOLE)
    assert frozen(WHOLE, DerivedIds("other", "test")) != frozen(WHOLE)
    assert frozen(WHOLE, fresh_ids) != frozen(WHOLE, fresh_ids)
    ids = [task_id for task_id, *_ in ids_of(frozen(WHOLE))]
    assert len(ids) == len(set(ids)) == 11


def test_freezing_what_is_frozen_changes_nothing():
    once = frozen(WHOLE, fresh_ids)
    assert freeze(once, fresh_ids) == once
    assert freeze(json.loads(json.dumps(once)), fresh_ids) == json.loads(json.dumps(once))


def test_the_callers_nodes_are_left_as_they_are():
    before = WHOLE.to_dict()
    frozen(WHOLE)
    assert WHOLE.to_dict() == before


def test_members_have_ids_derived_from_the_groups_unless_their_caller_chose():
    made = frozen(group([task("a"), chain(task("b"), task("c")), task("d", task_id="own")]))
    group_id = result_id(made)
    members = [result_id(member) for member in made["kwargs"]["tasks"]]
    assert members == [member_id(group_id, 0), member_id(group_id, 1), "own"]
    last = made["kwargs"]["tasks"][1]["kwargs"]["tasks"][-1]
    assert (last["options"]["group_id"], last["options"]["group_index"]) == (group_id, 1)


def test_a_compositions_options_go_where_they_are_meant():
    node = chain(task("a"), task("b"), task("c"))
    node.link(task("note"))
    node.link_error(task("sorry"))
    node.set(countdown=5, task_id="whole")
    first, second, last = frozen(node)["kwargs"]["tasks"]
    assert result_id(last) == "whole"
    assert first["options"]["countdown"] == 5
    assert "countdown" not in last["options"]
    assert [link["task"] for link in last["options"]["link"]] == ["note"]
    assert all(step["options"]["link_error"][0]["task"] == "sorry" for step in (first, second))


def test_a_chords_errbacks_are_its_bodys_and_its_delay_the_headers():
    node = chord([task("a")], chain(task("b"), task("c"))).on_error(task("sorry"))
    node.set(countdown=9, priority=3)
    made = frozen(node)
    assert [one["task"] for one in errbacks_of(made)] == ["sorry"]
    (member,) = made["kwargs"]["header"]["kwargs"]["tasks"]
    assert member["options"]["countdown"] == 9
    first, last = made["kwargs"]["body"]["kwargs"]["tasks"]
    assert "countdown" not in first["options"]
    assert first["options"]["priority"] == member["options"]["priority"] == 3
    assert last["options"]["link_error"][0]["task"] == "sorry"


@pytest.mark.parametrize(
    "broken",
    [
        {"task": "celery.chain", "kwargs": {"tasks": []}, "subtask_type": "chain"},
        {"task": "celery.chord", "kwargs": {"header": []}, "subtask_type": "chord"},
        {"task": "x", "subtask_type": "starmap-of-doom"},
        {"task": "celery.group", "kwargs": {"tasks": 7}, "subtask_type": "group"},
    ],
)
def test_what_is_no_composition_is_refused(broken):
    with pytest.raises(ConfigurationError):
        freeze({"args": [], "options": {}, **broken}, fresh_ids)


def test_everything_that_can_begin_begins_with_its_record_first():
    made = frozen(chord([task("a"), chord([task("b"), task("c")], task("d"))], task("e")))
    launch = UNFOLDER.unfold(made, Place())
    outer, inner = launch.records
    assert [call.task for call in launch.calls] == ["a", "b", "c"]
    assert (outer.size, inner.size) == (2, 2)
    assert inner.spec.fate.member == Membership(outer.id, 1, "shop", "redis")
    assert launch.calls[0].headers[h.CHORD] == Membership(outer.id, 0, "shop", "redis").to_header()
    assert {call.root_id for call in launch.calls} == {first_id(made)}
    assert outer.spec.names == (("a", 1), ("group(b …) | d", 1))


def test_a_chains_place_in_a_chord_is_carried_along_and_a_group_at_its_end_joins():
    made = frozen(chord([chain(task("a"), group([task("b"), task("c")]))], task("d")))
    launch = UNFOLDER.unfold(made, Place())
    (call,) = launch.calls
    message = TaskMessage(call.task_id, call.task, chain=list(call.chain), extra=dict(call.headers))
    assert membership(message).index == 0
    after = following(message, _success(message, 1), UNFOLDER, now=0.0)
    (join,) = after.records
    assert join.spec.body is None
    assert join.spec.fate.member == membership(message)
    assert join.spec.fate.result.id == member_id(launch.records[0].id, 0)
    again = following(message, _success(message, 1), UNFOLDER, now=0.0)
    assert again == after, "a settlement done twice sends the same"
    assert all(call.headers[h.ONCE] for call in after.calls)


def test_a_failure_ends_every_later_id():
    first, *later = frozen(WHOLE)["kwargs"]["tasks"]
    message = TaskMessage(result_id(first), "a", chain=later[::-1])
    from dataclasses import replace

    failed = replace(_success(message, None), state="FAILURE")
    launch = following(message, failed, UNFOLDER, now=1.0)
    ended = {outcome.id for outcome in launch.outcomes}
    assert ended == {task_id for step in later for task_id, *_ in ids_of(step)}
    assert {outcome.state for outcome in launch.outcomes} == {"FAILURE"}
    assert not launch.calls
    assert not launch.records


def test_a_replacement_has_the_tasks_id_a_higher_attempt_and_its_place():
    message = TaskMessage(
        "old", "swap", chain=[task("next", task_id="n").to_dict()], retries=3,
        replaced_task_nesting=1, extra={h.CHORD: Membership("c", 4, "shop", "redis").to_header()},
    )  # fmt: skip
    launch = replacing(message, chain(task("a"), task("b")).to_dict(), UNFOLDER)
    (call,) = launch.calls
    steps = list(call.chain)[::-1]
    assert [step["task"] for step in steps] == ["b", "next"]
    assert steps[0]["options"]["task_id"] == "old"
    assert steps[0]["options"]["replaced_task_nesting"] == 2
    assert call.headers[h.CHORD]["index"] == 4
    assert message.attempt == 3 + NESTING
    assert replacing(message, chain(task("a"), task("b")).to_dict(), UNFOLDER) == launch


def _success(message, value):
    from amqflow.abc import SUCCESS, Outcome

    return Outcome(message.id, SUCCESS, result=value)


# -- the messages ------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "header",
    [7, "c", {}, {"id": "c"}, {"id": "", "index": 0, "app": "a", "store": "s"},
     {"id": "c", "index": -1, "app": "a", "store": "s"},
     {"id": "c", "index": True, "app": "a", "store": "s"}],
)  # fmt: skip
def test_a_membership_that_is_none_is_refused(header):
    with pytest.raises(Undecodable, match="amqflow-chord"):
        Membership.of(header)


@pytest.mark.parametrize(
    "body", [b"", b"[]", b"{}\n1", b'{"chord":"c","app":"a","store":"s"}\nx\nS1',
             b'{"chord":"c","app":"a","store":"s"}\n1\n77', b"\xff\n1\nS1"],
)  # fmt: skip
def test_completions_that_are_none_are_refused(body):
    envelope = Completions("c", "a", "s").to_envelope()
    envelope.body = body
    with pytest.raises(Undecodable):
        Completions.of(envelope)
    with pytest.raises(Undecodable):
        Watch.of(envelope)


# -- what follows takes over ----------------------------------------------------------------------

HEIR = Unfolder(
    "shop", "redis", inherits=Inheritance(priority=True, expires=True, headers=("tenant",))
)
TRACE = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
TAKEN = {"tenant": "acme", "traceparent": TRACE}


def sender(**fields):
    return TaskMessage(
        "parent",
        "t",
        extra={"tenant": "acme", "other": "x"},
        traceparent=TRACE,
        expires=900.0,
        priority=3,
        **fields,
    )


def taken(call):
    return {name: call.headers.get(name) for name in TAKEN}, call.expires, call.priority


@pytest.mark.parametrize(
    "fields",
    [
        {"chain": [frozen(task("next"))]},
        {"chain": [frozen(chord([task("b"), task("c")], task("d")))]},
        {"chain": [frozen(task("last")), frozen(group([task("b"), task("c")]))]},
        {"callbacks": [task("link").to_dict()]},
    ],
)
def test_what_follows_a_task_takes_over_trace_headers_priority_and_deadline(fields):
    launch = following(sender(**fields), Outcome("parent", SUCCESS, result=1), HEIR, now=1.0)
    assert launch.calls
    for call in launch.calls:
        assert taken(call) == (TAKEN, 900.0, 3)
        assert "other" not in call.headers
    for record in launch.records:
        read = Spec.from_json(record.spec.to_json())
        done = {0: Ending.of(0, Outcome("b", SUCCESS)), 1: Ending.of(1, Outcome("c", SUCCESS))}
        known = Known(record.id, State.OPEN, read, 2, 2, 0, 0, 1.0, endings=done)
        for call in fired(known, read, HEIR, now=1.0).calls:
            assert taken(call) == (TAKEN, 900.0, 3)


def test_what_replaces_a_task_takes_over_the_same():
    (call,) = replacing(sender(), task("other").to_dict(), HEIR).calls
    assert taken(call) == (TAKEN, 900.0, 3)


def test_what_a_step_says_itself_stands_and_a_deadline_can_only_come_nearer():
    steps = [
        frozen(task("next", expires="1970-01-01T00:08:20Z", priority=9, headers={"tenant": "own"}))
    ]
    (call,) = following(
        sender(chain=steps), Outcome("parent", SUCCESS, result=1), HEIR, now=1.0
    ).calls
    assert (call.expires, call.priority, call.headers["tenant"]) == (500.0, 9, "own")


def test_an_errback_takes_over_all_but_the_deadline():
    message = sender(errbacks=[task("sorry").to_dict()])
    (call,) = following(message, Outcome("parent", FAILURE), HEIR, now=1.0).calls
    assert taken(call) == (TAKEN, None, 3)
    fate = Fate((End("body"),), (task("sorry").to_dict(),), headers=TAKEN, expires=900.0)
    cause = Failure.of(Outcome("b", FAILURE), "b")
    (call,) = failed("chord", fate, cause, HEIR, epoch=0, now=1.0).calls
    assert taken(call) == (TAKEN, None, None)


def test_by_default_what_follows_takes_over_the_trace_alone():
    message = sender(chain=[frozen(task("next"))])
    (call,) = following(message, Outcome("parent", SUCCESS, result=1), UNFOLDER, now=1.0).calls
    assert call.headers["traceparent"] == TRACE
    assert "tenant" not in call.headers
    assert call.expires is None
