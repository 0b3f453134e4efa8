"""The claim check: large bodies and results are kept apart and travel as references (design 8).

A blob is named by its content, so that the same one is kept once, and a try again names it anew.
"""

from __future__ import annotations

import asyncio
import hashlib
import re
from typing import TYPE_CHECKING, Final, Protocol

from amqflow.errors import BlobMissing, MessageTooLarge
from amqflow.protocol.claimcheck import refer, reference_of, restore
from amqflow.protocol.fields import read_moment

if TYPE_CHECKING:
    from amqflow.abc import BlobStore
    from amqflow.clock import Clock
    from amqflow.protocol import Envelope

#: A reference: the digest of the content and its size.
_REF: Final = re.compile(r"(?P<digest>[0-9a-f]{64})\.(?P<size>\d{1,12})")


class Shelf(Protocol):
    """Where blobs lie, by name: Redis, memory, or a folder."""

    async def store(self, name: str, data: bytes, keep: float) -> None:
        """Keep a blob for at least ``keep`` seconds from now, whether it is there or not."""
        ...

    async def load(self, name: str) -> bytes | None:
        """Return a blob; None where it is not there, or no longer."""
        ...

    async def close(self) -> None:
        """Release connections."""
        ...


class Blobs:
    """A :class:`~amqflow.abc.BlobStore` over a shelf: names, bounds, and proof of content."""

    def __init__(self, shelf: Shelf, *, expires: float, most: int) -> None:
        """Keep blobs on ``shelf``.

        Args:
            shelf: Where they lie.
            expires: Seconds a blob is kept from its last use on.
            most: Bytes of the largest.
        """
        self._shelf = shelf
        self._expires = expires
        self._most = most

    async def put(self, data: bytes, *, keep: float = 0.0) -> str:
        """Keep a blob and return its reference.

        Args:
            data: Its content.
            keep: Seconds it is needed for; it is kept for the usual time beyond that.

        Raises:
            MessageTooLarge: It is over the bound (``blob_max_size``).
            StoreUnavailable: The store cannot be used now.
        """
        if len(data) > self._most:
            raise MessageTooLarge(
                f"a blob of {len(data)} bytes: {self._most} are allowed (blob_max_size)"
            )
        ref = f"{await _digest(data)}.{len(data)}"
        await self._shelf.store(ref, data, self._expires + keep)
        return ref

    async def get(self, ref: str) -> bytes:
        """Return the blob of a reference.

        Raises:
            BlobMissing: It is there no more, is another one, or the reference is none.
            StoreUnavailable: The store cannot be used now.
        """
        found = _REF.fullmatch(ref)
        if found is None:
            raise BlobMissing(f"{ref!r:.80} is no reference to a blob")
        if int(found["size"]) > self._most:
            raise BlobMissing(
                f"the blob {ref} is over the bound of {self._most} bytes (blob_max_size)"
            )
        data = await self._shelf.load(ref)
        if data is None:
            raise BlobMissing(
                f"the blob {ref} is not there: it has expired (blob_expires), or another store "
                "keeps it (blob_store)"
            )
        if await _digest(data) != found["digest"]:
            raise BlobMissing(f"the blob {ref} has been changed: its digest is another")
        return data

    async def close(self) -> None:
        """Release the shelf."""
        await self._shelf.close()


async def _digest(data: bytes) -> str:
    """Return the SHA-256 of a large text, worked out beside the loop."""
    return (await asyncio.to_thread(hashlib.sha256, data)).hexdigest()


class ClaimCheck:
    """Exchanges bodies above a size for references on their way out, and back on their way in."""

    def __init__(self, blobs: BlobStore, *, threshold: int, clock: Clock) -> None:
        """Keep bodies of more than ``threshold`` bytes in ``blobs``."""
        self.blobs = blobs
        self._threshold = threshold
        self._clock = clock

    async def out(self, envelope: Envelope) -> Envelope:
        """Return an envelope as it is to travel: a large one by reference.

        Raises:
            MessageTooLarge: It is over the blobs' bound too.
            StoreUnavailable: The blob store cannot be used now.
        """
        if len(envelope.body) <= self._threshold or reference_of(envelope) is not None:
            return envelope
        return refer(envelope, await self.blobs.put(envelope.body, keep=self._delay(envelope)))

    async def back(self, envelope: Envelope) -> Envelope:
        """Return an envelope with the body its reference names.

        Raises:
            BlobMissing: The body is there no more.
            StoreUnavailable: The blob store cannot be used now.
        """
        ref = reference_of(envelope)
        return envelope if ref is None else restore(envelope, await self.blobs.get(ref))

    def _delay(self, envelope: Envelope) -> float:
        """Return the seconds until a message is due."""
        eta = envelope.headers.get("eta")
        if eta is None:
            return 0.0
        return max(0.0, read_moment("eta", eta) - self._clock.now())
