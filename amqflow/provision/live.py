"""Reads what a broker holds: by the management API, else by declares, which see less."""

from __future__ import annotations

import asyncio
import re
from typing import TYPE_CHECKING, Any, Final, TypeAlias

from amqflow.errors import AccessRefused, ChannelLost, NotFound, TopologyMismatch
from amqflow.provision.mismatch import differing
from amqflow.topology.live import Live, LiveBinding, LiveExchange, LiveQueue
from amqflow.topology.model import Exchange, Queue
from amqflow.topology.names import BUILT_IN_EXCHANGES, MovingNames
from amqflow.topology.policy import Policy

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Mapping

    from amqflow.management import Management
    from amqflow.topology.model import Topology
    from amqflow.transport import Admin

Part: TypeAlias = Exchange | Queue

#: Exchanges every virtual host has beside those of the protocol.
_OWN: Final = {"", "amq.rabbitmq.trace", "amq.rabbitmq.log", *BUILT_IN_EXCHANGES}
#: Tries of one question whose channel was closed by another one's answer.
TRIES: Final = 5

BLIND: Final = (
    "bindings cannot be seen over AMQP, neither those declared nor those that are too many",
    "queues and exchanges nobody declares cannot be seen: nothing is deleted",
    "of a part that differs, the broker names one argument",
)


async def by_management(management: Management) -> Live:
    """Return all of a virtual host's content.

    Raises:
        ManagementUnavailable, AccessRefused, NotFound: see :class:`amqflow.management.Management`.
    """
    await management.check()
    exchanges, queues, bindings, policies = await asyncio.gather(
        management.get(management.path("exchanges") + _columns(_EXCHANGE)),
        management.get(management.path("queues") + _columns(_QUEUE)),
        management.get(management.path("bindings")),
        management.get(management.path("policies")),
    )
    return Live(
        tuple(_exchange(one) for one in exchanges if one["name"] not in _OWN),
        tuple(_queue(one) for one in queues),
        tuple(_binding(one) for one in bindings if one["source"]),
        tuple(_policy(one) for one in policies),
    )


_EXCHANGE: Final = ("name", "type", "durable", "auto_delete", "internal", "arguments")
_QUEUE: Final = (
    "name",
    "type",
    "durable",
    "auto_delete",
    "exclusive",
    "arguments",
    "messages",
)


def _columns(names: tuple[str, ...]) -> str:
    return "?columns=" + ",".join(names)


def _exchange(found: Mapping[str, Any]) -> LiveExchange:
    return LiveExchange(
        found["name"],
        found["type"],
        found["durable"],
        found["auto_delete"],
        found.get("internal", False),
        dict(found.get("arguments") or {}),
    )


def _queue(found: Mapping[str, Any]) -> LiveQueue:
    arguments = dict(found.get("arguments") or {})
    kind = str(found.get("type") or arguments.get("x-queue-type") or "classic")
    return LiveQueue(
        found["name"],
        kind.removeprefix("rabbit_").removesuffix("_queue"),
        found["durable"],
        found["auto_delete"],
        bool(found.get("exclusive", False)),
        arguments,
        found.get("messages"),
    )


def _binding(found: Mapping[str, Any]) -> LiveBinding:
    return LiveBinding(
        found["source"],
        found["destination_type"],
        found["destination"],
        found["routing_key"],
        dict(found.get("arguments") or {}),
    )


def _policy(found: Mapping[str, Any]) -> Policy:
    return Policy(
        found["name"],
        found["pattern"],
        dict(found["definition"]),
        found.get("apply-to", "all"),
        found.get("priority", 0),
    )


# -- without the management API ------------------------------------------------------------


