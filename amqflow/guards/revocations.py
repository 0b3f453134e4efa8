"""Revocations: kept in the store until they expire, pushed to every worker.

A worker loads all of them when it starts and follows those that come; it holds them in memory, so
that a task costs one look into a dict. Subscribed first, read then: nothing falls in between.
"""

from __future__ import annotations

import asyncio
import contextlib
import threading
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Any, Final, Protocol, TypeAlias
from urllib.parse import urlsplit

from amqflow.abc import RETRY, REVOKED, DeadReason, Outcome
from amqflow.backoff import Backoff
from amqflow.errors import NoResultStore, StoreError, StoreUnavailable
from amqflow.guards.names import Names
from amqflow.logs import get_logger
from amqflow.protocol import dumps, loads
from amqflow.protocol.revocation import Revocation, Target, stamps_of
from amqflow.rendezvous import is_embedded, name_of

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    from amqflow.clock import Clock
    from amqflow.protocol import TaskMessage
    from amqflow.stores.redis import Subscription

log = get_logger("amqflow.guards")


#: Gets revocations, and whether these are all there are.
Told: TypeAlias = "Callable[[list[Revocation], bool], None]"


class Revocations(Protocol):
    """Where revocations are kept. One instance lives in one event loop.

    Raises:
        StoreUnavailable: the store cannot be used now.
    """

    async def add(self, revocations: Sequence[Revocation]) -> None:
        """Keep revocations and tell every follower; durable when this returns."""
        ...

    async def lift(self, target: Target, values: Iterable[str]) -> int:
        """Forget revocations; workers stop heeding them at their next look. Returns how many."""
        ...

    async def all(self) -> list[Revocation]:
        """Return what is in force, oldest first."""
        ...

    async def follow(self, told: Told) -> None:
        """Tell all that is in force, then those that come; reconnects for ever, never returns.

        All comes again after each reconnect, and where something was lifted.
        """
        ...

    async def close(self) -> None:
        """Let go of connections; followers end."""
        ...


# -- what a worker holds --------------------------------------------------------------------


@dataclass(slots=True)
class Revoked:
    """The revocations in force, as a worker looks them up."""

    clock: Clock
    _ids: dict[str, Revocation] = field(default_factory=dict)
    _others: dict[tuple[Target, str], Revocation] = field(default_factory=dict)
    _prune_at: int = 1024

    def __len__(self) -> int:
        return len(self._ids) + len(self._others)

    def add(self, revocations: Iterable[Revocation]) -> None:
        """Take revocations; a later one of the same target stands."""
        now = self.clock.now()
        for one in revocations:
            if one.expires <= now:
                continue
            if one.target is Target.ID:
                self._ids[one.value] = one
            else:
                self._others[one.target, one.value] = one
        if len(self) > self._prune_at:
            self._prune(now)

    def replace(self, revocations: Iterable[Revocation]) -> None:
        """Forget all and take these."""
        self._ids.clear()
        self._others.clear()
        self.add(revocations)

    def _prune(self, now: float) -> None:
        self._ids = {key: one for key, one in self._ids.items() if one.expires > now}
        self._others = {key: one for key, one in self._others.items() if one.expires > now}
        self._prune_at = max(1024, 2 * len(self))

    def of(self, message: TaskMessage) -> Revocation | None:
        """Return the revocation that concerns a message, if any."""
        if not self._ids and not self._others:
            return None
        found = self._ids.get(message.id)
        if found is not None and self._holds(found, message):
            return found
        if self._others:
            keys = [(Target.TASK, message.task), (Target.ROOT, message.root_id or message.id)]
            keys += [(Target.STAMP, stamp) for stamp in stamps_of(message)]
            for key in keys:
                found = self._others.get(key)
                if found is not None and self._holds(found, message):
                    return found
        return None

    def _holds(self, found: Revocation, message: TaskMessage) -> bool:
        return found.expires > self.clock.now() and found.concerns(message)


# -- memory ---------------------------------------------------------------------------------


