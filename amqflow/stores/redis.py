"""The one Redis client: a URL checked, scripts run in one round trip, errors translated.

Retries inside redis-py are off: a script that claims something must not run twice because its
answer was lost. Who calls decides what a second try means; every script here allows one.

Its ``socket_timeout`` is off too. redis-py sends under ``asyncio.wait_for``, which on Python 3.11
loses a cancellation that meets the end of the write (cpython issue 86296; tried: one cancelled
call in seven went on), and makes a task per command. One ``asyncio.timeout`` spans an exchange.
"""

from __future__ import annotations

import asyncio
import hashlib
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import urlsplit, urlunsplit

from redis import exceptions as redis_errors
from redis.asyncio import ConnectionPool
from redis.asyncio.connection import parse_url
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff

from amqflow.errors import ConfigurationError, StoreConflict, StoreError, StoreUnavailable
from amqflow.stores.resp import Answers

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator, Sequence

    from redis.asyncio.connection import AbstractConnection

#: Connections at a time where the URL does not say ``max_connections=``.
MAX_CONNECTIONS: Final = 64

#: Bytes a subscriber takes at a time.
READ: Final = 65_536

SCHEMES: Final = ("redis", "rediss", "unix")

#: Answers that end by themselves or by an operator's hand; the data are not at fault: hold.
#: The codes are those of the Redis and Redis Cluster documentation.
_HOLD: Final = (
    "READONLY",
    "LOADING",
    "OOM",
    "MISCONF",
    "CLUSTERDOWN",
    "MASTERDOWN",
    "TRYAGAIN",
    "NOREPLICAS",
    "BUSY",
    "UNKILLABLE",
)
#: Somebody else's value stands under a key; a script's error has the word in its middle.
_FOREIGN: Final = "WRONGTYPE"
_HOLD_KINDS: Final = (
    redis_errors.ConnectionError,
    redis_errors.TimeoutError,
    redis_errors.BusyLoadingError,
    redis_errors.ReadOnlyError,
    redis_errors.OutOfMemoryError,
    redis_errors.ClusterDownError,
    redis_errors.TryAgainError,
    OSError,
)


@dataclass(frozen=True, slots=True)
class Script:
    """A Lua script and the name Redis knows it by."""

    text: str
    sha: str = field(init=False)

    def __post_init__(self) -> None:
        digest = hashlib.sha1(self.text.encode(), usedforsecurity=False).hexdigest()
        object.__setattr__(self, "sha", digest)


def redact(url: str) -> str:
    """Return a store's URL without its password and query, for logs and errors."""
    try:
        parts = urlsplit(url)
        place = parts.netloc.rpartition("@")[2]
        user = "***@" if "@" in parts.netloc else ""
        _ = parts.port
    except ValueError:  # a password may stand where the port should
        return url.partition(":")[0] + "://…"
    return urlunsplit((parts.scheme, user + place, parts.path, "", ""))


def _connection_options(url: str, deadline: float) -> dict[str, Any]:
    """Check a Redis URL and return what redis-py's pool is made with.

    Raises:
        ConfigurationError: The URL names no Redis; the message says how one looks.
    """
    shown = redact(url)
    try:
        parts = urlsplit(url)
        options = dict(parse_url(url))
    except ValueError:
        # Not "from": the parser quotes what it could not read, which may be a password.
        raise ConfigurationError(
            f"the Redis URL {shown} cannot be read; write redis://[user:password@]host:port/number"
        ) from None
    database = parts.path.strip("/")
    if parts.scheme != "unix" and database and not (database.isascii() and database.isdigit()):
        raise ConfigurationError(
            f"the database in {shown} is {database!r}, not a number; write redis://host:port/0"
        )
    if parts.scheme == "unix" and not options.get("path"):
        raise ConfigurationError(f"{shown} names no socket; write unix:///run/redis.sock?db=0")
    if parts.scheme != "unix":
        options.setdefault("socket_connect_timeout", deadline)
        options.setdefault("socket_keepalive", True)
    return options


@asynccontextmanager
async def _within(deadline: float) -> AsyncIterator[None]:
    """Bound an exchange and say so; a time-out of the caller's own stays a cancellation."""
    limit = asyncio.timeout(deadline)
    try:
        async with limit:
            yield
    except TimeoutError as exc:
        if not limit.expired():
            raise
        raise redis_errors.TimeoutError(f"no answer within {deadline:g} s") from exc


