"""Chains, groups and chords as data: how they are built, flattened, completed and read back."""

from __future__ import annotations

import json

import pytest

from amqflow.canvas import (
    Chain,
    Chord,
    Group,
    Node,
    Signature,
    chain,
    check_signatures,
    chord,
    group,
    signature,
    signature_from,
)
from amqflow.errors import ConfigurationError
from amqflow.protocol import dumps, loads
from tests.tasks.recording import RecordingApp


def sig(name, *args, **options):
    return Signature(name, args, options=options)


def names(node):
    return [one.task for one in node.tasks]


A, B, C, D = (sig(name) for name in "abcd")


# -- chains -------------------------------------------------------------------------------------


def test_a_chain_of_one_works_and_an_empty_one_is_refused():
    assert names(chain(A)) == ["a"]
    for empty in ((), ([],), (iter(()),)):
        with pytest.raises(ConfigurationError, match="at least one step"):
            chain(*empty)


@pytest.mark.parametrize("wrong", [5, "a", object(), [5], ["a"], {"no": "task"}])
def test_what_is_no_signature_is_refused_where_it_stands(wrong):
    for make in (chain, group, chord):
        with pytest.raises(ConfigurationError, match="signature"):
            make(wrong)


def test_steps_are_given_one_by_one_or_as_anything_iterable():
    for made in (chain(A, B), chain([A, B]), chain((A, B)), chain(iter([A, B])), A | B):
        assert names(made) == ["a", "b"]


def test_flattening_nested_chains_keeps_inner_links_and_errbacks():
    inner = chain(B, C)
    inner.link(sig("linked"))
    inner.link_error(sig("errback"))
    inner.set(queue="q", task_id="inner-id")
    made = chain(A, inner, D)
    assert names(made) == ["a", "b", "c", "d"]
    first, last = made.tasks[1:3]
    assert [one["task"] for one in last.options["link"]] == ["linked"]
    assert "link" not in first.options
    for step in (first, last):
        assert [one["task"] for one in step.options["link_error"]] == ["errback"]
    assert (first.options["queue"], last.id) == ("q", "inner-id")
    assert "queue" not in last.options
    assert first.id is None


def test_flattening_adds_to_a_steps_own_links():
    inner = chain(A, B.clone(link=[sig("own")], link_error=[sig("own-error")]))
    inner.link(sig("chains"))
    inner.link_error(sig("chains-error"))
    last = chain(inner, C).tasks[1]
    assert [one["task"] for one in last.options["link"]] == ["own", "chains"]
    assert [one["task"] for one in last.options["link_error"]] == ["own-error", "chains-error"]


def test_an_immutable_inner_chain_ignores_what_comes_before():
    made = chain(A, chain(B, C).set(immutable=True))
    assert made.tasks[1].immutable
    assert not made.tasks[2].immutable


def test_a_group_that_a_step_follows_becomes_a_chord():
    made = A | group(B, C) | D
    assert names(made) == ["a", "celery.chord"]
    joined = made.tasks[1]
    assert isinstance(joined, Chord)
    assert (names(joined.header), joined.body) == (["b", "c"], D)
    assert isinstance(group(A, B) | C, Chord)
    assert isinstance(chain(group(A, B), C).tasks[0], Chord)


def test_a_group_at_the_end_stays_a_group():
    made = A | group(B, C)
    assert isinstance(made.tasks[-1], Group)


def test_groups_one_after_the_other_are_chords_within():
    made = chain(group(A, B), group(C, D), A)
    (outer,) = made.tasks
    assert isinstance(outer.body, Chord)
    assert names(outer.header) == ["a", "b"]
    assert names(outer.body.header) == ["c", "d"]
    assert outer.body.body == A


def test_chords_in_a_row_stay_flat():
    made = group(A, A) | B
    for _ in range(8):
        made = made | group(A, A) | B
    assert names(made) == ["celery.chord"] * 9
    data = made.to_dict()
    assert signature_from(json.loads(json.dumps(data))) == made


