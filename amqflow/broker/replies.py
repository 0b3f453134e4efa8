"""AMQP's reply codes, and the two errors that end a channel or a connection.

The words are RabbitMQ's; clients match them. Codes and levels: AMQP 0-9-1, 1.5 and
``rabbit_framing``.
"""

from __future__ import annotations

from enum import Enum
from typing import Final

from amqflow.errors import AmqflowError

#: The longest text a short string carries; RabbitMQ cuts longer ones and ends them with dots.
_LONGEST: Final = 255


class Reply(Enum):
    """A reply code with its constant's name; the last part says whether the connection ends."""

    SUCCESS = 200, False
    CONTENT_TOO_LARGE = 311, False
    NO_ROUTE = 312, False
    CONNECTION_FORCED = 320, True
    INVALID_PATH = 402, True
    ACCESS_REFUSED = 403, False
    NOT_FOUND = 404, False
    RESOURCE_LOCKED = 405, False
    PRECONDITION_FAILED = 406, False
    FRAME_ERROR = 501, True
    SYNTAX_ERROR = 502, True
    COMMAND_INVALID = 503, True
    CHANNEL_ERROR = 504, True
    UNEXPECTED_FRAME = 505, True
    RESOURCE_ERROR = 506, True
    NOT_ALLOWED = 530, True
    NOT_IMPLEMENTED = 540, True
    INTERNAL_ERROR = 541, True

    def __init__(self, code: int, hard: bool) -> None:
        self.code = code
        self.hard = hard

    def text(self, explanation: str) -> str:
        """Return the reply text, cut to what fits a short string."""
        words = f"{self.name} - {explanation}" if explanation else self.name
        whole = words.encode(errors="surrogateescape")
        if len(whole) > _LONGEST:
            whole = whole[: _LONGEST - 3] + b"..."
        return whole.decode(errors="surrogateescape")


class Refusal(AmqflowError):
    """A client's method cannot be carried out: its channel ends, or its connection.

    ``hard`` says which. A refusal on channel 0 always ends the connection.
    """

    def __init__(self, reply: Reply, explanation: str) -> None:
        """Say which reply code it is, and why in RabbitMQ's words."""
        super().__init__(reply.text(explanation))
        self.reply = reply
        self.text = reply.text(explanation)

    @property
    def hard(self) -> bool:
        """Whether the connection ends, not only the channel."""
        return self.reply.hard


def precondition_failed(explanation: str) -> Refusal:
    """Return a 406, the channel error of most contradictions."""
    return Refusal(Reply.PRECONDITION_FAILED, explanation)


def not_found(kind: str, name: str, vhost: str) -> Refusal:
    """Return the 404 of a queue or exchange that does not exist."""
    return Refusal(Reply.NOT_FOUND, f"no {resource(kind, name, vhost)}")


def resource(kind: str, name: str, vhost: str) -> str:
    """Return a queue or exchange as RabbitMQ's texts name it."""
    return f"{kind} '{name}' in vhost '{vhost}'"
