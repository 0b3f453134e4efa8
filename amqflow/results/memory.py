"""Results in this process's memory, for tests and scripts: the rules of Redis, without a server.

Outcomes are kept as the JSON that Redis would hold, so that a result reads the same from both,
and nobody's later change to a value changes what is stored.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import threading
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from amqflow.abc import (
    OUTCOME_STATES,
    RETRY,
    STARTED,
    TERMINAL_STATES,
    Claim,
    Finished,
    Outcome,
    StoreCapabilities,
    Verdict,
)
from amqflow.errors import StoreUnavailable
from amqflow.protocol.codec import dumps
from amqflow.results.meta import (
    decode_group,
    decode_meta,
    encode_meta,
    extra_of,
    with_extra,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from amqflow.abc import Attempt, Finish

_CAPABILITIES: Final = StoreCapabilities(fences=True, shared=False, durable=False)
_STALE: Final = Claim(Verdict.STALE)
_BUSY: Final = Claim(Verdict.BUSY)


@dataclass(slots=True)
class _Record:
    """What is known of one id; ``state`` is that of the last outcome, empty while it runs."""

    epoch: int = 0
    attempt: int = 0
    fence: int = 0
    state: str = ""
    owner: str = ""
    lease_until: float = 0.0
    meta: bytes = b""
    extra: bytes = b""

    def outcome(self, task_id: str) -> Outcome:
        """Return what was stored last."""
        outcome = decode_meta(self.meta, task_id)
        extra = self.extra if outcome.state == self.state else b""
        return with_extra(outcome, extra, epoch=self.epoch, attempt=self.attempt)


class Records:
    """The records of one name, shared by every event loop and thread of the process."""

    def __init__(self, *, result_expires: float | None = 86400, most: int = 100_000) -> None:
        """Keep nothing yet.

        Args:
            result_expires: Seconds an ended task is kept; 0 or None: until ``most``.
            most: How many tasks that do not run are kept; the oldest go first.
        """
        self._expires = result_expires or 0.0
        self._most = most
        self._lock = threading.Lock()
        self._records: dict[str, _Record] = {}
        #: Ids that may go, in the order of their last write, and when they expire.
        self._idle: dict[str, float] = {}
        self._waiters: dict[str, set[Callable[[Outcome], None]]] = {}
        #: Saved groups as JSON, and when they expire.
        self._groups: dict[str, tuple[bytes, float]] = {}

    def __len__(self) -> int:
        return len(self._records)

    def save_group(self, group_id: str, data: bytes | None) -> None:
        """Keep a group's JSON; None drops it."""
        now = time.monotonic()
        with self._lock:
            self._groups.pop(group_id, None)
            if data is not None:
                until = now + self._expires if self._expires else float("inf")
                self._groups[group_id] = (data, until)
            while len(self._groups) > self._most:
                del self._groups[next(iter(self._groups))]

    def load_group(self, group_id: str) -> bytes | None:
        """Return a group's JSON; None where it was not saved, or has expired."""
        with self._lock:
            data, until = self._groups.get(group_id, (None, 0.0))
            return data if until > time.monotonic() else None

    def begin(self, attempt: Attempt) -> Claim:
        """Claim one attempt."""
        started = _started(attempt) if attempt.track_started else b""
        now = time.monotonic()
        with self._lock:
            self._evict(now)
            record = self._records.get(attempt.id)
            if record is None:
                record = self._records[attempt.id] = _Record()
            else:
                refusal = _refusal(record, attempt, now)
                if refusal is not None:
                    return refusal
                if attempt.epoch > record.epoch:
                    record.meta = b""
            record.epoch = attempt.epoch
            record.attempt = attempt.number
            record.fence += 1
            record.state = ""
            record.extra = b""
            record.owner = attempt.owner
            record.lease_until = now + attempt.lease
            record.meta = started or record.meta
            self._idle.pop(attempt.id, None)
            return Claim(Verdict.RUN, record.fence)

    def renew(self, attempt: Attempt, fence: int) -> bool:
        """Extend one lease under its fence."""
        now = time.monotonic()
        with self._lock:
            record = self._records.get(attempt.id)
            if record is None:
                record = self._records[attempt.id] = _Record(
                    attempt.epoch, attempt.number, fence, owner=attempt.owner
                )
            elif record.state or (record.epoch, record.attempt, record.fence) != (
                attempt.epoch,
                attempt.number,
                fence,
            ):
                return False
            record.lease_until = now + attempt.lease
            return True

    def finish(self, outcome: Outcome, fence: int, meta: bytes, extra: bytes) -> Finished:
        """Compare-and-set one outcome."""
        now = time.monotonic()
        with self._lock:
            record = self._records.get(outcome.id)
            if record is None:
                record = self._records[outcome.id] = _Record()
            else:
                standing = _standing(record, outcome, fence)
                if standing is not None:
                    return standing
            record.epoch = outcome.epoch
            record.attempt = outcome.attempt
            record.fence = max(fence, record.fence)
            record.state = outcome.state
            record.meta = meta
            record.extra = extra
            self._rest(outcome.id, now)
            waiters = self._woken(outcome.id, outcome.state)
        self._wake(waiters, outcome.id, meta)
        return Finished(outcome)

    def set_state(self, outcome: Outcome, meta: bytes) -> None:
        """Show a state that ends nothing."""
        with self._lock:
            record = self._records.get(outcome.id)
            if record is None:
                record = self._records[outcome.id] = _Record(epoch=outcome.epoch)
                self._rest(outcome.id, time.monotonic())
            elif record.state in TERMINAL_STATES:
                if record.epoch >= outcome.epoch:
                    return
                record.epoch, record.attempt, record.state = outcome.epoch, 0, ""
                record.lease_until, record.extra = 0.0, b""
            elif record.state == RETRY:
                return  # The attempt has ended: this is a late word from it.
            record.meta = meta

    def get(self, task_id: str) -> Outcome | None:
        """Return what is known of an id."""
        with self._lock:
            self._evict(time.monotonic())
            record = self._records.get(task_id)
            return record.outcome(task_id) if record is not None and record.meta else None

    def forget(self, task_id: str) -> None:
        """Drop an id."""
        with self._lock:
            self._records.pop(task_id, None)
            self._idle.pop(task_id, None)

    def watch(self, task_id: str, waker: Callable[[Outcome], None]) -> Outcome | None:
        """Return the terminal outcome, or have ``waker`` called with it, from any thread."""
        with self._lock:
            record = self._records.get(task_id)
            if record is not None and record.state in TERMINAL_STATES and record.meta:
                return record.outcome(task_id)
            self._waiters.setdefault(task_id, set()).add(waker)
            return None

    def unwatch(self, task_id: str, waker: Callable[[Outcome], None]) -> None:
        """Forget a waker."""
        with self._lock:
            waiters = self._waiters.get(task_id)
            if waiters is not None:
                waiters.discard(waker)
                if not waiters:
                    del self._waiters[task_id]

    def _woken(self, task_id: str, state: str) -> tuple[Callable[[Outcome], None], ...]:
        if not self._waiters or state not in TERMINAL_STATES:
            return ()
        return tuple(self._waiters.get(task_id, ()))

    def _wake(
        self, waiters: tuple[Callable[[Outcome], None], ...], task_id: str, meta: bytes
    ) -> None:
        """Hand every waiter its own copy: they live in different threads."""
        for waker in waiters:
            waker(decode_meta(meta, task_id))

    def _rest(self, task_id: str, now: float) -> None:
        """Note that an id does not run and may be evicted; the newest last."""
        self._idle.pop(task_id, None)
        self._idle[task_id] = now + self._expires if self._expires else float("inf")
        self._evict(now)

    def _evict(self, now: float) -> None:
        while self._idle:
            task_id = next(iter(self._idle))
            if len(self._idle) <= self._most and self._idle[task_id] > now:
                return
            del self._idle[task_id]
            self._records.pop(task_id, None)


