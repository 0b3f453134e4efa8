"""One connection to Redis: redis-py opens it, from then on its bytes are written and read here.

redis-py's pool, writer and parser take four times as long as the exchange itself (tried: 75 to 100
microseconds of processor time for an MGET, 17 for its bytes alone), and a task whose result is
kept waits for three exchanges.
"""

from __future__ import annotations

import asyncio
from collections import deque
from typing import TYPE_CHECKING, Any, cast

from redis import exceptions as redis_errors

from amqflow.stores.resp import NOTHING, Answers

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from redis.asyncio.connection import AbstractConnection


class Asked:
    """Commands that were written together, and their answers so far."""

    __slots__ = ("answers", "count", "future")

    def __init__(self, count: int, future: asyncio.Future[list[Any]]) -> None:
        """Wait for ``count`` answers."""
        self.count = count
        self.future = future
        self.answers: list[Any] = []


class Connection(asyncio.Protocol):
    """An open connection, shared: answers come in the order of the questions.

    Redis answers one command at a time, on however many connections they come: a second
    connection would wait as long.
    """

    def __init__(
        self,
        inner: AbstractConnection,
        *,
        on_push: Callable[[Any], None] | None = None,
        on_lost: Callable[[Exception], None] | None = None,
    ) -> None:
        """Take over ``inner``, redis-py's, which is not open yet.

        Args:
            inner: Opens the connection; it is kept, since what it holds closes when dropped.
            on_push: Takes what comes without having been asked for.
            on_lost: Told why the connection is gone, once.
        """
        self._inner = inner
        self._on_push = on_push
        self._on_lost = on_lost
        self._loop = asyncio.get_running_loop()
        self._transport: asyncio.Transport | None = None
        self._answers = Answers()
        self._asked: deque[Asked] = deque()
        self._retired = False

    async def open(self) -> None:
        """Connect, log in and choose the database, as the URL says; raises redis-py's errors."""
        try:
            await self._inner.connect()  # type: ignore[no-untyped-call] # redis-py's is not annotated
        except BaseException:
            await self._inner.disconnect(nowait=True)
            raise
        writer = self._inner._writer  # noqa: SLF001 - the one way to its bytes
        if writer is None:
            raise redis_errors.ConnectionError("not connected")
        self._transport = cast("asyncio.Transport", writer.transport)
        self._transport.set_protocol(self)

    @property
    def usable(self) -> bool:
        """Whether it stands, as far as is known here."""
        return self._transport is not None and not self._transport.is_closing()

    def ask(self, commands: Sequence[Sequence[str | bytes | int]]) -> asyncio.Future[list[Any]]:
        """Write commands in one piece; the future gets as many answers, refusals among them.

        It gets redis-py's ConnectionError where they cannot come any more.
        """
        asked = Asked(len(commands), self._loop.create_future())
        self._asked.append(asked)
        self.write(*commands)
        return asked.future

    def write(self, *commands: Sequence[str | bytes | int]) -> None:
        """Write commands whose answers are taken by ``on_push``."""
        if self._transport is None:
            raise redis_errors.ConnectionError("not connected")
        self._transport.write(b"".join(map(packed, commands)))

    def pause(self) -> None:
        """Take nothing more until :meth:`resume`."""
        if self._transport is not None and self._transport.is_reading():
            self._transport.pause_reading()

    def resume(self) -> None:
        """Take what comes."""
        if self._transport is not None and not self._transport.is_reading():
            self._transport.resume_reading()

    def retire(self) -> None:
        """Close as soon as nobody waits for an answer any more."""
        self._retired = True
        if all(asked.future.done() for asked in self._asked):
            self.close()

    def close(self) -> None:
        """Close; what is waited for does not come."""
        self._lose(redis_errors.ConnectionError("the connection was closed"))

    # -- asyncio.Protocol ----------------------------------------------------------------------

    def data_received(self, data: bytes) -> None:
        """Hand out the answers that are complete now."""
        self._answers.feed(data)
        try:
            while (answer := self._answers.next()) is not NOTHING:
                self._take(answer)
        except ValueError as exc:
            self._lose(redis_errors.ConnectionError(f"no answer of Redis: {exc}"))

    def _take(self, answer: Any) -> None:
        if not self._asked:
            if self._on_push is not None:
                self._on_push(answer)
            return
        asked = self._asked[0]
        asked.answers.append(answer)
        if len(asked.answers) < asked.count:
            return
        self._asked.popleft()
        if not asked.future.done():
            asked.future.set_result(asked.answers)
        if self._retired:
            self.retire()

    def connection_lost(self, exc: Exception | None) -> None:
        """Tell everybody who waits."""
        self._lose(redis_errors.ConnectionError(f"connection closed: {exc}" if exc else "closed"))

    def _lose(self, error: Exception) -> None:
        transport, self._transport = self._transport, None
        if transport is None:
            return
        transport.close()
        self._inner._reader = self._inner._writer = None  # noqa: SLF001 - closed: nothing to warn of
        asked, self._asked = self._asked, deque()
        for one in asked:
            if not one.future.done():
                one.future.set_exception(error)
        if self._on_lost is not None:
            self._on_lost(error)


def packed(command: Sequence[str | bytes | int]) -> bytes:
    """Write a command as RESP."""
    parts = [b"*%d\r\n" % len(command)]
    for part in command:
        if isinstance(part, str):
            data = part.encode()
        else:
            data = part if isinstance(part, bytes) else b"%d" % part
        parts.append(b"$%d\r\n%b\r\n" % (len(data), data))
    return b"".join(parts)
