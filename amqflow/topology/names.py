"""The names amqflow gives to what it derives, and the rules every AMQP name must keep."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from amqflow.errors import TopologyError

#: AMQP's short string: one length byte (AMQP 0-9-1, section 4.2.5.3).
MAX_NAME_BYTES: Final = 255

#: Where messages nobody could take end: one exchange and one queue of this name per vhost.
UNDELIVERED: Final = "amqflow.undelivered"

#: What names of amqflow's own parts start with.
OWN_PREFIX: Final = "amqflow."

#: What the names of a queue's replacement under way start with (``provision.migrate``).
MOVING: Final = "amqflow.moving."

#: The exchanges every vhost has, and their types (AMQP 0-9-1, section 3.1.3; ``amq.match`` is
#: the older name of ``amq.headers``).
BUILT_IN_EXCHANGES: Final = {
    "amq.direct": "direct",
    "amq.fanout": "fanout",
    "amq.headers": "headers",
    "amq.match": "headers",
    "amq.topic": "topic",
}

DEAD_SUFFIX: Final = ".dead"
SUSPECT_SUFFIX: Final = ".suspect"


def check_name(kind: str, name: str) -> str:
    """Return the name of an exchange or queue, or say why a broker would refuse it.

    Args:
        kind: ``"exchange"`` or ``"queue"``, for the message.
        name: At most 255 bytes of UTF-8, not starting with ``amq.``, which AMQP 0-9-1 keeps for
            the server (section 3.1.3.1; RabbitMQ answers 403).

    Raises:
        TopologyError: The name breaks a rule.
    """
    if not name:
        raise TopologyError(
            f"{kind} without a name: give it one (the empty name is the broker's own)"
        )
    size = len(encode_name(kind, name))
    if size > MAX_NAME_BYTES:
        raise TopologyError(
            f"{kind} {name[:40]!r}… has a name of {size} bytes; AMQP allows {MAX_NAME_BYTES}"
        )
    if name.startswith("amq."):
        raise TopologyError(
            f"{kind} {name!r}: names starting with 'amq.' belong to the broker; choose another"
        )
    if "\0" in name or "\n" in name or "\r" in name:
        raise TopologyError(f"{kind} {name!r} has a line break or NUL in its name; remove it")
    return name


def encode_name(kind: str, name: str) -> bytes:
    """Return a name as the bytes that travel, or say that it is no Unicode text.

    Raises:
        TopologyError: The name holds lone surrogates, which UTF-8 cannot write.
    """
    try:
        return name.encode()
    except UnicodeEncodeError as error:
        raise TopologyError(
            f"{kind} {name!r} cannot be written as UTF-8: {error.reason}"
        ) from error


def dead_queue(queue: str) -> str:
    """Return the dead-letter home of a queue."""
    return queue + DEAD_SUFFIX


def suspect_queue(queue: str) -> str:
    """Return the queue where a queue's suspects are tried one at a time (design 5.6)."""
    return queue + SUSPECT_SUFFIX


#: Characters that tell one run of a mover from another.
RUN_TOKEN: Final = 8


@dataclass(frozen=True, slots=True)
class MovingNames:
    """The names of what stands on the broker while one queue is replaced by another of its name.

    The last part is after a slash; a queue's own name may hold any sign.
    """

    queue: str

    @property
    def mark(self) -> str:
        """An exchange whose being there tells publishers to take :attr:`entry`."""
        return f"{MOVING}{self.queue}/mark"

    @property
    def entry(self) -> str:
        """The exchange that takes messages for the queue to where they are kept or wanted."""
        return f"{MOVING}{self.queue}/in"

    @property
    def hold(self) -> str:
        """The queue that keeps messages meanwhile, and the exchange that leads to it alone."""
        return f"{MOVING}{self.queue}/hold"

    @property
    def longest(self) -> str:
        """The longest of these names."""
        return max(self.mark, self.hold, self.run("back", "0" * RUN_TOKEN), key=len)

    def receipts(self, way: str) -> str:
        """Return the queue of receipts of moving ``out`` or ``back``."""
        return f"{MOVING}{self.queue}/{way}"

    @property
    def void(self) -> str:
        """The queue that names the copies whose originals were never taken out."""
        return f"{MOVING}{self.queue}/void"

    @property
    def lock(self) -> str:
        """The queue whose one consumer is the migration under way."""
        return f"{MOVING}{self.queue}/lock"

    def run(self, way: str, token: str) -> str:
        """Return an exchange that one run of the mover publishes to."""
        return f"{self.receipts(way)}/{token}"

    def is_run(self, way: str, name: str) -> bool:
        """Whether a name is of :meth:`run`; those of a queue ``QUEUE/out`` look much like it."""
        token = name.removeprefix(self.run(way, ""))
        return token != name and len(token) == RUN_TOKEN and "/" not in token


@dataclass(frozen=True, slots=True)
class AppNames:
    """The names of what belongs to one application on its vhost."""

    app: str

    def __post_init__(self) -> None:
        """Refuse an application name no exchange could carry."""
        if not self.app:
            raise TopologyError("an application needs a name: its exchanges carry it")
        check_name("exchange", self.completions)

    @property
    def dead(self) -> str:
        """The exchange all dead letters of the application go through; key: the queue's name."""
        return f"amqflow.{self.app}.dead"

    @property
    def results(self) -> str:
        """The exchange settlements and chord completions go to; key: :attr:`completions_key`."""
        return f"amqflow.{self.app}.results"

    @property
    def completions(self) -> str:
        """The queue behind :attr:`results`."""
        return f"amqflow.{self.app}.completions"

    @property
    def completions_key(self) -> str:
        """The routing key from :attr:`results` to :attr:`completions`."""
        return "completions"

    @property
    def dropped(self) -> str:
        """The queue with a copy of every message the broker dead-letters: chords count them."""
        return f"amqflow.{self.app}.dropped"

    @property
    def forward(self) -> str:
        """The queue where delayed calls to an exchange leave the ladder, to be republished."""
        return f"amqflow.{self.app}.forward"
