"""One connection that is opened when needed and opened again, with backoff, when it was lost."""

from __future__ import annotations

import asyncio
import logging
from typing import TYPE_CHECKING, Any, TypeVar

import aio_pika
from aio_pika.abc import ConnectionParameter
from yarl import URL

from amqflow.backoff import Backoff
from amqflow.errors import AccessRefused, AppClosed, BrokerUnavailable
from amqflow.logs import get_logger
from amqflow.transport.aiopika.faults import translate, translated
from amqflow.transport.aiopika.stream import FrameStreams
from amqflow.transport.seam import CALL_TIMEOUT, ServerInfo

if TYPE_CHECKING:
    from collections.abc import Callable

    from aiormq.abc import AbstractChannel, AbstractConnection

    from amqflow.transport.aiopika.stream import FrameStream, Tap

log = get_logger("amqflow.transport")


def _as_it_is(value: Any) -> Any:
    return value


T = TypeVar("T")


class _Connection(aio_pika.Connection):
    """aio-pika's connection, with aiormq's ``transport_factory`` among its parameters."""

    PARAMETERS = (
        *aio_pika.Connection.PARAMETERS,
        ConnectionParameter(name="transport_factory", parser=_as_it_is, is_kwarg=True),
    )


class Link:
    """A supervised connection to the broker, in one event loop.

    ``generation`` counts the connections made. Attempts of many callers are one attempt: a
    failed one is not repeated before its backoff has passed, whoever asks.
    """

    def __init__(self, url: str, *, name: str, timeout: float, heartbeat: int) -> None:
        """Keep the address; nothing connects yet. ``timeout`` and ``heartbeat`` in seconds."""
        self._url = URL(url)
        self._name = name
        self._timeout = timeout
        self._heartbeat = heartbeat
        self._lock = asyncio.Lock()
        self._backoff = Backoff(first=0.05, most=5.0)
        self._not_before = 0.0
        self._connection: aio_pika.abc.AbstractConnection | None = None
        self._raw: AbstractConnection | None = None
        self._stream: FrameStream | None = None
        self._closed = False
        self.generation = 0
        #: Why the last attempt to connect failed, None since one succeeded.
        self.problem: str | None = None
        # aiormq logs each failed attempt as an error; it is raised here, in words, and retried.
        # A handler of its own keeps the line out of scripts that configure no logging.
        aiormq_log = logging.getLogger("aiormq")
        if not aiormq_log.handlers:
            aiormq_log.addHandler(logging.NullHandler())

    @property
    def address(self) -> str:
        """The broker's address without the password, for people."""
        return f"{self._url.host}:{self._url.port or 5672}{self._url.path}"

    def current(self) -> AbstractConnection | None:
        """Return the open connection, or None."""
        raw = self._raw
        return raw if raw is not None and raw.is_opened and not raw.is_closed else None

    async def connection(self) -> AbstractConnection:
        """Return the open connection, making one attempt where there is none.

        Raises:
            BrokerUnavailable: the attempt failed; ask again (the backoff is kept here).
            AccessRefused: the broker refused the login.
            AppClosed: the link was closed.
        """
        if (raw := self.current()) is not None:
            return raw
        async with self._lock:
            if (raw := self.current()) is not None:
                return raw
            if self._closed:
                message = "this application is closed; create a new one to send or consume"
                raise AppClosed(message)
            loop = asyncio.get_running_loop()
            if (pause := self._not_before - loop.time()) > 0:
                await asyncio.sleep(pause)
            try:
                return await self._connect()
            except (BrokerUnavailable, AccessRefused) as error:
                self.problem = str(error)
                self._not_before = loop.time() + self._backoff.next()
                raise

    async def _connect(self) -> AbstractConnection:
        await self._drop()
        doing = f"connecting to the broker at {self.address}"
        with translated(doing):
            try:
                async with asyncio.timeout(self._timeout):
                    streams = FrameStreams()
                    connection = _Connection(
                        self._url.update_query(heartbeat=self._heartbeat),
                        client_properties={"connection_name": self._name},
                        transport_factory=streams,
                    )
                    await connection.connect(timeout=self._timeout)
            except (AccessRefused, BrokerUnavailable):
                raise
            except Exception as error:
                known = translate(error, doing)
                if isinstance(known, AccessRefused):
                    raise known from error
                message = str(known)
                raise BrokerUnavailable(message) from error
        transport = connection.transport
        if transport is None:  # pragma: no cover - aio-pika sets it before it returns
            message = f"{doing}: closed at once"
            raise BrokerUnavailable(message)
        self._connection = connection
        self._raw = transport.connection
        self._stream = streams.stream
        self.generation += 1
        self._backoff.reset()
        self._not_before = 0.0
        self.problem = None
        log.debug("connected", broker=self.address, link=self._name, generation=self.generation)
        return self._raw

    async def channel(self) -> AbstractChannel:
        """Open a channel without publisher confirms."""
        channel, _ = await self._open_channel()
        return channel

    async def tapped_channel(self, make: Callable[[AbstractChannel], tuple[T, Tap]]) -> T:
        """Open a channel whose content frames go to a tap.

        Args:
            make: returns what is built on the channel, and its tap.
        """
        channel, stream = await self._open_channel()
        built, tap = make(channel)
        number = channel.number
        stream.taps[number] = tap

        def untap(_: object) -> None:
            # The number is given to another channel once the broker has confirmed the close.
            if stream.taps.get(number) is tap:
                del stream.taps[number]

        channel.closing.add_done_callback(untap)
        return built

    async def _open_channel(self) -> tuple[AbstractChannel, FrameStream]:
        connection = await self.connection()
        stream = self._stream
        if stream is None:  # pragma: no cover - set with the connection
            message = "the connection has no stream"
            raise BrokerUnavailable(message)
        with translated(f"opening a channel at {self.address}"):
            channel = await connection.channel(publisher_confirms=False, timeout=CALL_TIMEOUT)
        return channel, stream

    async def server(self) -> ServerInfo:
        """Return what the broker says of itself."""
        connection = await self.connection()
        properties = connection.server_properties or {}
        version = str(properties.get("version", ""))
        numbers = [part for part in version.split("-", maxsplit=1)[0].split(".") if part.isdigit()]
        return ServerInfo(
            product=str(properties.get("product", "unknown")),
            version=tuple(int(part) for part in numbers),
            frame_max=int(connection.connection_tune.frame_max or 131072),
        )

    async def blocked(self) -> bool:
        """Whether the broker has blocked this connection (memory or disk alarm)."""
        if (raw := self.current()) is None:
            return False
        try:
            async with asyncio.timeout(0.05):
                await raw.ready()
        except TimeoutError:
            return True
        return False

    async def _drop(self) -> None:
        connection, self._connection, self._raw = self._connection, None, None
        if connection is not None and not connection.is_closed:
            try:
                async with asyncio.timeout(2.0):
                    await connection.close()
            except Exception as error:  # noqa: BLE001 - it is being dropped, whatever it says
                log.debug("closing a connection failed", error=repr(error))

    async def close(self) -> None:
        """Close the connection for good."""
        self._closed = True
        async with self._lock:
            await self._drop()
