"""Signatures: Celery's dict form both ways, completing, linking, and snapshots."""

from __future__ import annotations

import json

import pytest

from amqflow.canvas import (
    Signature,
    as_signatures,
    check_signatures,
    maybe_signature,
    signature_to_call,
)
from amqflow.errors import ConfigurationError
from tests.tasks.recording import RecordingApp


def test_the_dict_form_is_celerys():
    import celery

    theirs = celery.signature("shop.add", args=(1, 2), kwargs={"k": 3}, options={"queue": "q"})
    ours = Signature("shop.add", (1, 2), {"k": 3}, {"queue": "q"})
    assert ours.to_dict() == json.loads(json.dumps(theirs))
    assert Signature.from_dict(json.loads(json.dumps(theirs))) == ours
    assert celery.signature(ours.to_dict()).args == [1, 2]


def test_celery_reads_a_linked_and_immutable_one():
    import celery

    ours = Signature("a", (1,), immutable=True)
    ours.link(Signature("b"))
    theirs = celery.signature(ours.to_dict())
    assert theirs.immutable
    assert theirs.options["link"][0]["task"] == "b"
    assert Signature.from_dict(dict(theirs)) == ours


def test_nested_signatures_become_dicts_everywhere():
    inner = Signature("inner")
    data = Signature("outer", (inner, [inner]), {"k": {"deep": inner}}, {"x": inner}).to_dict()
    assert data == json.loads(json.dumps(data))
    assert data["args"][1][0]["task"] == data["kwargs"]["k"]["deep"]["task"] == "inner"


@pytest.mark.parametrize(
    "data",
    [
        {},
        {"task": None},
        {"task": 5},
        {"task": "t", "args": "text"},
        {"task": "t", "kwargs": [1]},
        {"task": "t", "options": 1},
        {"task": "t", "subtask_type": "chord"},
    ],
)
def test_what_is_no_signature_is_refused(data):
    with pytest.raises(ConfigurationError):
        Signature.from_dict(data)


def test_a_foreign_clients_own_options_are_left_out_but_no_chord():
    data = {
        "task": "t",
        "options": {"queue": "q", "stamped_headers": ["x"], "stamps": {}, "chord": None},
    }
    assert dict(Signature.from_dict(data).options) == {"queue": "q"}
    data["options"]["chord"] = {"task": "body"}
    with pytest.raises(ConfigurationError, match="a chord of Celery's"):
        Signature.from_dict(data)


@pytest.mark.parametrize(
    "step",
    [
        5,
        {},
        {"task": "t", "options": {"priority": "high"}},
        {"task": "t", "options": {"link": [5]}},
    ],
)
def test_what_could_not_be_called_later_is_found_before(step):
    check_signatures([{"task": "t", "args": [1], "options": {"queue": "q"}}])
    with pytest.raises(ConfigurationError):
        check_signatures([step])


def test_foreign_dicts_may_leave_things_out():
    assert Signature.from_dict({"task": "t"}) == Signature("t")
    assert (
        Signature.from_dict({"task": "t", "args": None, "kwargs": None, "options": None}).args == ()
    )


def test_it_reads_as_celerys_dict():
    signature = Signature("t", (1,), {"k": 2}, {"queue": "q"})
    assert signature["task"] == "t"
    assert signature["options"]["queue"] == "q"
    assert set(dict(signature)) == {
        "task", "args", "kwargs", "options", "subtask_type", "immutable",
    }  # fmt: skip
    with pytest.raises(KeyError):
        _ = signature["nonsense"]


def test_a_parents_result_comes_first_unless_immutable():
    assert Signature("t", (1,), {"a": 1}).merged_args((0,), {"a": 2, "b": 3}) == (
        (0, 1),
        {"a": 2, "b": 3},
    )
    assert Signature("t", (1,), {"a": 1}, immutable=True).merged_args((0,), {"a": 2}) == (
        (1,),
        {"a": 1},
    )


def test_clone_completes_a_copy():
    first = Signature("t", (2,), {"a": 1}, {"queue": "q"})
    copy = first.clone((1,), {"b": 2}, priority=5)
    assert copy == Signature("t", (1, 2), {"a": 1, "b": 2}, {"queue": "q", "priority": 5})
    assert first == Signature("t", (2,), {"a": 1}, {"queue": "q"})


