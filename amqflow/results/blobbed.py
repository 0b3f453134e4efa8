"""A result store whose large results lie in a blob store, with a reference in their place."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Final

from amqflow.abc import FAILURE, DeadReason, ExceptionInfo, Finish, Outcome
from amqflow.errors import BlobMissing, EncodeError, MessageTooLarge, Undecodable
from amqflow.protocol.claimcheck import looks_referred, refer_result, result_reference
from amqflow.protocol.codec import dumps, loads

if TYPE_CHECKING:
    from collections.abc import Sequence

    from amqflow.abc import (
        Attempt,
        BlobStore,
        Claim,
        Expected,
        Finished,
        ResultStore,
        StoreCapabilities,
    )

#: What a number, date or other single value is taken to cost in JSON, in bytes.
_SCALAR: Final = 6


class BlobbedStore:
    """A :class:`~amqflow.abc.ResultStore` over another, which never sees a large result.

    A Celery caller that reads such a result sees the reference: ``{"amqflow-blob": "…"}``.
    """

    def __init__(
        self, store: ResultStore, blobs: BlobStore, *, threshold: int, keep: float
    ) -> None:
        """Keep results of more than ``threshold`` bytes in ``blobs``, for ``keep`` seconds."""
        self.inner = store
        self._blobs = blobs
        self._threshold = threshold
        self._keep = keep

    @property
    def capabilities(self) -> StoreCapabilities:
        """Those of the store below."""
        return self.inner.capabilities

    @property
    def reply_to(self) -> str | None:
        """That of the store below."""
        return self.inner.reply_to

    async def open(self) -> None:
        """Connect the store below."""
        await self.inner.open()

    async def close(self) -> None:
        """Close the store below; the blob store is the application's."""
        await self.inner.close()

    # -- writing ----------------------------------------------------------------------------

    async def finish(self, finishes: Sequence[Finish]) -> list[Finished]:
        """Compare-and-set a batch of outcomes, large results by reference.

        Raises:
            EncodeError: A result cannot be written as JSON, or is over the blobs' bound; nothing
                of the batch was stored.
        """
        kept = [finish for finish in finishes if self._is_large(finish.outcome)]
        if not kept:
            return await self._read(await self.inner.finish(finishes), {})
        apart = dict(
            zip(
                (finish.outcome.id for finish in kept),
                await asyncio.gather(*(self._apart(finish.outcome) for finish in kept)),
                strict=True,
            )
        )
        sent = [
            replace(finish, outcome=apart.get(finish.outcome.id, finish.outcome))
            for finish in finishes
        ]
        whole = {finish.outcome.id: finish.outcome for finish in finishes}
        return await self._read(await self.inner.finish(sent), whole)

    async def set_state(self, outcome: Outcome) -> None:
        """Show a state that ends nothing; large meta data by reference."""
        await self.inner.set_state(
            await self._apart(outcome) if self._is_large(outcome) else outcome
        )

    def _is_large(self, outcome: Outcome) -> bool:
        value = outcome.result
        return looks_referred(value) or larger_than(value, self._threshold)

    async def _apart(self, outcome: Outcome) -> Outcome:
        """Return an outcome with a reference for its result, where that is large indeed."""
        data = dumps(outcome.result, root="result")
        if len(data) <= self._threshold and not looks_referred(outcome.result):
            return outcome
        try:
            ref = await self._blobs.put(data, keep=self._keep)
        except MessageTooLarge as error:
            raise EncodeError(f"result: {error}") from error
        return replace(outcome, result=refer_result(ref))

    async def _read(self, answers: list[Finished], whole: dict[str, Outcome]) -> list[Finished]:
        """Return answers whose stored outcomes hold their results."""
        return [
            replace(answer, stored=await self._whole(answer.stored, whole.get(answer.stored.id)))
            if looks_referred(answer.stored.result)
            else answer
            for answer in answers
        ]

    # -- reading ----------------------------------------------------------------------------

    async def _whole(self, outcome: Outcome, known: Outcome | None = None) -> Outcome:
        """Return an outcome with its result; a FAILURE where that is there no more."""
        ref = result_reference(outcome.result)
        if ref is None:
            return outcome
        if known is not None and known.state == outcome.state and not known.exception:
            return replace(outcome, result=known.result)
        try:
            return replace(outcome, result=loads(await self._blobs.get(ref)))
        except (BlobMissing, Undecodable) as error:
            text = f"the result is too large for the result store, and {error}"
            return replace(
                outcome,
                state=FAILURE,
                result=None,
                exception=ExceptionInfo("BlobMissing", "amqflow.errors", (text,), text),
                park=DeadReason.BLOB_MISSING,
                reason=text,
            )

    async def begin(self, attempts: Sequence[Attempt]) -> list[Claim]:
        """Claim a batch of attempts; what stands already comes with its result."""
        claims = await self.inner.begin(attempts)
        return [
            claim
            if claim.outcome is None
            else replace(claim, outcome=await self._whole(claim.outcome))
            for claim in claims
        ]

    async def renew(self, attempts: Sequence[tuple[Attempt, int]]) -> list[bool]:
        """Extend leases under their fences."""
        return await self.inner.renew(attempts)

    async def get(self, task_id: str) -> Outcome | None:
        """Return what is known of an id."""
        outcome = await self.inner.get(task_id)
        return None if outcome is None else await self._whole(outcome)

    async def get_many(self, task_ids: Sequence[str]) -> list[Outcome | None]:
        """Return what is known of many ids, in order."""
        found = await self.inner.get_many(task_ids)
        return [None if one is None else await self._whole(one) for one in found]

    async def wait(self, task_id: str, timeout: float | None) -> Outcome:
        """Wait for a terminal outcome by push; its result is fetched after it."""
        return await self._whole(await self.inner.wait(task_id, timeout))

    def expect(self, task_id: str) -> Expected | None:
        """Wait for the end of a call that is about to be sent."""
        return self.inner.expect(task_id)

    async def forget(self, task_id: str) -> None:
        """Drop what is kept of an id; a blob goes by itself, when its time has come."""
        await self.inner.forget(task_id)

    async def save_group(self, group_id: str, members: Any) -> None:
        """Keep a group's tuple form; None drops it."""
        await self.inner.save_group(group_id, members)

    async def load_group(self, group_id: str) -> Any:
        """Return a saved group's tuple form."""
        return await self.inner.load_group(group_id)


def larger_than(value: Any, most: int) -> bool:
    """Return whether a value is likely to take more than ``most`` bytes of JSON.

    It stops as soon as that is clear; a result of a few numbers costs a few comparisons.
    """
    size = 0
    stack = [value]
    while stack:
        one = stack.pop()
        kind = type(one)
        if kind is str or kind is bytes:
            size += len(one)
        elif kind is dict:
            size += len(one)
            if size <= most:
                stack.extend(one)
                stack.extend(one.values())
        elif kind is list or kind is tuple:
            size += len(one)
            if size <= most:
                stack.extend(one)
        else:
            size += _SCALAR
        if size > most:
            return True
    return False