@contextmanager
def translated(shown: str) -> Iterator[None]:
    """Turn redis-py's errors into StoreUnavailable (hold) or StoreError."""
    try:
        yield
    except _HOLD_KINDS as exc:
        raise StoreUnavailable(f"Redis {shown} cannot be used now: {_said(exc)}") from exc
    except redis_errors.ResponseError as exc:
        if isinstance(exc, redis_errors.NoScriptError):
            raise
        # An error inside a script is wrapped: "… script: f_1a2b…, on @user_script:9."
        if any(f"{code} " in str(exc)[:80] for code in _HOLD):
            raise StoreUnavailable(f"Redis {shown} cannot be used now: {_said(exc)}") from exc
        if _FOREIGN in str(exc):
            raise StoreConflict(
                f"Redis {shown} keeps something else under a key of amqflow's: {_said(exc)}"
            ) from exc
        raise StoreError(f"Redis {shown} refused a command: {_said(exc)}") from exc
    except redis_errors.RedisError as exc:
        raise StoreError(f"Redis {shown}: {_said(exc)}") from exc
    except RuntimeError as exc:
        # uvloop says so where asyncio raises ConnectionResetError: the socket closed under a write.
        raise StoreUnavailable(f"Redis {shown} cannot be used now: {_said(exc)}") from exc


def _said(exc: BaseException) -> str:
    text = str(exc) or type(exc).__name__
    code = getattr(exc, "status_code", None)
    return f"{code} {text}" if code and not text.startswith(str(code)) else text


class Subscription:
    """One connection in subscribe mode: channels come and go, messages are read in order."""

    def __init__(self, connection: AbstractConnection, shown: str, deadline: float) -> None:
        """Own ``connection``, which is open.

        Args:
            connection: redis-py's; nobody else uses it.
            shown: The URL for errors.
            deadline: Seconds a write may take.
        """
        self._connection = connection
        self._shown = shown
        self._deadline = deadline
        self._answers = Answers()

    async def subscribe(self, channels: Sequence[str]) -> None:
        """Ask for channels; each is acknowledged by a ``subscribe`` message."""
        await self._send("SUBSCRIBE", *channels)

    async def unsubscribe(self, channels: Sequence[str]) -> None:
        """Leave channels; each is acknowledged by an ``unsubscribe`` message."""
        await self._send("UNSUBSCRIBE", *channels)

    async def ping(self) -> None:
        """Ask for a ``pong`` message: a connection nobody answers on is found out."""
        await self._send("PING")

    async def read(self, timeout: float) -> tuple[bytes, bytes, Any]:
        """Return the next message as (kind, channel, data).

        Raises:
            TimeoutError: Nothing came for ``timeout`` seconds; the connection is not closed.
            StoreUnavailable: The connection is gone.
        """
        while (answer := self._next()) is None:
            async with asyncio.timeout(timeout):
                data = await self._read_some()
            self._answers.feed(data)
        if not isinstance(answer, list) or len(answer) < 2:  # noqa: PLR2004 - [kind, channel, …]
            return b"", b"", answer
        return answer[0], answer[1], answer[2] if len(answer) > 2 else None  # noqa: PLR2004

    def _next(self) -> Any:
        try:
            return self._answers.next()
        except ValueError as exc:
            raise StoreUnavailable(f"Redis {self._shown} refused a subscriber: {exc}") from exc

    async def _read_some(self) -> bytes:
        """Return what has come, past redis-py's parser, which holds nothing of it."""
        reader = self._connection._reader  # noqa: SLF001 - the one way to its bytes
        if reader is None:
            raise StoreUnavailable(f"Redis {self._shown} cannot be used now: not connected")
        with translated(self._shown):
            data: bytes = await reader.read(READ)
        if not data:
            raise StoreUnavailable(f"Redis {self._shown} cannot be used now: connection closed")
        return data

    async def close(self) -> None:
        """Close the connection; messages not read are lost."""
        await self._connection.disconnect(nowait=True)

    async def _send(self, *command: str) -> None:
        with translated(self._shown):
            async with _within(self._deadline):
                await self._connection.send_command(*command, check_health=False)