def _refusal(record: _Record, attempt: Attempt, now: float) -> Claim | None:
    """Return why an attempt must not run, or None."""
    if attempt.epoch != record.epoch:
        return _STALE if attempt.epoch < record.epoch else None
    if record.state in TERMINAL_STATES or (
        record.state == RETRY and record.attempt == attempt.number
    ):
        return Claim(Verdict.SETTLED, outcome=record.outcome(attempt.id))
    if record.attempt > attempt.number:
        return _STALE
    if (
        attempt.once
        and record.attempt == attempt.number
        and record.owner != attempt.owner
        and record.lease_until > now
    ):
        return _BUSY
    return None


def _standing(record: _Record, outcome: Outcome, fence: int) -> Finished | None:
    """Return what stands against an outcome, or None when it may be written."""
    if outcome.epoch != record.epoch:
        return Finished(outcome, refused=True) if outcome.epoch < record.epoch else None
    if outcome.attempt < record.attempt:
        return Finished(outcome, refused=True)
    same = outcome.attempt == record.attempt
    if record.state in TERMINAL_STATES or (record.state == RETRY and same):
        return Finished(record.outcome(outcome.id))
    if same and fence < record.fence:
        return Finished(outcome, refused=True, contested=True)
    return None


def _running_loop() -> asyncio.AbstractEventLoop | None:
    try:
        return asyncio.get_running_loop()
    except RuntimeError:
        return None


