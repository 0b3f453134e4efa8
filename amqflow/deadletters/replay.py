"""Dead letters run again: a confirmed republish in the next epoch, and only then the ack."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final

from amqflow.deadletters.parked import epoch_of
from amqflow.errors import AmqflowError, Undecodable, Unroutable
from amqflow.protocol import Envelope, fit_headers, frame_room, new_id, replayable, republished
from amqflow.protocol import headers as h
from amqflow.protocol.fields import read_moment

if TYPE_CHECKING:
    from collections.abc import Callable

    from amqflow.deadletters.parked import Parked
    from amqflow.deadletters.scan import Held
    from amqflow.transport import Transport

#: Refusals a report keeps; a callback is told of all.
KEPT_REFUSALS: Final = 100
#: What belongs to the attempt that failed, not to the task.
_OF_THE_ATTEMPT: Final = ("retries", "eta")


@dataclass(frozen=True, slots=True)
class Target:
    """Where replayed messages go; a queue by name is ``Target("", queue)``."""

    exchange: str
    routing_key: str

    def __str__(self) -> str:
        """Say where, for people."""
        if not self.exchange:
            return f"queue {self.routing_key!r}"
        return f"exchange {self.exchange!r} with key {self.routing_key!r}"


@dataclass(frozen=True, slots=True)
class Refusal:
    """A dead letter that stays where it is, and why."""

    id: str
    home: str
    target: Target | None
    error: str


@dataclass(slots=True)
class Report:
    """What a replay or purge did. ``done`` were replayed (or purged), ``refused`` stay.

    ``came_back`` were replayed by this very run, failed again, and are left alone. ``uncertain``:
    the connection was lost while acks were under way, so some of ``done`` may lie there still.
    """

    done: int = 0
    refused: int = 0
    came_back: int = 0
    uncertain: bool = False
    refusals: list[Refusal] = field(default_factory=list)

    def refuse(self, refusal: Refusal) -> None:
        """Note a refusal."""
        self.refused += 1
        if len(self.refusals) < KEPT_REFUSALS:
            self.refusals.append(refusal)


# -- what is published ---------------------------------------------------------------------


def target_of(parked: Parked) -> Target | None:
    """Return the queue a dead letter came from; None where nothing tells."""
    queue = parked.letter.queue
    return None if not queue else Target("", queue)


def replayed(parked: Parked, *, now: float, rerouted: bool = False) -> Envelope:
    """Return the message as it runs again: next epoch, first attempt, no trace of its death.

    An ``expires`` that has passed goes too: who replays an expired task wants it run. A message
    without an id gets one, as returns are matched by it.

    Args:
        parked: The dead letter; left as it is.
        now: Unix seconds.
        rerouted: It goes by a new route, so the old one is nobody's any more.
    """
    letter, old = parked.letter, parked.envelope
    headers = replayable(old.headers)
    for name in _OF_THE_ATTEMPT:
        headers.pop(name, None)
    if _passed(headers.get("expires"), now):
        del headers["expires"]
    headers.pop(h.QUEUE, None)
    if rerouted:
        headers.pop(h.EXCHANGE, None)
        headers.pop(h.ROUTING_KEY, None)
    elif letter.exchange is not None and letter.routing_key is not None:
        headers[h.EXCHANGE], headers[h.ROUTING_KEY] = letter.exchange, letter.routing_key
    headers[h.EPOCH] = epoch_of(old) + 1
    envelope = republished(old)
    envelope.headers = headers
    if not envelope.message_id:
        envelope.message_id = new_id()
    return envelope


def fitted(envelope: Envelope, frame_max: int) -> Envelope:
    """Cut what only people read until the headers fit the connection's frames."""
    texts = (envelope.message_id, envelope.correlation_id, envelope.reply_to)
    room = frame_room(frame_max, properties=sum(len(text or "") for text in texts))
    envelope.headers = fit_headers(envelope.headers, room)
    return envelope


def _passed(expires: Any, now: float) -> bool:
    if expires is None:
        return False
    try:
        moment = read_moment("expires", expires)
    except Undecodable:
        return False
    return moment <= now


# -- sending -------------------------------------------------------------------------------


class Replayer:
    """Sends one run's messages, pipelined, and remembers what it has sent."""

    def __init__(
        self,
        transport: Transport,
        *,
        timeout: float,
        frame_max: int,
        now: Callable[[], float],
        to: Target | None,
        rewrite: Callable[[Parked], Envelope] | None = None,
        on_done: Callable[[], None],
        on_refused: Callable[[Refusal], None],
    ) -> None:
        """Prepare a run.

        Args:
            transport: The door to the broker.
            timeout: Seconds a confirm may take.
            frame_max: The connection's, in bytes.
            now: Returns Unix seconds.
            to: Where to; None: the queue each message came from.
            rewrite: Returns what is sent in a dead letter's place.
            on_done: Called for each message that was replayed.
            on_refused: Called for each that stays.
        """
        self.report = Report()
        self._transport = transport
        self._timeout = timeout
        self._frame_max = frame_max
        self._now = now
        self._to = to
        self._rewrite = rewrite
        self._on_done = on_done
        self._on_refused = on_refused
        self._under_way: set[asyncio.Task[None]] = set()
        #: (id, epoch) of what was sent, and of what was refused: a second round leaves both alone.
        self._sent: set[tuple[str, int]] = set()
        self._refused: set[tuple[str, int]] = set()
        #: Targets no queue was behind: one return tells as much as ten thousand.
        self._nowhere: dict[Target, str] = {}

    def known(self, parked: Parked) -> bool:
        """Whether this run has sent this very life of the task, or refused to."""
        life = (parked.id, parked.epoch)
        if life in self._sent:
            self.report.came_back += 1
            return True
        return life in self._refused

    def start(self, held: Held[Parked]) -> None:
        """Send one message; the ack follows its confirm."""
        task = asyncio.get_running_loop().create_task(self._send(held))
        self._under_way.add(task)
        task.add_done_callback(self._under_way.discard)

    async def finish(self) -> None:
        """Wait for the confirms that are out."""
        while self._under_way:
            await asyncio.wait(self._under_way)

    async def _send(self, held: Held[Parked]) -> None:
        parked = held.value
        target = self._to or target_of(parked)
        if target is None:
            return self._refuse(held, None, "nothing tells which queue it came from: name one")
        if (reason := self._nowhere.get(target)) is not None:
            return self._refuse(held, target, reason)
        if self._rewrite is None:
            envelope = replayed(parked, now=self._now(), rerouted=self._to is not None)
        else:
            envelope = self._rewrite(parked)
        life = (parked.id, epoch_of(envelope))
        self._sent.add(life)
        try:
            await self._transport.publish(
                fitted(envelope, self._frame_max),
                target.exchange,
                target.routing_key,
                timeout=self._timeout,
            )
        except AmqflowError as error:  # of the broker, or a header that cannot be sent again
            self._sent.discard(life)
            if isinstance(error, Unroutable):
                self._nowhere[target] = str(error)
            return self._refuse(held, target, str(error))
        # Confirmed: from here on it exists twice until the broker has the ack.
        if not held.ack():
            self.report.uncertain = True
        self.report.done += 1
        self._on_done()
        return None

    def _refuse(self, held: Held[Parked], target: Target | None, reason: str) -> None:
        parked = held.value
        self._refused.add((parked.id, parked.epoch))
        held.keep()
        refusal = Refusal(parked.id, parked.home, target, reason)
        self.report.refuse(refusal)
        self._on_refused(refusal)
