"""Serves a store of this process to others on this machine: what ``embedded://`` results use.

It knows no store: it is given methods by name, and answers requests with what they return.
"""

from __future__ import annotations

import asyncio
import hmac
from typing import TYPE_CHECKING, Any, Final, TypeAlias, cast

from amqflow.errors import StoreError, StoreUnavailable
from amqflow.logs import get_logger
from amqflow.stores import frames
from amqflow.stores.frames import Frames

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Mapping

    from amqflow.stores.frames import Frame

#: Takes a payload and returns the answer's, at once or awaited; both are plain JSON.
Method: TypeAlias = "Callable[[Any], Any | Awaitable[Any]]"

#: Seconds a connection has to show the token, and bytes it may use for it.
HELLO_TIMEOUT: Final = 5.0
HELLO_BYTES: Final = 4096

log = get_logger("amqflow.stores")


class StoreServer:
    """Listens on loopback, in the running event loop."""

    def __init__(self, methods: Mapping[str, Method], *, token: str) -> None:
        """Answer ``methods`` to whoever shows ``token``."""
        self.methods = dict(methods)
        self._token = token.encode()
        self._server: asyncio.Server | None = None
        self.connections: set[_Connection] = set()

    @property
    def address(self) -> str:
        """``host:port``, once started."""
        assert self._server is not None, "not started"
        host, port = self._server.sockets[0].getsockname()[:2]
        return f"{host}:{port}"

    async def start(self, host: str = "127.0.0.1", port: int = 0) -> None:
        """Listen; port 0 takes a free one."""
        loop = asyncio.get_running_loop()
        self._server = await loop.create_server(lambda: _Connection(self), host, port)

    async def stop(self) -> None:
        """Close every connection and stop listening."""
        if self._server is None:
            return
        self._server.close()
        for connection in list(self.connections):
            connection.end()
        # One turn for the connections to be told.
        await asyncio.sleep(0)

    def admits(self, frame: Frame) -> bool:
        """Whether a connection's first frame shows the token."""
        _, word, token = frame
        return word == frames.HELLO and hmac.compare_digest(str(token).encode(), self._token)


class _Connection(asyncio.Protocol):
    """The requests of one peer."""

    def __init__(self, server: StoreServer) -> None:
        self._server = server
        self._frames = Frames(HELLO_BYTES)
        self._running: dict[int, asyncio.Task[None]] = {}
        self._transport: asyncio.Transport
        self._impatience: asyncio.TimerHandle | None = None

    # -- what asyncio tells ----------------------------------------------------------------

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)
        self._server.connections.add(self)
        loop = asyncio.get_running_loop()
        self._impatience = loop.call_later(HELLO_TIMEOUT, self.end)

    def data_received(self, data: bytes) -> None:
        try:
            for frame in self._frames.feed(data):
                self._take(frame)
        except StoreError as error:
            log.debug("a store connection is closed", error=str(error))
            self.end()

    def connection_lost(self, _: Exception | None) -> None:
        self.end()
        self._server.connections.discard(self)

    def pause_writing(self) -> None:
        """Read no more from a peer that does not read its answers."""
        self._transport.pause_reading()

    def resume_writing(self) -> None:
        self._transport.resume_reading()

    # -- answering -------------------------------------------------------------------------

    def end(self) -> None:
        """Close, and stop what still runs for this peer."""
        if self._impatience is not None:
            self._impatience.cancel()
        for task in self._running.values():
            task.cancel()
        self._running.clear()
        self._transport.abort()

    def _take(self, frame: Frame) -> None:
        if self._transport.is_closing():
            return
        number, name, payload = frame
        if self._impatience is not None:
            if not self._server.admits(frame):
                self.end()
                return
            self._impatience.cancel()
            self._impatience = None
            self._frames.largest = frames.LARGEST
            self._write(number, frames.DONE, None)
        elif name == frames.CANCEL:
            if isinstance(payload, int) and (task := self._running.pop(payload, None)):
                task.cancel()
        else:
            self._begin(number, name, payload)

    def _begin(self, number: int, name: str, payload: Any) -> None:
        method = self._server.methods.get(name)
        if method is None:
            self._write(number, frames.REFUSED, f"this store has no method {name[:80]!r}")
            return
        try:
            answer = method(payload)
        except Exception as error:  # noqa: BLE001 - whatever a peer sends must not end the server
            self._write(number, *_kind(error))
            return
        if not asyncio.iscoroutine(answer):
            self._write(number, frames.DONE, answer)
            return
        task = asyncio.get_running_loop().create_task(self._finish(number, answer))
        self._running[number] = task

    async def _finish(self, number: int, answer: Awaitable[Any]) -> None:
        try:
            kind, payload = frames.DONE, await answer
        except Exception as error:  # noqa: BLE001 - as above
            kind, payload = _kind(error)
        self._running.pop(number, None)
        self._write(number, kind, payload)

    def _write(self, number: int, kind: str, payload: Any) -> None:
        try:
            frame = frames.encode(number, kind, payload)
        except (StoreError, TypeError) as error:
            frame = frames.encode(number, frames.REFUSED, str(error))
        self._transport.write(frame)


def _kind(error: Exception) -> tuple[str, str]:
    if isinstance(error, StoreUnavailable):
        return frames.HELD, str(error)
    if isinstance(error, StoreError):
        return frames.REFUSED, str(error)
    log.warning("a request to the store failed", error=repr(error))
    return frames.REFUSED, f"{type(error).__name__}: {error}"
