"""Waiting by push: one Redis connection in subscribe mode for any number of waiters.

Order is what makes it safe: subscribe, see Redis acknowledge it, then read the key. An outcome
stored before is read, one stored after is pushed. A lost connection starts again from the top.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections import deque
from typing import TYPE_CHECKING, Any, Final

from amqflow.abc import TERMINAL_STATES, Outcome
from amqflow.backoff import Backoff
from amqflow.errors import StoreError, StoreUnavailable
from amqflow.protocol.claimcheck import result_reference
from amqflow.results.expected import Expected
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
#: Calls whose end is waited for before anybody asks, while nobody is seen to ask for such.
_CREDIT: Final = 8
#: Ends that are waited for so at once.
_MOST_EXPECTED: Final = 64


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
        #: Ends of calls that are under way, and those of them that nobody has asked for yet.
        self._expected: dict[str, Expected] = {}
        self._unasked: deque[Expected] = deque(maxlen=_CREDIT)
        self._credit = 0
        #: The subscription that stands; None between two.
        self._live: Subscription | None = None
        #: Whether the channels nobody waits for are to be left now, few as they are.
        self._leaves = False
        self._backoff = Backoff(first=0.05, most=2.0)
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
        expected = self._expected.get(task_id)
        if expected is None:
            self._credit = min(self._credit + 1, _CREDIT)
        else:
            expected.waited = True
        self._join(task_id, future)
        if self._pump is None or self._pump.done():
            self._pump = asyncio.create_task(self._run(), name="amqflow results")
        try:
            async with asyncio.timeout(timeout):
                return await future
        finally:
            self._leave(task_id, future)

    def expect(self, task_id: str) -> Expected | None:
        """Wait for the end of a call that is about to be sent, in case somebody asks for it.

        Who sends calls one after the other and waits for each is told of the end without asking.
        Who does not wait costs eight subscriptions in vain, and is left alone from then on.

        Returns:
            None: nobody is believed to ask, or there is no subscription yet.
        """
        for one in list(self._unasked):
            if one.waited:
                self._unasked.remove(one)
                self._credit = min(self._credit + 2, _CREDIT)
        if self._credit <= 0 or self._live is None or task_id in self._waiters:
            return None
        if len(self._expected) >= _MOST_EXPECTED:
            self._give(next(iter(self._expected)), None)
        self._credit -= 1
        expected = self._expected[task_id] = Expected()
        self._unasked.append(expected)
        if task_id not in self._subscribed:
            self._subscribed.add(task_id)
            # At once: while the broker writes the message there is time for the answer.
            try:
                self._live.subscribe(self._keys([task_id]))
            except StoreError:  # who reads the connection has been told
                self._give(task_id, None)
                return None
        return expected

    def _give(self, task_id: str, outcome: Outcome | None) -> None:
        """Give an expected end away; None: who wants it asks for it."""
        expected = self._expected.pop(task_id, None)
        if expected is not None:
            expected.give(outcome)
            if task_id not in self._waiters:
                self._rests(task_id)

    def _rests(self, task_id: str) -> None:
        """Leave the channel of an id that nobody waits for, with others."""
        if task_id in self._subscribed:
            self._idle[task_id] = None
            if len(self._idle) >= _IDLE:
                self._changed.set()

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
        elif futures is None and task_id not in self._expected:
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
        elif task_id not in self._expected:
            self._rests(task_id)

    # -- the connection --------------------------------------------------------------------

    async def _run(self) -> None:
        """Keep one subscription alive while anybody waits."""
        try:
            while True:
                with contextlib.suppress(StoreError):
                    await self._serve(await self._client.subscription(self._took))
                await asyncio.sleep(self._backoff.next())
        except Exception as exc:
            # What nobody foresaw must not leave waiters hanging.
            self._fail(StoreError(f"waiting for results broke: {exc!r}"))
            raise

    async def _serve(self, subscription: Subscription) -> None:
        """Use one connection until it is lost, which raises StoreError.

        Not a task group: Python 3.11's loses a cancellation that meets a failing child.
        """
        self._subscribed.clear()
        self._acknowledged.clear()
        self._idle.clear()
        self._joining = dict.fromkeys(self._waiters)
        self._changed.set()
        self._live = subscription
        parts = [
            asyncio.create_task(self._follow_waiters(subscription)),
            asyncio.create_task(self._watch(subscription)),
            asyncio.create_task(self._read_acknowledged()),
        ]
        try:
            ended, _ = await asyncio.wait(parts, return_when=asyncio.FIRST_COMPLETED)
            for part in ended:
                part.result()
        finally:
            self._live = None
            for task_id in list(self._expected):
                self._give(task_id, None)
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
                subscription.subscribe(self._keys(ids))
            if len(self._idle) < _IDLE and not self._leaves:
                continue
            self._leaves = False
            idle, self._idle = self._idle, {}
            for ids in _chunks(idle):
                self._subscribed.difference_update(ids)
                subscription.unsubscribe(self._keys(ids))

    async def _watch(self, subscription: Subscription) -> None:
        """See that the connection lives; one that stays silent after a ping is given up."""
        asked = False
        while True:
            heard = subscription.heard
            try:
                await subscription.read(self._deadline if asked else self._quiet)
            except TimeoutError:
                if subscription.heard != heard:
                    asked = False
                    continue
                if asked:
                    raise StoreUnavailable("Redis does not answer its subscribers") from None
                asked = True
                self._leaves = True
                self._changed.set()
                subscription.ping()

    def _took(self, kind: bytes, channel: bytes, data: Any) -> None:
        """Take a message as it comes."""
        if kind == b"message":
            self._deliver(channel[len(self._prefix) :].decode(), data)
        elif kind == b"subscribe":
            self._backoff.reset()
            self._acknowledged.append(channel[len(self._prefix) :].decode())
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
        futures = self._waiters.get(task_id, ())
        if not futures and task_id not in self._expected:
            return
        try:
            outcome = decode_meta(data, task_id)
        except StoreError as exc:
            self._give(task_id, None)
            for future in futures:
                if not future.done():
                    future.set_exception(exc)
            return
        if outcome.state in TERMINAL_STATES:
            # What is kept apart is fetched by who asks in the usual way.
            self._give(task_id, None if result_reference(outcome.result) else outcome)
            for future in futures:
                if not future.done():
                    future.set_result(outcome)

    def _keys(self, ids: Sequence[str]) -> list[str]:
        return [self._prefix + task_id for task_id in ids]


def _chunks(ids: Iterable[str]) -> Iterator[list[str]]:
    """Cut ids, which may change meanwhile, into lists of at most ``_CHUNK``."""
    every = list(ids)
    return (every[start : start + _CHUNK] for start in range(0, len(every), _CHUNK))
