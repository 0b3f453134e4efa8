"""The desk: one object with a verb for each thing that is done with dead letters."""

from __future__ import annotations

import asyncio
from contextlib import aclosing
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, Protocol, TypeVar

from amqflow.clock import SYSTEM_CLOCK, Clock
from amqflow.deadletters.filters import Filters
from amqflow.deadletters.groups import Groups
from amqflow.deadletters.homes import Home, find_homes
from amqflow.deadletters.parked import Parked, Row, read_parked
from amqflow.deadletters.replay import Refusal, Replayer, Report, Target
from amqflow.deadletters.safety import check_look
from amqflow.deadletters.scan import LARGEST_PAGE, Pass
from amqflow.errors import NotFound
from amqflow.topology import BrokerFacts

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Callable, Mapping

    from amqflow.protocol import Envelope
    from amqflow.settings import Configuration
    from amqflow.topology import Topology
    from amqflow.transport import Delivery, Transport

T = TypeVar("T")

#: Bytes a row takes in memory, about.
ROW_WEIGHT: Final = 2048
#: Bytes a message takes beyond its body: headers, and the objects around them.
MESSAGE_WEIGHT: Final = 8192
#: Bytes of what a purge keeps of a message.
_TAG_WEIGHT: Final = 512
#: Messages a replay has under way or waiting; far more than one connection needs at full speed.
REPLAY_PAGE: Final = 2048
#: Seconds after which a slowed-down replay gives back what it holds and begins anew: the broker
#: closes channels that hold a message for longer than its consumer_timeout, 30 minutes.
ROUND: Final = 600.0

ALL: Final = Filters()


class _Runtime(Protocol):
    @property
    def transport(self) -> Transport: ...


class DeskApp(Protocol):
    """What the desk asks of an application."""

    @property
    def conf(self) -> Configuration:
        """Its settings."""
        ...

    def runtime(self) -> _Runtime:
        """Return the parts of the running loop."""
        ...

    def derived_topology(self, facts: BrokerFacts) -> Topology:
        """Return what the broker must hold."""
        ...


@dataclass(frozen=True, slots=True)
class Tally:
    """How many dead letters a queue holds, and how many of them are meant."""

    home: str
    total: int
    meant: int