def test_what_is_linked_to_a_chord_stays_before_the_step_that_follows():
    fan = chord([A, B], group(C, D))
    fan.link(sig("linked"))
    fan.link_error(sig("errback"))
    (made,) = chain(fan, A).tasks
    assert not made.options.get("link")
    assert not made.options.get("link_error")
    assert [one["task"] for one in made.header.options["link_error"]] == ["errback"]
    inner = made.body
    assert isinstance(inner, Chord)
    assert [one["task"] for one in inner.header.options["link"]] == ["linked"]
    assert inner.body == A


# -- groups -------------------------------------------------------------------------------------


def test_a_group_directly_inside_a_group_is_unrolled_and_a_chain_between_prevents_it():
    assert names(group(group(A, B), C)) == ["a", "b", "c"]
    assert names(group(group(group(A)), B)) == ["a", "b"]
    assert names(chord([group(A, B), C], D).header) == ["a", "b", "c"]
    kept = group(chain(group(A, B)), C)
    assert names(kept) == ["celery.chain", "c"]
    assert isinstance(kept.tasks[0].tasks[0], Group)


def test_an_unrolled_groups_options_go_to_its_members():
    inner = group(A, B).set(queue="q", immutable=True)
    inner.link_error(sig("errback"))
    members = group(inner, C).tasks
    for member in members[:2]:
        assert member.options["queue"] == "q"
        assert member.immutable
        assert [one["task"] for one in member.options["link_error"]] == ["errback"]
    assert not members[2].options


def test_a_link_that_unrolling_would_lose_is_refused():
    inner = group(A, B)
    inner.link(C)
    with pytest.raises(ConfigurationError, match="would lose its link"):
        group(inner, D)
    assert group(chain(inner), D).tasks[0].tasks[0].options["link"]


def test_a_group_of_one_and_an_empty_one_stay_groups():
    assert names(group(A)) == ["a"]
    assert names(group([])) == names(group()) == []
    assert isinstance((group(A) | B), Chord)
    assert names((group() | B).header) == []


def test_a_generators_members_are_drawn_one_by_one():
    drawn = []

    def members():
        for number in range(5):
            drawn.append(number)
            yield sig("m", number)

    made = group(members())
    assert made.lazy
    assert drawn == []
    walking = iter(made)
    assert next(walking).args == (0,)
    assert drawn == [0]
    assert [one.args for one in made] == [(number,) for number in range(5)]
    assert drawn == list(range(5))
    assert not made.lazy
    assert len(made) == 5


def test_a_lazy_group_stays_lazy_in_all_that_is_made_of_it():
    drawn = []

    def members():
        for number in range(3):
            drawn.append(number)
            yield sig("m", number)

    joined = chord(group(members()), B)
    whole = A | joined.clone(("x",))
    assert drawn == []
    header = whole.tasks[1].header
    assert header.lazy
    first = next(iter(header))
    assert first.args == ("x", 0)
    assert drawn == [0]
    assert [one.args for one in header] == [("x", 0), ("x", 1), ("x", 2)]
    assert drawn == [0, 1, 2]


def test_a_member_of_a_generator_that_is_none_is_told_when_it_is_drawn():
    made = group(one for one in (A, 5))
    walking = iter(made)
    assert next(walking) == A
    with pytest.raises(ConfigurationError, match="not a signature: 5"):
        next(walking)


# -- snapshots and options ----------------------------------------------------------------------


def test_a_composition_is_a_snapshot_of_its_members():
    step = sig("step")
    made = (chain(step, A), group(step, A), chord([step], A))
    step.set(queue="later")
    step.link_error(B)
    assert all("later" not in json.dumps(one.to_dict()) for one in made)
    assert "queue" not in made[0].clone().set(queue="x").tasks[0].options


def test_a_compositions_own_members_may_be_changed_in_place_as_in_celery():
    made = chain(A, B)
    made.tasks[0].set(queue="q")
    assert made.to_dict()["kwargs"]["tasks"][0]["options"] == {"queue": "q"}
    assert made.clone().tasks[0].options["queue"] == "q"


