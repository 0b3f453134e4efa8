"""Delays as a ladder of TTL queues: level ``k`` holds a message for ``resolution * 2**k``.

A message's routing key is its delay in binary, one word per level, then the queue it is for. It
enters at its highest set bit and hops down: where a bit is 1 it waits in that level's queue, where
it is 0 it passes by. Every message of one queue waits equally long, so none holds up another.

Levels 1 to 9 have two queues each, for even and for odd delays in ticks. A quorum queue passes its
dead letters on one by one, some 4,000 a second on 3.10.8; what was published in one burst expires
in one burst, and then each level of one queue made it 40 ms later (3,000 messages, measured).
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cached_property
from itertools import pairwise
from typing import TYPE_CHECKING, Final

from amqflow.errors import TopologyError
from amqflow.topology.model import (
    Binding,
    DeadLetter,
    DestinationKind,
    Exchange,
    Queue,
    Topology,
)
from amqflow.topology.names import MAX_NAME_BYTES, UNDELIVERED, encode_name
from amqflow.topology.units import MAX_DURATION

if TYPE_CHECKING:
    from collections.abc import Iterator

    from amqflow.topology.facts import BrokerFacts

PREFIX: Final = "amqflow.delay"
EXIT: Final = f"{PREFIX}.exit"

DEFAULT_RESOLUTION: Final = 0.1
DEFAULT_LEVELS: Final = 28

#: Levels from 1 up to here have two queues. Above (100 s and more) 40 ms of lateness are not worth
#: the queues that each first start would have to declare.
PAIRED_LEVELS: Final = 10

#: Above this, RabbitMQ 4.0 to 4.2 count a message as high priority (docs, "Quorum Queues").
NORMAL_PRIORITY: Final = 4

#: What would part or widen a word of a topic key, and the escape sign itself.
_ESCAPES: Final = {"%": "%25", ".": "%2E", "*": "%2A", "#": "%23"}
_ESCAPE_TABLE: Final = str.maketrans(_ESCAPES)

#: Part of a tick: forgives 1.1 / 0.1 = 11.000000000000002 and moves nothing anyone could measure.
_ROUNDING: Final = 1e-6


def escape(queue: str) -> str:
    """Return a queue's name as one word of a topic key."""
    return queue.translate(_ESCAPE_TABLE)


def unescape(word: str) -> str:
    """Return the queue's name that :func:`escape` made ``word`` of."""
    for sign, code in reversed(_ESCAPES.items()):
        word = word.replace(code, sign)
    return word


def undelivered(no_delivery_limit: int | None = None) -> Topology:
    """Return the end for messages nobody could take: one exchange and one queue per vhost."""
    why = "keeps what no queue could take, for people to look at"
    return Topology(
        exchanges=(Exchange(UNDELIVERED, "fanout", why=why),),
        queues=(Queue(UNDELIVERED, delivery_limit=no_delivery_limit, why=why),),
        bindings=(Binding(UNDELIVERED, UNDELIVERED, why=why),),
    )


