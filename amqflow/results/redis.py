"""Results in Redis: Celery's own keys for readers, a record of ours for fences.

Layout and rules: see :mod:`amqflow.results.scripts`.
"""

from __future__ import annotations

import os
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Final

from amqflow.abc import (
    OUTCOME_STATES,
    STARTED,
    Claim,
    Finished,
    Outcome,
    StoreCapabilities,
    Verdict,
)
from amqflow.errors import StoreError
from amqflow.protocol.codec import dumps
from amqflow.results.meta import (
    decode_group,
    decode_meta,
    encode_meta,
    extra_of,
    with_extra,
)
from amqflow.results.scripts import BEGIN, FINISH, RENEW, SET_STATE
from amqflow.results.waiting import Waiting
from amqflow.stores.redis import RedisClient

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from amqflow.abc import Attempt, Expected, Finish

META_PREFIX: Final = "celery-task-meta-"
#: Celery's key of a saved group (``celery/backends/base.py: KeyValueStoreBackend``).
GROUP_PREFIX: Final = "celery-taskset-meta-"
#: What of our record is read with a result.
_KNOWN: Final = ("epoch", "attempt", "state", "extra")
#: Keys of one MGET: a long one holds up everybody else on the server.
_MOST_KEYS: Final = 500
#: How long a record without an end lives after its last sign of life, in milliseconds: longer
#: than any lease or delayed retry is likely to take; what takes longer runs without a fence.
_RUNNING_TTL: Final = 7 * 24 * 3600 * 1000
#: A record outlives its result, so that a late redelivery still finds the end.
_RECORD_MARGIN: Final = 3600
#: Entries and bytes of one script call: a script holds up everybody else on the server.
_BATCH: Final = 128
_BATCH_BYTES: Final = 4 * 1024 * 1024

_CAPABILITIES: Final = StoreCapabilities(fences=True, shared=True, durable=True)
_VERDICTS: Final = {"T": Claim(Verdict.STALE), "B": Claim(Verdict.BUSY)}


def keys_of(task_id: str) -> tuple[str, str]:
    """Return Celery's key and the key of our record; the braces put both into one slot."""
    meta = META_PREFIX + task_id
    return meta, f"amqflow-task-{{{meta}}}"