def _started(attempt: Attempt) -> bytes:
    return encode_meta(
        Outcome(
            id=attempt.id, state=STARTED, result={"pid": os.getpid(), "hostname": attempt.owner}
        )
    )


class MemoryStore:
    """A :class:`~amqflow.abc.ResultStore` over :class:`Records`, for one event loop."""

    def __init__(self, records: Records | None = None) -> None:
        """Share ``records`` with the process's other loops, or keep some of its own."""
        self._records = Records() if records is None else records
        self._waiting: set[asyncio.Future[Outcome]] = set()

    @property
    def capabilities(self) -> StoreCapabilities:
        """Fenced; neither shared with other processes nor durable."""
        return _CAPABILITIES

    @property
    def reply_to(self) -> str | None:
        """None: results are read from memory."""
        return None

    async def open(self) -> None:
        """Do nothing: memory is there."""

    async def close(self) -> None:
        """Wake this loop's waiters with StoreUnavailable; the records stay."""
        for future in self._waiting:
            if not future.done():
                future.set_exception(StoreUnavailable("the result store was closed"))

    async def begin(self, attempts: Sequence[Attempt]) -> list[Claim]:
        """Claim a batch of attempts."""
        return [self._records.begin(attempt) for attempt in attempts]

    async def renew(self, attempts: Sequence[tuple[Attempt, int]]) -> list[bool]:
        """Extend leases under their fences."""
        return [self._records.renew(attempt, fence) for attempt, fence in attempts]

    async def finish(self, finishes: Sequence[Finish]) -> list[Finished]:
        """Compare-and-set a batch of outcomes.

        Raises:
            EncodeError: A result cannot be written as JSON; nothing of the batch was stored.
        """
        encoded = []
        for finish in finishes:
            outcome = finish.outcome
            if outcome.state not in OUTCOME_STATES:
                raise ValueError(f"{outcome.state} ends nothing: use set_state")
            encoded.append((outcome, finish.fence, encode_meta(outcome), extra_of(outcome)))
        return [self._records.finish(*entry) for entry in encoded]

    async def set_state(self, outcome: Outcome) -> None:
        """Show a state that ends nothing.

        Raises:
            ValueError: The state is an end; :meth:`finish` stores those.
        """
        if outcome.terminal:
            raise ValueError(f"{outcome.state} ends a task: use finish")
        self._records.set_state(outcome, encode_meta(outcome))

    async def get(self, task_id: str) -> Outcome | None:
        """Return what is known of an id."""
        return self._records.get(task_id)

    async def get_many(self, task_ids: Sequence[str]) -> list[Outcome | None]:
        """Return what is known of many ids."""
        return [self._records.get(task_id) for task_id in task_ids]

    async def save_group(self, group_id: str, members: Any) -> None:
        """Keep a group's tuple form; None drops it."""
        self._records.save_group(group_id, None if members is None else dumps({"result": members}))

    async def load_group(self, group_id: str) -> Any:
        """Return a saved group's tuple form; None where there is none."""
        data = self._records.load_group(group_id)
        return None if data is None else decode_group(data, group_id)

    async def wait(self, task_id: str, timeout: float | None) -> Outcome:
        """Wait for a terminal outcome; whoever stores it, in whatever thread, wakes us."""
        loop = asyncio.get_running_loop()
        future: asyncio.Future[Outcome] = loop.create_future()

        def settle(outcome: Outcome) -> None:
            if not future.done():
                future.set_result(outcome)

        def wake(outcome: Outcome) -> None:
            if _running_loop() is loop:
                settle(outcome)
            else:
                with contextlib.suppress(RuntimeError):  # its loop was closed meanwhile
                    loop.call_soon_threadsafe(settle, outcome)

        there = self._records.watch(task_id, wake)
        if there is not None:
            return there
        self._waiting.add(future)
        try:
            async with asyncio.timeout(timeout):
                return await future
        finally:
            self._waiting.discard(future)
            self._records.unwatch(task_id, wake)

    def expect(self, task_id: str) -> None:
        """Return None: an end is here at once."""

    async def forget(self, task_id: str) -> None:
        """Drop what is kept of an id."""
        self._records.forget(task_id)
