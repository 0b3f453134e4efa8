"""The seam to where chords are kept: one Protocol, its implementations beside it.

``tests/workflow/test_stores.py`` holds every implementation to one conformance suite.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from collections.abc import Sequence

    from amqflow.workflow.records import Counted, Counting, Known, Record, Seal, Spec, State


class ChordStore(Protocol):
    """Keeps the records of chords: a set of member indices with their endings, never a count.

    Every call may be made twice: a lost answer costs a fence number, never an ending. One
    instance lives in one event loop.

    Raises:
        StoreUnavailable: the store cannot be used now: hold, and try again.
    """

    @property
    def kind(self) -> str:
        """What members name in their header: completions are counted in a store of this kind."""
        ...

    async def open(self) -> None:
        """Connect, or raise StoreUnavailable."""
        ...

    async def close(self) -> None:
        """Release connections."""
        ...

    async def create(self, records: Sequence[Record]) -> list[State]:
        """Write records that are not there, in one round trip; return the state of each.

        One that is there stays, unless it belongs to an earlier epoch.
        """
        ...

    async def seal(self, seals: Sequence[Seal]) -> list[bool]:
        """Tell the sizes of chords created without; True where one is complete already.

        Nobody may come to count a member of it any more: whoever seals has somebody look.
        """
        ...

    async def extend(self, chord: str, task_id: str) -> int | None:
        """Add a member to a chord that is open and return its index; None where it is not.

        The same id gets the same index again.
        """
        ...

    async def count(self, batch: Sequence[Counting]) -> list[Counted]:
        """Add endings to chords, each chord in one atomic step, all in one round trip.

        Ready and failed are answered until :meth:`end` was called, to one asker at a time: who
        gets the fence holds a lease.
        """
        ...

    async def load(self, chord: str, *, endings: bool) -> Known | None:
        """Return what is known of a chord, with or without its members' endings."""
        ...

    async def end(self, chord: str, fence: int, state: State, spec: Spec) -> bool:
        """Write under a fence that a chord has fired or failed; False where it is another's.

        A fired chord leaves a tombstone with ``spec``, for people; a failed one stays whole, for
        a replay to go on from.
        """
        ...

    async def prolong(self, chords: Sequence[str]) -> None:
        """Keep records for another deadline."""
        ...

    async def kept(self, limit: int, *, fired: bool = True) -> list[Known]:
        """Return chords that are kept, the newest first, without endings, at most ``limit``.

        ``fired=False`` leaves out those that have fired; it costs only what it returns.
        """
        ...
