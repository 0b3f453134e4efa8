"""Large values, revocations, rate limits of ``embedded://``: in the memory of who serves it."""

from __future__ import annotations

import asyncio
import math
import secrets
from base64 import b64decode, b64encode
from collections import deque
from dataclasses import asdict
from typing import TYPE_CHECKING, Any, Final

from amqflow.backoff import Backoff
from amqflow.errors import StoreError
from amqflow.guards.rates import Want
from amqflow.guards.revocations import MemoryRevocations
from amqflow.logs import get_logger
from amqflow.protocol.revocation import Revocation, Target
from amqflow.stores.embedded import EmbeddedClient
from amqflow.tasks import RateLimit

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from amqflow.clock import Clock
    from amqflow.guards.rates import SharedRates
    from amqflow.guards.revocations import SharedRevocations, Told
    from amqflow.guards.shelves import MemoryShelf
    from amqflow.stores.server import Method

#: Bytes of a blob that travel at once: what is larger goes in pieces, each a blob of its own, so
#: that no frame is too large and nobody's small request waits long behind it.
PIECE: Final = 4 * 1024 * 1024
#: Changes that are told one by one; who has missed more is told everything.
NEWS: Final = 1024

log = get_logger("amqflow.guards")


# -- large values ------------------------------------------------------------------------------


class EmbeddedShelf:
    """A :class:`~amqflow.guards.blobs.Shelf` in the process that serves a name."""

    def __init__(self, name: str) -> None:
        """Keep the name; nothing connects yet."""
        self._client = EmbeddedClient(name)

    async def store(self, name: str, data: bytes, keep: float) -> None:
        """Keep a blob; its last piece is the one that is not full."""
        for number, start in enumerate(range(0, len(data) + 1, PIECE)):
            text = b64encode(data[start : start + PIECE]).decode()
            await self._client.call("blobs.store", [f"{name}/{number}", text, keep])

    async def load(self, name: str) -> bytes | None:
        """Return a blob; None where it, or a piece of it, is not there."""
        pieces: list[bytes] = []
        while not pieces or len(pieces[-1]) == PIECE:
            text = await self._client.call("blobs.load", f"{name}/{len(pieces)}")
            if text is None:
                return None
            pieces.append(b64decode(text))
        return b"".join(pieces)

    async def close(self) -> None:
        """Disconnect."""
        await self._client.close()


def shelf_methods(shelf: MemoryShelf) -> dict[str, Method]:
    """Return the other end of an :class:`EmbeddedShelf`, for a StoreServer."""

    async def store(payload: Any) -> None:
        name, text, keep = payload
        await shelf.store(name, b64decode(text), keep)

    async def load(payload: Any) -> str | None:
        data = await shelf.load(payload)
        return None if data is None else b64encode(data).decode()

    return {"blobs.store": store, "blobs.load": load}


# -- revocations -------------------------------------------------------------------------------


class EmbeddedRevocations:
    """:class:`~amqflow.guards.revocations.Revocations` in the process that serves a name."""

    def __init__(self, name: str) -> None:
        """Keep the name; nothing connects yet."""
        self._client = EmbeddedClient(name)

    async def add(self, revocations: Sequence[Revocation]) -> None:
        """Keep revocations; followers are told."""
        await self._client.call("revocations.add", [asdict(one) for one in revocations])

    async def lift(self, target: Target, values: Iterable[str]) -> int:
        """Forget revocations."""
        return int(await self._client.call("revocations.lift", [target, list(values)]))

    async def all(self) -> list[Revocation]:
        """Return what is in force."""
        return [_read(found) for found in await self._client.call("revocations.all", None)]

    async def follow(self, told: Told) -> None:
        """Tell all, then what comes: a request is held until something changes."""
        backoff = Backoff(first=0.1, most=5.0)
        known = None
        while True:
            try:
                known, whole, found = await self._client.call(
                    "revocations.next", known, timeout=None
                )
            except StoreError as error:
                log.warning("revocations are not followed now", error=str(error))
                known = None
                await asyncio.sleep(backoff.next())
            else:
                told([_read(one) for one in found], whole)
                backoff.reset()

    async def close(self) -> None:
        """Disconnect; followers are cancelled by who started them."""
        await self._client.close()