def test_links_and_options_of_a_composition_are_its_own():
    made = group(A, B)
    assert made.set(queue="q") is made
    assert made.link(C) is C
    assert made.on_error(D) is made
    assert [one.task for one in made.spread()] == ["a", "b"]
    assert all(one.options == {"queue": "q"} for one in made.spread())
    assert [one["task"] for one in made.options["link"]] == ["c"]
    assert [one["task"] for one in made.options["link_error"]] == ["d"]


def test_a_composition_may_be_linked():
    first = sig("first")
    first.link(chain(A, group(B, C)))
    data = first.to_dict()["options"]["link"][0]
    assert (data["task"], data["subtask_type"]) == ("celery.chain", "chain")
    check_signatures(first.options["link"])


def test_an_option_that_is_wrong_anywhere_inside_is_found():
    for made in (
        chain(A, sig("b", priority="high")),
        group(A, chain(B, sig("c", priority=999))),
        chord([sig("a", countdown="soon")], B),
        chain(A).set(nonsense=1),
    ):
        with pytest.raises((ConfigurationError, TypeError, ValueError)):
            made.check_options()


# -- completing ---------------------------------------------------------------------------------


def test_arguments_given_to_a_composition_reach_the_members_that_run_first():
    made = chain(A, B).clone((1,), {"k": 2})
    assert [(one.args, dict(one.kwargs)) for one in made.tasks] == [((1,), {"k": 2}), ((), {})]
    made = group(sig("a", 5), B).clone((1,), {"k": 2})
    assert [(one.args, dict(one.kwargs)) for one in made] == [
        ((1, 5), {"k": 2}),
        ((1,), {"k": 2}),
    ]
    made = chord([A, chain(B, C)], D).clone((1,))
    assert made.header.tasks[0].args == (1,)
    assert [one.args for one in made.header.tasks[1].tasks] == [(1,), ()]
    assert made.body.args == ()


def test_immutable_ones_take_nothing_at_every_level():
    still = Signature("a", (9,), immutable=True)
    assert group(still, B).clone((1,)).tasks[0].args == (9,)
    assert chain(still, B).clone((1,)).tasks[0].args == (9,)
    for made in (chain(A, B), group(A, B), chord([A], B)):
        made.set_immutable(True)
        assert (1,) not in [one.args for one in made.clone((1,)).tasks]
    inner = chain(A).set(immutable=True)
    assert group(inner, B).clone((1,)).tasks[0].tasks[0].args == ()


def test_options_of_a_clone_are_over_its_own():
    made = chain(A, B).set(queue="q", priority=1)
    assert dict(made.clone(priority=2).options) == {"queue": "q", "priority": 2}
    assert dict(made.options) == {"queue": "q", "priority": 1}


# -- as data ------------------------------------------------------------------------------------

COMPOSITIONS = [
    chain(A, B),
    chain(A, group(B, C), D, group(A, B)),
    group(A, chain(B, group(C))),
    group([]),
    chord([A, chord([B], C)], chain(D, A), queue="q"),
    chain(chord(group(A, group(B)), group(C, D)), A).on_error(B),
    chain(A).set(immutable=True, countdown=3),
]


@pytest.mark.parametrize("made", COMPOSITIONS, ids=repr)
def test_a_composition_reads_back_from_json_as_it_was(made):
    for data in (json.loads(json.dumps(made.to_dict())), loads(dumps(made))):
        again = signature_from(data)
        assert type(again) is type(made)
        assert again == made
        assert again.to_dict() == made.to_dict()


@pytest.mark.parametrize("made", COMPOSITIONS[:5], ids=repr)
def test_celery_reads_the_dict_form(made):
    import celery

    theirs = celery.signature(json.loads(json.dumps(made.to_dict())))
    assert type(theirs).__name__.strip("_") == made.subtask_type
    assert signature_from(json.loads(json.dumps(theirs))) == made


def test_celerys_dict_form_is_read():
    import celery

    a, b, c, d = (celery.signature(name) for name in "abcd")
    theirs = celery.chain(a, celery.group(b, c), d) | celery.group(a, b)
    ours = signature_from(json.loads(json.dumps(theirs)))
    assert isinstance(ours, Chain)
    joined = ours.tasks[1]
    assert isinstance(joined, Chord)
    assert names(joined.header) == ["b", "c"]
    header_as_list = {
        "task": "celery.chord",
        "subtask_type": "chord",
        "kwargs": {"header": [{"task": "a"}, {"task": "b"}], "body": {"task": "c"}},
    }
    assert names(signature_from(header_as_list).header) == ["a", "b"]


