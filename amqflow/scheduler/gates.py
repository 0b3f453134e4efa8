"""Gates: what is due at one instant waits at one gate, ready, and goes out when it opens."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Callable

    from amqflow.abc import Gate
    from amqflow.clock import Clock

#: Messages let out in one turn of the loop: the broker works on them while the next are written.
_AT_ONCE: Final = 250
#: Seconds: a gate that is earlier than this was shut before the clock was set back.
_JUMPED: Final = 0.05


class Gates:
    """The gates of one event loop, by the instants they open at."""

    def __init__(self, clock: Clock) -> None:
        """Open by ``clock``."""
        self._clock = clock
        self._loop = asyncio.get_running_loop()
        self._shut: dict[float, _Gate] = {}

    def at(self, due: float) -> Gate | None:
        """Return the gate of an instant (Unix seconds); None where that has passed."""
        early = due - self._clock.now()
        if early <= 0:
            return None
        gate = self._shut.get(due)
        if gate is None:
            gate = self._shut[due] = _Gate(self._loop, self._loop.time() + early)
            self._loop.call_later(early, self._open, due)
        return gate

    def _open(self, due: float) -> None:
        early = due - self._clock.now()
        if 0 < early < _JUMPED:  # a timer may be a millisecond early
            self._loop.call_later(early, self._open, due)
        else:
            self._shut.pop(due).open()


class _Gate:
    """See :class:`amqflow.abc.Gate`."""

    __slots__ = ("_at", "_loop", "_open", "_waiting")

    def __init__(self, loop: asyncio.AbstractEventLoop, at: float) -> None:
        self._loop, self._at = loop, at
        self._open = False
        self._waiting: list[Callable[[], None]] = []

    def left(self) -> float:
        # A hair at least while it is shut: a timer may be late.
        return 0.0 if self._open else max(1e-6, self._at - self._loop.time())

    def add(self, go: Callable[[], None]) -> None:
        if self._open:
            go()
        else:
            self._waiting.append(go)

    def open(self) -> None:
        self._open = True
        now, self._waiting = self._waiting[:_AT_ONCE], self._waiting[_AT_ONCE:]
        for go in now:
            go()
        if self._waiting:
            self._loop.call_soon(self.open)