class RedisClient:
    """A pool of connections to one Redis, used from one event loop."""

    def __init__(self, url: str, *, deadline: float = 5.0) -> None:
        """Check the URL; nothing connects yet.

        Args:
            url: ``redis://``, ``rediss://`` (TLS) or ``unix://``; redis-py's query options work.
            deadline: Seconds one exchange may take (the URL's ``socket_timeout=`` wins).

        Raises:
            ConfigurationError: The URL cannot be used.
        """
        self.shown = redact(url)
        self._options = _connection_options(url, deadline)
        self._deadline: float = self._options.pop("socket_timeout", deadline)
        self._most: int = self._options.pop("max_connections", MAX_CONNECTIONS)
        self._turns = asyncio.Semaphore(self._most)
        self._pool = self._new_pool()

    def _new_pool(self) -> ConnectionPool:
        pool = ConnectionPool(
            **{
                **self._options,
                "socket_timeout": None,
                "retry": Retry(NoBackoff(), 0),
                "retry_on_timeout": False,
                "decode_responses": False,
                "protocol": 2,
                "max_connections": self._most,
            }
        )
        try:
            # Options are looked at when a connection is made, connected or not. redis-py leaves
            # this without annotations, as get_connection and connect below.
            pool.make_connection()  # type: ignore[no-untyped-call]
        except TypeError as exc:
            raise ConfigurationError(f"an option of {self.shown} is unknown: {exc}") from exc
        return pool

    async def command(self, *command: Any) -> Any:
        """Run one command and return its raw answer.

        Raises:
            StoreUnavailable: Redis is away or cannot take writes now.
            StoreError: Redis refused the command.
        """
        with translated(self.shown):
            return await self._exchange(command)

    async def pipeline(self, commands: Sequence[Sequence[Any]]) -> list[Any]:
        """Run commands in one round trip, without a transaction; raise the first error."""
        with translated(self.shown):
            async with self._connection() as connection:
                await connection.send_packed_command(b"".join(map(_packed, commands)))
                answers: list[Any] = []
                for _ in commands:
                    try:
                        answers.append(await connection.read_response())
                    except redis_errors.ResponseError as exc:
                        answers.append(exc)
                for answer in answers:
                    if isinstance(answer, Exception):
                        raise answer
                return answers

    async def run(
        self, script: Script, keys: Sequence[str], arguments: Sequence[str | bytes | int]
    ) -> Any:
        """Run a script by its name; a server that forgot it (restart, flush) gets the text."""
        rest = (len(keys), *keys, *arguments)
        with translated(self.shown):
            try:
                return await self._exchange(("EVALSHA", script.sha, *rest))
            except redis_errors.NoScriptError:
                return await self._exchange(("EVAL", script.text, *rest))

    async def run_each(
        self,
        script: Script,
        calls: Sequence[tuple[Sequence[str], Sequence[str | bytes | int]]],
    ) -> list[Any]:
        """Run a script once for each (keys, arguments), in one round trip.

        A server that forgot the script is told it again, and all calls are repeated: scripts
        here may run twice.
        """
        if not calls:
            return []
        commands = [
            ("EVALSHA", script.sha, len(keys), *keys, *arguments) for keys, arguments in calls
        ]
        try:
            return await self.pipeline(commands)
        except redis_errors.NoScriptError:
            return (await self.pipeline([("SCRIPT", "LOAD", script.text), *commands]))[1:]

    async def subscription(self) -> Subscription:
        """Open a connection of its own for pub/sub; whoever asks closes it."""
        connection: AbstractConnection = self._pool.make_connection()  # type: ignore[no-untyped-call]
        with translated(self.shown):
            try:
                async with _within(self._deadline):
                    await connection.connect()  # type: ignore[no-untyped-call]
            except BaseException:
                await connection.disconnect(nowait=True)
                raise
        return Subscription(connection, self.shown, self._deadline)

    async def close(self) -> None:
        """Close every connection; the next command connects again."""
        pool, self._pool = self._pool, self._new_pool()
        await pool.aclose()

    async def _exchange(self, command: Sequence[Any]) -> Any:
        async with self._connection() as connection:
            await connection.send_packed_command(_packed(command))
            return await connection.read_response()

    @asynccontextmanager
    async def _connection(self) -> AsyncIterator[AbstractConnection]:
        """Lend a connection; one whose exchange was cut short is closed, never reused.

        Not redis-py's ``execute_command``: its retry and metrics wrappers cost more than the
        exchange itself.
        """
        pool = self._pool
        # The pool refuses where it is used up; here whoever comes waits for a turn.
        async with _within(self._deadline), self._turns:
            connection: AbstractConnection = await pool.get_connection()  # type: ignore[no-untyped-call]
            try:
                yield connection
            except redis_errors.ResponseError:
                raise
            except BaseException:
                await connection.disconnect(nowait=True)
                raise
            finally:
                await pool.release(connection)


def _packed(command: Sequence[str | bytes | int]) -> bytes:
    """Write a command as RESP; redis-py's own writer takes three times as long per argument."""
    parts = [b"*%d\r\n" % len(command)]
    for part in command:
        if isinstance(part, str):
            data = part.encode()
        else:
            data = part if isinstance(part, bytes) else b"%d" % part
        parts.append(b"$%d\r\n%b\r\n" % (len(data), data))
    return b"".join(parts)
