"""One dead letter as the desk sees it: its message, why it died, and a row that sums it up."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Final

from amqflow.protocol import DeadLetter, fingerprint
from amqflow.protocol import headers as h
from amqflow.topology import suspect_queue

if TYPE_CHECKING:
    from amqflow.protocol import Envelope

#: What is said of a message that tells of no death, as in a dead-letter queue of somebody else's.
UNKNOWN: Final = "unknown"
#: Characters of an exception's text a row keeps; the whole of it is for ``show``.
ROW_MESSAGE: Final = 300
_SUSPECT: Final = suspect_queue("")
_DIGITS: Final = 16


@dataclass(frozen=True, slots=True)
class Row:
    """What a list shows of a dead letter: bounded, without body, traceback and headers.

    ``home`` is the queue it lies in, ``queue`` the one it died in. ``time`` is Unix seconds,
    ``size`` the body's bytes. None is what nobody wrote down.
    """

    id: str
    home: str
    reason: str
    by_broker: bool
    fingerprint: str
    size: int
    task: str | None = None
    queue: str | None = None
    exchange: str | None = None
    routing_key: str | None = None
    time: float | None = None
    attempts: int | None = None
    worker: str | None = None
    exception: str | None = None
    exception_message: str | None = None
    epoch: int = 0


@dataclass(frozen=True, slots=True)
class Parked:
    """A dead letter with its message.

    ``id`` is the task's id; where the message has none, its message id, and for want of that a
    hash of its body: every dead letter can be named.
    """

    id: str
    home: str
    letter: DeadLetter
    envelope: Envelope

    @property
    def epoch(self) -> int:
        """Which life of the task ended here."""
        return epoch_of(self.envelope)

    @property
    def row(self) -> Row:
        """Return it summed up."""
        letter = self.letter
        message = letter.exception_message
        if message is not None and len(message) > ROW_MESSAGE:
            message = message[: ROW_MESSAGE - 1] + "…"
        return Row(
            id=self.id,
            home=self.home,
            reason=letter.reason,
            by_broker=letter.by_broker,
            fingerprint=letter.fingerprint or "",
            size=len(self.envelope.body),
            task=letter.task,
            queue=letter.queue,
            exchange=letter.exchange,
            routing_key=letter.routing_key,
            time=letter.time,
            attempts=letter.attempts,
            worker=letter.worker,
            exception=letter.exception,
            exception_message=message,
            epoch=self.epoch,
        )


def read_parked(
    envelope: Envelope, home: str, *, exchange: str = "", routing_key: str = ""
) -> Parked:
    """Read what lies in a dead-letter queue; never raises, whatever it is.

    Args:
        envelope: The message.
        home: The queue it lies in.
        exchange: Where it was published last; told of a message that nothing else is known of.
        routing_key: The key of that.
    """
    letter = DeadLetter.read(envelope.headers)
    if letter is None:
        task = _text(envelope.headers.get("task"))
        letter = DeadLetter(
            UNKNOWN,
            by_broker=True,
            task_id=_text(envelope.headers.get("id")),
            task=task,
            exchange=exchange,
            routing_key=routing_key,
            fingerprint=fingerprint(task or "", UNKNOWN),
        )
    elif letter.queue is not None and letter.queue.endswith(_SUSPECT):
        # A suspect runs beside its queue; that one is where it came from and goes back to.
        letter = replace(letter, queue=letter.queue.removesuffix(_SUSPECT))
    if not letter.fingerprint:
        letter = replace(letter, fingerprint=fingerprint(letter.task or "", letter.reason))
    return Parked(
        letter.task_id or envelope.message_id or _hashed(envelope.body), home, letter, envelope
    )


def epoch_of(envelope: Envelope) -> int:
    """Return which life of its task a message is; 0 where it says nothing that can be read."""
    value: Any = envelope.headers.get(h.EPOCH, 0)
    return value if type(value) is int and value > 0 else 0


def _text(value: Any) -> str | None:
    return value if isinstance(value, str) else None


def _hashed(body: bytes) -> str:
    return "body-" + hashlib.sha256(body).hexdigest()[:_DIGITS]
