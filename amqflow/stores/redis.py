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
from collections import deque
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
from amqflow.stores.connection import Connection
from amqflow.stores.resp import Refusal

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Iterator, Sequence

    from redis.asyncio.connection import AbstractConnection

#: Messages a subscriber may leave unread before nothing more is taken from the network.
MOST_UNREAD: Final = 10_000

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
    "NOAUTH",
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
    """One connection in subscribe mode: channels come and go, messages are read in order.

    They are read one by one (:meth:`read`), or taken as they come by ``on_message``, which costs
    no turn of the loop.
    """

    def __init__(
        self, shown: str, on_message: Callable[[bytes, bytes, Any], None] | None = None
    ) -> None:
        """Wait for a connection.

        Args:
            shown: The URL for errors.
            on_message: Called with (kind, channel, data); nothing is left to be read then.
        """
        self._shown = shown
        self._on_message = on_message
        #: How many messages came.
        self.heard = 0
        self._connection: Connection | None = None
        self._unread: deque[Any] = deque()
        self._reader: asyncio.Future[None] | None = None
        self._lost: Exception | None = None

    def attach(self, connection: Connection) -> None:
        """Own a connection, which is open and hands what it gets to :meth:`pushed`."""
        self._connection = connection

    def pushed(self, answer: Any) -> None:
        """Take a message."""
        self.heard += 1
        if self._on_message is not None and isinstance(answer, list):
            self._on_message(*_parts(answer))
            return
        self._unread.append(answer)
        if len(self._unread) == MOST_UNREAD and self._connection is not None:
            self._connection.pause()
        self._wake()

    def lost(self, error: Exception) -> None:
        """Take notice that the connection is gone."""
        self._lost = error
        self._wake()

    def _wake(self) -> None:
        if self._reader is not None and not self._reader.done():
            self._reader.set_result(None)

    def subscribe(self, channels: Sequence[str]) -> None:
        """Ask for channels; each is acknowledged by a ``subscribe`` message."""
        self._send("SUBSCRIBE", *channels)

    def unsubscribe(self, channels: Sequence[str]) -> None:
        """Leave channels; each is acknowledged by an ``unsubscribe`` message."""
        self._send("UNSUBSCRIBE", *channels)

    def ping(self) -> None:
        """Ask for a ``pong`` message: a connection nobody answers on is found out."""
        self._send("PING")

    async def read(self, timeout: float) -> tuple[bytes, bytes, Any]:
        """Return the next message as (kind, channel, data).

        Raises:
            TimeoutError: Nothing came for ``timeout`` seconds; the connection is not closed.
            StoreUnavailable: The connection is gone.
        """
        while not self._unread:
            with translated(self._shown):
                if self._lost is not None:
                    raise self._lost
            self._reader = asyncio.get_running_loop().create_future()
            async with asyncio.timeout(timeout):
                await self._reader
        answer = self._unread.popleft()
        if not self._unread and self._connection is not None:
            self._connection.resume()
        if isinstance(answer, Refusal):
            raise StoreUnavailable(f"Redis {self._shown} refused a subscriber: {answer.text}")
        return _parts(answer)

    async def close(self) -> None:
        """Close the connection; messages not read are lost."""
        if self._connection is not None:
            self._connection.close()

    def _send(self, *command: str) -> None:
        with translated(self._shown):
            if self._connection is None:
                raise redis_errors.ConnectionError("not connected")
            self._connection.write(command)


def _parts(answer: Any) -> tuple[bytes, bytes, Any]:
    """Return kind, channel and data of what is pushed to a subscriber."""
    if not isinstance(answer, list) or len(answer) < 2:  # noqa: PLR2004 - [kind, channel, …]
        return b"", b"", answer
    return answer[0], answer[1], answer[2] if len(answer) > 2 else None  # noqa: PLR2004