class SharedRevocations:
    """The revocations of a name in this process, shared by its loops and threads."""

    def __init__(self) -> None:
        """Keep none yet."""
        self.lock = threading.Lock()
        self.kept: dict[tuple[Target, str], Revocation] = {}
        self.followers: set[Callable[[], None]] = set()

    def changed(self) -> None:
        """Wake every follower."""
        for wake in list(self.followers):
            wake()


class MemoryRevocations:
    """:class:`Revocations` for ``memory://``: gone with the process, like its results."""

    def __init__(self, shared: SharedRevocations, clock: Clock) -> None:
        """Keep them in ``shared``."""
        self._shared = shared
        self._clock = clock

    async def add(self, revocations: Sequence[Revocation]) -> None:
        """Keep revocations and wake followers."""
        with self._shared.lock:
            self._shared.kept.update({(one.target, one.value): one for one in revocations})
        self._shared.changed()

    async def lift(self, target: Target, values: Iterable[str]) -> int:
        """Forget revocations."""
        with self._shared.lock:
            gone = [self._shared.kept.pop((target, value), None) for value in values]
        self._shared.changed()
        return sum(one is not None for one in gone)

    async def all(self) -> list[Revocation]:
        """Return what is in force."""
        now = self._clock.now()
        with self._shared.lock:
            live = {key: one for key, one in self._shared.kept.items() if one.expires > now}
            self._shared.kept = live
        return sorted(live.values(), key=lambda one: one.at)

    async def follow(self, told: Told) -> None:
        """Tell all, and all again whenever something changes."""
        loop, changed = asyncio.get_running_loop(), asyncio.Event()

        def wake() -> None:
            with contextlib.suppress(RuntimeError):  # its loop was closed meanwhile
                loop.call_soon_threadsafe(changed.set)

        self._shared.followers.add(wake)
        try:
            while True:
                told(await self.all(), True)  # noqa: FBT003 - a callback
                await changed.wait()
                changed.clear()
        finally:
            self._shared.followers.discard(wake)

    async def close(self) -> None:
        """Do nothing: followers end when they are cancelled."""


# -- Redis ----------------------------------------------------------------------------------

#: A sorted set of JSON by expiry, and the channel that says it has changed, of each application:
#: two that share a database may have tasks of the same name.
_KEY: Final = "amqflow-revocations-{}"
#: Seconds after which a silent subscription is asked whether it lives.
_QUIET: Final = 5.0


class RedisRevocations:
    """:class:`Revocations` in the result store's Redis."""

    def __init__(self, url: str, clock: Clock, *, app_name: str, deadline: float = 5.0) -> None:
        """Check the URL; nothing connects yet."""
        from amqflow.stores.redis import RedisClient  # noqa: PLC0415 - redis-py is an extra

        self._key = _KEY.format(app_name)
        self._client = RedisClient(url, deadline=deadline)
        self._clock = clock
        self._deadline = deadline

    async def add(self, revocations: Sequence[Revocation]) -> None:
        """Keep revocations and publish them."""
        commands: list[Sequence[Any]] = [
            ("ZREMRANGEBYSCORE", self._key, "-inf", f"{self._clock.now():.3f}"),
        ]
        commands += [
            ("ZADD", self._key, f"{one.expires:.3f}", _written(one)) for one in revocations
        ]
        commands.append(("PUBLISH", self._key, dumps([asdict(one) for one in revocations])))
        await self._client.pipeline(commands)

    async def lift(self, target: Target, values: Iterable[str]) -> int:
        """Forget revocations; followers read everything again."""
        wanted = {(target, value) for value in values}
        gone = [_written(one) for one in await self.all() if (one.target, one.value) in wanted]
        if gone:
            await self._client.pipeline([("ZREM", self._key, *gone), ("PUBLISH", self._key, b"")])
        return len(gone)

    async def all(self) -> list[Revocation]:
        """Return what is in force."""
        found = await self._client.command(
            "ZRANGEBYSCORE", self._key, f"({self._clock.now():.3f}", "+inf"
        )
        read = [one for data in found if (one := _read(data)) is not None]
        return sorted(read, key=lambda one: one.at)

    async def follow(self, told: Told) -> None:
        """Subscribe, tell all, then tell all again whenever something changes."""
        backoff = Backoff(first=0.1, most=5.0)
        while True:
            try:
                subscription = await self._client.subscription()
                try:
                    await self._listen(subscription, told, backoff)
                finally:
                    await subscription.close()
            except StoreError as error:
                log.warning("revocations are not followed now", error=str(error))
                await asyncio.sleep(backoff.next())

    async def _listen(
        self,
        subscription: Subscription,
        told: Told,
        backoff: Backoff,
    ) -> None:
        subscription.subscribe([self._key])
        asked = False
        while True:
            try:
                kind, _, data = await subscription.read(self._deadline if asked else _QUIET)
            except TimeoutError:
                if asked:
                    raise StoreUnavailable("Redis does not answer its subscribers") from None
                asked = True
                subscription.ping()
                continue
            asked = False
            if kind == b"message" and data:
                told(_read_all(data), False)  # noqa: FBT003 - a callback
            elif kind in {b"message", b"subscribe"}:
                told(await self.all(), True)  # noqa: FBT003 - as above
                backoff.reset()

    async def close(self) -> None:
        """Close the connections."""
        await self._client.close()


