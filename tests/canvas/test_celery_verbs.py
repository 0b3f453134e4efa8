"""Verbs of Celery's signatures: freeze, replace, flatten_links, type, skew."""

import pytest

from amqflow import chain, chord, group
from amqflow.canvas import Signature, signature_from
from amqflow.errors import ConfigurationError
from amqflow.workflow.freeze import freeze, fresh_ids
from amqflow.workflow.send import handle_of


def test_a_frozen_signature_has_the_id_of_its_handle(add):
    one = add.s(1, 2)
    handle = one.freeze()
    assert one.id == handle.id
    assert handle.task == "add"
    assert one.freeze("other").id == handle.id
    assert add.s(1, 2).freeze("chosen").id == "chosen"
    placed = add.s(1, 2)
    placed.freeze("a", "g", root_id="r", parent_id="p", group_index=1)
    assert dict(placed.options) == {
        "task_id": "a",
        "group_id": "g",
        "root_id": "r",
        "parent_id": "p",
        "group_index": 1,
    }


@pytest.mark.parametrize(
    "made",
    [
        lambda add: chain(add.s(1, 2), add.s(3), add.s(4)),
        lambda add: group(add.s(i, i) for i in range(3)),
        lambda add: chord([add.s(1, 2), chain(add.s(1, 1), add.s(2))], add.si(1, 1)),
        lambda add: chain(add.s(1, 2), group(add.s(1), add.s(2)), add.si(1, 1)),
        lambda add: chain(add.s(1, 2), group(add.s(1), add.s(2))),
        lambda add: group(group(add.s(1, 1)), chord([add.s(1, 1)], add.si(1, 1))),
    ],
    ids=["chain", "group", "chord", "chain-with-chord", "chain-to-group", "group-of-all"],
)
def test_a_frozen_composition_is_sent_with_the_ids_of_its_handle(app, add, made):
    node = made(add)
    handle = node.freeze("whole")
    sent = handle_of(freeze(node.to_dict(), fresh_ids), app)
    assert handle.id == sent.id == "whole"
    assert handle.as_tuple() == sent.as_tuple()


def test_replace_returns_a_copy_with_other_parts(add):
    one = add.s(1, y=2).set(queue="q")
    assert one.replace(args=(5,)) == add.s(5, y=2).set(queue="q")
    assert one.replace(kwargs={}, options={}) == add.s(1)
    assert one == add.s(1, y=2).set(queue="q")
    assert one.replace().sender is add


def test_flatten_links_goes_through_the_links_of_links(app, add):
    one, other, last = add.s(1, 1), add.s(2), add.s(3)
    other.link(last)
    one.link(other)
    found = one.flatten_links()
    assert [node.args for node in found] == [(1, 1), (2,), (3,)]
    assert found[-1].dispatcher is app


def test_type_is_the_task(add):
    assert add.s(1).type is add
    with pytest.raises(ConfigurationError, match="knows only the task's name"):
        _ = Signature("elsewhere").type


def test_skew_spreads_the_members_begin():
    def waits(made):
        return [signature_from(node).options["countdown"] for node in made]

    members = [Signature("t") for _ in range(4)]
    assert waits(group(members).skew()) == [1, 2, 3, 4]
    assert waits(group(iter(members)).skew(start=0, stop=1, step=0.5)) == [0, 0.5, 1, 1]
