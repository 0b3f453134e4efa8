"""One pass over what lies in a queue now, oldest first: fetched unacked, given back in order.

AMQP has no peek. What is looked at is fetched and stays unacked until the pass ends; then each
channel closes, in the order they were opened, and the broker puts its messages back where they
were. A page is one channel's worth of messages: the next is opened when half of this one has been
used, so that what waits here is bounded in bytes, however slow the reader and however much lies
in the queue.
"""

from __future__ import annotations

import asyncio
from collections import deque
from typing import TYPE_CHECKING, Final, Generic, TypeVar

from amqflow.errors import BrokerError, BrokerUnavailable, ChannelLost
from amqflow.logs import get_logger
from amqflow.protocol import Envelope

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable
    from typing import Self

    from amqflow.transport import Consumer, Delivery, Transport

log = get_logger("amqflow.deadletters")

T = TypeVar("T")

#: Bytes of what was read that may wait for its reader.
BUDGET: Final = 16 * 2**20
#: Messages of the first page, before anything is known of their size, and of any later one.
FIRST_PAGE: Final = 64
LARGEST_PAGE: Final = 8192
_GROWTH: Final = 8

#: Seconds without a delivery after which the broker is asked whether any are left.
QUIET: Final = 0.15
#: Times it must say "none" in a row: a delivery may be on its way while it answers, and a busy
#: queue's answer may be late.
_PROOFS: Final = 4
#: Seconds the broker may count messages and hand none out.
STALL: Final = 15.0
#: Seconds in which the broker hands out the next message, or counts what it was given back where
#: others consume too.
RETURN: Final = 3.0

_NOTHING: Final = Envelope(b"")


class Held(Generic[T]):
    """One message of a pass, unacked: ``ack`` takes it out of the queue, ``keep`` leaves it."""

    __slots__ = ("_delivery", "_page", "_pass", "value")

    def __init__(self, value: T, delivery: Delivery, page: _Page, through: Pass[T]) -> None:
        """Hold ``value``, which is what was read of ``delivery``."""
        self.value = value
        self._delivery = delivery
        self._page = page
        self._pass = through

    def ack(self) -> bool:
        """Take the message out of its queue; False where the broker has it back already."""
        live = self._delivery.live
        if live:
            self._page.ack(self._delivery)
        return live

    def keep(self) -> None:
        """Leave the message in its queue: it goes back when the pass ends."""
        self._page.kept += 1
        self._pass.wake()


class _Page:
    """One channel and what came by it."""

    __slots__ = ("_waiting", "acked", "consumer", "filling", "got", "kept", "last", "prefetch")

    def __init__(self, prefetch: int) -> None:
        self.consumer: Consumer | None = None
        self.prefetch = prefetch
        self.got = self.acked = self.kept = 0
        #: Whether acks wait, so that the page fills up: see :meth:`end`.
        self.filling = False
        self._waiting: list[Delivery] = []
        #: The delivery that came last, without its message: it tells whether the channel lives.
        self.last: Delivery | None = None

    @property
    def lost(self) -> bool:
        return self.last is not None and not self.last.live

    @property
    def full(self) -> bool:
        """Whether the broker owes it no delivery: as many as it may have are unacked."""
        return self.got - self.acked >= self.prefetch

    def ack(self, delivery: Delivery) -> None:
        if self.filling:
            self._waiting.append(delivery)
        else:
            self.acked += 1
            delivery.ack()

    async def end(self) -> None:
        """Unsubscribe a full page, then ack what waited.

        What a quorum queue has sent to a consumer that unsubscribes meanwhile, it puts at its
        end (tried on 3.10.8). To a full page it sends nothing, and acks after the end ask for
        nothing more.
        """
        if self.consumer is not None:
            await self.consumer.pause()
        self.filling = False
        for delivery in self._waiting:
            self.ack(delivery)
        self._waiting.clear()