class RedisStore:
    """A :class:`~amqflow.abc.ResultStore` in Redis, readable and writable by Celery 5.7 too."""

    def __init__(
        self, url: str, *, result_expires: float | None = 86400, deadline: float = 5.0
    ) -> None:
        """Check the URL; :meth:`open` connects.

        Args:
            url: ``redis://``, ``rediss://`` or ``unix://``.
            result_expires: Seconds a result is kept; 0 or None keeps it for ever.
            deadline: Seconds any one exchange with Redis may take.
        """
        self._client = RedisClient(url, deadline=deadline)
        self._waiting = Waiting(self._client, prefix=META_PREFIX, deadline=deadline)
        self._expires = int(result_expires or 0)
        self._after = (self._expires + _RECORD_MARGIN) * 1000 if self._expires else 0

    @property
    def capabilities(self) -> StoreCapabilities:
        """Fenced, shared, durable."""
        return _CAPABILITIES

    @property
    def reply_to(self) -> str | None:
        """None: results are read from Redis."""
        return None

    async def open(self) -> None:
        """Prove that Redis answers.

        Raises:
            StoreUnavailable: It does not, or takes no writes now.
            StoreError: It refused us (wrong password, no permission).
        """
        await self._client.command("PING")

    async def close(self) -> None:
        """Close the connections; waiters get StoreUnavailable."""
        await self._waiting.close()
        await self._client.close()

    async def begin(self, attempts: Sequence[Attempt]) -> list[Claim]:
        """Claim a batch of attempts in one round trip."""
        claims: list[Claim] = []
        for start in range(0, len(attempts), _BATCH):
            claims += await self._begin(attempts[start : start + _BATCH])
        return claims

    async def _begin(self, attempts: Sequence[Attempt]) -> list[Claim]:
        keys: list[str] = []
        arguments: list[str | bytes | int] = [_RUNNING_TTL, self._expires]
        for attempt in attempts:
            keys += keys_of(attempt.id)
            arguments += (
                f"{attempt.epoch} {attempt.number} {attempt.once:d} {attempt.lease * 1000:.0f}",
                attempt.owner,
                _started(attempt) if attempt.track_started else b"",
            )
        answer = await self._client.run(BEGIN, keys, arguments)
        blobs = iter(answer[1:])
        return [
            _claim(token, attempt.id, blobs)
            for token, attempt in zip(_tokens(answer), attempts, strict=True)
        ]

    async def renew(self, attempts: Sequence[tuple[Attempt, int]]) -> list[bool]:
        """Extend leases under their fences."""
        kept: list[bool] = []
        for start in range(0, len(attempts), _BATCH):
            keys: list[str] = []
            arguments: list[str | bytes | int] = [_RUNNING_TTL]
            for attempt, fence in attempts[start : start + _BATCH]:
                keys += keys_of(attempt.id)
                arguments += (
                    f"{attempt.epoch} {attempt.number} {fence} {attempt.lease * 1000:.0f}",
                    attempt.owner,
                )
            answer = await self._client.run(RENEW, keys, arguments)
            kept += [token == "1" for token in _tokens(answer)]  # noqa: S105 - no password
        return kept

    async def finish(self, finishes: Sequence[Finish]) -> list[Finished]:
        """Compare-and-set a batch of outcomes in one round trip.

        Raises:
            EncodeError: A result cannot be written as JSON; nothing of the batch was stored.
        """
        encoded = [_encoded(finish) for finish in finishes]
        finished: list[Finished] = []
        for batch in _batches(encoded, finishes):
            finished += await self._finish(*batch)
        return finished

    async def _finish(
        self, encoded: Sequence[tuple[str, bytes, bytes]], finishes: Sequence[Finish]
    ) -> list[Finished]:
        keys: list[str] = []
        arguments: list[str | bytes | int] = [_RUNNING_TTL, self._after, self._expires]
        for entry, finish in zip(encoded, finishes, strict=True):
            keys += keys_of(finish.outcome.id)
            arguments += entry
        answer = await self._client.run(FINISH, keys, arguments)
        blobs = iter(answer[1:])
        return [
            _finished(token, finish.outcome, blobs)
            for token, finish in zip(_tokens(answer), finishes, strict=True)
        ]

    async def set_state(self, outcome: Outcome) -> None:
        """Show a state that ends nothing.

        Raises:
            ValueError: The state is an end; :meth:`finish` stores those.
        """
        if outcome.terminal:
            raise ValueError(f"{outcome.state} ends a task: use finish")
        await self._client.run(
            SET_STATE,
            keys_of(outcome.id),
            (outcome.epoch, encode_meta(outcome), self._expires),
        )

    async def get(self, task_id: str) -> Outcome | None:
        """Return what is known of an id, also of one that a Celery worker ran."""
        meta, record = keys_of(task_id)
        data, known = await self._client.pipeline((("GET", meta), ("HMGET", record, *_KNOWN)))
        return _whole(task_id, data, known)

    async def get_many(self, task_ids: Sequence[str]) -> list[Outcome | None]:
        """Return what is known of many ids, hundreds a round trip."""
        found: list[Outcome | None] = []
        for start in range(0, len(task_ids), _MOST_KEYS):
            ids = task_ids[start : start + _MOST_KEYS]
            keys = [keys_of(task_id) for task_id in ids]
            data, *records = await self._client.pipeline(
                [("MGET", *(meta for meta, _ in keys))]
                + [("HMGET", record, *_KNOWN) for _, record in keys]
            )
            found += map(_whole, ids, data, records)
        return found

    async def save_group(self, group_id: str, members: Any) -> None:
        """Keep a group under Celery's key, as Celery writes it; None drops it."""
        key = GROUP_PREFIX + group_id
        if members is None:
            await self._client.command("DEL", key)
            return
        data = dumps({"result": members})
        expiry = ("EX", self._expires) if self._expires else ()
        await self._client.command("SET", key, data, *expiry)

    async def load_group(self, group_id: str) -> Any:
        """Return a saved group's tuple form, whoever saved it.

        Raises:
            StoreError: What is kept is not Celery's JSON.
        """
        data = await self._client.command("GET", GROUP_PREFIX + group_id)
        return None if data is None else decode_group(data, group_id)

    async def wait(self, task_id: str, timeout: float | None) -> Outcome:
        """Wait for a terminal outcome by push; it holds what Celery's JSON holds."""
        return await self._waiting.wait(task_id, timeout)

    def expect(self, task_id: str) -> Expected | None:
        """Wait for the end of a call that is about to be sent (see :meth:`Waiting.expect`)."""
        return self._waiting.expect(task_id)

    async def forget(self, task_id: str) -> None:
        """Delete the result and our record."""
        await self._client.command("DEL", *keys_of(task_id))