@dataclass(frozen=True)
class Ladder:
    """The delay ladder of a vhost.

    Args:
        resolution: Seconds of one tick, the lowest level's TTL; whole milliseconds.
        levels: How many; the reach is ``resolution * (2**levels - 1)``.
        lanes: 2 where the broker lets high priorities hide expired messages of lower ones.
        no_delivery_limit: The ``x-delivery-limit`` that means none on this broker.

    Raises:
        TopologyError: The resolution is below a millisecond or not whole, or the levels leave
            no room for a queue's name in the key.
    """

    resolution: float = DEFAULT_RESOLUTION
    levels: int = DEFAULT_LEVELS
    lanes: int = 1
    no_delivery_limit: int | None = None

    def __post_init__(self) -> None:
        """Refuse what cannot be built."""
        milliseconds = self.resolution * 1000
        if milliseconds < 1 or abs(milliseconds - round(milliseconds)) > _ROUNDING:
            raise TopologyError(
                f"delays: resolution is {self.resolution} s; it takes whole milliseconds, 1 or more"
            )
        if not 1 <= self.levels <= 100:  # noqa: PLR2004 - leaves 55 bytes for the name
            raise TopologyError(f"delays: levels is {self.levels}; it takes 1 to 100")
        if (longest := self.level_ttl(self.levels - 1)) > MAX_DURATION:
            raise TopologyError(
                f"delays: the highest of {self.levels} levels would hold messages for "
                f"{_in_words(longest)}, and RabbitMQ takes 3650 d; write fewer levels or a finer "
                "resolution"
            )
        if self.lanes not in {1, 2}:
            raise TopologyError(f"delays: lanes is {self.lanes}; it takes 1 or 2")

    @classmethod
    def on(
        cls,
        facts: BrokerFacts,
        resolution: float = DEFAULT_RESOLUTION,
        levels: int = DEFAULT_LEVELS,
    ) -> Ladder:
        """Return the ladder a broker of this version needs."""
        return cls(
            resolution, levels, 2 if facts.expires_by_priority else 1, facts.no_delivery_limit
        )

    # -- the way in ------------------------------------------------------------------------

    @property
    def reach(self) -> float:
        """The longest delay of one pass, in seconds; what is longer re-enters."""
        return self.max_ticks * self.resolution

    @property
    def max_ticks(self) -> int:
        """The longest delay of one pass, in ticks."""
        return (1 << self.levels) - 1

    def ticks(self, delay: float, *, early: bool = False) -> int:
        """Return a delay (seconds) in whole ticks, never negative, within reach.

        Rounded up; down with ``early``, for a receiver that waits out the rest.
        """
        ticks = delay / self.resolution
        if ticks >= self.max_ticks:  # also infinity
            return self.max_ticks
        whole = math.floor(ticks + _ROUNDING) if early else math.ceil(ticks - _ROUNDING)
        return max(0, whole)

    def entry(
        self, queue: str, delay: float, priority: int | None = None, *, early: bool = False
    ) -> tuple[str, str]:
        """Return the exchange and routing key that bring a message to ``queue`` after ``delay``.

        A delay beyond :attr:`reach` arrives after the reach: who takes it looks at its ``eta``
        and sends it in again. No delay goes straight through the exit.

        Args:
            queue: Where it is to arrive; it needs :meth:`exit_binding`.
            delay: Seconds from now.
            priority: The message's own; chooses the lane.
            early: It may arrive up to a tick early: who takes it waits for its ``eta``.

        Raises:
            TopologyError: The queue's name does not fit into the key.
        """
        return self.entry_at(queue, self.ticks(delay, early=early), priority)

    def entry_at(self, queue: str, ticks: int, priority: int | None = None) -> tuple[str, str]:
        """Return :meth:`entry` for a delay in ticks, at most :attr:`max_ticks`."""
        key = f"{'.'.join(format(ticks, self._format))}.{self.word(queue)}"
        if ticks <= 0:
            return EXIT, key
        high = self.lanes > 1 and priority is not None and priority > NORMAL_PRIORITY
        return self._names[high][ticks.bit_length() - 1], key

    def word(self, queue: str) -> str:
        """Return the word that stands for a queue in keys and exit bindings.

        Raises:
            TopologyError: It does not fit beside the levels' words.
        """
        word = self._words.get(queue)
        if word is None:
            word = escape(queue)
            room = MAX_NAME_BYTES - 2 * self.levels
            size = len(encode_name("queue", word))
            if size > room:
                raise TopologyError(
                    f"queue {queue[:40]!r}… takes {size} bytes in the routing key of a delay, "
                    f"where {room} are left beside {self.levels} levels ('.', '*', '#' and '%' "
                    "count three); shorten its name"
                )
            # Callers name queues by messages from outside: bound what is remembered.
            if len(self._words) < 1024:  # noqa: PLR2004
                self._words[queue] = word
        return word

    # -- what it is made of ----------------------------------------------------------------

    def exit_binding(self, queue: str) -> Binding:
        """Return the binding by which messages for ``queue`` leave the ladder."""
        return Binding(
            EXIT,
            queue,
            routing_key=".".join(["*"] * self.levels + [self.word(queue)]),
            why="lets delayed messages out to their queue",
        )

    def parts(self) -> Topology:
        """Return the levels, their lanes, the exit, and the undelivered queue behind it."""
        exit_exchange = Exchange(
            EXIT,
            "topic",
            # Without it one message for an unknown queue is retried for ever, and 41 of them
            # stopped the whole ladder (tried).
            arguments={"alternate-exchange": UNDELIVERED},
            why="hands delayed messages to their queue when their time has come",
        )
        lanes = [Topology(exchanges=(exit_exchange,))]
        lanes += [self._level(*level) for names in self._names for level in _steps(names)]
        return undelivered(self.no_delivery_limit).merge(*lanes)

    def level_ttl(self, level: int) -> float:
        """Return how long a level holds a message, in seconds."""
        return round(self.resolution * 1000) * (1 << level) / 1000

    def _level(self, level: int, name: str, below: str) -> Topology:
        ttl = self.level_ttl(level)
        why = f"holds delayed messages for {_in_words(ttl)}"
        skip = Binding(
            name,
            below,
            DestinationKind.EXCHANGE,
            self._pattern(level, "0"),
            why=f"passes on what need not wait {_in_words(ttl)}",
        )
        exchange = Exchange(name, "topic", why=f"{why}, or passes them on")
        # The lowest bit parts the neighbours of a burst; the lowest level has no bit below its own.
        paired = 0 < level < PAIRED_LEVELS
        ways = [(f"{name}.{bit}", bit) for bit in "01"] if paired else [(name, None)]
        queues = tuple(
            Queue(
                queue,
                message_ttl=ttl,
                # No routing key: the message keeps its own, which is its way.
                dead_letter=DeadLetter(below, at_least_once=True),
                overflow="reject-publish",
                delivery_limit=self.no_delivery_limit,
                why=why,
            )
            for queue, _ in ways
        )
        waits = tuple(
            Binding(name, queue, routing_key=self._pattern(level, "1", bit), why=why)
            for queue, bit in ways
        )
        return Topology((exchange,), queues, (*waits, skip))

    def _pattern(self, level: int, bit: str, lowest: str | None = None) -> str:
        words = ["*"] * (self.levels + 1)
        words[self.levels - 1 - level] = bit
        if lowest is not None:
            words[self.levels - 1] = lowest
        return ".".join(words)

    @cached_property
    def _names(self) -> tuple[tuple[str, ...], ...]:
        """The levels' names from the lowest up, a row per lane."""
        lanes = (PREFIX, f"{PREFIX}.high")[: self.lanes]
        return tuple(tuple(f"{lane}.{level}" for level in range(self.levels)) for lane in lanes)

    @cached_property
    def _format(self) -> str:
        return f"0{self.levels}b"

    @cached_property
    def _words(self) -> dict[str, str]:
        return {}


def _steps(names: tuple[str, ...]) -> Iterator[tuple[int, str, str]]:
    """Yield each level of a lane from the lowest up: its number, its name, what is below it."""
    for level, (below, name) in enumerate(pairwise((EXIT, *names))):
        yield level, name, below


def _in_words(seconds: float) -> str:
    """Return a duration as people read it: ``0.1 s``, ``3.4 min``, ``155.3 d``."""
    for unit, size in (("d", 86400), ("h", 3600), ("min", 60)):
        if seconds >= size:
            return f"{seconds / size:.1f} {unit}"
    return f"{seconds:g} s"
