"""Chords of ``embedded://``: the memory of the process that serves it, for all that join.

The rules are those of :mod:`.memory`; only the wire is here. Bodies and endings are JSON already
and travel as text.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from amqflow.stores.embedded import EmbeddedClient
from amqflow.workflow.records import (
    Counted,
    Counting,
    Ending,
    Known,
    Record,
    Seal,
    Spec,
    State,
    Verdict,
)
from amqflow.workflow.stores.memory import Chords, MemoryChords
from amqflow.workflow.stores.open import Lifetimes

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Sequence

    from amqflow.stores.server import Method

_PREFIX: Final = "chords."


class EmbeddedChords:
    """A :class:`~amqflow.workflow.stores.seam.ChordStore` in the process that serves a name."""

    def __init__(self, name: str, lifetimes: Lifetimes) -> None:
        """Keep the name; :meth:`open` connects."""
        self._client = EmbeddedClient(name)
        self._lifetimes = [lifetimes.record, lifetimes.tombstone, lifetimes.lease]

    @property
    def kind(self) -> str:
        """The kind members name."""
        return "embedded"

    async def open(self) -> None:
        """Connect, or raise StoreUnavailable."""
        await self._client.open()

    async def close(self) -> None:
        """Disconnect."""
        await self._client.close()

    async def create(self, records: Sequence[Record]) -> list[State]:
        """Write records that are not there."""
        packed = [[record.id, record.size, _packed_spec(record.spec)] for record in records]
        return [State(state) for state in await self._call("create", packed)]

    async def seal(self, seals: Sequence[Seal]) -> list[bool]:
        """Tell the sizes of chords."""
        packed = [[seal.chord, seal.size, _packed_spec(seal.spec)] for seal in seals]
        return list(await self._call("seal", packed))

    async def extend(self, chord: str, task_id: str) -> int | None:
        """Add a member."""
        index: int | None = await self._call("extend", chord, task_id)
        return index

    async def count(self, batch: Sequence[Counting]) -> list[Counted]:
        """Add endings to chords."""
        packed = [[one.chord, [_packed_ending(each) for each in one.endings]] for one in batch]
        answers = await self._call("count", packed)
        return [Counted(Verdict(verdict), fence) for verdict, fence in answers]

    async def load(self, chord: str, *, endings: bool) -> Known | None:
        """Return what is known of a chord."""
        return _known(await self._call("load", chord, endings))

    async def end(self, chord: str, fence: int, state: State, spec: Spec) -> bool:
        """Write that a chord has fired or failed."""
        return bool(await self._call("end", chord, fence, state, _packed_spec(spec)))

    async def prolong(self, chords: Sequence[str]) -> None:
        """Keep records for another deadline."""
        await self._call("prolong", list(chords))

    async def kept(self, limit: int, *, fired: bool = True) -> list[Known]:
        """Return chords that are kept."""
        found = [_known(packed) for packed in await self._call("kept", limit, fired)]
        return [known for known in found if known is not None]

    async def _call(self, method: str, *arguments: Any) -> Any:
        """Call a method; lifetimes are the caller's, the store serves many applications."""
        return await self._client.call(_PREFIX + method, [self._lifetimes, *arguments])


def methods(chords: Chords) -> dict[str, Method]:
    """Return the other end: what a :class:`~amqflow.stores.server.StoreServer` does for clients.

    Args:
        chords: Where the records are kept.
    """

    def with_store(answer: Callable[..., Awaitable[Any]]) -> Method:
        def method(payload: Any) -> Awaitable[Any]:
            lifetimes, *arguments = payload
            return answer(MemoryChords(Lifetimes(*lifetimes), chords), *arguments)

        return method

    answers: dict[str, Callable[..., Awaitable[Any]]] = {
        "create": _create,
        "seal": _seal,
        "extend": _extend,
        "count": _count,
        "load": _load,
        "end": _end,
        "prolong": _prolong,
        "kept": _kept,
    }
    return {_PREFIX + name: with_store(answer) for name, answer in answers.items()}


async def _create(store: MemoryChords, packed: Any) -> Any:
    return await store.create(
        [Record(chord, size, Spec.from_json(spec.encode())) for chord, size, spec in packed]
    )


async def _seal(store: MemoryChords, packed: Any) -> Any:
    return await store.seal([Seal(chord, size, _spec(spec)) for chord, size, spec in packed])


async def _extend(store: MemoryChords, chord: str, task_id: str) -> Any:
    return await store.extend(chord, task_id)


async def _count(store: MemoryChords, packed: Any) -> Any:
    batch = [Counting(chord, [_ending(*each) for each in endings]) for chord, endings in packed]
    return [[counted.verdict, counted.fence] for counted in await store.count(batch)]


async def _load(store: MemoryChords, chord: str, endings: Any) -> Any:
    return _packed_known(await store.load(chord, endings=bool(endings)))


async def _end(store: MemoryChords, chord: str, fence: int, state: str, spec: str) -> Any:
    return await store.end(chord, fence, State(state), Spec.from_json(spec.encode()))


async def _prolong(store: MemoryChords, names: Any) -> Any:
    await store.prolong(names)


async def _kept(store: MemoryChords, limit: int, fired: Any) -> Any:
    return [_packed_known(known) for known in await store.kept(limit, fired=bool(fired))]


def _packed_spec(spec: Spec | None) -> str | None:
    return None if spec is None else spec.to_json().decode()


def _spec(packed: str | None) -> Spec | None:
    return None if packed is None else Spec.from_json(packed.encode())


def _packed_ending(ending: Ending) -> tuple[int, str]:
    return ending.index, ending.to_bytes().decode()


def _ending(index: int, packed: str) -> Ending:
    return Ending.from_bytes(index, packed.encode())


def _packed_known(known: Known | None) -> dict[str, Any] | None:
    if known is None:
        return None
    return {
        "id": known.id,
        "state": known.state,
        "spec": _packed_spec(known.spec),
        "size": known.size,
        "ended": known.ended,
        "failed": known.failed,
        "epoch": known.epoch,
        "created": known.created,
        "why": known.why,
        "added": list(known.added.items()),
        "endings": [_packed_ending(ending) for ending in known.endings.values()],
    }


def _known(packed: dict[str, Any] | None) -> Known | None:
    if packed is None:
        return None
    endings = [_ending(*each) for each in packed.pop("endings")]
    return Known(
        **{
            **packed,
            "state": State(packed["state"]),
            "spec": _spec(packed["spec"]),
            "added": dict(packed["added"]),
            "endings": {ending.index: ending for ending in endings},
        }
    )