class DeadLetterDesk:
    """Lists, groups, finds, replays and purges dead letters; lives in one event loop.

    Looking loses nothing and keeps the order. While a pass goes on, other consumers of the same
    queue, another desk among them, do not see what it holds; two at once do no harm.
    """

    def __init__(
        self,
        transport: Transport,
        topology: Topology,
        *,
        publish_timeout: float = 30.0,
        clock: Clock = SYSTEM_CLOCK,
        force: bool = False,
        on_others: Callable[[str, int], None] | None = None,
    ) -> None:
        """Wire the parts; nothing connects before the first verb.

        Args:
            transport: The door to the broker.
            topology: Says where dead letters lie.
            publish_timeout: Seconds a replayed message's confirm may take.
            clock: Where time comes from.
            force: Look into queues that count returns, too.
            on_others: Told of a queue that has other consumers, and how many.
        """
        self._transport = transport
        self._topology = topology
        self._publish_timeout = publish_timeout
        self._clock = clock
        self._force = force
        self._on_others = on_others
        self._checked: set[str] = set()

    @classmethod
    async def of(
        cls,
        app: DeskApp,
        *,
        force: bool = False,
        on_others: Callable[[str, int], None] | None = None,
    ) -> DeadLetterDesk:
        """Return the desk of an application, on the running loop's connections."""
        transport = app.runtime().transport
        server = await transport.server()
        return cls(
            transport,
            app.derived_topology(BrokerFacts(server.version)),
            publish_timeout=app.conf.settings.publish_timeout,
            force=force,
            on_others=on_others,
        )

    # -- looking ---------------------------------------------------------------------------

    async def homes(self, filters: Filters = ALL) -> list[Home]:
        """Return the dead-letter queues that exist and may be looked into.

        Raises:
            NotFound: One that was asked for by name does not exist.
            UnsafeLook: Looking into one would count against its messages.
        """
        server = await self._transport.server()
        found = []
        for home in find_homes(self._topology, filters):
            if home.name not in self._checked:
                try:
                    await check_look(self._transport, home, server.version, force=self._force)
                except NotFound:
                    if home.named:
                        raise
                    continue  # no worker has consumed its queue yet, so nothing has died there
                self._checked.add(home.name)
            found.append(home)
        return found

    async def rows(
        self, filters: Filters = ALL, *, limit: int | None = None
    ) -> AsyncGenerator[Row, None]:
        """Yield dead letters summed up, queue by queue, oldest first, in flat memory.

        Args:
            filters: Which are meant.
            limit: End after so many.
        """

        def read(delivery: Delivery, home: Home) -> Row | None:
            row = _parked(delivery, home).row
            return row if filters.match(row) else None

        async with aclosing(self._look(filters, read, lambda _: ROW_WEIGHT, limit)) as found:
            async for row in found:
                yield row

    async def letters(
        self, filters: Filters = ALL, *, limit: int | None = None
    ) -> AsyncGenerator[Parked, None]:
        """Yield dead letters whole, as :meth:`rows` does."""

        def read(delivery: Delivery, home: Home) -> Parked | None:
            parked = _parked(delivery, home)
            return parked if filters.match(parked.row) else None

        async with aclosing(self._look(filters, read, _weight, limit)) as found:
            async for parked in found:
                yield parked

    async def _look(
        self,
        filters: Filters,
        read: Callable[[Delivery, Home], T | None],
        weigh: Callable[[T], int],
        limit: int | None,
    ) -> AsyncGenerator[T, None]:
        left = limit
        for home in await self.homes(filters):
            if left is not None and left <= 0:
                return
            async with self._pass(home, read, weigh) as through:
                self._note_others(through)
                async for held in through:
                    # Once yielded, it only waits to be given back.
                    held.keep()
                    yield held.value
                    if left is not None:
                        left -= 1
                        if left <= 0:
                            break

    def _pass(
        self,
        home: Home,
        read: Callable[[Delivery, Home], T | None],
        weigh: Callable[[T], int],
        *,
        most: int | None = None,
        largest_page: int = LARGEST_PAGE,
    ) -> Pass[T]:
        return Pass(
            self._transport,
            home.name,
            lambda delivery: read(delivery, home),
            weigh=weigh,
            most=most,
            largest_page=largest_page,
        )

    def _note_others(self, through: Pass[T]) -> None:
        if through.others and self._on_others is not None:
            self._on_others(through.queue, through.others)

    async def find(self, letter_id: str, filters: Filters = ALL) -> Parked | None:
        """Return the oldest dead letter of an id; None where there is none."""
        wanted = Filters(queues=filters.queues, homes=filters.homes, ids=(letter_id,))
        async with aclosing(self.letters(wanted, limit=1)) as found:
            async for parked in found:
                return parked
        return None

    async def groups(self, filters: Filters = ALL, *, most: int | None = None) -> Groups:
        """Return dead letters counted by fingerprint.

        Args:
            filters: Which are meant.
            most: Groups told apart; the rest is one number.
        """
        groups = Groups() if most is None else Groups(most)
        async with aclosing(self.rows(filters)) as rows:
            async for row in rows:
                groups.add(row)
        return groups

    async def tally(self, filters: Filters = ALL) -> list[Tally]:
        """Count what filters mean, per queue; unfiltered queues are not looked into."""
        found = []
        for home in await self.homes(filters):
            counts = await self._transport.declare_queue(home.name, passive=True)
            meant = counts.messages
            if not filters.everything:

                def read(delivery: Delivery, home: Home) -> bool | None:
                    return filters.match(_parked(delivery, home).row) or None

                through = self._pass(home, read, lambda _: _TAG_WEIGHT)
                meant = 0
                async with through:
                    async for held in through:
                        held.keep()
                        meant += 1
                found.append(Tally(home.name, through.total, meant))
                continue
            found.append(Tally(home.name, counts.messages, meant))
        return found

    # -- acting ----------------------------------------------------------------------------

    async def replay(
        self,
        filters: Filters = ALL,
        *,
        to: Target | None = None,
        rate: float | None = None,
        limit: int | None = None,
        rewrite: Callable[[Parked], Envelope | None] | None = None,
        on_done: Callable[[], None] = lambda: None,
        on_refused: Callable[[Refusal], None] = lambda _: None,
    ) -> Report:
        """Publish dead letters again in their next epoch, and ack each after its confirm.

        What no queue takes stays and is reported. A kill at any instant loses nothing: at most
        a message is there twice, with the same id and epoch.

        Args:
            filters: Which are meant.
            to: Where to; None: the queue each came from.
            rate: At most so many a second.
            limit: At most so many.
            rewrite: Returns what is sent in a dead letter's place; None: leave it.
            on_done: Called for each message replayed.
            on_refused: Called for each that stays.
        """
        server = await self._transport.server()
        rewritten: dict[int, Envelope] = {}

        def read(delivery: Delivery, home: Home) -> Parked | None:
            parked = _parked(delivery, home)
            if not filters.match(parked.row):
                return None
            if rewrite is not None:
                envelope = rewrite(parked)
                if envelope is None:
                    return None
                rewritten[id(parked)] = envelope
            return parked

        replayer = Replayer(
            self._transport,
            timeout=self._publish_timeout,
            frame_max=server.frame_max,
            now=self._clock.now,
            to=to,
            rewrite=None if rewrite is None else (lambda parked: rewritten.pop(id(parked))),
            on_done=on_done,
            on_refused=on_refused,
        )
        pace = _Pace(rate)
        started = 0
        for home in await self.homes(filters):
            again = True
            while again and (limit is None or started < limit):
                left = None if limit is None else limit - started
                count, again = await self._round(home, read, replayer, pace, left)
                started += count
        return replayer.report

    async def _round(
        self,
        home: Home,
        read: Callable[[Delivery, Home], Parked | None],
        replayer: Replayer,
        pace: _Pace,
        limit: int | None,
    ) -> tuple[int, bool]:
        """Replay what lies in a queue; returns how many, and whether there is more to do."""
        loop = asyncio.get_running_loop()
        page = REPLAY_PAGE if pace.rate is None else max(1, min(REPLAY_PAGE, int(pace.rate * 30)))
        through = self._pass(home, read, _weight, largest_page=page)
        until = loop.time() + ROUND
        started, more = 0, False
        async with through:
            try:
                async for held in through:
                    if replayer.known(held.value):
                        held.keep()
                        continue
                    await pace.next()
                    replayer.start(held)
                    started += 1
                    if limit is not None and started >= limit:
                        break
                    if pace.rate is not None and loop.time() >= until:
                        more = True
                        break
            finally:
                await replayer.finish()
                replayer.report.uncertain |= through.lost and replayer.report.done > 0
        return started, more

    async def purge(
        self,
        filters: Filters = ALL,
        *,
        within: Mapping[str, int] | None = None,
        on_done: Callable[[], None] = lambda: None,
    ) -> Report:
        """Delete dead letters for good.

        Args:
            filters: Which are meant.
            within: Queue → how many messages from its head to look at, as a tally before has
                counted them: what died since is spared.
            on_done: Called for each message deleted.
        """
        report = Report()

        def read(delivery: Delivery, home: Home) -> bool | None:
            return filters.match(_parked(delivery, home).row) or None

        for home in await self.homes(filters):
            most = None if within is None else within.get(home.name, 0)
            through = self._pass(home, read, lambda _: _TAG_WEIGHT, most=most)
            async with through:
                async for held in through:
                    if held.ack():
                        report.done += 1
                        on_done()
                report.uncertain |= through.lost
        return report


class _Pace:
    """Lets so many pass in a second, evenly."""

    def __init__(self, rate: float | None) -> None:
        """Hold nobody up where ``rate`` is None."""
        self.rate = rate
        self._next = 0.0

    async def next(self) -> None:
        """Wait for one's turn."""
        if self.rate is None:
            return
        loop = asyncio.get_running_loop()
        now = loop.time()
        # A tenth of a second may be made up for; a pause is no credit.
        self._next = max(self._next, now - 0.1) + 1 / self.rate
        if self._next > now:
            await asyncio.sleep(self._next - now)


def _parked(delivery: Delivery, home: Home) -> Parked:
    return read_parked(
        delivery.envelope, home.name, exchange=delivery.exchange, routing_key=delivery.routing_key
    )


def _weight(parked: Parked) -> int:
    return len(parked.envelope.body) + MESSAGE_WEIGHT
