"""Says in words what a broker means by 406: which argument differs, both values, the way out."""

from __future__ import annotations

import re
from contextlib import contextmanager
from typing import TYPE_CHECKING, Final

from amqflow.errors import TopologyMismatch
from amqflow.topology import ladder

if TYPE_CHECKING:
    from collections.abc import Iterator

    from amqflow.topology.model import Exchange, Queue

#: RabbitMQ's words, `rabbit_misc:assert_args_equivalence`. Names may hold anything, so both
#: values are read from the end of the text.
_DIFFERS: Final = re.compile(
    r"inequivalent arg '(?P<argument>[^']+)' for .*"
    r"received (?P<declared>none|(?:the value )?'.*'(?: of type '\w+')?) "
    r"but current is (?P<current>none|(?:the value )?'.*'(?: of type '\w+')?)",
    re.DOTALL,
)
_NOT_TAKEN: Final = re.compile(r"invalid arg '(?P<argument>[^']+)' for ", re.DOTALL)
#: One ladder serves all applications of a virtual host.
_LADDER_HINT: Final = (
    ". The delay ladder is shared by all applications of a virtual host: give them the same "
    "resolution and levels"
)
_VALUE: Final = re.compile(r"(?:the value )?'(?P<value>.*?)'(?: of type '\w+')?", re.DOTALL)


@contextmanager
def explain(part: Exchange | Queue) -> Iterator[None]:
    """Raise a TopologyMismatch of the block with the part's name and the way out."""
    try:
        yield
    except TopologyMismatch as error:
        raise TopologyMismatch(describe(part, str(error))) from error


def describe(part: Exchange | Queue, text: str) -> str:
    """Return a sentence for the broker's text; the text itself where it cannot be read."""
    if (found := _DIFFERS.search(text)) is not None:
        sentence = (
            f"{part.label} exists with other arguments: {found['argument']} is declared "
            f"{_value(found['declared'])}, the broker has {_value(found['current'])}. The broker "
            f"cannot change it in place: declare what it has, use another name, or drain and "
            f"delete the {part.label} and start again"
        )
        return sentence + (_LADDER_HINT if part.name.startswith(f"{ladder.PREFIX}.") else "")
    if (found := _NOT_TAKEN.search(text)) is not None:
        argument = found["argument"]
        value = part.declare_arguments().get(argument)
        return (
            f"the broker does not take {argument}={value!r} on {part.label} "
            f"of type {part.type}: leave it out or change the type"
        )
    return f"{part.label} is refused by the broker as declared: {text}"


def differing(text: str) -> tuple[str, str | None] | None:
    """Return the argument a refusal names and the broker's value; None where it cannot be read.

    The value is text, None where the broker has not set it.
    """
    if (found := _DIFFERS.search(text)) is None:
        return None
    current = _VALUE.fullmatch(found["current"])
    return found["argument"], None if current is None else current["value"]


def _value(text: str) -> str:
    found = _VALUE.fullmatch(text)
    return "not set" if found is None else repr(found["value"])
