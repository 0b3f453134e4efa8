"""Stamps: given to signatures and compositions, to a call, and kept by the dict form."""

import json

import pytest

from amqflow import AmqFlow
from amqflow.canvas import Signature, build_call, chain, chord, group, signature_from, xmap
from amqflow.canvas.stamps import stamps_in
from amqflow.errors import ConfigurationError
from amqflow.workflow.freeze import freeze, fresh_ids


def sig(name="t", **options):
    return Signature(name, options=options)


def stamps_of(node):
    """Return the stamps of each task in a frozen node, by its name."""
    found = {}

    def look(step):
        kwargs = step["kwargs"]
        for inner in (*kwargs.get("tasks", ()), kwargs.get("header"), kwargs.get("body")):
            if inner is not None:
                look(inner)
        if step["subtask_type"] is None:
            found[step["task"]] = stamps_in(step["options"])
        for option in ("link", "link_error"):
            for link in step["options"].get(option) or ():
                look({"subtask_type": None, **link})

    look(freeze(json.loads(json.dumps(node.to_dict())), fresh_ids))
    return found


def test_a_stamp_is_celerys_in_the_options():
    stamped = sig().stamp(tenant="acme")
    assert dict(stamped.options) == {"stamped_headers": ["tenant"], "tenant": "acme"}
    assert stamped.stamp(job=5).stamp(tenant="other").to_dict()["options"] == {
        "stamped_headers": ["tenant", "job"],
        "tenant": "other",
        "job": 5,
    }


def test_stamps_may_be_appended_and_be_several():
    stamped = sig().stamp(tenant="acme").stamp(append_stamps=True, tenant="beta", job={"b", "a"})
    assert stamps_in(stamped.options) == {"tenant": ["acme", "beta"], "job": ["a", "b"]}


def test_a_visitor_is_refused_and_so_is_the_name_of_an_option():
    with pytest.raises(ConfigurationError, match="no stamping visitors here"):
        sig().stamp(object())
    with pytest.raises(ConfigurationError, match="'priority': that is an execution option"):
        sig().stamp(priority=5)


@pytest.mark.parametrize(
    "options",
    [
        {"stamped_headers": ["tenant"], "tenant": "acme"},
        {"stamped_headers": ["tenant"], "headers": {"tenant": "acme"}},
        {"stamps": {"tenant": "acme"}},
    ],
)
def test_a_call_takes_stamps(options):
    assert build_call("t", (), {}, options).stamps == {"tenant": "acme"}
    assert build_call("t", (), {}, dict(sig(**options).options)).stamps == {"tenant": "acme"}


def test_what_is_no_stamp_is_refused_with_the_way_that_works():
    with pytest.raises(ConfigurationError, match=r"t: .*nothing gives its value: write stamps="):
        build_call("t", (), {}, {"stamped_headers": ["tenant"]})
    with pytest.raises(TypeError, match="must be a list of names, got 'tenant'"):
        build_call("t", (), {}, {"stamped_headers": "tenant"})
    with pytest.raises(TypeError, match="must be a dict of names and values"):
        build_call("t", (), {}, {"stamps": ["tenant"]})
    with pytest.raises(ConfigurationError, match="unknown option 'tenant'"):
        build_call("t", (), {}, {"stamped_headers": ["job"], "job": 1, "tenant": "acme"})


def test_a_stamp_of_its_own_stands_against_one_of_the_call_as_in_celery():
    stamped = sig().stamp(tenant="acme").clone(stamps={"tenant": "other", "job": 1})
    assert stamps_in(stamped.options) == {"tenant": "acme", "job": 1}
    assert stamps_in(stamped.set(stamps={"tenant": "other"}).options)["tenant"] == "other"


def whole():
    linked = sig("linked")
    linked.link(sig("deeper"))
    failed = sig("errback")
    made = chain(
        sig("first"), group(sig("left"), chain(sig("a"), sig("right"))), sig("body"), sig("last")
    )
    made.link(linked)
    made.link_error(failed)
    return made


EVERY = {"first", "left", "a", "right", "body", "last", "linked", "deeper", "errback"}


def test_a_stamp_of_a_composition_reaches_members_links_and_errbacks():
    assert stamps_of(whole().stamp(tenant="acme")) == {name: {"tenant": "acme"} for name in EVERY}


def test_stamps_among_options_reach_every_member_but_no_links():
    stamped = stamps_of(whole().set(stamps={"tenant": "acme"}))
    links = {"linked", "deeper", "errback"}
    assert stamped == {name: {} if name in links else {"tenant": "acme"} for name in EVERY}


def test_a_member_keeps_its_own_stamp():
    stamped = stamps_of(group(sig("a").stamp(tenant="own"), sig("b"), stamps={"tenant": "acme"}))
    assert stamped == {"a": {"tenant": "own"}, "b": {"tenant": "acme"}}


def test_members_of_a_generator_are_stamped_when_they_are_drawn():
    drawn = []

    def members():
        for name in "ab":
            drawn.append(name)
            yield sig(name)

    made = group(members()).stamp(tenant="acme")
    assert drawn == []
    assert stamps_of(chord(made, sig("body")).stamp(job=1)) == {
        "a": {"tenant": "acme", "job": 1},
        "b": {"tenant": "acme", "job": 1},
        "body": {"job": 1},
    }


def test_what_is_stamped_is_the_compositions_own_copy():
    one = sig("one")
    chain(one, sig("two")).stamp(tenant="acme")
    group(one).stamp(tenant="acme")
    chord([one], sig("body")).stamp(tenant="acme")
    assert not one.options


def test_map_is_stamped_as_one_call():
    assert stamps_in(xmap(sig("t").stamp(tenant="acme"), [1]).options) == {"tenant": "acme"}


def test_the_dict_form_of_a_celery_chain_keeps_each_steps_stamps():
    celery = pytest.importorskip("celery")
    app = celery.Celery("theirs", broker="memory://", set_as_current=False)
    theirs = celery.chain(app.signature("first"), app.signature("last"), app=app)
    theirs.stamp(tenant="acme")
    ours = signature_from(json.loads(json.dumps(theirs)))
    assert stamps_of(ours) == {name: {"tenant": "acme"} for name in ("first", "last")}
    back = celery.Signature.from_dict(ours.to_dict(), app=app)
    assert [step.options["tenant"] for step in back.tasks] == ["acme", "acme"]
    assert back.tasks[0].options["stamped_headers"] == ["tenant"]


def test_a_foreign_signatures_stamp_without_a_value_is_left_out():
    data = {"task": "t", "options": {"stamped_headers": ["a", "b", 5], "b": 1, "stamps": 5}}
    assert stamps_in(signature_from(data).options) == {"b": 1}


def test_a_task_run_here_sees_its_stamps():
    app = AmqFlow("stamps", broker="embedded://", backend=None)

    @app.task(bind=True)
    def seen(self, before=None):
        return dict(self.request.stamps), self.request.stamped_headers

    assert seen.s().stamp(tenant="acme").apply().get() == ({"tenant": "acme"}, ["tenant"])
    assert seen.apply(stamps={"job": 1}).get() == ({"job": 1}, ["job"])
    assert seen.apply().get() == ({}, None)
    assert seen.request.stamps == {}
    both = chord([seen.si(), seen.si()], seen.si(), stamps={"job": 1}).apply()
    assert both.get() == ({"job": 1}, ["job"])
    steps = chain(seen.si(), seen.si()).apply(stamps={"job": 2})
    assert steps.get() == steps.parent.get() == ({"job": 2}, ["job"])
