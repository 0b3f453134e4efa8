"""Frames of the embedded store's wire: four bytes of length, then JSON.

A request is ``[number, method, payload]``; its answer ``[number, kind, payload]``, in any order.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final, TypeAlias

import orjson

from amqflow.errors import StoreError

if TYPE_CHECKING:
    from collections.abc import Iterator

Frame: TypeAlias = "tuple[int, str, Any]"

#: The request a connection begins with; its payload is the token.
HELLO: Final = "hello"
#: Ends a request that is under way; its payload is that request's number. It has no answer.
CANCEL: Final = "cancel"

#: The kinds of answers: done; the request is refused; the store cannot do it now.
DONE: Final = "done"
REFUSED: Final = "refused"
HELD: Final = "held"

#: Bytes of a frame; results and arguments above a mebibyte are meant to travel as references.
LARGEST: Final = 64 * 1024 * 1024
_LENGTH: Final = 4


class BrokenFrame(StoreError):
    """The peer sent what is no frame, or one that is too large."""


def encode(number: int, word: str, payload: Any) -> bytes:
    """Write a request or an answer.

    Raises:
        StoreError: it is larger than a frame may be.
    """
    body = orjson.dumps([number, word, payload])
    if len(body) > LARGEST:
        raise StoreError(f"{len(body):,} bytes are more than the embedded store takes at once")
    return len(body).to_bytes(_LENGTH) + body


class Frames:
    """The frames in what a peer has sent so far; ``largest`` bounds the next ones."""

    def __init__(self, largest: int = LARGEST) -> None:
        """Begin with nothing."""
        self.largest = largest
        self._data = bytearray()

    def feed(self, data: bytes) -> Iterator[Frame]:
        """Take what was received, and yield every frame that is complete.

        Raises:
            BrokenFrame: the next one is none, or too large; nothing after it can be read.
        """
        buffer = self._data
        buffer += data
        at = 0
        try:
            while len(buffer) >= (body := at + _LENGTH):
                length = int.from_bytes(buffer[at:body])
                if length > self.largest:
                    raise BrokenFrame(f"a frame of {length:,} bytes")
                if len(buffer) < body + length:
                    return
                at = body + length
                yield _decoded(buffer[body:at])
        finally:
            del buffer[:at]


def _decoded(body: bytearray) -> Frame:
    try:
        frame = orjson.loads(body)
    except ValueError as error:
        raise BrokenFrame("a frame that is no JSON") from error
    match frame:
        case [int(number), str(word), payload]:
            return number, word, payload
    raise BrokenFrame("a frame that is neither request nor answer")