def _written(revocation: Revocation) -> bytes:
    return dumps(asdict(revocation))


def _read_all(data: bytes) -> list[Revocation]:
    try:
        found = loads(data)
    except ValueError:
        found = None
    if not isinstance(found, list):
        return []
    return [one for entry in found if (one := _of(entry)) is not None]


def _read(data: bytes) -> Revocation | None:
    try:
        return _of(loads(data))
    except ValueError as error:
        log.warning("a revocation that cannot be read", error=repr(error))
        return None


def _of(found: Any) -> Revocation | None:
    """Return a revocation; None where somebody else wrote what is none."""
    try:
        return Revocation(**{**found, "target": Target(found["target"])})
    except (TypeError, ValueError, KeyError) as error:
        log.warning("a revocation that cannot be read", error=repr(error))
        return None


# -- which ----------------------------------------------------------------------------------


#: Memory itself, which processes have once.
_MEMORY: Final = Names(SharedRevocations)


def open_revocations(url: str | None, *, app_name: str, clock: Clock) -> Revocations | None:
    """Return where an application's revocations are kept: with its results.

    Args:
        url: the result backend's.
        app_name: whose they are; on ``embedded://`` the server's name says it.
        clock: for their expiry.

    Returns:
        None where no store is shared by those who revoke and those who run (``rpc://``, none).
    """
    scheme = (url or "").partition("://")[0].lower()
    if url is not None and scheme in {"redis", "rediss", "unix"}:
        return RedisRevocations(url, clock, app_name=app_name)
    if url is not None and is_embedded(url):
        from amqflow.guards.embedded import EmbeddedRevocations  # noqa: PLC0415 - needs this module

        return EmbeddedRevocations(name_of(url))
    if url is not None and scheme == "memory":
        return MemoryRevocations(_MEMORY.get(f"{urlsplit(url).netloc}/{app_name}"), clock)
    return None


def revoked_outcome(task_id: str, known: Outcome | None, now: float) -> Outcome:
    """Return how a task ends that was revoked before it began, or between two attempts."""
    attempt = 0
    if known is not None:
        attempt = known.attempt + 1 if known.state == RETRY else known.attempt
    return Outcome(
        task_id,
        REVOKED,
        epoch=0 if known is None else known.epoch,
        attempt=attempt,
        park=DeadReason.REVOKED,
        reason="revoked",
        date_done=now,
    )


def no_store() -> NoResultStore:
    """Return the error of an application that has nowhere to keep revocations."""
    return NoResultStore(
        "revoking needs a store that callers and workers share: give AmqFlow(backend=…) one such "
        "as redis://localhost:6379/0"
    )
