"""map, starmap and chunks; compositions drawn; compositions run here and now."""

from __future__ import annotations

import pytest

from amqflow import AmqFlow
from amqflow.canvas import Group, chain, chord, group, signature_from, xmap
from amqflow.errors import ConfigurationError, InvalidArguments


@pytest.fixture
def shop():
    app = AmqFlow("shop", broker="amqp://nobody@localhost:1/", backend="memory://")

    @app.task(name="add", queue="sums")
    def add(x: int, y: int) -> int:
        return x + y

    @app.task(name="total")
    def total(numbers: list[int]) -> int:
        return sum(numbers)

    @app.task(name="double")
    async def double(x: int) -> int:
        return 2 * x

    @app.task(name="fail")
    def fail(x=None) -> int:
        raise ValueError(f"no {x}")

    yield app
    app.close()  # async tasks called from here have started its loop


@pytest.fixture
def add(shop):
    return shop.tasks["add"]


# -- map, starmap, chunks -----------------------------------------------------------------------


def test_map_starmap_and_chunks_give_what_the_builtins_give(shop, add):
    assert shop.tasks["double"].map([1, 2, 3]).apply().get() == [2, 4, 6]
    pairs = list(zip(range(5), range(5), strict=True))
    assert add.starmap(pairs).apply().get() == [x + y for x, y in pairs]
    assert add.chunks(pairs, 2).apply().get() == [[0, 2], [4, 6], [8]]
    assert xmap(add.s(), []).apply().get() == []


def test_they_are_celerys_signatures_and_go_where_their_task_goes(shop):
    import celery

    data = shop.tasks["double"].map([1, 2]).to_dict()
    assert data["task"] == "celery.map"
    assert data["options"] == {"route_name": "double"}
    theirs = celery.xmap(celery.signature("double"), [1, 2])
    assert celery.signature(data)["kwargs"]["it"] == list(theirs.kwargs["it"])
    again = signature_from(data)
    assert again.immutable
    assert again.to_dict() == data


def test_chunks_of_a_generator_stay_lazy(add):
    drawn = []

    def pairs():
        for number in range(7):
            drawn.append(number)
            yield number, number

    made = add.chunks(pairs(), 3)
    assert isinstance(made, Group)
    assert drawn == []
    walking = iter(made)
    assert next(walking).kwargs["it"] == [(0, 0), (1, 1), (2, 2)]
    assert drawn == [0, 1, 2]
    assert [len(part.kwargs["it"]) for part in made] == [3, 3, 1]


@pytest.mark.parametrize("n", [0, -1, 1.5, "2", None, True])
def test_chunks_of_no_size_are_refused(add, n):
    with pytest.raises(ConfigurationError, match="above 0"):
        add.chunks([(1, 1)], n)


# -- drawn --------------------------------------------------------------------------------------


def test_a_chord_in_a_chain_is_drawn_with_its_fork_and_join(add, shop):
    made = add.s(1, 2) | group(add.s(1), add.s(2)) | shop.tasks["total"].s()
    assert made.graph() == (
        "flowchart LR\n"
        '    n0["add(1, 2)"]\n'
        '    n1["add(1)"]\n'
        '    n2["add(2)"]\n'
        '    n3["total()"]\n'
        "    n1 --> n3\n"
        "    n2 --> n3\n"
        "    n0 --> n1\n"
        "    n0 --> n2\n"
    )


def test_many_to_many_meet_in_one_point_and_links_are_dotted(add, shop):
    total = shop.tasks["total"]
    made = chain(group(add.s(1, 1), add.s(2, 2)), group(total.s(), total.s()))
    made.link_error(shop.tasks["fail"].si())
    drawn = made.graph()
    assert drawn.count("(( ))") == 1
    assert "-. on error .->" in drawn


def test_a_large_group_is_counted_and_an_endless_one_is_not_drawn_to_its_end(add):
    assert '(["92 more"])' in group([add.s(n, n) for n in range(100)]).graph()

    def endless():
        while True:
            yield add.s(1, 1)

    assert '(["and so on"])' in group(endless()).graph()


