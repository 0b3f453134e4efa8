"""Results as messages to the caller's reply queue: the wire of Celery's ``rpc://`` backend.

``celery/backends/rpc.py`` (5.7): the default exchange, the caller's ``reply_to`` as the key,
``correlation_id`` the task's id, Celery's result JSON as the body, transient unless
``result_persistent``. Nothing is shared and nothing is fenced: every attempt runs, the caller
takes the first end it gets.
"""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from typing import TYPE_CHECKING, Any, Final, Protocol, TypeVar

from amqflow.abc import (
    OUTCOME_STATES,
    TERMINAL_STATES,
    Claim,
    Finished,
    Outcome,
    StoreCapabilities,
    Verdict,
)
from amqflow.errors import (
    BrokerError,
    MessageTooLarge,
    StoreError,
    StoreUnavailable,
    Unroutable,
)
from amqflow.results.meta import decode_meta, encode_meta

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine, Sequence

    from amqflow.abc import Attempt, Finish

_CAPABILITIES: Final = StoreCapabilities(fences=False, shared=False, durable=False)
T = TypeVar("T")
_RUN: Final = Claim(Verdict.RUN)


class Replies(Protocol):
    """What the application supplies: a way to answer, and a queue for answers to us."""

    async def publish(
        self,
        exchange: str,
        routing_key: str,
        body: bytes,
        *,
        content_type: str,
        content_encoding: str,
        correlation_id: str,
        delivery_mode: int,
    ) -> None:
        """Publish under confirm, with a deadline.

        Raises:
            Unroutable: The queue is gone, and its caller with it (mandatory publishes only).
            BrokerError: It is not confirmed.
        """
        ...

    async def consume_replies(self, on_reply: Callable[[str, bytes], None]) -> str:
        """Declare an exclusive, auto-delete queue of this process, consume it, return its name.

        ``on_reply(correlation_id, body)`` is called in this loop, once per message, for as long
        as the application lives: after a reconnect the queue is declared under the same name.
        """
        ...


