"""Makes a broker hold a topology: what is missing is created, what differs is refused.

Idempotent and restartable: parts are only ever declared, exchanges first, then queues, then
bindings, so a run that was cut off is finished by the next, and two at once agree. Nothing marks
a topology as complete: declaring one that is there (28 levels, 130 parts) takes 30 ms here, and a
level that somebody deleted comes back at the next start.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from enum import StrEnum
from functools import partial
from typing import TYPE_CHECKING, Any, Final, TypeVar

from amqflow.errors import ChannelLost, NotFound, TopologyMismatch
from amqflow.provision.mismatch import explain
from amqflow.topology.model import Binding, DestinationKind, Exchange, Queue
from amqflow.topology.names import MAX_NAME_BYTES, OWN_PREFIX, MovingNames

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Coroutine, Iterable

    from amqflow.topology.model import Topology
    from amqflow.transport import Admin

T = TypeVar("T")

#: Tries of one declare whose channel was closed by something else.
TRIES: Final = 5

#: Differing parts spelled out in one error; a ladder of another resolution differs 28 times.
SHOWN: Final = 5


class Action(StrEnum):
    """What became of a part."""

    CREATED = "created"
    PRESENT = "present"


@dataclass(frozen=True, slots=True)
class Change:
    """One part of a topology and what :func:`apply` found or did.

    A broker does not say whether a binding is new: it counts as created with either of its ends.

    Args:
        kind: ``"exchange"``, ``"queue"`` or ``"binding"``.
        name: The part's name; a binding's is ``source --key--> destination``.
        action: Created now, or there before.
        why: What the part is for.
    """

    kind: str
    name: str
    action: Action
    why: str


async def apply(
    topology: Topology,
    admin: Admin,
    *,
    on_created: Callable[[Change], None] | None = None,
    fresh: bool = False,
) -> list[Change]:
    """Declare every part of a topology.

    Args:
        topology: What the broker is to hold.
        admin: Declares and questions to the broker.
        on_created: Told of each new part at once, so that a run cut off has said what it did.
        fresh: The virtual host is known to be new: what is there is not asked for.

    Returns:
        A change per part: exchanges, queues, bindings, in the topology's order.

    Raises:
        TopologyMismatch: The broker holds a part with other arguments; the message names each
            such part, the argument, both values and the way out. All parts that can be declared
            have been.
        AccessRefused: The broker's user may not configure.
        BrokerUnavailable: The broker went away; run it again.
    """
    run = _Run(admin, on_created or (lambda _: None), fresh=fresh)
    exchanges = await run.all(run.exchange(part) for part in topology.exchanges)
    queues = await run.all(run.queue(part) for part in topology.queues)
    # Bindings need both ends, and a part that differs is there all the same; but an exchange of
    # another type would route by other rules.
    run.refuse_mismatches()
    created = {
        (change.kind, change.name)
        for change in (*exchanges, *queues)
        if change.action is Action.CREATED
    }
    bindings = await run.all(run.binding(part, created) for part in topology.bindings)
    return [*exchanges, *queues, *bindings]


class _Run:
    """One pass over a topology."""

    def __init__(
        self, admin: Admin, on_created: Callable[[Change], None], *, fresh: bool = False
    ) -> None:
        self._admin = admin
        self._fresh = fresh
        self._on_created = on_created
        self._moving: dict[str, bool] = {}
        self._mismatches: list[TopologyMismatch] = []

    async def all(self, parts: Iterable[Coroutine[Any, Any, Change]]) -> list[Change]:
        """Handle parts at the same time; mismatches wait until all have been tried."""
        answers = await asyncio.gather(*parts, return_exceptions=True)
        changes: list[Change] = []
        for answer in answers:
            if isinstance(answer, TopologyMismatch):
                self._mismatches.append(answer)
            elif isinstance(answer, BaseException):
                raise answer
            else:
                changes.append(answer)
        return changes

    def refuse_mismatches(self) -> None:
        """Raise what differs, as one error."""
        if len(self._mismatches) == 1:
            raise self._mismatches[0]
        if self._mismatches:
            shown = [f"- {mismatch}" for mismatch in self._mismatches[:SHOWN]]
            if (rest := len(self._mismatches) - SHOWN) > 0:
                shown.append(f"- and {rest} more")
            raise TopologyMismatch(
                f"{len(self._mismatches)} parts on the broker differ from what is declared:\n"
                + "\n".join(shown)
            )

    async def exchange(self, part: Exchange) -> Change:
        """Declare an exchange."""
        missing = await self._missing(
            lambda: self._admin.declare_exchange(part.name, part.type, passive=True)
        )
        with explain(part):
            await _again(
                lambda: self._admin.declare_exchange(
                    part.name,
                    part.type,
                    durable=part.durable,
                    auto_delete=part.auto_delete,
                    internal=part.internal,
                    arguments=part.declare_arguments(),
                )
            )
        return self._note("exchange", part.name, part.why, missing)

    async def queue(self, part: Queue) -> Change:
        """Declare a queue."""
        missing = await self._missing(lambda: self._admin.declare_queue(part.name, passive=True))
        with explain(part):
            await _again(
                lambda: self._admin.declare_queue(
                    part.name,
                    durable=part.durable,
                    exclusive=part.exclusive,
                    auto_delete=part.auto_delete,
                    arguments=part.declare_arguments(),
                )
            )
        return self._note("queue", part.name, part.why, missing)

    async def binding(self, part: Binding, created: set[tuple[str, str]]) -> Change:
        """Bind; the broker takes a binding it has without a word.

        A queue that is being replaced keeps the bindings it has: what it was bound with leads to
        where its messages wait, and with a second way there each would be there twice.
        """
        if part.destination_kind is DestinationKind.QUEUE and await self._moves(part.destination):
            name = f"{part.source} --{part.routing_key}--> {part.destination}"
            return self._note("binding", name, part.why, new=False)
        bind: Callable[[], Awaitable[None]]
        if part.destination_kind is DestinationKind.QUEUE:
            bind = lambda: self._admin.bind_queue(  # noqa: E731 - two shapes of one step
                part.destination, part.source, part.routing_key, dict(part.arguments)
            )
        else:
            bind = lambda: self._admin.bind_exchange(  # noqa: E731
                part.destination, part.source, part.routing_key, dict(part.arguments)
            )
        await _again(bind)
        new = not created.isdisjoint(
            {("exchange", part.source), (part.destination_kind.value, part.destination)}
        )
        name = f"{part.source} --{part.routing_key}--> {part.destination}"
        return self._note("binding", name, part.why, new)

    async def _moves(self, queue: str) -> bool:
        """Whether a queue is being replaced (``provision.migrate``)."""
        mark = MovingNames(queue).mark
        if self._fresh or queue.startswith(OWN_PREFIX) or len(mark.encode()) > MAX_NAME_BYTES:
            return False
        if queue not in self._moving:
            ask = partial(self._admin.declare_exchange, mark, passive=True)
            self._moving[queue] = not await self._missing(ask)
        return self._moving[queue]

    async def _missing(self, ask: Callable[[], Awaitable[object]]) -> bool:
        """Ask passively: only this tells a new part from one that was there."""
        if self._fresh:
            return True
        try:
            await _again(ask)
        except NotFound:
            return True
        return False

    def _note(self, kind: str, name: str, why: str, new: bool) -> Change:
        change = Change(kind, name, Action.CREATED if new else Action.PRESENT, why)
        if new:
            self._on_created(change)
        return change


async def _again(call: Callable[[], Awaitable[T]]) -> T:
    """Repeat a declare whose channel was closed under it; declares may be repeated freely.

    A 404 or 406 closes the channel it came by, and in a rare race (a channel's number taken again
    before its close was confirmed, seen with aiormq 7.2) the connection with it.
    """
    for _ in range(TRIES - 1):
        try:
            return await call()
        except ChannelLost:
            await asyncio.sleep(0)
    return await call()