@pytest.mark.parametrize(
    "data",
    [
        {"task": "celery.chain", "subtask_type": "chain", "kwargs": {}},
        {"task": "celery.chain", "subtask_type": "chain", "kwargs": {"tasks": "ab"}},
        {"task": "celery.group", "subtask_type": "group", "kwargs": {"tasks": [5]}},
        {"task": "celery.group", "subtask_type": "group", "kwargs": {"tasks": {"a": 1}}},
        {"task": "celery.chord", "subtask_type": "chord", "kwargs": {"header": []}},
        {"task": "celery.chord", "subtask_type": "chord", "kwargs": {"header": 5, "body": {}}},
        {"task": "celery.x", "subtask_type": "nonsense"},
        {"task": "celery.x", "subtask_type": ["chain"]},
    ],
)
def test_a_dict_that_is_no_composition_is_refused(data):
    with pytest.raises(ConfigurationError):
        signature_from(data)


def test_the_dict_form_reads_as_celerys_dict():
    made = chord([A], B)
    assert made["subtask_type"] == "chord"
    assert made["kwargs"]["body"] == B
    assert set(dict(made)) == set(dict(A))
    assert isinstance(made, Node)


def test_signature_makes_one_of_anything():
    assert signature("t", (1,), {"k": 2}, queue="q") == Signature(
        "t", (1,), {"k": 2}, {"queue": "q"}
    )
    assert signature(A.to_dict()) == A
    assert signature(COMPOSITIONS[1].to_dict()) == COMPOSITIONS[1]
    copy = signature(A)
    assert copy == A
    assert copy is not A
    with pytest.raises(ConfigurationError, match="not a signature"):
        signature(5)


def test_what_belongs_to_no_application_says_so():
    with pytest.raises(ConfigurationError, match="belongs to no application"):
        chain(A, B)()
    with pytest.raises(ConfigurationError, match="has no body"):
        chord([A])()


def test_what_names_no_application_is_the_one_made_lasts(no_current_application):
    app = RecordingApp()
    no_current_application.add(app)
    A.delay()
    assert [call.task for call in app.sent] == ["a"]


def deep(kind, levels, task):
    """Return compositions of a kind within one another, built from the inside."""
    made = {"header": chord([task.s()], task.si()), "body": chord([task.si()], task.si())}.get(
        kind, group([task.s()])
    )
    for _ in range(levels):
        if kind == "header":
            made = chord([made], task.si())
        elif kind == "body":
            made = chord([task.si()], made)
        else:
            made = group([chain(made, task.si()), task.si()])
    return made


@pytest.mark.parametrize("kind", ["header", "body", "groups"])
def test_what_nests_too_deep_is_refused_in_a_sentence_when_it_is_built(kind):
    app = RecordingApp()

    @app.task
    def step(*_given): ...

    within = deep(kind, 45 if kind == "header" else 30, step)
    assert signature_from(within.to_dict()) == within
    with pytest.raises(ConfigurationError, match="nested deeper than 100 levels: let a task go on"):
        deep(kind, 200, step)


def test_what_nests_too_deep_is_refused_in_a_sentence_when_it_is_read():
    data = {"task": "one", "args": [], "kwargs": {}, "options": {}, "subtask_type": None}
    for _ in range(300):
        data = {"task": "celery.group", "kwargs": {"tasks": [data]}, "subtask_type": "group"}
        data = {
            "task": "celery.chord",
            "kwargs": {"header": data, "body": {"task": "one"}},
            "subtask_type": "chord",
        }
    with pytest.raises(ConfigurationError, match="nested deeper than 100 levels"):
        signature_from(data)


def test_a_long_chain_through_groups_is_not_deep():
    app = RecordingApp()

    @app.task
    def step(*_given): ...

    made = group(step.s(), step.s())
    for _ in range(120):
        made = made | step.s() | group(step.s(), step.s())
    assert len(made.tasks) > 100