def _whole(task_id: str, data: bytes | None, known: Sequence[bytes | None]) -> Outcome | None:
    """Return an outcome from Celery's JSON and from what our record adds to it."""
    if data is None:
        return None
    outcome = decode_meta(data, task_id)
    epoch, attempt, state, extra = known
    if epoch is None or attempt is None:
        return outcome
    if state is None or state.decode() != outcome.state:
        extra = b""
    return with_extra(outcome, extra or b"", epoch=int(epoch), attempt=int(attempt))


def _tokens(answer: list[bytes]) -> list[str]:
    return answer[0].decode().split(";")


def _started(attempt: Attempt) -> bytes:
    """Return Celery's STARTED, which names the worker."""
    return encode_meta(
        Outcome(
            id=attempt.id, state=STARTED, result={"pid": os.getpid(), "hostname": attempt.owner}
        )
    )


def _encoded(finish: Finish) -> tuple[str, bytes, bytes]:
    outcome = finish.outcome
    if outcome.state not in OUTCOME_STATES:
        raise ValueError(f"{outcome.state} ends nothing: use set_state")
    head = f"{outcome.epoch} {outcome.attempt} {finish.fence} {outcome.state}"
    return head, encode_meta(outcome), extra_of(outcome)


def _batches(
    encoded: Sequence[tuple[str, bytes, bytes]], finishes: Sequence[Finish]
) -> Iterable[tuple[Sequence[tuple[str, bytes, bytes]], Sequence[Finish]]]:
    """Cut a batch where it holds too many entries or bytes."""
    start = size = 0
    for end, (_, data, _) in enumerate(encoded):
        if end > start and (end - start >= _BATCH or size + len(data) > _BATCH_BYTES):
            yield encoded[start:end], finishes[start:end]
            start, size = end, 0
        size += len(data)
    if start < len(encoded):
        yield encoded[start:], finishes[start:]


def _claim(token: str, task_id: str, blobs: Any) -> Claim:
    kind = token[0]
    if kind == "R":
        return Claim(Verdict.RUN, int(token[2:]))
    if kind == "S":
        return Claim(Verdict.SETTLED, outcome=_stored(token, task_id, next(blobs), next(blobs)))
    return _VERDICTS[kind]


def _finished(token: str, outcome: Outcome, blobs: Any) -> Finished:
    kind = token[0]
    if kind == "W":
        return Finished(outcome)
    if kind in {"X", "C"}:
        return Finished(outcome, refused=True, contested=kind == "C")
    data, extra = next(blobs), next(blobs)
    stored = _stored(token, outcome.id, data, extra)
    # The result was forgotten meanwhile, and ours ended the same way: ours is what stood.
    if not data and stored.state == outcome.state:
        return Finished(replace(outcome, attempt=stored.attempt))
    return Finished(stored)


def _stored(token: str, task_id: str, data: bytes, extra: bytes) -> Outcome:
    _, epoch, attempt, state = token.split(" ")
    try:
        outcome = decode_meta(data, task_id) if data else Outcome(id=task_id, state=state)
    except StoreError:  # a foreign writer's; one of them must not fail the batch
        outcome = Outcome(id=task_id, state=state)
    if outcome.state != state:
        if outcome.terminal:
            extra = b""  # Another client has ended it otherwise.
        else:
            outcome = Outcome(id=task_id, state=state)
    return with_extra(outcome, extra, epoch=int(epoch), attempt=int(attempt))