def test_set_and_link_work_for_their_effect_as_in_celery():
    signature, callback, errback = Signature("t"), Signature("c"), Signature("e")
    assert signature.set(queue="q") is signature
    assert signature.link(callback) is callback
    assert signature.link_error(errback) is errback
    assert signature.on_error(errback) is signature
    assert [one["task"] for one in signature.options["link"]] == ["c"]
    assert [one["task"] for one in signature.options["link_error"]] == ["e"]
    signature.set_immutable(True)
    assert signature.set(immutable=False).immutable is False


def test_what_was_taken_before_is_a_snapshot():
    callback = Signature("c", (1,))
    signature = Signature("t")
    signature.link(callback)
    clone, call = signature.clone(), signature_to_call(signature)
    callback.set(queue="later")
    signature.set(queue="later")
    signature.link(Signature("d"))
    assert clone.options.get("queue") is None
    assert [one["task"] for one in clone.options["link"]] == ["c"]
    assert clone.options["link"][0]["options"] == {}
    assert [one["task"] for one in call.callbacks] == ["c"]


def test_arguments_and_options_cannot_be_written():
    arguments, options = {"a": 1}, {"queue": "q"}
    signature = Signature("t", (), arguments, options)
    arguments["a"], options["queue"] = 2, "other"
    assert (signature.kwargs["a"], signature.options["queue"]) == (1, "q")
    with pytest.raises(TypeError):
        signature.kwargs["a"] = 2
    with pytest.raises(TypeError):
        signature.options["queue"] = "other"


def test_the_call_has_the_options_of_both():
    signature = Signature("t", (2,), {"a": 1}, {"queue": "q", "priority": 1})
    call = signature_to_call(signature, (1,), priority=7)
    assert (call.args, dict(call.kwargs), call.queue, call.priority) == ((1, 2), {"a": 1}, "q", 7)


def test_by_name_it_is_sent_by_its_application():
    app = RecordingApp()
    signature = Signature("elsewhere.task", (2,), options={"queue": "q"}, dispatcher=app)
    result = signature.delay(1)
    signature.apply_async((0,), priority=3)
    assert result.task == "elsewhere.task"
    assert [(call.args, call.queue, call.priority) for call in app.sent] == [
        ((1, 2), "q", None),
        ((0, 2), "q", 3),
    ]


async def test_the_async_twins():
    app = RecordingApp()
    signature = Signature("elsewhere.task", dispatcher=app)
    await signature.adelay(1)
    await signature.aapply_async((2,), queue="q")
    assert [call.args for call in app.sent] == [(1,), (2,)]


def test_without_an_application_it_says_so():
    with pytest.raises(ConfigurationError, match="belongs to no application"):
        Signature("t").delay()
    with pytest.raises(ConfigurationError, match="only the task's name"):
        Signature("t")()
    with pytest.raises(ConfigurationError, match="only the task's name"):
        Signature("t").apply()


def test_through_its_task_it_validates_runs_and_sends():
    app = RecordingApp()

    @app.task
    def add(x: int, y: int) -> int:
        return x + y

    signature = add.s(2).set(queue="q")
    assert signature(1) == 3
    assert signature.apply((1,)).get() == 3
    signature.delay(1)
    assert app.sent[0].args == (1, 2)
    assert app.sent[0].queue == "q"
    with pytest.raises(TypeError, match="argument 'x': expected a valid integer"):
        signature.delay("x", 5, 6)
    assert add.si(1, 2).merged_args((9,)) == ((1, 2), {})


def test_helpers():
    signature = Signature("t")
    assert maybe_signature(None) is None
    assert maybe_signature(signature) is signature
    assert maybe_signature({"task": "t"}) == signature
    assert as_signatures(None) == []
    assert as_signatures([signature, {"task": "u"}]) == [signature, Signature("u")]
    assert signature != 5
    assert "t(1, a=2)" in repr(Signature("t", (1,), {"a": 2}))
    with pytest.raises(TypeError):
        hash(signature)


def test_kombus_encoder_writes_it():
    from kombu.utils.json import dumps, loads

    signature = Signature("t", (1,))
    assert Signature.from_dict(loads(dumps(signature))) == signature