def revocation_methods(shared: SharedRevocations, clock: Clock) -> dict[str, Method]:
    """Return the other end of :class:`EmbeddedRevocations`, for a StoreServer.

    Args:
        shared: Where they are kept; nobody else changes it.
        clock: For their expiry.
    """
    kept = MemoryRevocations(shared, clock)
    changes = _Changes()

    async def add(payload: Any) -> None:
        await kept.add([_read(found) for found in payload])
        changes.added(payload)

    async def lift(payload: Any) -> int:
        target, values = payload
        gone = await kept.lift(Target(target), values)
        if gone:
            changes.lifted()
        return gone

    async def everything(_: Any) -> Any:
        return [asdict(one) for one in await kept.all()]

    async def following(known: Any) -> Any:
        news = await changes.after(known)
        whole = news is None
        return [changes.number, whole, await everything(None) if whole else news]

    return {
        "revocations.add": add,
        "revocations.lift": lift,
        "revocations.all": everything,
        "revocations.next": following,
    }


class _Changes:
    """The changes of revocations by number, for those who wait for the next."""

    def __init__(self) -> None:
        # Random: a number that another server gave out before is none of ours.
        self.number = secrets.randbits(48)
        self._news: deque[tuple[int, list[Any]]] = deque(maxlen=NEWS)
        self._changed = asyncio.Event()

    def added(self, revocations: list[Any]) -> None:
        """Note revocations that came."""
        self.number += 1
        self._news.append((self.number, revocations))
        self._wake()

    def lifted(self) -> None:
        """Note that some are gone: everybody must read all again."""
        self.number += 1
        self._news.clear()
        self._wake()

    async def after(self, known: int | None) -> list[Any] | None:
        """Return what came after the change ``known``, once there is any; None: read all."""
        while known == self.number:
            await self._changed.wait()
        if known is None or not self._news or not self._news[0][0] <= known + 1 <= self.number:
            return None
        return [one for number, news in self._news if number > known for one in news]

    def _wake(self) -> None:
        changed, self._changed = self._changed, asyncio.Event()
        changed.set()


def _read(found: Any) -> Revocation:
    return Revocation(**{**found, "target": Target(found["target"])})


# -- rate limits -------------------------------------------------------------------------------


class EmbeddedRates:
    """:class:`~amqflow.guards.rates.Rates` in the process that serves a name, by its clock."""

    def __init__(self, name: str, *, app_name: str) -> None:
        """Keep the name; nothing connects yet."""
        self._client = EmbeddedClient(name)
        self._app_name = app_name

    async def reserve(self, wants: Sequence[Want]) -> list[float | None]:
        """Reserve starts."""
        payload = [
            [
                f"{self._app_name}/{want.key}",
                want.limit.count,
                want.limit.period,
                None if math.isinf(want.within) else want.within,
            ]
            for want in wants
        ]
        starts: list[float | None] = await self._client.call("rates.reserve", payload)
        return starts

    async def close(self) -> None:
        """Disconnect."""
        await self._client.close()


def rate_methods(shared: SharedRates, clock: Clock) -> dict[str, Method]:
    """Return the other end of :class:`EmbeddedRates`, for a StoreServer.

    Args:
        shared: Where the next starts are kept.
        clock: Says when they are.
    """

    def reserve(payload: Any) -> list[float | None]:
        wants = [
            Want(key, RateLimit(count, period), math.inf if within is None else within)
            for key, count, period, within in payload
        ]
        return shared.reserve(wants, clock.monotonic())

    return {"rates.reserve": reserve}
