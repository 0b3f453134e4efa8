"""Results of ``embedded://``: the memory of the process that serves it, read by all the others.

The rules are those of ``memory://``; only the wire is here. An outcome travels as Celery's result
JSON with what that has no place for beside it, as Redis would hold it.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any, Final

from amqflow.abc import (
    OUTCOME_STATES,
    Attempt,
    Claim,
    Finished,
    Outcome,
    StoreCapabilities,
    Verdict,
)
from amqflow.protocol.codec import dumps
from amqflow.results.memory import MemoryStore, Records
from amqflow.results.meta import (
    decode_group,
    decode_meta,
    encode_meta,
    extra_of,
    with_extra,
)
from amqflow.stores.embedded import EmbeddedClient

if TYPE_CHECKING:
    from collections.abc import Sequence

    from amqflow.abc import Finish
    from amqflow.stores.server import Method

_CAPABILITIES: Final = StoreCapabilities(fences=True, shared=True, durable=False)


class EmbeddedStore:
    """A :class:`~amqflow.abc.ResultStore` in the process that serves an ``embedded://`` name."""

    def __init__(self, name: str) -> None:
        """Keep the name; :meth:`open` connects."""
        self._client = EmbeddedClient(name)

    @property
    def capabilities(self) -> StoreCapabilities:
        """Fenced and shared; gone with the process that serves it."""
        return _CAPABILITIES

    @property
    def reply_to(self) -> str | None:
        """None: results are read from the store."""
        return None

    async def open(self) -> None:
        """Connect, or raise StoreUnavailable."""
        await self._client.open()

    async def close(self) -> None:
        """Disconnect and wake every waiter with StoreUnavailable."""
        await self._client.close()

    async def begin(self, attempts: Sequence[Attempt]) -> list[Claim]:
        """Claim a batch of attempts."""
        if not attempts:
            return []
        answers = await self._client.call("begin", [_packed_attempt(each) for each in attempts])
        return [
            Claim(Verdict(verdict), fence, _outcome(outcome)) for verdict, fence, outcome in answers
        ]

    async def renew(self, attempts: Sequence[tuple[Attempt, int]]) -> list[bool]:
        """Extend leases under their fences."""
        if not attempts:
            return []
        payload = [[_packed_attempt(attempt), fence] for attempt, fence in attempts]
        return list(await self._client.call("renew", payload))

    async def finish(self, finishes: Sequence[Finish]) -> list[Finished]:
        """Compare-and-set a batch of outcomes.

        Raises:
            EncodeError: A result cannot be written as JSON; nothing of the batch was stored.
        """
        payload = []
        for finish in finishes:
            outcome = finish.outcome
            if outcome.state not in OUTCOME_STATES:
                raise ValueError(f"{outcome.state} ends nothing: use set_state")
            payload.append([_packed(outcome), finish.fence])
        if not payload:
            return []
        answers = await self._client.call("finish", payload)
        return [
            Finished(_outcome(stored) or finish.outcome, refused=refused, contested=contested)
            for finish, (stored, refused, contested) in zip(finishes, answers, strict=True)
        ]

    async def set_state(self, outcome: Outcome) -> None:
        """Show a state that ends nothing.

        Raises:
            ValueError: The state is an end; :meth:`finish` stores those.
        """
        if outcome.terminal:
            raise ValueError(f"{outcome.state} ends a task: use finish")
        await self._client.call("set_state", _packed(outcome))

    async def get(self, task_id: str) -> Outcome | None:
        """Return what is known of an id."""
        return _outcome(await self._client.call("get", task_id))

    async def get_many(self, task_ids: Sequence[str]) -> list[Outcome | None]:
        """Return what is known of many ids, in one round trip."""
        if not task_ids:
            return []
        return [_outcome(packed) for packed in await self._client.call("get_many", list(task_ids))]

    async def save_group(self, group_id: str, members: Any) -> None:
        """Keep a group's tuple form; None drops it."""
        data = None if members is None else dumps({"result": members}).decode()
        await self._client.call("save_group", [group_id, data])

    async def load_group(self, group_id: str) -> Any:
        """Return a saved group's tuple form; None where there is none."""
        data = await self._client.call("load_group", group_id)
        return None if data is None else decode_group(data.encode(), group_id)

    async def wait(self, task_id: str, timeout: float | None) -> Outcome:
        """Wait for a terminal outcome; its storing answers the request."""
        async with asyncio.timeout(timeout):
            outcome = _outcome(await self._client.call("wait", task_id, timeout=None))
        assert outcome is not None, "a wait is answered with an outcome"
        return outcome

    def expect(self, task_id: str) -> None:
        """Return None: nothing is gained by it."""

    async def forget(self, task_id: str) -> None:
        """Drop what is kept of an id."""
        await self._client.call("forget", task_id)


