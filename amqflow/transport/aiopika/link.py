"""One connection that is opened when needed and opened again, with backoff, when it was lost."""

from __future__ import annotations

import asyncio
import logging
from typing import TYPE_CHECKING, Any, Final, TypeVar, cast

import aio_pika
from aio_pika.abc import ConnectionParameter
from yarl import URL

from amqflow.backoff import Backoff
from amqflow.errors import (
    AccessRefused,
    AmqflowError,
    AppClosed,
    BrokerUnavailable,
    ConfigurationError,
    NoEmbeddedBroker,
)
from amqflow.logs import get_logger
from amqflow.transport.aiopika.calls import unless_closed
from amqflow.transport.aiopika.faults import translated
from amqflow.transport.aiopika.stream import FrameStreams
from amqflow.transport.seam import CALL_TIMEOUT, CLOSE_TIMEOUT, ServerInfo

if TYPE_CHECKING:
    from collections.abc import Callable

    from aiormq.abc import AbstractConnection
    from aiormq.channel import Channel

    from amqflow.transport.aiopika.stream import FrameStream, Tap

log = get_logger("amqflow.transport")

#: The reply code of a broker that does not let a client into a virtual host.
_NOT_ALLOWED: Final = 530


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

    def __init__(
        self,
        url: str,
        *,
        name: str,
        timeout: float,
        heartbeat: int,
        locate: Callable[[], str] | None = None,
    ) -> None:
        """Keep the address; nothing connects yet. ``timeout`` and ``heartbeat`` in seconds.

        Args:
            url: the broker's, as it was configured.
            name: shown by the broker as the connection's name.
            timeout: seconds for one attempt.
            heartbeat: seconds.
            locate: returns the URL to connect to, asked before every attempt.

        Raises:
            ConfigurationError: the URL cannot be read.
        """
        try:
            self._url = URL(url)
        except ValueError:
            # yarl's words may hold a part of the password.
            message = (
                "the broker's URL cannot be read: amqp://user:password@host:5672/vhost, with "
                "signs like / : @ in user or password written as %2F %3A %40"
            )
            raise ConfigurationError(message) from None
        self._shown = url if locate is not None else None
        self._locate = locate
        self._name = name
        self._timeout = timeout
        self._heartbeat = heartbeat
        self._lock = asyncio.Lock()
        self._backoff = Backoff(first=0.05, most=5.0)
        self._not_before = 0.0
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
        if self._shown is not None:
            return self._shown
        return f"{self._url.host or 'localhost'}:{self._url.port or 5672}{self._url.path}"

    def current(self) -> AbstractConnection | None:
        """Return the open connection, or None."""
        raw = self._raw
        return raw if raw is not None and raw.is_opened and not raw.is_closed else None

    async def connection(self) -> AbstractConnection:
        """Return the open connection, making one attempt where there is none.

        Raises:
            BrokerUnavailable: the attempt failed; ask again (the backoff is kept here).
            AccessRefused: the broker refused the login or the virtual host.
            NoEmbeddedBroker: nothing is served under an ``embedded://`` name, and never was.
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
        if self._locate is not None:
            self._url = URL(self._located(self._locate))
        doing = f"connecting to the broker at {self.address}"
        streams = FrameStreams()
        connection = _Connection(
            self._url.update_query(heartbeat=self._heartbeat),
            client_properties={"connection_name": self._name},
            transport_factory=streams,
        )
        try:
            with translated(doing):
                async with asyncio.timeout(self._timeout):
                    await connection.connect(timeout=self._timeout)
        except AmqflowError as error:
            raise self._refused(error, doing, streams.stream) from error
        transport = connection.transport
        if transport is None:  # pragma: no cover - aio-pika sets it before it returns
            message = f"{doing}: closed at once"
            raise BrokerUnavailable(message)
        self._raw = transport.connection
        self._stream = streams.stream
        if streams.stream is not None and streams.transport is not None and self._heartbeat:
            streams.stream.watch(streams.transport, self._heartbeat)
        self.generation += 1
        self._backoff.reset()
        self._not_before = 0.0
        self.problem = None
        log.debug("connected", broker=self.address, link=self._name, generation=self.generation)
        return self._raw

    def _located(self, locate: Callable[[], str]) -> str:
        """Return where the broker is now; one that has been there before may come back."""
        try:
            return locate()
        except NoEmbeddedBroker as error:
            if self.generation:
                raise BrokerUnavailable(str(error)) from error
            raise

    def _refused(self, error: AmqflowError, doing: str, stream: FrameStream | None) -> AmqflowError:
        """Return the error of a failed attempt: what will not get better by itself is refused."""
        if stream is not None and stream.alien is not None:
            answer = stream.alien.partition(b"\n")[0].rstrip()
            return BrokerUnavailable(
                f"{doing}: what answers there does not speak AMQP 0-9-1 (it says {answer!r})"
            )
        code, text = (stream.refusal if stream else None) or (0, "")
        if code == _NOT_ALLOWED and "limit" not in text:
            name = self._url.path[1:].replace("%2F", "/") or "/"
            return AccessRefused(
                f"{doing}: no way into virtual host {name!r}: the broker says {text!r}; create "
                "it (rabbitmqctl add_vhost), give the user its permissions, or correct the URL"
            )
        if isinstance(error, AccessRefused):
            return error
        return BrokerUnavailable(f"{doing}: {text}" if text else str(error))

    async def channel(self) -> Channel:
        """Open a channel without publisher confirms."""
        channel, _ = await self._open_channel()
        return channel

    async def tapped_channel(self, make: Callable[[Channel], tuple[T, Tap]]) -> T:
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

    async def _open_channel(self) -> tuple[Channel, FrameStream]:
        connection = await self.connection()
        stream = self._stream
        if stream is None:  # pragma: no cover - set with the connection
            message = "the connection has no stream"
            raise BrokerUnavailable(message)
        with translated(f"opening a channel at {self.address}"):
            channel = await unless_closed(
                connection.channel(publisher_confirms=False, timeout=CALL_TIMEOUT),
                connection.closing,
            )
        return cast("Channel", channel), stream

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
        raw, self._raw = self._raw, None
        # aiormq's connection, not aio-pika's: closing that waits for ever where it was lost.
        if raw is not None and not raw.is_closed:
            try:
                async with asyncio.timeout(CLOSE_TIMEOUT):
                    await raw.close()
            except Exception as error:  # noqa: BLE001 - it is being dropped, whatever it says
                log.debug("closing a connection failed", error=repr(error))

    async def close(self) -> None:
        """Close the connection for good."""
        self._closed = True
        async with self._lock:
            await self._drop()
