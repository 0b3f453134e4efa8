"""Declaring what exists: the 406 that says which argument differs, in RabbitMQ's words."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from amqflow.broker.replies import precondition_failed
from amqflow.broker.tables import INTEGERS

if TYPE_CHECKING:
    from collections.abc import Iterable

    from amqflow.broker.tables import Field, Table

_FLOATS = frozenset({"float", "double"})


def check_field(name: str, current: Any, received: Any, place: str) -> None:
    """Refuse a property that differs from the one declared first.

    Raises:
        Refusal: 406.
    """
    if current != received:
        _fail(name, f"'{_shown(current)}'", f"'{_shown(received)}'", place)


def check_arguments(current: Table, received: Table, names: Iterable[str], place: str) -> None:
    """Refuse arguments that differ from those declared first; of numbers only the value counts.

    Raises:
        Refusal: 406.
    """
    for name in sorted(names):
        one, other = current.get(name), received.get(name)
        if _equal(name, one, other):
            continue
        if one is not None and other is not None:
            _fail(name, f"'{_shown(one.value)}'", f"'{_shown(other.value)}'", place)
        _fail(name, _described(one), _described(other), place)


def _equal(name: str, one: Field | None, other: Field | None) -> bool:
    if one is not None and other is not None:
        return _class(one.type) == _class(other.type) and one.value == other.value
    given = one or other
    # Not to name the type is to name the default one.
    return given is None or (name == "x-queue-type" and given.value == "classic")


def _class(kind: str) -> str:
    if kind in INTEGERS or kind == "decimal":
        return "int"
    return "float" if kind in _FLOATS else kind


def _described(field: Field | None) -> str:
    if field is None:
        return "none"
    return f"the value '{_shown(field.value)}' of type '{field.type}'"


def _shown(value: Any) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)


def _fail(name: str, current: str, received: str, place: str) -> None:
    raise precondition_failed(
        f"inequivalent arg '{name}' for {place}: received {received} but current is {current}"
    )
