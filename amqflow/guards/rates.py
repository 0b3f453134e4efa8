"""Rate limits: when a task may start next, asked of one place by all workers together.

GCRA with reservation (ITU-T I.371): of each task the moment of its next free start is kept. Who
asks is given that moment, or now where it has passed, and moves it on by an interval. So of a
thousand messages that wait each knows its own moment, and none asks twice.
"""

from __future__ import annotations

import math
import threading
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, Protocol
from urllib.parse import urlsplit

from amqflow.guards.names import Names
from amqflow.rendezvous import is_embedded, name_of

if TYPE_CHECKING:
    from collections.abc import Sequence

    from amqflow.clock import Clock
    from amqflow.tasks import RateLimit


@dataclass(frozen=True, slots=True)
class Want:
    """One start that is asked for.

    ``within``: seconds in which it must be, else nothing is reserved: starts that nobody will use
    would be missing to others.
    """

    key: str
    limit: RateLimit
    within: float = math.inf


class Rates(Protocol):
    """Where the next starts are kept. One instance lives in one event loop."""

    async def reserve(self, wants: Sequence[Want]) -> list[float | None]:
        """Reserve starts, in this order; return the seconds until each.

        None where it would not be ``within``. A call whose answer is lost has reserved for
        nobody: starts come later then, never closer.

        Raises:
            StoreUnavailable: the store cannot be used now.
        """
        ...

    async def close(self) -> None:
        """Let go of connections."""
        ...


# -- memory ---------------------------------------------------------------------------------

#: Keys after which those whose moment has passed are forgotten.
_PRUNE_AT: Final = 1024


class SharedRates:
    """The next starts of a name in this process, shared by its loops and threads."""

    def __init__(self) -> None:
        """Keep none yet."""
        self._lock = threading.Lock()
        self._next: dict[str, float] = {}
        self._prune_at = _PRUNE_AT

    def reserve(self, wants: Sequence[Want], now: float) -> list[float | None]:
        """Reserve starts at a moment of a clock that never goes back."""
        with self._lock:
            if len(self._next) > self._prune_at:
                self._next = {key: at for key, at in self._next.items() if at > now}
                self._prune_at = max(_PRUNE_AT, 2 * len(self._next))
            return [self._reserve(want, now) for want in wants]

    def _reserve(self, want: Want, now: float) -> float | None:
        start = max(now, self._next.get(want.key, now))
        if start - now > want.within:
            return None
        self._next[want.key] = start + want.limit.interval
        return start - now

    def __len__(self) -> int:
        return len(self._next)


class MemoryRates:
    """:class:`Rates` in this process: for ``memory://``, or for one worker alone."""

    def __init__(self, shared: SharedRates, clock: Clock) -> None:
        """Keep them in ``shared``."""
        self._shared = shared
        self._clock = clock

    async def reserve(self, wants: Sequence[Want]) -> list[float | None]:
        """Reserve starts."""
        return self._shared.reserve(wants, self._clock.monotonic())

    async def close(self) -> None:
        """Do nothing."""


# -- Redis ----------------------------------------------------------------------------------

#: A hash of the next start (microseconds since 1970, Redis' own clock) by task, of each
#: application. It vanishes once all of them have passed.
_KEY: Final = "amqflow-rates-{}"

#: Arguments: task, interval and "within" of each want, in microseconds; "within" -1: whenever.
#: Answers: microseconds until each, -1 where it would not be within.
_RESERVE: Final = """
local time = redis.call('TIME')
local now = time[1] * 1000000 + time[2]
local free, starts, last = {}, {}, now
for i = 1, #ARGV, 3 do
  local task, interval, within = ARGV[i], tonumber(ARGV[i + 1]), tonumber(ARGV[i + 2])
  local at = free[task] or tonumber(redis.call('HGET', KEYS[1], task) or '0')
  at = math.max(now, at)
  if within >= 0 and at - now > within then
    starts[#starts + 1] = -1
  else
    starts[#starts + 1] = at - now
    free[task] = at + interval
  end
end
for task, at in pairs(free) do
  redis.call('HSET', KEYS[1], task, string.format('%.0f', at))
  last = math.max(last, at)
end
local keep = math.ceil((last - now) / 1000)
if keep > 0 and keep > redis.call('PTTL', KEYS[1]) then
  redis.call('PEXPIRE', KEYS[1], string.format('%.0f', keep))
end
return starts
"""
_MICRO: Final = 1_000_000


class RedisRates:
    """:class:`Rates` in the result store's Redis, by Redis' own clock."""

    def __init__(self, url: str, *, app_name: str, deadline: float = 5.0) -> None:
        """Check the URL; nothing connects yet."""
        from amqflow.stores.redis import RedisClient, Script  # noqa: PLC0415 - redis-py is an extra

        self._key = _KEY.format(app_name)
        self._client = RedisClient(url, deadline=deadline)
        self._script = Script(_RESERVE)

    async def reserve(self, wants: Sequence[Want]) -> list[float | None]:
        """Reserve starts, in one round trip."""
        arguments: list[str | bytes | int] = []
        for want in wants:
            # Whole microseconds, rounded up: never more starts than declared.
            interval = math.ceil(want.limit.interval * _MICRO)
            within = -1 if math.isinf(want.within) else int(max(0.0, want.within) * _MICRO)
            arguments += (want.key, interval, within)
        starts = await self._client.run(self._script, [self._key], arguments)
        return [None if start < 0 else start / _MICRO for start in starts]

    async def close(self) -> None:
        """Close the connection."""
        await self._client.close()


# -- which ----------------------------------------------------------------------------------


#: Memory itself, which processes have once.
_MEMORY: Final = Names(SharedRates)


def open_rates(url: str | None, *, app_name: str, clock: Clock) -> Rates | None:
    """Return where an application's rate limits are counted: with its results.

    Args:
        url: the result backend's.
        app_name: whose they are.
        clock: for those in memory.

    Returns:
        None where workers share no store (``rpc://``, none).
    """
    scheme = (url or "").partition("://")[0].lower()
    if url is not None and scheme in {"redis", "rediss", "unix"}:
        return RedisRates(url, app_name=app_name)
    if url is not None and is_embedded(url):
        from amqflow.guards.embedded import EmbeddedRates  # noqa: PLC0415 - needs this module

        return EmbeddedRates(name_of(url), app_name=app_name)
    if url is not None and scheme == "memory":
        return MemoryRates(_MEMORY.get(f"{urlsplit(url).netloc}/{app_name}"), clock)
    return None
