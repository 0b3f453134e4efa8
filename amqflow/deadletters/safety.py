"""Whether looking into a queue brings its messages nearer to being dropped, asked without looking.

A quorum queue with a delivery limit counts each return and drops a message at the limit. AMQP has
no way to read a queue's arguments, but the answer 406 to a declare that differs names one argument
and its value; declaring again with that value names the next, until the broker agrees.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any, Final

from amqflow.errors import AccessRefused, BrokerError, TopologyMismatch

if TYPE_CHECKING:
    from amqflow.deadletters.homes import Home
    from amqflow.transport import Admin

#: RabbitMQ's words (``rabbit_misc:assert_args_equivalence``); read from the end of the text, as a
#: queue's name may hold anything.
_DIFFERS: Final = re.compile(
    r"inequivalent arg '(?P<name>[^']+)' for .*but current is "
    r"(?:none|(?:the value )?'(?P<value>.*?)'(?: of type '(?P<type>\w+)')?)\s*$",
    re.DOTALL,
)
_WHOLE: Final = frozenset({"byte", "short", "long", "signedint", "unsignedint", "unsignedbyte"})
#: More arguments than a queue can have.
_TRIES: Final = 24
#: From here on a quorum queue without a limit of its own has one (20).
_LIMIT_BY_DEFAULT: Final = (4, 0)


class UnsafeLook(BrokerError):
    """Looking would count against the messages of a queue; ``--force`` (``force=True``) looks."""


async def check_look(
    admin: Admin, home: Home, version: tuple[int, ...], *, force: bool = False
) -> None:
    """Raise where looking into an existing queue would do harm.

    A limit that a policy sets cannot be seen this way.

    Args:
        admin: Declares and questions to the broker.
        home: The queue.
        version: The broker's.
        force: Look where harm is possible; a stream is refused all the same.

    Raises:
        UnsafeLook: The queue counts returns, or does not tell whether it does.
    """
    arguments = await live_arguments(admin, home)
    if arguments is not None and arguments.get("x-queue-type") == "stream":
        raise UnsafeLook(
            f"queue {home.name!r} is a stream: its messages are read by offset and never leave it"
        )
    problem = _problem(arguments, version)
    if problem is not None and not force:
        raise UnsafeLook(
            f"queue {home.name!r} {problem}: looking gives each message back to it, and at the "
            "limit the broker drops or dead-letters it. --force looks all the same"
        )


def _problem(arguments: dict[str, Any] | None, version: tuple[int, ...]) -> str | None:
    if arguments is None:
        return "does not tell whether it has a delivery limit (no permission to declare it)"
    if arguments.get("x-queue-type", "classic") != "quorum":
        return None
    limit = arguments.get("x-delivery-limit")
    if limit is None:
        if version < _LIMIT_BY_DEFAULT:
            return None
        return "has the broker's own delivery limit (20 by default)"
    if limit == -1 and version >= _LIMIT_BY_DEFAULT:
        return None
    return f"has a delivery limit of {limit}"


async def live_arguments(admin: Admin, home: Home) -> dict[str, Any] | None:
    """Return the arguments a queue that exists has; None where they cannot be found out.

    Where the broker's user may not declare, a queue of the topology is taken as declared there.

    Raises:
        NotFound: There is no such queue (nothing is created).
    """
    await admin.declare_queue(home.name, passive=True)
    flags = {"durable": True, "auto_delete": False}
    arguments = dict(home.arguments or {"x-queue-type": "quorum"})
    for _ in range(_TRIES):
        try:
            await admin.declare_queue(home.name, arguments=arguments, **flags)
        except TopologyMismatch as error:
            if not _corrected(arguments, flags, str(error)):
                return None
        except AccessRefused:
            return None if home.arguments is None else dict(home.arguments)
        else:
            return arguments
    return None


def _corrected(arguments: dict[str, Any], flags: dict[str, bool], text: str) -> bool:
    """Take over the value the broker names; False where its words say nothing new."""
    found = _DIFFERS.search(text)
    if found is None:
        return False
    name, value, kind = found["name"], found["value"], found["type"]
    if name in flags:
        changed = flags[name] != (value == "true")
        flags[name] = value == "true"
        return changed
    if value is None:
        return arguments.pop(name, None) is not None
    read: Any = value
    if kind in _WHOLE:
        read = int(value)
    elif kind in {"bool", "boolean"}:
        read = value == "true"
    changed = name not in arguments or arguments[name] != read
    arguments[name] = read
    return changed