async def by_declares(topology: Topology, admin: Admin, why: str) -> Live:
    """Return what declares can tell of the parts of a topology; creates nothing.

    A passive declare tells whether a part exists and is blind to arguments. The same declare
    once more changes nothing, and is refused where an argument differs (tried on 3.10.8). A part
    that is gone between the two would be created by the second, as declared.

    Args:
        topology: The parts to ask for.
        admin: Questions to the broker.
        why: Why the management API is not used, for people.

    Raises:
        BrokerUnavailable: the broker went away.
    """
    parts: list[Part] = [*topology.exchanges, *topology.queues]
    found = await asyncio.gather(*(_asked(part, admin) for part in parts))
    marks = await asyncio.gather(*(_mark(queue.name, admin) for queue in topology.queues))
    exchanges = [part for part in found if isinstance(part, LiveExchange)]
    return Live(
        (*exchanges, *(mark for mark in marks if mark is not None)),
        tuple(part for part in found if isinstance(part, LiveQueue)),
        complete=False,
        unseen=(f"seen by declares only: {why}", *BLIND),
    )


async def _mark(queue: str, admin: Admin) -> LiveExchange | None:
    name = MovingNames(queue).mark
    if await _exists(lambda: admin.declare_exchange(name, passive=True)):
        return LiveExchange(name, "fanout")
    return None


async def _asked(part: Part, admin: Admin) -> LiveExchange | LiveQueue | None:
    if isinstance(part, Queue):
        queue = part
        if not await _exists(lambda: admin.declare_queue(queue.name, passive=True)):
            return None
        declare: Callable[[], Awaitable[object]] = lambda: admin.declare_queue(  # noqa: E731
            queue.name,
            durable=queue.durable,
            exclusive=queue.exclusive,
            auto_delete=queue.auto_delete,
            arguments=queue.declare_arguments(),
        )
    else:
        exchange = part
        if not await _exists(lambda: admin.declare_exchange(exchange.name, passive=True)):
            return None
        declare = lambda: admin.declare_exchange(  # noqa: E731 - two shapes of one step
            exchange.name,
            exchange.type,
            durable=exchange.durable,
            auto_delete=exchange.auto_delete,
            internal=exchange.internal,
            arguments=exchange.declare_arguments(),
        )
    try:
        await _again(declare)
    except TopologyMismatch as error:
        return _other(part, str(error))
    except AccessRefused:
        pass  # May look but not configure: it is there, and that is all that is known.
    return _same(part)


def _same(part: Part) -> LiveExchange | LiveQueue:
    if isinstance(part, Queue):
        return LiveQueue(
            part.name,
            part.type.value,
            part.durable,
            part.auto_delete,
            part.exclusive,
            part.declare_arguments(),
        )
    return LiveExchange(
        part.name,
        part.type,
        part.durable,
        part.auto_delete,
        part.internal,
        part.declare_arguments(),
    )


def _other(part: Part, text: str) -> LiveExchange | LiveQueue:
    """Return the part with the one argument the refusal names as the broker has it."""
    named = differing(text)
    same = _same(part)
    kind, flags = same.type, [same.durable, same.auto_delete]
    flags.append(same.exclusive if isinstance(same, LiveQueue) else same.internal)
    arguments = dict(same.arguments)
    if named is None:
        arguments["?"] = text
    else:
        argument, current = named
        names = ["durable", "auto_delete", "exclusive" if isinstance(part, Queue) else "internal"]
        if argument in {"type", "x-queue-type"}:
            kind = current or "classic"
        elif argument in names:
            flags[names.index(argument)] = current == "true"
        elif current is None:
            arguments.pop(argument, None)
        else:
            arguments[argument] = int(current) if re.fullmatch(r"-?\d+", current) else current
    durable, auto_delete, last = flags
    if isinstance(part, Queue):
        return LiveQueue(part.name, kind, durable, auto_delete, last, arguments, partial=True)
    return LiveExchange(part.name, kind, durable, auto_delete, last, arguments, partial=True)


async def _exists(ask: Callable[[], Awaitable[object]]) -> bool:
    try:
        await _again(ask)
    except NotFound:
        return False
    except AccessRefused:
        return True  # exclusive to another connection
    return True


async def _again(call: Callable[[], Awaitable[object]]) -> None:
    for _ in range(TRIES - 1):
        try:
            await call()
        except ChannelLost:
            await asyncio.sleep(0)
        else:
            return
    await call()
