"""Where messages for a queue go while the queue is replaced by another of its name.

RabbitMQ confirms what is on its way to a queue while that queue is deleted ("deleted queue is a
special case", ``rabbit_channel``), and nothing but the default exchange leads to a queue by its
name: no binding of it can be moved. So publishers ask, every LEASE seconds and queue, whether a
mark says that it is being replaced, and take the named exchange meanwhile. Who replaces a queue
sets the mark, waits LEASE + GRACE, and then nobody publishes to the name any more.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Final

from amqflow.topology.names import MAX_NAME_BYTES, OWN_PREFIX, MovingNames

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

#: Seconds an answer counts, from before the question was sent.
LEASE: Final = 5.0
#: Seconds granted to what was on its way when a lease ended.
GRACE: Final = 2.0
#: The part of a lease after which the next answer is fetched, while this one still counts.
_RENEW: Final = 0.5
#: Queues remembered at one time.
_KEPT: Final = 10_000
#: Queues nobody replaces: replies, one of many a caller, and what stands for a replacement.
_NEVER: Final = (f"{OWN_PREFIX}reply.", f"{OWN_PREFIX}moving.", "amq.")
#: Bytes of the name of a queue that can be replaced: the names made of it are longer.
_LONGEST: Final = MAX_NAME_BYTES - len(MovingNames("").longest)


class Detours:
    """What one connection knows of queues being replaced."""

    def __init__(self, exists: Callable[[str], Awaitable[bool]]) -> None:
        """Ask by ``exists``, which tells whether there is an exchange of a name."""
        self._exists = exists
        #: By queue: when the answer ends (loop time), and the exchange to take; "" for none.
        self._known: dict[str, tuple[float, str]] = {}
        self._asking: dict[str, asyncio.Task[None]] = {}

    def fresh(self, queue: str, now: float) -> str | None:
        """Return the exchange that leads to a queue now, None where it must be asked for first.

        The default exchange, ``""``, unless the queue is being replaced.
        """
        known = self._known.get(queue)
        if known is None:
            never = queue.startswith(_NEVER) or len(queue.encode()) > _LONGEST
            return "" if never else None
        until, exchange = known
        if now >= until:
            return None
        if now >= until - LEASE * _RENEW and queue not in self._asking:
            self._ask(queue)
        return exchange

    async def exchange(self, queue: str) -> str:
        """Return :meth:`fresh`, asking where nothing is known."""
        while (found := self.fresh(queue, asyncio.get_running_loop().time())) is None:
            asking = self._asking.get(queue)
            if asking is None or asking.done():
                # One that has ended, with an answer that came too late to count, is still there
                # until the loop's next turn, which awaiting it would never let come.
                asking = self._ask(queue)
            await asyncio.shield(asking)
        return found

    def forget(self, queue: str) -> None:
        """Ask again before the next message: the exchange named is not there any more."""
        self._known.pop(queue, None)

    def close(self) -> None:
        """Ask no more."""
        for task in self._asking.values():
            task.cancel()

    def _ask(self, queue: str) -> asyncio.Task[None]:
        task = asyncio.get_running_loop().create_task(self._answer(queue))
        self._asking[queue] = task
        task.add_done_callback(lambda done: self._answered(queue, done))
        return task

    def _answered(self, queue: str, task: asyncio.Task[None]) -> None:
        if self._asking.get(queue) is task:
            del self._asking[queue]
        if not task.cancelled():
            task.exception()  # whoever waits for it has it; renewing, nobody does

    async def _answer(self, queue: str) -> None:
        until = asyncio.get_running_loop().time() + LEASE
        names = MovingNames(queue)
        exchange = names.entry if await self._exists(names.mark) else ""
        if len(self._known) >= _KEPT:
            self._known.clear()
        self._known[queue] = (until, exchange)
