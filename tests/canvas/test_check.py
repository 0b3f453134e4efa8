"""Compositions are checked when they are built: types of steps, bodies and members."""

from __future__ import annotations

from datetime import datetime
from decimal import Decimal
from typing import Annotated, Any, NewType
from uuid import UUID

import pytest
from pydantic import BaseModel, BeforeValidator

from amqflow.canvas import Chord, chain, chord, group, signature_from
from amqflow.canvas.hints import can_take, shown_type
from amqflow.errors import InvalidArguments
from tests.tasks.recording import RecordingApp

Metres = NewType("Metres", float)


class Model(BaseModel):
    x: int


@pytest.fixture
def shop():
    app = RecordingApp()

    @app.task
    def add(x: int, y: int) -> int:
        return x + y

    @app.task
    def total(numbers: list[int]) -> int:
        return sum(numbers)

    @app.task
    def words(text: str) -> list[str]:
        return text.split()

    @app.task
    def nothing() -> None: ...

    @app.task
    def anything(*args, **kwargs): ...

    @app.task
    def later(x: NotYet) -> NotYet: ...  # noqa: F821 - resolved at no time

    return {task.name.rpartition(".")[2]: task for task in app.tasks.values()}


def test_a_body_whose_first_argument_takes_no_list_is_refused_with_both_types_named(shop):
    add = shop["add"]
    header = group(add.s(i, i) for i in range(5))
    with pytest.raises(InvalidArguments) as caught:
        chord(header)(add.s(10))
    said = str(caught.value)
    assert f"{add.name} cannot take the list of the header's results" in said
    assert "argument 'x' is int" in said
    assert "list[int]" in said
    with pytest.raises(InvalidArguments):
        header | add.s(10)
    with pytest.raises(InvalidArguments):
        chord([add.s(1, 1)], add.s(10))


def test_a_body_that_takes_the_list_is_let_through(shop):
    add, total, anything = shop["add"], shop["total"], shop["anything"]
    header = [add.s(1, 1), add.s(2, 2)]
    for body in (total.s(), anything.s(), anything.s(1), add.si(1, 1), total.s() | add.s(1)):
        assert isinstance(chord(header, body), Chord)


def test_the_element_types_are_compared_too(shop):
    words, total = shop["words"], shop["total"]
    with pytest.raises(InvalidArguments, match=r"list\[int\].*list\[list\[str\]\]"):
        chord([words.s("a b")], total.s())


def test_any_member_that_does_not_fit_is_found_and_named(shop):
    with pytest.raises(InvalidArguments, match="words returns"):
        chord([shop["add"].s(1, 1), chain(shop["words"].s("a"))], shop["total"].s())


def test_a_step_that_can_never_take_the_result_before_it_is_refused(shop):
    add, total, words, nothing = (shop[name] for name in ("add", "total", "words", "nothing"))
    for steps in (
        (add.s(1, 1), total.s()),
        (words.s("a"), add.s(1)),
        (nothing.s(), add.s(1)),
        (add.s(1, 1), group(add.s(1), words.s())),
        (add.s(1, 1), chord([words.s()], shop["anything"].s())),
        (group(add.s(1, 1)), group(words.s(), total.s())),
    ):
        with pytest.raises(InvalidArguments, match="cannot take"):
            chain(*steps)


def test_a_step_with_too_many_or_too_few_arguments_is_refused(shop):
    add, nothing = shop["add"], shop["nothing"]
    for step in (add.s(1, 2), add.s(), nothing.s(), add.s(x=1)):
        with pytest.raises(InvalidArguments, match="with a result before its own arguments"):
            chain(add.s(1, 1), step)
    assert chain(add.s(1, 1), add.s(y=2), nothing.si())


def test_the_first_step_may_still_be_completed(shop):
    assert chain(shop["add"].s(), shop["add"].s(1)).clone((1, 2)).tasks[0].args == (1, 2)


def test_of_a_generator_only_the_first_member_is_drawn_for_the_check(shop):
    drawn = []

    def members():
        for number in range(5):
            drawn.append(number)
            yield shop["add"].s(number, number)

    chord(group(members()), shop["total"].s())
    assert drawn == [0]


def test_what_cannot_be_known_is_not_refused(shop):
    later, add = shop["later"], shop["add"]
    assert chain(later.s(1), add.s(1), later.s())
    assert chain(shop["anything"].s(), add.s(1), shop["anything"].s())
    unknown = signature_from({"task": "elsewhere"})
    assert chain(unknown, add.s(1), unknown)


def test_typing_off_checks_nothing():
    app = RecordingApp()

    @app.task(typing=False)
    def loose(x: int) -> str: ...

    @app.task
    def strict(x: int) -> int: ...

    assert chain(loose.s(1), loose.s(1, 2), strict.s())


@pytest.mark.parametrize(
    ("parameter", "value"),
    [
        (int, str),
        (int, Any),
        (Any, list[int]),
        (object, list),
        (float, int),
        (str, bytes),
        (list[int], list[int]),
        (list, list[int]),
        (list[int], list),
        (list[float], tuple[int, ...]),
        (set[int], list[int]),
        (dict[str, int], dict),
        (int | None, int),
        (int | None, None),
        (int, int | None),
        (list[int] | int, list[int]),
        (Metres, int),
        (Annotated[int, BeforeValidator(len)], list[int]),
        (Model, dict),
        (dict, Model),
        (Model, list),
        (datetime, str),
        (UUID, str),
        (Decimal, int),
    ],
    ids=repr,
)
def test_what_may_be_converted_is_let_through(parameter, value):
    assert can_take(parameter, value)


@pytest.mark.parametrize(
    ("parameter", "value"),
    [
        (int, list[int]),
        (int, dict),
        (int, None),
        (int, datetime),
        (str, int),
        (str, list),
        (str, UUID),
        (bytes, int),
        (list[int], int),
        (list[int], str),
        (list[int], list[list[int]]),
        (list[list[str]], list[str]),
        (set[str], list[int]),
        (dict, list),
        (int | str, list[int]),
        (None, int),
        (UUID, int),
        (datetime, list),
        (Metres, list),
        (int, list[int] | dict[str, int]),
    ],
    ids=repr,
)
def test_what_can_never_be_converted_is_refused(parameter, value):
    assert not can_take(parameter, value)


def test_types_are_shown_as_people_write_them():
    assert shown_type(int) == "int"
    assert shown_type(None) == "None"
    assert shown_type(list[int]) == "list[int]"
    assert shown_type(dict[str, list[int]]) == "dict[str, list[int]]"


def test_the_table_says_what_pydantic_does():
    """Each refusal of the table is pydantic's: no value of the one becomes the other."""
    from datetime import UTC, date, time, timedelta

    from pydantic import TypeAdapter, ValidationError

    from amqflow.canvas.hints import _MADE_OF

    values = {
        int: [0, 1, 5], float: [0.0, 1.0, 1.5], bool: [True, False], Decimal: [Decimal(1)],
        str: ["1", "x", "2026-01-01", "12:00", str(UUID(int=1))], bytes: [b"1", b"x"],
        datetime: [datetime(2026, 1, 1, tzinfo=UTC)], date: [date(2026, 1, 1)], time: [time(1)],
        timedelta: [timedelta(1)], UUID: [UUID(int=1)], type(None): [None],
        list: [[], [1]], dict: [{}, {"a": 1}],
    }  # fmt: skip
    for wanted, sources in _MADE_OF.items():
        adapter = TypeAdapter(wanted)
        for given, examples in values.items():
            if given in sources:
                continue
            for example in examples:
                with pytest.raises(ValidationError):
                    adapter.validate_python(example)