def test_what_means_something_to_mermaid_is_escaped(add):
    drawn = add.s('"><script>', "#`\n").graph()
    label = drawn.splitlines()[1].removeprefix('    n0["').removesuffix('"]')
    assert not set('"<>`') & set(label)


# -- here and now -------------------------------------------------------------------------------


def test_a_chain_here_and_now(add):
    ended = chain(add.s(2), add.s(3)).apply((1,))
    assert ended.get() == 6
    assert ended.parent.get() == 3
    assert ended.parent.parent is None


def test_a_chord_here_and_now(shop, add):
    total, double = shop.tasks["total"], shop.tasks["double"]
    ended = (group(add.s(i) for i in range(5)) | total.s() | double.s()).apply((1,))
    assert ended.get() == 30
    assert ended.parent.parent.get() == [1, 2, 3, 4, 5]
    assert chord([], total.s()).apply().get() == 0


def test_nested_groups_here_and_now_keep_shape_and_order(add):
    made = group(add.s(1, 1), chain(add.s(1, 2), group(add.s(1), add.s(2))), group(add.s(0, 0)))
    ended = made.apply()
    assert ended.get() == [2, [4, 5], 0]
    assert ended.ready()
    assert ended.successful()
    assert ended.completed_count() == 4
    assert [one.get() for one in ended.as_completed()] == [2, [4, 5], 0]


def test_a_failed_step_ends_the_chain_here_too(shop, add):
    ended = chain(add.s(1, 1), shop.tasks["fail"].s(), add.s(1)).apply()
    assert ended.failed()
    assert (ended.task, ended.parent.state, ended.parent.parent.get()) == ("add", "FAILURE", 2)
    with pytest.raises(ValueError, match="no 2"):
        ended.get()
    with pytest.raises(ValueError, match="no 2"):
        chain(add.s(1, 1), shop.tasks["fail"].s()).apply(throw=True)


def test_a_failed_member_fails_the_chord_and_calls_the_errback_once(shop, add):
    seen = []
    shop.conf.update(task_always_eager=True)

    @shop.task(name="note")
    def note(request, exc, traceback):
        seen.append((request["task"], exc["exc_type"]))

    made = chord([add.s(1, 1), shop.tasks["fail"].s(1)], shop.tasks["total"].s()).on_error(note.s())
    ended = made.apply()
    assert ended.failed()
    assert ended.parent.failed()
    assert ended.parent[0].get() == 2
    assert seen == [("total", "ValueError")]


def test_what_is_linked_to_a_group_runs_once_with_the_list(shop, add):
    seen = []
    shop.conf.update(task_always_eager=True)

    @shop.task(name="note")
    def note(results):
        seen.append(results)

    made = group(add.s(1, 1), add.s(2, 2))
    made.link(note.s())
    assert made.apply().get() == [2, 4]
    assert seen == [[2, 4]]


async def test_async_tasks_run_in_the_loop_they_are_called_in(shop, add):
    double, total = shop.tasks["double"], shop.tasks["total"]
    ended = await chord([double.s(1), add.s(1, 1)], total.s()).aapply()
    assert await ended == 4


def test_a_composition_saved_as_json_loaded_elsewhere_and_called_does_the_same(shop, add):
    import json

    saved = json.dumps((group(add.s(1, 2), add.s(3, 4)) | shop.tasks["total"].s()).to_dict())
    assert signature_from(json.loads(saved), shop).apply().get() == 10


def test_items_are_checked_and_converted_as_calls_of_their_task(shop, add):
    assert shop.tasks["total"].map([range(3)]).kwargs["it"] == [[0, 1, 2]]
    assert add.starmap([("1", 2)]).kwargs["it"] == [(1, 2)]
    for wrong in (add.starmap([(1,)]), add.starmap([(1, "x")]), shop.tasks["double"].map([None])):
        with pytest.raises(InvalidArguments):
            wrong.to_dict()
