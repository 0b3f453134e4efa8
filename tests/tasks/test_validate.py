"""Validation by annotations: what passes, what is converted, what is said when it does not fit."""

from __future__ import annotations

import enum
import typing
from dataclasses import dataclass
from datetime import date, datetime
from decimal import Decimal
from typing import Annotated, Any, Literal
from uuid import UUID

import pytest
from pydantic import AfterValidator, BaseModel, Field

from amqflow.errors import ConfigurationError, InvalidArguments, InvalidResult
from amqflow.tasks.validate import ArgumentValidator, ResultValidator, to_wire

if typing.TYPE_CHECKING:
    from nowhere import Unimportable


class Colour(enum.Enum):
    RED = "red"


class Item(BaseModel):
    name: str
    price: Decimal = Decimal(1)
    parts: list[Item] = []


@dataclass
class Point:
    x: int
    y: int


def arguments(function, **options):
    return ArgumentValidator(function, "shop.send", **options)


def check(function, *args, **kwargs):
    return arguments(function).check(args, kwargs)


def plain(a, b=2, *, c=3): ...
def typed(to: str, number: int = 3, *, flag: bool = False): ...
def positional(a: int, /, b: int): ...
def variable(first: int, *rest: int, **options: str): ...
def untyped_variable(*args, **kwargs): ...
def half(a, b: int = 1): ...


@pytest.mark.parametrize(
    ("args", "kwargs"),
    [((1,), {}), ((1, 2), {}), ((), {"a": 1}), ((1,), {"c": 5}), ((object(),), {"b": object()})],
)
def test_without_annotations_any_value_of_the_right_number_passes(args, kwargs):
    assert check(plain, *args, **kwargs) == (args, kwargs)
    assert check(untyped_variable, *args, **kwargs) == (args, kwargs)


@pytest.mark.parametrize(
    ("args", "kwargs", "words"),
    [
        ((), {}, "missing a required argument: 'a'"),
        ((1, 2, 3), {}, "too many positional"),
        ((1,), {"a": 2}, "multiple values for argument 'a'"),
        ((1,), {"d": 2}, "unexpected keyword argument 'd'"),
    ],
)
def test_without_annotations_the_number_is_checked(args, kwargs, words):
    with pytest.raises(InvalidArguments, match=words) as caught:
        check(plain, *args, **kwargs)
    assert str(caught.value).startswith("shop.send(a, b=2, *, c=3)")
    assert isinstance(caught.value, TypeError)


@pytest.mark.parametrize(
    ("args", "kwargs", "words"),
    [
        ((1,), {}, r"argument 'to': expected a valid string, got int 1"),
        (("a", "x"), {}, r"argument 'number': expected a valid integer"),
        (("a",), {"flag": "maybe"}, r"argument 'flag': expected a valid boolean"),
        ((), {}, "missing argument 'to'"),
        (("a", 1, 2), {}, "unexpected argument number 3"),
        (("a",), {"to": "b"}, "argument 'to' was given twice"),
        (("a",), {"nonsense": 1}, "unexpected argument 'nonsense'"),
        ((5, 6.5), {"flag": 9, "x": 1, "y": 2}, "and 2 more"),
    ],
)
def test_what_does_not_fit_is_named(args, kwargs, words):
    with pytest.raises(InvalidArguments, match=words) as caught:
        check(typed, *args, **kwargs)
    assert str(caught.value).startswith(
        "shop.send(to: str, number: int = 3, *, flag: bool = False): "
    )


def test_values_are_converted():
    assert check(typed, "a", "5", flag="yes") == (("a", 5), {"flag": True})
    assert check(typed, to="a", number=5.0) == ((), {"to": "a", "number": 5})
    assert check(half, object, "5")[0][1] == 5


def test_defaults_are_not_filled_in():
    sentinel = object()

    def function(a: int, b: int = sentinel, *, c: float = 1.5): ...

    assert check(function, "1") == ((1,), {})
    assert check(function, a="1") == ((), {"a": 1})
    assert check(function, "1", c="2") == ((1,), {"c": 2.0})


def test_kinds_of_parameters():
    assert check(positional, "1", "2") == ((1, 2), {})
    assert check(positional, "1", b="2") == ((1,), {"b": 2})
    assert check(positional, 1, b=2) == ((1,), {"b": 2})
    with pytest.raises(InvalidArguments):
        check(positional, a=1, b=2)
    assert check(variable, "1", "2", "3", x="y") == ((1, 2, 3), {"x": "y"})
    with pytest.raises(InvalidArguments, match="number 3"):
        check(variable, 1, 2, "x")
    with pytest.raises(InvalidArguments, match="'o'"):
        check(variable, 1, o=5)


def test_bool_is_no_exact_int_and_subclasses_are_looked_at():
    assert check(typed, "a", True) == (("a", 1), {})

    class Text(str):
        __slots__ = ()

    assert check(typed, Text("a"))[0] == ("a",)


def test_models_dataclasses_enums_and_generics_become_objects():
    def function(item: Item, point: Point, colour: Colour, many: dict[str, list[Item]]): ...

    given = ({"name": "a"}, {"x": "1", "y": 2}, "red", {"k": [{"name": "b"}]})
    expected = (Item(name="a"), Point(1, 2), Colour.RED, {"k": [Item(name="b")]})
    assert check(function, *given)[0] == expected
    # What a caller sends comes back as what was given.
    sent, _ = arguments(function).check_outgoing(expected, {})
    assert sent[1:3] == ({"x": 1, "y": 2}, "red")
    assert check(function, *sent)[0] == expected
    with pytest.raises(
        InvalidArguments, match=r"argument 'many'\['k'\]\[0\]\['name'\]: Field required"
    ):
        check(function, *given[:3], {"k": [{}]})


