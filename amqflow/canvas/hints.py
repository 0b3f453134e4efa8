"""Which types can never become which: a step's argument, and the result of the step before it.

The table is pydantic's lax mode (https://docs.pydantic.dev/latest/concepts/conversion_table/) seen
through JSON: a tuple or set arrives as a list, a model or dataclass as a dict. Only what can never
work is told; what may be converted when it runs is let through.
"""

from __future__ import annotations

import collections.abc
import types
import typing
from datetime import date, datetime, time, timedelta
from decimal import Decimal
from typing import Any, Final
from uuid import UUID

_NONE: Final = type(None)
_LISTS: Final = frozenset({list, tuple, set, frozenset})
#: What a parameter may be annotated with to get a list.
_TAKES_A_LIST: Final = _LISTS | {
    collections.abc.Iterable,
    collections.abc.Collection,
    collections.abc.Sequence,
    collections.abc.MutableSequence,
    collections.abc.Set,
    collections.abc.MutableSet,
    collections.deque,
}
_MAPPINGS: Final = frozenset({dict, collections.abc.Mapping, collections.abc.MutableMapping})
_NUMBERS: Final = frozenset({int, float, bool, Decimal})

#: By the type of a parameter, what it can be made of; what is in no set is never refused.
_MADE_OF: Final[dict[type, frozenset[type]]] = {
    int: _NUMBERS | {str, bytes, timedelta},
    float: _NUMBERS | {str, bytes, timedelta},
    bool: _NUMBERS | {str, bytes},
    Decimal: _NUMBERS | {str, bytes},
    str: frozenset({str, bytes}),
    bytes: frozenset({bytes, str}),
    datetime: _NUMBERS | {datetime, date, str, bytes},
    date: _NUMBERS | {datetime, date, str, bytes},
    time: _NUMBERS | {time, str, bytes},
    timedelta: _NUMBERS | {timedelta, str, bytes},
    UUID: frozenset({UUID, str, bytes}),
    _NONE: frozenset({_NONE}),
    list: frozenset({list}),
    dict: frozenset({dict}),
}
_PLAIN: Final = frozenset(_MADE_OF)


def can_take(parameter: Any, value: Any) -> bool:
    """Return False where no value of type ``value`` can become one of type ``parameter``.

    Args:
        parameter: The annotation of an argument.
        value: The annotation of the result it is to get.
    """
    parameter, value = _bare(parameter), _bare(value)
    for arms, one_fits in (
        (_arms(value), lambda arm: can_take(parameter, arm)),
        (_arms(parameter), lambda arm: can_take(arm, value)),
    ):
        if arms:
            return any(map(one_fits, arms))
    wanted, given = _plain_kind(parameter), _plain_kind(value)
    if wanted is None or given is None:
        return True
    if given not in _MADE_OF[wanted]:
        return False
    return wanted is not list or can_take(_element(parameter), _element(value))


def list_of(hint: Any) -> Any:
    """Return the type of a list of these."""
    return types.GenericAlias(list, (hint,))


def shown_type(hint: Any) -> str:
    """Return a type as people write it."""
    if hint is None or hint is _NONE:
        return "None"
    if isinstance(hint, type) and not typing.get_args(hint):
        return hint.__name__
    return str(hint).replace("typing.", "")


def _bare(hint: Any) -> Any:
    """Return a type without what wraps it; what may convert by itself becomes Any."""
    while True:
        if typing.get_origin(hint) is typing.Annotated:
            return Any  # a validator in it may take anything
        if isinstance(hint, typing.NewType):
            hint = hint.__supertype__
        elif hint is None:
            return _NONE
        else:
            return hint


def _arms(hint: Any) -> tuple[Any, ...]:
    if typing.get_origin(hint) in {typing.Union, types.UnionType}:
        return typing.get_args(hint)
    return ()


def _plain_kind(hint: Any) -> type | None:
    """Return the type in the table a hint stands for; None where nothing can be said."""
    kind = typing.get_origin(hint) or hint
    if kind in _TAKES_A_LIST:
        return list
    if kind in _MAPPINGS:
        return dict
    if not isinstance(kind, type):
        return None
    if kind in _PLAIN:
        return kind
    if typing.is_typeddict(kind):
        return dict
    return None


def _element(hint: Any) -> Any:
    """Return the type of a list's elements; Any where it says nothing, or says several."""
    found = typing.get_args(hint)
    if len(found) == 1 or (len(found) == 2 and found[1] is Ellipsis):  # noqa: PLR2004
        return found[0]
    return Any