class Pass(Generic[T]):
    """An async context manager and iterator over a queue's messages.

    It ends after as many messages as were ready when it began: what dies meanwhile lies behind
    them and is left for the next pass, so a replay never chases what it has just sent.
    """

    def __init__(
        self,
        transport: Transport,
        queue: str,
        read: Callable[[Delivery], T | None],
        *,
        weigh: Callable[[T], int],
        most: int | None = None,
        largest_page: int = LARGEST_PAGE,
    ) -> None:
        """Prepare a pass; nothing is fetched before it is entered.

        Args:
            transport: The door to the broker.
            queue: Where to look.
            read: Returns what is to be kept of a message, None for one that is not meant. It
                must not keep the delivery.
            weigh: Returns the bytes of memory that what was read takes, about.
            most: Messages to look at, counted from the head; None: all that are ready.
            largest_page: Messages unacked and unused at one time.
        """
        self._transport = transport
        self._queue = queue
        self._read = read
        self._weigh = weigh
        self._most = most
        self._largest = largest_page
        self._pages: list[_Page] = []
        self._arrived: deque[Held[T]] = deque()
        self._awake = asyncio.Event()
        self._failure: Exception | None = None
        self._weight = self._weighed = 0
        self._interrupted = False
        #: Messages that were ready when the pass began, and those looked at so far.
        self.total = 0
        self.seen = 0
        #: Consumers the queue had besides: what they hold is not seen here.
        self.others = 0

    async def __aenter__(self) -> Self:
        """Count what is there.

        Raises:
            NotFound: There is no such queue.
        """
        counts = await self._transport.declare_queue(self._queue, passive=True)
        self.others = counts.consumers
        self.total = counts.messages if self._most is None else min(self._most, counts.messages)
        return self

    async def __aexit__(self, *_: object) -> None:
        """Give back what was not acked, in order, and wait until the broker counts it."""
        await self.close()

    @property
    def lost(self) -> bool:
        """Whether the broker took back what this pass held, by closing a channel."""
        return self._interrupted or any(page.lost for page in self._pages)

    @property
    def queue(self) -> str:
        """The queue looked into."""
        return self._queue

    def wake(self) -> None:
        """Look again whether there is something to do."""
        self._awake.set()

    # -- iterating -------------------------------------------------------------------------

    async def __aiter__(self) -> AsyncIterator[Held[T]]:
        """Yield each message that is meant.

        Raises:
            ChannelLost: The broker took back what was held.
            BrokerUnavailable: It hands out nothing although it counts messages.
        """
        if self.total == 0:
            return
        self._open(min(FIRST_PAGE, self._largest))
        while await self._some():
            while self._arrived:
                yield self._arrived.popleft()
                await self._turn()

    async def _some(self) -> bool:
        """Wait for a message that is meant; False when all have been looked at."""
        loop = asyncio.get_running_loop()
        proofs, since, seen = 0, loop.time(), self.seen
        while not self._arrived:
            if self._failure is not None:
                raise self._failure
            if self.lost:
                raise ChannelLost(
                    f"the broker took back what was looked at in {self._queue!r}: the connection "
                    "was lost, or messages were held longer than its consumer_timeout. They are "
                    "in the queue again; run it again"
                )
            if self.seen >= self.total:
                return False
            await self._turn()
            self._awake.clear()
            if self._arrived:
                break
            try:
                async with asyncio.timeout(QUIET):
                    await self._awake.wait()
            except TimeoutError:
                if self.seen != seen:
                    proofs, since, seen = 0, loop.time(), self.seen
                counts = await self._transport.declare_queue(self._queue, passive=True)
                proofs = proofs + 1 if counts.messages == 0 else 0
                if proofs >= _PROOFS and self.seen == seen:
                    return False
                if loop.time() - since > STALL:
                    raise BrokerUnavailable(self._stalled(counts.messages)) from None
        return True

    def _stalled(self, messages: int) -> str:
        consumer = self._pages[-1].consumer
        problem = consumer.problem if consumer is not None else None
        return (
            f"queue {self._queue!r} counts {messages} messages and handed out none for "
            f"{STALL:g} s: {problem or 'another consumer has it to itself, or it has no leader'}"
        )

    # -- pages -----------------------------------------------------------------------------

    def _open(self, prefetch: int) -> None:
        page = _Page(prefetch)
        self._pages.append(page)
        page.consumer = self._transport.consume(
            self._queue, lambda delivery: self._take(delivery, page), prefetch=prefetch
        )

    def _take(self, delivery: Delivery, page: _Page) -> None:
        """Look at one message; only what ``read`` returns of it stays in memory."""
        if page.lost:
            # The consumer came back by itself, and what was looked at comes a second time.
            self._interrupted = True
        page.got += 1
        held: Held[T] | None = None
        if self.seen < self.total and not self._interrupted and self._failure is None:
            self.seen += 1
            try:
                value = self._read(delivery)
            except Exception as error:  # noqa: BLE001 - raised where the pass is iterated
                self._failure, value = error, None
            if value is not None:
                held = Held(value, delivery, page, self)
                self._weight += self._weigh(value)
                self._weighed += 1
        delivery.envelope = _NOTHING
        page.last = delivery
        if held is None:
            page.kept += 1
        else:
            self._arrived.append(held)
        self._awake.set()

    async def _turn(self) -> None:
        """Open the next page where this one is half used up by what stays in the queue."""
        page = self._pages[-1]
        if self.seen >= self.total or page.lost:
            return
        wanted = self._wanted(page)
        outgrown = page.got >= page.prefetch and wanted >= 2 * page.prefetch
        if page.kept * 2 >= page.prefetch or outgrown:
            page.filling = True
        if page.filling and page.full:
            await page.end()
            self._open(wanted)

    def _wanted(self, page: _Page) -> int:
        if not self._weighed:
            return min(self._largest, page.prefetch * _GROWTH)
        fitting = BUDGET * self._weighed // max(1, self._weight)
        return min(self._largest, max(FIRST_PAGE, fitting), page.prefetch * _GROWTH)

    # -- ending ----------------------------------------------------------------------------

    async def close(self) -> None:
        """Close the pages in order; acks that wait go out first."""
        pages, self._pages = self._pages, []
        held = left = 0
        if pages:
            # First, or it would be handed what the pages before it give back.
            await self._filled(pages[-1])
            await pages[-1].end()
            if any(page.got > page.acked for page in pages) and not self.lost:
                left = await self._left()
        for page in pages:
            self._interrupted = self._interrupted or page.lost
            held += page.got - page.acked
            if page.consumer is not None:
                await page.consumer.close()
        self._arrived.clear()
        if held and not self._interrupted:
            await self._returned(left + held)

    async def _filled(self, page: _Page) -> None:
        """Wait until nothing is on its way to a page any more."""
        page.filling = True
        loop = asyncio.get_running_loop()
        before = page.got
        try:
            async with asyncio.timeout(RETURN) as limit:
                while not page.full and not self.lost:
                    counts = await self._transport.declare_queue(self._queue, passive=True)
                    if (got := page.got) != before:
                        # While they come they are waited for, however slow the broker is: what
                        # is on its way at the end changes its place.
                        before = got
                        limit.reschedule(loop.time() + RETURN)
                    if counts.messages == 0 and self.seen >= self.total:
                        return
                    self._awake.clear()
                    try:
                        async with asyncio.timeout(QUIET):
                            await self._awake.wait()
                    except TimeoutError:
                        if counts.messages == 0 and page.got == got:
                            return
        except (TimeoutError, BrokerError) as error:
            log.debug("messages may change places", queue=self._queue, error=repr(error))

    async def _left(self) -> int:
        """Return how many messages this pass leaves where they are, while it holds the others."""
        try:
            async with asyncio.timeout(RETURN):
                counts = await self._transport.declare_queue(self._queue, passive=True)
        except (TimeoutError, BrokerError):
            return 0
        return counts.messages

    async def _returned(self, ready: int) -> None:
        """Wait until the broker counts what it got back: a look right after this finds it.

        A quorum queue takes back what a closed channel held a moment after the close.
        """
        try:
            # Somebody else may take it; where nobody is, only a slow broker keeps us waiting.
            async with asyncio.timeout(RETURN if self.others else STALL):
                while True:
                    counts = await self._transport.declare_queue(self._queue, passive=True)
                    if counts.messages >= ready:
                        return
                    await asyncio.sleep(0.01)
        except (TimeoutError, BrokerError):
            log.debug("another consumer has taken what was given back", queue=self._queue)
