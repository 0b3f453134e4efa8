"""A headers exchange: the binding's arguments are compared with the message's headers.

``x-match``: ``all`` (the default), ``any``; ``all-with-x`` and ``any-with-x`` also compare the
arguments that begin with ``x-``. An argument without a value matches a header of any value.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from amqflow.broker.replies import precondition_failed

if TYPE_CHECKING:
    from collections.abc import Iterable

    from amqflow.broker.bindings import Binding
    from amqflow.broker.message import Message
    from amqflow.broker.tables import Field, Table

_MATCH: Final = "x-match"
_KINDS: Final = ("all", "any", "all-with-x", "any-with-x")


class Headers:
    """Bindings with what each asks of the headers."""

    def __init__(self) -> None:
        """Begin without bindings."""
        self._all: dict[Binding, tuple[bool, Table]] = {}

    def add(self, binding: Binding) -> None:
        """Take a binding in.

        Raises:
            Refusal: its ``x-match`` is none of the four.
        """
        kind = _kind(binding.arguments.get(_MATCH))
        asked = {
            name: field
            for name, field in binding.arguments.items()
            if name != _MATCH and (kind.endswith("-with-x") or not name.startswith("x-"))
        }
        self._all[binding] = kind.startswith("all"), asked

    def remove(self, binding: Binding) -> None:
        """Let a binding go."""
        del self._all[binding]

    def route(self, message: Message) -> Iterable[Binding]:
        """Return the bindings whose arguments the message's headers match."""
        headers = message.properties.headers
        return [
            binding
            for binding, (every, asked) in self._all.items()
            if (all if every else any)(_matches(headers, *item) for item in asked.items())
        ]


def _kind(field: Field | None) -> str:
    if field is None:
        return "all"
    kind = field.value
    if field.type != "longstr":
        raise precondition_failed(
            f"Invalid x-match field type {field.type} (value {kind}); expected longstr"
        )
    if kind not in _KINDS:
        raise precondition_failed(
            f'Invalid x-match field value <<"{kind}">>; '
            "expected all, any, all-with-x, or any-with-x"
        )
    return str(kind)


def _matches(headers: Table, name: str, asked: Field) -> bool:
    found = headers.get(name)
    if found is None:
        return False
    return asked.type == "void" or _same(found.value, asked.value)


def _same(one: object, other: object) -> bool:
    # Erlang's ==: 1 is 1.0, true is no number.
    if isinstance(one, bool) or isinstance(other, bool):
        return one is other
    return one == other
