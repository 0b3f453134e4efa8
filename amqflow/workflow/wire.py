"""The messages between workers and coordinators: completions, and the watch over a chord.

Completions are lines, so that a value of a megabyte passes through without being read: a head as
JSON, then for each member a line with its index and one with its ending as stores keep it. JSON
written by us holds no line breaks.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from amqflow.errors import Undecodable
from amqflow.protocol import Envelope, dumps, loads, new_id
from amqflow.workflow.records import Ending, Fate, Record, fate_from_dict, fate_to_dict

if TYPE_CHECKING:
    from collections.abc import Sequence

#: The AMQP ``type`` property of these messages.
COMPLETIONS: Final = "amqflow.completions"
WATCH: Final = "amqflow.watch"

_LINES: Final = "application/x-ndjson"


@dataclass(frozen=True, slots=True)
class Completions:
    """Endings of members of one chord; none of them: only look whether it is complete."""

    chord: str
    app: str
    store: str
    endings: Sequence[Ending] = ()

    def to_envelope(self) -> Envelope:
        """Return the message."""
        head = dumps({"chord": self.chord, "app": self.app, "store": self.store})
        lines = [head]
        for ending in self.endings:
            lines += (b"%d" % ending.index, ending.to_bytes())
        return Envelope(b"\n".join(lines), {}, _LINES, type=COMPLETIONS, message_id=new_id())

    @classmethod
    def of(cls, envelope: Envelope) -> Completions:
        """Read the message.

        Raises:
            Undecodable: It is not as :meth:`to_envelope` writes it.
        """
        try:
            head, *lines = envelope.body.split(b"\n")
            found: dict[str, Any] = loads(head)
            endings = [
                Ending.from_bytes(int(index), ending)
                for index, ending in zip(lines[::2], lines[1::2], strict=True)
            ]
            return cls(str(found["chord"]), str(found["app"]), str(found["store"]), endings)
        except (KeyError, TypeError, ValueError, StopIteration) as error:
            raise Undecodable(f"not completions: {error!r}") from error


@dataclass(frozen=True, slots=True)
class Watch:
    """The look at a chord when its deadline has come; it knows what to do if the record is gone.

    ``ended``: the chord was found failed at the last look, and only a replay opens it again; where
    its record is gone by now, its time is over.
    """

    chord: str
    fate: Fate
    epoch: int
    ended: bool = False

    @classmethod
    def over(cls, record: Record) -> Watch:
        """Return the watch over a new record."""
        return cls(record.id, record.spec.fate, record.spec.epoch)

    def to_envelope(self) -> Envelope:
        """Return the message."""
        body = {
            "chord": self.chord,
            "epoch": self.epoch,
            "fate": fate_to_dict(self.fate),
            "ended": self.ended,
        }
        return Envelope(dumps(body, root="watch"), {}, type=WATCH, message_id=new_id())

    @classmethod
    def of(cls, envelope: Envelope) -> Watch:
        """Read the message.

        Raises:
            Undecodable: It is not as :meth:`to_envelope` writes it.
        """
        try:
            found: dict[str, Any] = loads(envelope.body)
            fate, epoch = fate_from_dict(found["fate"]), int(found["epoch"])
            return cls(str(found["chord"]), fate, epoch, bool(found["ended"]))
        except (KeyError, TypeError, ValueError) as error:
            raise Undecodable(f"not a watch: {error!r}") from error
