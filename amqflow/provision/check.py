"""Asks a broker whether it holds a topology, and changes nothing.

A passive declare tells what is missing and is blind to arguments; declaring what is there once
more changes nothing and is refused where an argument differs (tried on 3.10.8). Bindings cannot
be asked for over AMQP.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, TypeAlias

from amqflow.errors import AccessRefused, ChannelLost, NotFound, TopologyMismatch
from amqflow.provision.mismatch import describe
from amqflow.topology.model import Exchange, Queue

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from amqflow.topology.model import Topology
    from amqflow.transport import Admin

Part: TypeAlias = Exchange | Queue

#: Tries of one question whose channel was closed by another one's answer.
TRIES: Final = 5
#: Parts spelled out in one error.
SHOWN: Final = 5


@dataclass(frozen=True, slots=True)
class Differences:
    """What a broker lacks of a topology, and what it holds otherwise (a sentence each)."""

    missing: tuple[Part, ...] = ()
    different: tuple[str, ...] = ()

    def __bool__(self) -> bool:
        """Whether there are any."""
        return bool(self.missing or self.different)


async def differences(topology: Topology, admin: Admin) -> Differences:
    """Compare a broker with a topology; creates nothing.

    Raises:
        BrokerUnavailable: the broker went away.
    """
    parts: list[Part] = [*topology.exchanges, *topology.queues]
    there = await asyncio.gather(*(_exists(part, admin) for part in parts))
    present = [part for part, found in zip(parts, there, strict=True) if found]
    said = await asyncio.gather(*(_difference(part, admin) for part in present))
    return Differences(
        tuple(part for part, found in zip(parts, there, strict=True) if not found),
        tuple(text for text in said if text is not None),
    )


async def check(topology: Topology, admin: Admin, *, mend: str) -> None:
    """Refuse to work on a broker that does not hold what is declared.

    Args:
        topology: What the broker must hold.
        admin: Questions to the broker.
        mend: The command that mends it, for the error.

    Raises:
        TopologyMismatch: Something is missing or differs; the message names each and ends with
            ``mend``.
        BrokerUnavailable: the broker went away.
    """
    found = await differences(topology, admin)
    if not found:
        return
    said = [*found.different, *(f"{part.label} is missing" for part in found.missing)]
    rest = f"; and {len(said) - SHOWN} more" if len(said) > SHOWN else ""
    text = "; ".join(said[:SHOWN])
    raise TopologyMismatch(f"the broker is not as declared: {text}{rest}; {mend}")


async def _exists(part: Part, admin: Admin) -> bool:
    async def ask() -> None:
        if isinstance(part, Queue):
            await admin.declare_queue(part.name, passive=True)
        else:
            await admin.declare_exchange(part.name, passive=True)

    try:
        await _again(ask)
    except NotFound:
        return False
    return True


async def _difference(part: Part, admin: Admin) -> str | None:
    async def declare() -> None:
        if isinstance(part, Queue):
            await admin.declare_queue(
                part.name,
                durable=part.durable,
                exclusive=part.exclusive,
                auto_delete=part.auto_delete,
                arguments=part.declare_arguments(),
            )
        else:
            await admin.declare_exchange(
                part.name,
                part.type,
                durable=part.durable,
                auto_delete=part.auto_delete,
                internal=part.internal,
                arguments=part.declare_arguments(),
            )

    try:
        await _again(declare)
    except TopologyMismatch as error:
        return describe(part, str(error))
    except AccessRefused:
        return None  # May look but not configure: a worker of few rights. It is there.
    return None


async def _again(call: Callable[[], Awaitable[None]]) -> None:
    for _ in range(TRIES - 1):
        try:
            return await call()
        except ChannelLost:
            await asyncio.sleep(0)
    return await call()