class RedisClient:
    """A connection to one Redis that all exchanges share, used from one event loop."""

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
        self._factory = self._new_factory()
        self._connection: Connection | None = None
        self._connecting = asyncio.Lock()
        #: Connections on which an exchange was cut short, while others still wait on them.
        self._retired: set[Connection] = set()

    def _new_factory(self) -> ConnectionPool:
        """Return what makes redis-py's connections; as a pool it is not used."""
        pool = ConnectionPool(
            **{
                **self._options,
                "socket_timeout": None,
                "retry": Retry(NoBackoff(), 0),
                "retry_on_timeout": False,
                "decode_responses": False,
                "protocol": 2,
            }
        )
        try:
            # Options are looked at when a connection is made, connected or not. redis-py leaves
            # this without annotations.
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
        (answer,) = await self._exchange((command,))
        return self._accepted(answer)

    async def pipeline(self, commands: Sequence[Sequence[Any]]) -> list[Any]:
        """Run commands in one round trip, without a transaction; raise the first error."""
        return [self._accepted(answer) for answer in await self._exchange(commands)]

    async def run(
        self, script: Script, keys: Sequence[str], arguments: Sequence[str | bytes | int]
    ) -> Any:
        """Run a script by its name; a server that forgot it (restart, flush) gets the text."""
        rest = (len(keys), *keys, *arguments)
        (answer,) = await self._exchange((("EVALSHA", script.sha, *rest),))
        if _forgotten(answer):
            return await self.command("EVAL", script.text, *rest)
        return self._accepted(answer)

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
        answers = await self._exchange(commands)
        if any(map(_forgotten, answers)):
            _, *answers = await self._exchange([("SCRIPT", "LOAD", script.text), *commands])
        return [self._accepted(answer) for answer in answers]

    async def subscription(
        self, on_message: Callable[[bytes, bytes, Any], None] | None = None
    ) -> Subscription:
        """Open a connection of its own for pub/sub; whoever asks closes it."""
        subscription = Subscription(self.shown, on_message)
        with translated(self.shown):
            async with _within(self._deadline):
                connection = await self._opened(subscription.pushed, subscription.lost)
        subscription.attach(connection)
        return subscription

    async def close(self) -> None:
        """Close every connection; the next command connects again."""
        connection, self._connection = self._connection, None
        retired, self._retired = self._retired, set()
        for one in (connection, *retired):
            if one is not None:
                one.close()

    def _accepted(self, answer: Any) -> Any:
        """Return an answer, or raise what it says.

        Raises:
            StoreUnavailable: It ends by itself or by an operator's hand.
            StoreConflict: Somebody else's value stands under a key of ours.
            StoreError: The command or the data are at fault.
        """
        if not isinstance(answer, Refusal):
            return answer
        # An error inside a script is wrapped: "… script: f_1a2b…, on @user_script:9."
        if any(f"{code} " in answer.text[:80] for code in _HOLD):
            raise StoreUnavailable(f"Redis {self.shown} cannot be used now: {answer.text}")
        if _FOREIGN in answer.text:
            raise StoreConflict(
                f"Redis {self.shown} keeps something else under a key of amqflow's: {answer.text}"
            )
        raise StoreError(f"Redis {self.shown} refused a command: {answer.text}")

    async def _exchange(self, commands: Sequence[Sequence[Any]]) -> list[Any]:
        """Write commands and return their answers; they may be refusals.

        A connection on which an exchange was cut short gets no further one: what holds up its
        answer would hold up theirs.
        """
        if not commands:
            return []
        connection = self._connection
        if connection is None or not connection.usable:
            connection = await self._connected()
        with translated(self.shown):
            answered = connection.ask(commands)
            timer = asyncio.get_running_loop().call_later(
                self._deadline, _late, answered, self._deadline
            )
            try:
                return await answered
            except BaseException:
                self._retire(connection)
                raise
            finally:
                timer.cancel()

    def _retire(self, connection: Connection) -> None:
        if self._connection is connection:
            self._connection = None
        connection.retire()
        self._retired = {one for one in (*self._retired, connection) if one.usable}

    async def _connected(self) -> Connection:
        """Return the connection that all exchanges share, opened where there is none."""
        with translated(self.shown):
            async with _within(self._deadline), self._connecting:
                if self._connection is None or not self._connection.usable:
                    self._connection = await self._opened()
                return self._connection

    async def _opened(
        self,
        on_push: Callable[[Any], None] | None = None,
        on_lost: Callable[[Exception], None] | None = None,
    ) -> Connection:
        """Open a connection; raises redis-py's errors."""
        # redis-py leaves this without annotations.
        inner: AbstractConnection = self._factory.make_connection()  # type: ignore[no-untyped-call]
        connection = Connection(inner, on_push=on_push, on_lost=on_lost)
        await connection.open()
        return connection


def _late(answered: asyncio.Future[list[Any]], deadline: float) -> None:
    if not answered.done():
        answered.set_exception(redis_errors.TimeoutError(f"no answer within {deadline:g} s"))


def _forgotten(answer: Any) -> bool:
    """Whether a server does not know a script by its name."""
    return isinstance(answer, Refusal) and answer.text.startswith("NOSCRIPT ")
