"""Carries launches out: a record, its watch confirmed on the ladder, and only then its members."""

from __future__ import annotations

import asyncio
import contextlib
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Final

from amqflow.abc import Finish
from amqflow.errors import AmqflowError, PublishGroupError
from amqflow.producer import Outgoing, to_queue
from amqflow.protocol import headers as h
from amqflow.workflow.conclude import own_failure
from amqflow.workflow.records import ADDED, Ending, Membership, Seal
from amqflow.workflow.stores import no_chords
from amqflow.workflow.wire import Completions, Watch
from amqflow.workflow.written import check_written

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from amqflow.abc import Call, Outcome, ResultStore, Sent
    from amqflow.producer import Producer
    from amqflow.topology import AppNames
    from amqflow.workflow.records import Record
    from amqflow.workflow.stores import ChordStore
    from amqflow.workflow.unfold import Launch

#: Watch messages under way at a time.
_WATCHES: Final = 200
#: The index under which the failure of drawing members is counted; none of them has it.
UNDRAWN: Final = ADDED - 1


@dataclass(frozen=True, slots=True)
class Launcher:
    """What it takes to start compositions from this process: in a caller, and in a worker."""

    producer: Producer
    chords: ChordStore | None
    results: ResultStore | None
    names: AppNames
    #: The result backend's URL, for the error that says why it keeps no chords.
    backend: str | None
    #: Seconds from a chord's start until the watch looks at it.
    deadline: float

    def store(self) -> ChordStore:
        """Return the store of chords.

        Raises:
            ConfigurationError: The backend keeps none.
        """
        if self.chords is None:
            raise no_chords(self.backend, "a chord")
        return self.chords

    async def prepare(self, launch: Launch) -> None:
        """Do what must stand before anything of a launch is published.

        Raises:
            StoreUnavailable: Hold, and call again: everything here may be done twice.
            BrokerError: The watch was not confirmed.
        """
        if launch.outcomes:
            await self.conclude(launch.outcomes)
        if launch.records:
            await self.store().create(launch.records)
            for start in range(0, len(launch.records), _WATCHES):
                some = launch.records[start : start + _WATCHES]
                await asyncio.gather(*(self.watch(Watch.over(record)) for record in some))

    async def conclude(self, outcomes: Sequence[Outcome]) -> None:
        """Write outcomes of ids that end without a run; what ended before stands."""
        if self.results is not None and self.results.capabilities.fences:
            await self.results.finish([Finish(outcome, 0) for outcome in outcomes])

    async def watch(self, watch: Watch) -> None:
        """Confirm a watch on the ladder; it arrives at the deadline."""
        ladder = await self.producer.ladder()
        letter = to_queue(
            watch.to_envelope(), self.names.completions, delay=self.deadline, ladder=ladder
        )
        await self.producer.publish(letter)

    def completions(self, member: Membership, endings: Sequence[Ending]) -> Outgoing:
        """Return the message that carries endings to the coordinators of their chord's app."""
        names = type(self.names)(member.app)
        message = Completions(member.chord, member.app, member.store, endings)
        return Outgoing(message.to_envelope(), names.results, names.completions_key)

    # -- from a caller -------------------------------------------------------------------------

    async def send(self, launches: Iterable[Launch]) -> list[Sent]:
        """Carry launches out one after the other, each as it is built.

        A caller may die at any moment, and nobody would send the rest: its chords are sealed when
        their members are confirmed, and an unsealed one fails at its deadline. Where sending
        fails, the chords begun fail at once.

        Raises:
            EncodeError: An argument cannot be written; nothing of the launch it is in was sent.
            PublishGroupError: Some members were refused.
            Exception: Whatever a generator of members raised.
        """
        begun: list[Record] = []
        sent: list[Sent] = []
        calls: list[Call] = []
        try:
            for launch in launches:
                if not self.producer.rewrites:
                    check_written(launch, len(sent))
                seals = [
                    Seal(record.id, record.size)
                    for record in launch.records
                    if record.size is not None
                ]
                launch.records = [replace(record, size=None) for record in launch.records]
                begun += launch.records
                calls = launch.calls
                await self.prepare(launch)
                if calls:
                    sent += await self.producer.send_many(calls)
                for completion in launch.completions:
                    await self._complete(completion.member, completion.ending)
                await self._seal([*seals, launch.seal] if launch.seal else seals)
        except BaseException as error:
            await self._abandon(begun, error, calls)
            raise
        return sent

    async def _seal(self, seals: Sequence[Seal]) -> None:
        if not seals:
            return
        store = self.store()
        for seal, complete in zip(seals, await store.seal(seals), strict=True):
            if complete:
                # Its last member ended before its size was known: have somebody look.
                await self._complete(Membership(seal.chord, 0, self.names.app, store.kind))

    async def _complete(self, member: Membership, *endings: Ending) -> None:
        await self.producer.publish(self.completions(member, endings))

    async def _abandon(
        self, begun: Sequence[Record], error: BaseException, calls: Sequence[Call]
    ) -> None:
        """Fail what was begun and will not be completed, first for the members that were refused.

        Where this cannot be said either, the watch says it at the deadline.
        """
        if not begun or self.chords is None:
            return
        failed: list[Membership] = []
        if isinstance(error, PublishGroupError):
            refused = (
                Membership.of((call.headers or {}).get(h.CHORD))
                for call, answer in zip(calls, error.errors, strict=True)
                if answer is not None
            )
            failed += [member for member in refused if member is not None]
        # None of them was sealed: each would wait for its deadline, whoever else fails.
        failed += [
            Membership(record.id, UNDRAWN, self.names.app, self.chords.kind) for record in begun
        ]
        for member in failed:
            cause = own_failure(member.chord, "PublishError", f"it could not be sent: {error}")
            ending = Ending(member.index, succeeded=False, value=cause.to_json())
            with contextlib.suppress(AmqflowError):
                await self._complete(member, ending)
