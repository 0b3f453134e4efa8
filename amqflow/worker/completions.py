"""Endings of chord members on their way out: those of one loop turn and chord share a message."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Final, Protocol

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine, Iterator, Sequence

    from amqflow.producer import Outgoing
    from amqflow.worker.lanes import Lane
    from amqflow.workflow.records import Ending, Membership
    from amqflow.workflow.unfold import Completion

#: Bytes of endings in one message; a larger one travels alone.
MOST_BYTES: Final = 256 * 1024


class Held(Protocol):
    """A delivery, or several: what is settled when the broker has confirmed what follows."""

    @property
    def live(self) -> bool:
        """Whether settling it means something."""
        ...


class Several:
    """Deliveries that are settled together: worth it while one of them is."""

    __slots__ = ("_each",)

    def __init__(self, each: Sequence[Held]) -> None:
        """Hold them."""
        self._each = each

    @property
    def live(self) -> bool:
        """Whether one of them is."""
        return any(held.live for held in self._each)


class Waiting:
    """One ending that waits for its message's confirm."""

    __slots__ = ("confirmed", "ending", "held", "lane")

    def __init__(
        self, ending: Ending, held: Held, lane: Lane, confirmed: asyncio.Future[bool]
    ) -> None:
        """Note who waits."""
        self.ending = ending
        self.held = held
        self.lane = lane
        self.confirmed = confirmed


class CompletionBox:
    """Collects the endings of a loop turn."""

    def __init__(
        self,
        letter: Callable[[Membership, Sequence[Ending]], Outgoing],
        deliver: Callable[[Outgoing, Held, Lane], Coroutine[object, object, bool]],
        start: Callable[[Coroutine[object, object, None]], None],
    ) -> None:
        """Wire the parts, in the running loop.

        Args:
            letter: Makes the message of a chord's endings.
            deliver: Publishes it under confirm, for as long as somebody waits for it.
            start: Runs settling work that a stop waits for.
        """
        self._loop = asyncio.get_running_loop()
        self._letter = letter
        self._deliver = deliver
        self._start = start
        self._turn: dict[tuple[str, str, str], tuple[Membership, list[Waiting]]] = {}

    @property
    def waiting(self) -> bool:
        """Whether endings of this turn are still to go."""
        return bool(self._turn)

    def add(self, completion: Completion, held: Held, lane: Lane) -> asyncio.Future[bool]:
        """Send an ending with this turn's others; the future tells whether it was confirmed."""
        if not self._turn:
            self._loop.call_soon(self._flush)
        member = completion.member
        key = (member.app, member.store, member.chord)
        _, waiting = self._turn.setdefault(key, (member, []))
        confirmed: asyncio.Future[bool] = self._loop.create_future()
        waiting.append(Waiting(completion.ending, held, lane, confirmed))
        return confirmed

    def _flush(self) -> None:
        turn, self._turn = self._turn, {}
        for member, waiting in turn.values():
            for batch in _cut(waiting):
                self._start(self._send(member, batch))

    async def _send(self, member: Membership, batch: list[Waiting]) -> None:
        letter = self._letter(member, [one.ending for one in batch])
        sent = False
        try:
            sent = await self._deliver(letter, Several([one.held for one in batch]), batch[0].lane)
        finally:
            for one in batch:
                if not one.confirmed.done():
                    one.confirmed.set_result(sent)


def _cut(waiting: list[Waiting]) -> Iterator[list[Waiting]]:
    batch: list[Waiting] = []
    size = 0
    for one in waiting:
        if batch and size + len(one.ending.value) > MOST_BYTES:
            yield batch
            batch, size = [], 0
        batch.append(one)
        size += len(one.ending.value)
    yield batch
