"""Waiting by push: one Redis connection in subscribe mode for any number of waiters.

Order is what makes it safe: subscribe, see Redis acknowledge it, then read the key. An outcome
stored before is read, one stored after is pushed. A lost connection starts again from the top.
"""

from __future__ import annotations

import asyncio
import contextlib
from typing import TYPE_CHECKING, Final

from amqflow.abc import TERMINAL_STATES, Outcome
from amqflow.backoff import Backoff
from amqflow.errors import StoreError, StoreUnavailable
from amqflow.results.meta import decode_meta

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    from amqflow.stores.redis import RedisClient, Subscription

#: Channels in one SUBSCRIBE and keys in one MGET: bounded answers, few round trips.
_CHUNK: Final = 500
#: Channels nobody waits for any more are left when there are so many, or in a quiet moment:
#: leaving each at once would cost every single wait a command and its answer.
_IDLE: Final = 200
#: Seconds without a message after which the connection is asked whether it lives.
_QUIET: Final = 10.0


class Waiting:
    """The waiters of one store, in one event loop."""

    def __init__(
        self, client: RedisClient, *, prefix: str, deadline: float = 5.0, quiet: float = _QUIET
    ) -> None:
        """Wait for ids under ``prefix``; nothing connects before the first waiter.

        Args:
            client: Where results are read; its URL is subscribed to.
            prefix: What an id's key and channel start with.
            deadline: Seconds a ping may go unanswered.
            quiet: Seconds without a message before a ping.
        """
        self._client = client
        self._prefix = prefix
        self._deadline = deadline
        self._quiet = quiet
        self._waiters: dict[str, set[asyncio.Future[Outcome]]] = {}
        #: Ids whose subscription was asked for on the connection that stands now.
        self._subscribed: set[str] = set()
        #: Ids that are waited for and not subscribed to yet, in the order they came.
        self._joining: dict[str, None] = {}
        #: Ids that are subscribed to and no longer waited for.
        self._idle: dict[str, None] = {}
        #: Ids whose subscription Redis has acknowledged, not read yet.
        self._acknowledged: list[str] = []
        #: Whether the channels nobody waits for are to be left now, few as they are.
        self._leaves = False
        self._changed = asyncio.Event()
        self._unread = asyncio.Event()
        self._pump: asyncio.Task[None] | None = None

    async def wait(self, task_id: str, timeout: float | None) -> Outcome:
        """Wait for the terminal outcome of an id.

        Raises:
            TimeoutError: Nothing ended it for ``timeout`` seconds.
            StoreUnavailable: The store was closed.
        """
        future: asyncio.Future[Outcome] = asyncio.get_running_loop().create_future()
        self._join(task_id, future)
        if self._pump is None or self._pump.done():
            self._pump = asyncio.create_task(self._run(), name="amqflow results")
        try:
            async with asyncio.timeout(timeout):
                return await future
        finally:
            self._leave(task_id, future)

    async def close(self) -> None:
        """Stop, and tell every waiter."""
        pump, self._pump = self._pump, None
        if pump is not None:
            pump.cancel()
            await asyncio.gather(pump, return_exceptions=True)
        self._fail(StoreUnavailable("the result store was closed"))

    def _fail(self, error: StoreError) -> None:
        for futures in self._waiters.values():
            for future in futures:
                if not future.done():
                    future.set_exception(error)

    def _join(self, task_id: str, future: asyncio.Future[Outcome]) -> None:
        futures = self._waiters.get(task_id)
        if futures is not None:
            if any(one.done() for one in futures):
                # Its end was just pushed to those who waited before: it is read again.
                self._acknowledged.append(task_id)
                self._unread.set()
            futures.add(future)
        else:
            self._waiters[task_id] = {future}
        if self._idle.pop(task_id, task_id) is None:
            # Still subscribed to, but read before this one came: the key is read again.
            self._acknowledged.append(task_id)
            self._unread.set()
        elif futures is None:
            self._joining[task_id] = None
            self._changed.set()

    def _leave(self, task_id: str, future: asyncio.Future[Outcome]) -> None:
        futures = self._waiters.get(task_id)
        if futures is None:
            return
        futures.discard(future)
        if futures:
            return
        del self._waiters[task_id]
        if task_id in self._joining:
            del self._joining[task_id]
        elif task_id in self._subscribed:
            self._idle[task_id] = None
            if len(self._idle) >= _IDLE:
                self._changed.set()

    # -- the connection --------------------------------------------------------------------

    async def _run(self) -> None:
        """Keep one subscription alive while anybody waits."""
        backoff = Backoff(first=0.05, most=2.0)
        try:
            while True:
                with contextlib.suppress(StoreError):
                    await self._serve(await self._client.subscription(), backoff)
                await asyncio.sleep(backoff.next())
        except Exception as exc:
            # What nobody foresaw must not leave waiters hanging.
            self._fail(StoreError(f"waiting for results broke: {exc!r}"))
            raise

    async def _serve(self, subscription: Subscription, backoff: Backoff) -> None:
        """Use one connection until it is lost, which raises StoreError.

        Not a task group: Python 3.11's loses a cancellation that meets a failing child.
        """
        self._subscribed.clear()
        self._acknowledged.clear()
        self._idle.clear()
        self._joining = dict.fromkeys(self._waiters)
        self._changed.set()
        parts = [
            asyncio.create_task(self._follow_waiters(subscription)),
            asyncio.create_task(self._listen(subscription, backoff)),
            asyncio.create_task(self._read_acknowledged()),
        ]
        try:
            ended, _ = await asyncio.wait(parts, return_when=asyncio.FIRST_COMPLETED)
            for part in ended:
                part.result()
        finally:
            for part in parts:
                part.cancel()
            await asyncio.gather(*parts, return_exceptions=True)
            await subscription.close()

    async def _follow_waiters(self, subscription: Subscription) -> None:
        """Subscribe to what came and leave what went, all of one loop turn in one batch."""
        while True:
            await self._changed.wait()
            self._changed.clear()
            joining, self._joining = self._joining, {}
            for ids in _chunks(joining):
                self._subscribed.update(ids)
                await subscription.subscribe(self._keys(ids))
            if len(self._idle) < _IDLE and not self._leaves:
                continue
            self._leaves = False
            idle, self._idle = self._idle, {}
            for ids in _chunks(idle):
                self._subscribed.difference_update(ids)
                await subscription.unsubscribe(self._keys(ids))

    async def _listen(self, subscription: Subscription, backoff: Backoff) -> None:
        """Take messages; a connection that stays silent after a ping is given up."""
        cut = len(self._prefix)
        asked = False
        while True:
            try:
                kind, channel, data = await subscription.read(
                    self._deadline if asked else self._quiet
                )
            except TimeoutError:
                if asked:
                    raise StoreUnavailable("Redis does not answer its subscribers") from None
                asked = True
                self._leaves = True
                self._changed.set()
                await subscription.ping()
                continue
            asked = False
            if kind == b"message":
                self._deliver(channel[cut:].decode(), data)
            elif kind == b"subscribe":
                backoff.reset()
                self._acknowledged.append(channel[cut:].decode())
                self._unread.set()

    async def _read_acknowledged(self) -> None:
        """Read the keys whose subscription stands: their outcome may be older than it."""
        while True:
            await self._unread.wait()
            self._unread.clear()
            ids, self._acknowledged = self._acknowledged, []
            for chunk in _chunks(ids):
                found = await self._client.command("MGET", *self._keys(chunk))
                for task_id, data in zip(chunk, found, strict=True):
                    if data is not None:
                        self._deliver(task_id, data)

    def _deliver(self, task_id: str, data: bytes) -> None:
        """Wake the waiters of an id if this is its end."""
        futures = self._waiters.get(task_id)
        if not futures:
            return
        try:
            outcome = decode_meta(data, task_id)
        except StoreError as exc:
            for future in futures:
                if not future.done():
                    future.set_exception(exc)
            return
        if outcome.state in TERMINAL_STATES:
            for future in futures:
                if not future.done():
                    future.set_result(outcome)

    def _keys(self, ids: Sequence[str]) -> list[str]:
        return [self._prefix + task_id for task_id in ids]


def _chunks(ids: Iterable[str]) -> Iterator[list[str]]:
    """Cut ids, which may change meanwhile, into lists of at most ``_CHUNK``."""
    every = list(ids)
    return (every[start : start + _CHUNK] for start in range(0, len(every), _CHUNK))
