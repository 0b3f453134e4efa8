"""Signatures and compositions copied, pickled and written as JSON."""

import copy
import json
import pickle

import pytest

from amqflow import chain, chord, chunks, group, signature, xmap
from amqflow.canvas import Signature


def nodes(add):
    yield add.s(1, [2])
    yield add.si(1, y={"deep": [1]}).set(queue="q", link=add.s(1))
    yield chain(add.s(1, 2), add.s(3)).on_error(add.si(0, 0))
    yield group(add.s(i, i) for i in range(3))
    yield chord([add.s(1, 2)], add.s(3))
    yield chord([add.s(1, 2)])
    yield chain(add.s(1, 2), group(add.s(3), add.s(4)), add.si(1, 1))
    yield xmap(add.s(1), iter([1, 2]))
    yield add.starmap((i, i) for i in range(3))
    yield chunks(add.s(), ((i, i) for i in range(3)), 2)


def test_a_deep_copy_is_alike_and_shares_no_data(app, add):
    for node in nodes(add):
        made = copy.deepcopy(node)
        assert made == node
        assert type(made) is type(node)
        assert made.dispatcher is app
    one = add.s([1], y={"deep": []})
    made = copy.deepcopy(one)
    one.args[0].append(2)
    one.kwargs["y"]["deep"].append(1)
    one.set(queue="q")
    assert made == add.s([1], y={"deep": []})
    assert made.sender is add
    with pytest.raises(TypeError):
        made.kwargs["y"] = 1


def test_a_shallow_copy_shares_the_arguments_but_not_the_options(add):
    one = add.s([1])
    made = copy.copy(one)
    made.set(queue="q")
    assert made.args[0] is one.args[0]
    assert not one.options


def test_pickle_keeps_all_but_the_application(app, add, no_current_application):
    for node in nodes(add):
        data = pickle.dumps(node)
        made = pickle.loads(data)
        assert made == node
        assert type(made) is type(node)
        assert made.dispatcher is None
    no_current_application.add(app)
    assert pickle.loads(pickle.dumps(add.s(1, 2))).apply().get() == 3
    assert pickle.loads(pickle.dumps(chain(add.s(1, 2), add.s(3)))).apply().get() == 6


def test_a_users_subclass_is_copied_with_what_it_has(add):
    class Marked(Signature):
        pass

    one = Marked("add", (1, 2))
    one.mark = [1]
    assert copy.deepcopy(one).mark == [1]
    assert copy.copy(one).mark is one.mark


def test_the_dict_form_is_json(add):
    for node in nodes(add):
        if getattr(node, "body", True) is not None:
            assert signature(json.loads(json.dumps(node.to_dict()))).to_dict() == json.loads(
                json.dumps(node.to_dict())
            )