def test_exact_types_travel_as_they_are():
    def function(when: datetime, day: date, price: Decimal, key: UUID, raw: bytes): ...

    values = (datetime(2030, 1, 1), date(2030, 1, 1), Decimal("1.10"), UUID(int=1), b"\xff")  # noqa: DTZ001
    assert arguments(function).check_outgoing(values, {})[0] == values


def test_plain_annotations_copy_nothing_on_the_way_out():
    def function(
        rows: list[dict[str, int]], kind: Literal["a", "b"], x: int | None, y: str | None
    ): ...

    validator = arguments(function)
    assert validator.check_outgoing(([{"a": 1}], "a", None, "x"), {})[0] == (
        [{"a": 1}],
        "a",
        None,
        "x",
    )
    assert validator._dump is False


def test_constraints_are_kept():
    def function(count: Annotated[int, Field(ge=1)]): ...

    assert check(function, 1) == ((1,), {})
    with pytest.raises(InvalidArguments, match="greater than or equal to 1"):
        check(function, 0)


def test_any_class_is_checked_by_isinstance():
    class Own: ...

    def function(own: Own): ...

    value = Own()
    assert arguments(function, namespace=locals()).check((value,), {})[0] == (value,)
    with pytest.raises(InvalidArguments, match="an instance of"):
        arguments(function, namespace=locals()).check((1,), {})


def test_an_annotation_that_cannot_be_resolved_is_an_error_that_says_how_to_go_on():
    def function(a: int, b: Unimportable): ...

    with pytest.raises(ConfigurationError, match=r"'Unimportable' of argument 'b'.*TYPE_CHECKING"):
        check(function, 1, 2)
    validator = ResultValidator(result_of_nothing, "t")
    with pytest.raises(ConfigurationError, match="its return annotation"):
        validator.decode(1)
    assert arguments(function, check_types=False).check((1, 2), {}) == ((1, 2), {})


def result_of_nothing() -> Unimportable: ...


def test_self_is_never_looked_at():
    def function(self: Unimportable, a: int): ...

    assert arguments(function, bound=True).check(("1",), {}) == ((1,), {})
    with pytest.raises(ConfigurationError, match="first parameter"):
        arguments(lambda: None, bound=True)


def test_nothing_is_resolved_before_the_first_check():
    def function(a: Later): ...  # noqa: F821 - named below

    validator = arguments(function, namespace=(names := {}))
    names["Later"] = int
    assert validator.check(("1",), {}) == ((1,), {})


def test_a_wrapped_function_keeps_its_annotations():
    import functools

    def decorator(function):
        @functools.wraps(function)
        def wrapper(*args, **kwargs):
            return function(*args, **kwargs)

        return wrapper

    assert check(decorator(typed), "a", "5") == (("a", 5), {})


def test_an_error_shows_little_of_a_large_value():
    with pytest.raises(InvalidArguments) as caught:
        check(typed, ["x" * 100_000])
    assert len(str(caught.value)) < 400


def test_a_value_without_a_repr_does_no_harm():
    class Rude:
        def __repr__(self):
            raise RuntimeError

    with pytest.raises(InvalidArguments, match="Rude …"):
        check(typed, Rude())


@pytest.mark.parametrize(
    ("annotation", "value", "stored", "read"),
    [
        (int, "5", 5, 5),
        (None, None, None, None),
        (Any, {1}, {1}, {1}),
        (Item, Item(name="a"), {"name": "a", "price": "1", "parts": []}, Item(name="a")),
        (list[Item], [{"name": "a"}], [{"name": "a", "price": "1", "parts": []}], [Item(name="a")]),
        (Point, Point(1, 2), {"x": 1, "y": 2}, Point(1, 2)),
        (Colour, Colour.RED, "red", Colour.RED),
        (set[int], {1}, [1], {1}),
        (Decimal, Decimal("1.10"), Decimal("1.10"), Decimal("1.10")),
        (typing.NoReturn, 5, 5, 5),
    ],
)
def test_a_result_goes_there_and_back(annotation, value, stored, read):
    def function(): ...

    function.__annotations__ = {"return": annotation}
    validator = ResultValidator(function, "t")
    assert validator.encode(value) == stored
    assert validator.decode(stored) == read


def test_a_result_that_is_not_what_was_declared():
    def function() -> list[int]: ...

    validator = ResultValidator(function, "shop.count")
    with pytest.raises(
        InvalidResult, match=r"shop.count: result\[1\]: expected a valid integer.*got str 'x'"
    ):
        validator.encode([1, "x"])
    with pytest.raises(InvalidResult):
        validator.decode("x")


def test_without_a_return_annotation_anything_passes():
    value = object()
    assert ResultValidator(plain, "t").encode(value) is value


def test_to_wire_leaves_to_the_codec_what_json_cannot_carry():
    value = object()
    assert to_wire([value, {1: (2,)}]) == [value, {1: [2]}]


def test_an_impossible_schema_is_a_configuration_error():
    def function(a: Annotated[list[int], Field(discriminator="x")]): ...

    with pytest.raises(ConfigurationError, match="cannot be validated by"):
        check(function, 1)


def test_whatever_a_validator_raises_means_that_the_value_does_not_fit():
    def broken(value):
        raise RuntimeError("a bug in a validator")

    def function(
        a: Annotated[int, AfterValidator(broken)],
    ) -> Annotated[int, AfterValidator(broken)]: ...

    with pytest.raises(InvalidArguments, match="a bug in a validator"):
        arguments(function, namespace=locals()).check((1,), {})
    with pytest.raises(InvalidResult, match="a bug in a validator"):
        ResultValidator(function, "t", namespace=locals()).decode(1)