def methods(records: Records) -> dict[str, Method]:
    """Return the other end: what a :class:`~amqflow.stores.server.StoreServer` does for clients.

    Args:
        records: Where the outcomes are kept.
    """
    store = MemoryStore(records)

    def begin(payload: Any) -> Any:
        claims = [records.begin(Attempt(*fields)) for fields in payload]
        return [[claim.verdict, claim.fence, _packed_or_none(claim.outcome)] for claim in claims]

    def renew(payload: Any) -> Any:
        return [records.renew(Attempt(*fields), fence) for fields, fence in payload]

    def finish(payload: Any) -> Any:
        return [_finish(records, *entry) for entry in payload]

    def set_state(payload: Any) -> None:
        task_id, state, epoch, attempt, meta, _ = payload
        records.set_state(Outcome(task_id, state, epoch=epoch, attempt=attempt), meta.encode())

    async def get(payload: Any) -> Any:
        return _packed_or_none(await store.get(payload))

    async def get_many(payload: Any) -> Any:
        return [_packed_or_none(outcome) for outcome in await store.get_many(payload)]

    def save_group(payload: Any) -> None:
        group_id, data = payload
        records.save_group(group_id, None if data is None else data.encode())

    def load_group(payload: Any) -> str | None:
        data = records.load_group(payload)
        return None if data is None else data.decode()

    async def wait(payload: Any) -> Any:
        return _packed(await store.wait(payload, None))

    return {
        "begin": begin,
        "renew": renew,
        "finish": finish,
        "set_state": set_state,
        "get": get,
        "get_many": get_many,
        "save_group": save_group,
        "load_group": load_group,
        "wait": wait,
        "forget": records.forget,
    }


def _finish(records: Records, packed: Any, fence: int) -> list[Any]:
    """Store one outcome; where it is ours that stands, there is no need to send it back."""
    task_id, state, epoch, attempt, meta, extra = packed
    given = Outcome(task_id, state, epoch=epoch, attempt=attempt)
    done = records.finish(given, fence, meta.encode(), extra.encode())
    stored = None if done.stored is given else _packed(done.stored)
    return [stored, done.refused, done.contested]


def _packed_attempt(attempt: Attempt) -> list[Any]:
    return [
        attempt.id,
        attempt.epoch,
        attempt.number,
        attempt.owner,
        attempt.once,
        attempt.lease,
        attempt.track_started,
    ]


def _packed(outcome: Outcome) -> list[Any]:
    """Return an outcome as plain JSON: ``[id, state, epoch, attempt, Celery's JSON, the rest]``."""
    return [
        outcome.id,
        outcome.state,
        outcome.epoch,
        outcome.attempt,
        encode_meta(outcome).decode(),
        extra_of(outcome).decode(),
    ]


def _packed_or_none(outcome: Outcome | None) -> list[Any] | None:
    return None if outcome is None else _packed(outcome)


def _outcome(packed: Any) -> Outcome | None:
    """Read what :func:`_packed` wrote."""
    if packed is None:
        return None
    task_id, _, epoch, attempt, meta, extra = packed
    return with_extra(
        decode_meta(meta.encode(), task_id), extra.encode(), epoch=epoch, attempt=attempt
    )