class RpcStore:
    """A :class:`~amqflow.abc.ResultStore` whose store is the caller's own memory."""

    def __init__(self, replies: Replies, *, persistent: bool = False, most: int = 10_000) -> None:
        """Keep nothing yet; :meth:`open` asks for the reply queue.

        Args:
            replies: The application's side.
            persistent: Celery's ``result_persistent``: replies survive a broker's restart. (The
                queue goes with its connection all the same.)
            most: How many replies are kept; the oldest go first.
        """
        self._replies = replies
        self._delivery_mode = 2 if persistent else 1
        self._most = most
        self._reply_to: str | None = None
        self._known: OrderedDict[str, Outcome] = OrderedDict()
        self._waiters: dict[str, set[asyncio.Future[Outcome]]] = {}

    @property
    def capabilities(self) -> StoreCapabilities:
        """No fences, own results only, gone with the process."""
        return _CAPABILITIES

    @property
    def reply_to(self) -> str | None:
        """The queue this process's replies come to; None before :meth:`open`."""
        return self._reply_to

    async def open(self) -> None:
        """Have the reply queue declared and consumed.

        Raises:
            StoreUnavailable: The broker is not there.
        """
        if self._reply_to is None:
            self._reply_to = await _held(self._replies.consume_replies(self._take))

    async def close(self) -> None:
        """Wake every waiter with StoreUnavailable; the application closes the queue."""
        for futures in self._waiters.values():
            for future in futures:
                if not future.done():
                    future.set_exception(StoreUnavailable("the result store was closed"))

    async def begin(self, attempts: Sequence[Attempt]) -> list[Claim]:
        """Let every attempt run."""
        return [_RUN] * len(attempts)

    async def renew(self, attempts: Sequence[tuple[Attempt, int]]) -> list[bool]:
        """Say yes: there is no fence to lose."""
        return [True] * len(attempts)

    async def finish(self, finishes: Sequence[Finish]) -> list[Finished]:
        """Answer the callers; one without ``reply_to`` wants none.

        Raises:
            EncodeError: A result cannot be written as JSON; nobody was answered.
            StoreUnavailable: The broker did not confirm.
        """
        bodies: list[tuple[Finish, bytes]] = []
        for finish in finishes:
            if finish.outcome.state not in OUTCOME_STATES:
                raise ValueError(f"{finish.outcome.state} ends nothing: use set_state")
            bodies.append((finish, encode_meta(finish.outcome)))
        answers = await asyncio.gather(
            *(self._answer(finish, body) for finish, body in bodies if finish.reply_to),
            return_exceptions=True,
        )
        for answer in answers:  # after all of them: none is left running
            if isinstance(answer, BaseException):
                raise answer
        return [Finished(finish.outcome) for finish in finishes]

    async def _answer(self, finish: Finish, body: bytes) -> None:
        try:
            await _held(
                self._replies.publish(
                    "",
                    finish.reply_to or "",
                    body,
                    content_type="application/json",
                    content_encoding="utf-8",
                    correlation_id=finish.correlation_id or finish.outcome.id,
                    delivery_mode=self._delivery_mode,
                )
            )
        except Unroutable:
            return  # the caller has left: nobody waits for this

    async def set_state(self, outcome: Outcome) -> None:
        """Do nothing: an own state has no address to go to.

        Raises:
            ValueError: The state is an end; :meth:`finish` sends those.
        """
        if outcome.terminal:
            raise ValueError(f"{outcome.state} ends a task: use finish")

    async def get(self, task_id: str) -> Outcome | None:
        """Return the last reply that came for an id."""
        return self._known.get(task_id)

    async def get_many(self, task_ids: Sequence[str]) -> list[Outcome | None]:
        """Return the last replies that came for ids."""
        return [self._known.get(task_id) for task_id in task_ids]

    async def save_group(self, group_id: str, members: Any) -> None:
        """Refuse: nothing is kept here that another process could read."""
        del members
        raise StoreError(f"group {group_id} cannot be saved: rpc:// keeps no groups, Redis does")

    async def load_group(self, group_id: str) -> Any:
        """Refuse, as :meth:`save_group` does."""
        raise StoreError(f"group {group_id} cannot be restored: rpc:// keeps no groups")

    async def wait(self, task_id: str, timeout: float | None) -> Outcome:
        """Wait for the reply that ends an id."""
        known = self._known.get(task_id)
        if known is not None and known.terminal:
            return known
        future: asyncio.Future[Outcome] = asyncio.get_running_loop().create_future()
        futures = self._waiters.setdefault(task_id, set())
        futures.add(future)
        try:
            async with asyncio.timeout(timeout):
                return await future
        finally:
            futures.discard(future)
            if not futures and self._waiters.get(task_id) is futures:
                del self._waiters[task_id]

    def expect(self, task_id: str) -> None:
        """Return None: every answer comes to this process as it is."""

    async def forget(self, task_id: str) -> None:
        """Drop the reply that came for an id."""
        self._known.pop(task_id, None)

    def _take(self, task_id: str, body: bytes) -> None:
        """Keep one reply; the first end of a task stands."""
        waiting = self._waiters.get(task_id, ())
        try:
            outcome = decode_meta(body, task_id)
        except StoreError as exc:
            for future in waiting:
                if not future.done():
                    future.set_exception(exc)
            return
        known = self._known.get(task_id)
        if known is not None and known.terminal:
            return
        self._known[task_id] = outcome
        self._known.move_to_end(task_id)
        while len(self._known) > self._most:
            self._known.popitem(last=False)
        if outcome.state in TERMINAL_STATES:
            for future in waiting:
                if not future.done():
                    future.set_result(outcome)


async def _held(step: Coroutine[object, object, T]) -> T:
    """Await a step of the broker's; its absence is the store's absence."""
    try:
        return await step
    except (Unroutable, MessageTooLarge):
        raise
    except BrokerError as exc:
        raise StoreUnavailable(f"the reply cannot be sent or received now: {exc}") from exc
