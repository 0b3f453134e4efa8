"""Cutting a stream of bytes into frames, and what is wrong where it cannot be cut.

AMQP 0-9-1, 4.2.3. No sockets here: bytes in, frames out.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, NamedTuple

from pamqp import constants

from amqflow.broker.identity import FRAME_MIN
from amqflow.broker.methods import HEADER

if TYPE_CHECKING:
    from collections.abc import Iterator

PROTOCOL_HEADER: Final = b"AMQP\x00\x00\x09\x01"

#: Octets around a frame's payload.
OVERHEAD: Final = 8

#: Header frames that RabbitMQ takes for 0-9-1, too: what 0-9 clients sent.
_ACCEPTED: Final = frozenset({PROTOCOL_HEADER, b"AMQP\x01\x01\x00\x09"})


class RawFrame(NamedTuple):
    """A frame whose payload has not been looked at."""

    type: int
    channel: int
    payload: bytes


class FrameBroken(ValueError):
    """The stream has lost its frames: nothing after this can be read."""

    def __init__(self, frame: RawFrame, problem: str) -> None:
        """Keep the frame as far as it was read, and the problem in RabbitMQ's words."""
        super().__init__(problem)
        self.frame = frame
        self.problem = problem


class NotAmqp(ValueError):
    """What connected does not begin with a protocol header this server speaks."""


class FrameReader:
    """Takes bytes as they come and gives whole frames.

    ``limit`` is the frame size in force; it is least until the client has asked for more. No more
    than one frame and one read of the socket are ever held, and each octet is copied twice at most,
    however small the pieces are in which it comes.
    """

    def __init__(self) -> None:
        """Wait for the protocol header."""
        self.limit = FRAME_MIN
        self._rest = bytearray()
        #: Octets without which nothing can be done.
        self._need = len(PROTOCOL_HEADER)
        self._greeted = False

    def feed(self, data: bytes) -> Iterator[RawFrame | None]:
        """Yield the frames that ``data`` completes; None for the protocol header.

        Raises:
            NotAmqp: the first eight octets are no header of AMQP 0-9-1.
            FrameBroken: a frame is too large, or does not end where it says.
        """
        if self._rest or len(data) < self._need:
            self._rest += data
            if len(self._rest) < self._need:
                return
            data = bytes(self._rest)
            self._rest.clear()
        at, end = 0, len(data)
        self._need = HEADER.size
        if not self._greeted:
            at = len(PROTOCOL_HEADER)
            if data[:at] not in _ACCEPTED:
                raise NotAmqp(repr(data[:at]))
            self._greeted = True
            yield None
        while end - at >= HEADER.size:
            kind, channel, size = HEADER.unpack_from(data, at)
            begin = at + HEADER.size
            # RabbitMQ forgives eight octets: clients often forget the frame around the payload.
            if size > self.limit:
                problem = f"{{frame_too_large,{size},{self.limit - OVERHEAD}}}"
                raise FrameBroken(RawFrame(kind, channel, b""), problem)
            stop = begin + size
            if stop >= end:
                self._need = HEADER.size + size + 1
                break
            if data[stop] != constants.FRAME_END:
                frame = RawFrame(kind, channel, data[begin:stop])
                raise FrameBroken(frame, f"{{invalid_frame_end_marker,{data[stop]}}}")
            at = stop + 1
            yield RawFrame(kind, channel, data[begin:stop])
        self._rest += data[at:]


def shown(payload: bytes) -> str:
    """Return the beginning of a payload as RabbitMQ's frame errors show it."""
    part = payload[:16]
    amount = "all" if len(payload) <= len(part) else "first 16"
    if part and part.isascii() and part.decode().isprintable():
        return f'{amount} octets = <<"{part.decode()}">>'
    return f"{amount} octets = <<{','.join(map(str, part))}>>"
