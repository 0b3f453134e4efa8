"""The one client of a store that ``amqflow dev`` or ``amqflow broker`` serves on this machine."""

from __future__ import annotations

import asyncio
import itertools
from typing import TYPE_CHECKING, Any, Final, cast

from amqflow import rendezvous
from amqflow.errors import NoEmbeddedBroker, StoreError, StoreUnavailable
from amqflow.stores import frames
from amqflow.stores.frames import Frames

#: Seconds for connecting, and for the answer to what does not wait.
TIMEOUT: Final = 10.0

if TYPE_CHECKING:
    from collections.abc import Sequence


class EmbeddedClient:
    """Sends requests over one connection, in one event loop; made when needed, and again."""

    def __init__(self, name: str) -> None:
        """Keep the name of an ``embedded://name``; nothing connects yet."""
        self._name = name
        self._lock = asyncio.Lock()
        self._numbers = itertools.count(1)
        self._line: _Line | None = None

    async def open(self) -> None:
        """Connect.

        Raises:
            StoreUnavailable: nothing serves a store under this name now.
        """
        await self._connected()

    async def close(self) -> None:
        """End the connection and every request that is under way."""
        async with self._lock:
            line, self._line = self._line, None
            if line is not None:
                line.close("the result store was closed")

    async def call(self, method: str, payload: Any, *, timeout: float | None = TIMEOUT) -> Any:
        """Send a request and return the payload of its answer.

        Args:
            method: what to do.
            payload: plain JSON.
            timeout: seconds; None: as long as it takes.

        Raises:
            StoreUnavailable: it cannot be reached, went away meanwhile, or does not answer.
            StoreError: it refused the request.
        """
        line = await self._connected()
        number = next(self._numbers)
        answer = line.send(number, method, payload)
        try:
            async with asyncio.timeout(timeout):
                kind, payload = await answer
        except TimeoutError:
            raise StoreUnavailable(
                f"the embedded store did not answer {method!r} within {timeout:g} s"
            ) from None
        finally:
            line.leave(number)
        if kind == frames.DONE:
            return payload
        raise (StoreUnavailable if kind == frames.HELD else StoreError)(str(payload))

    async def _connected(self) -> _Line:
        if (line := self._line) is not None and line.alive:
            return line
        async with self._lock:
            if (line := self._line) is not None and line.alive:
                return line
            try:
                async with asyncio.timeout(TIMEOUT):
                    self._line = await self._connect()
            except (OSError, TimeoutError) as error:
                url = rendezvous.url_of(self._name)
                raise StoreUnavailable(f"the store of {url} does not answer: {error}") from error
            return self._line

    async def _connect(self) -> _Line:
        try:
            there = rendezvous.find(self._name)
        except NoEmbeddedBroker as error:
            raise StoreUnavailable(str(error)) from error
        if there.store is None:
            raise StoreUnavailable(f"what serves {there.url} keeps no results")
        host, _, port = there.store.rpartition(":")
        _, line = await asyncio.get_running_loop().create_connection(_Line, host, int(port))
        try:
            await line.send(0, frames.HELLO, there.token)
        except BaseException:
            line.close("not admitted")
            raise
        return line


class _Line(asyncio.Protocol):
    """One connection, and the requests that wait for its answers.

    A protocol, not a task that reads: a program that ends without closing leaves nothing pending.
    """

    def __init__(self) -> None:
        self._frames = Frames()
        self._answers: dict[int, asyncio.Future[Sequence[Any]]] = {}
        self._lost: str | None = None
        self._transport: asyncio.Transport

    @property
    def alive(self) -> bool:
        """Whether requests can be sent."""
        return self._lost is None

    def send(self, number: int, method: str, payload: Any) -> asyncio.Future[Sequence[Any]]:
        """Send a request; the future is its answer's kind and payload.

        Raises:
            StoreError: it is too large.
        """
        future: asyncio.Future[Sequence[Any]] = asyncio.get_running_loop().create_future()
        if self._lost is not None:
            future.set_exception(StoreUnavailable(self._lost))
            return future
        self._transport.write(frames.encode(number, method, payload))
        self._answers[number] = future
        return future

    def leave(self, number: int) -> None:
        """Forget a request; one without its answer is ended at the other side too."""
        if self._answers.pop(number, None) is not None and self._lost is None:
            self._transport.write(frames.encode(number, frames.CANCEL, number))

    def close(self, why: str) -> None:
        """End the connection; what waits for answers is told ``why``."""
        if self._lost is None:
            self._lost = why
        answers, self._answers = self._answers, {}
        for future in answers.values():
            if not future.done():
                future.set_exception(StoreUnavailable(self._lost))
        self._transport.close()

    # -- what asyncio tells ----------------------------------------------------------------

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Keep the way out."""
        self._transport = cast("asyncio.Transport", transport)

    def data_received(self, data: bytes) -> None:
        """Hand answers to who waits for them."""
        try:
            for number, kind, payload in self._frames.feed(data):
                future = self._answers.pop(number, None)
                if future is not None and not future.done():
                    future.set_result((kind, payload))
        except StoreError as error:
            self.close(f"the embedded store sent {error}")

    def connection_lost(self, _: Exception | None) -> None:
        """Tell who waits."""
        self.close("the embedded store went away, and its results with it")
