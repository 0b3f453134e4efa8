"""Redis's answers, parsed: RESP2, which every Redis speaks.

https://redis.io/docs/latest/develop/reference/protocol-spec/
"""

from __future__ import annotations

from typing import Any, Final

_END: Final = b"\r\n"
#: What :meth:`Answers.next` gives where no answer is complete.
NOTHING: Final = object()

_TEXT: Final = ord("$")
_LIST: Final = ord("*")
_NUMBER: Final = ord(":")
_LINE: Final = ord("+")
_ERROR: Final = ord("-")


class Refusal:
    """An answer that says no."""

    __slots__ = ("text",)

    def __init__(self, text: str) -> None:
        """Hold what the server says, its code first: ``WRONGTYPE Operation against …``."""
        self.text = text


class Answers:
    """Takes bytes as they come and gives answers as they are complete.

    redis-py's parser takes six awaits for one message; every wait for a result, claim and outcome
    pays them. What has been read of a long answer is not read again when more of it comes.
    """

    __slots__ = ("_at", "_data", "_open", "_wanted")

    def __init__(self) -> None:
        """Hold nothing yet."""
        self._data = bytearray()
        self._at = 0
        #: How much must be there before looking again is of use.
        self._wanted = 1
        #: Lists that are begun, each with how many values it still lacks, the innermost last.
        self._open: list[tuple[list[Any], int]] = []

    @property
    def empty(self) -> bool:
        """Whether nothing is left of what came."""
        return self._at >= len(self._data) and not self._open

    def feed(self, data: bytes) -> None:
        """Take what came."""
        if self._at:
            del self._data[: self._at]
            self._wanted -= self._at
            self._at = 0
        self._data += data

    def next(self) -> Any:
        """Return the next answer, NOTHING where none is complete; a null is None.

        Raises:
            ValueError: These are no answers of Redis.
        """
        while len(self._data) >= self._wanted:
            value = self._value()
            if value is NOTHING:
                break
            while self._open:
                values, lacking = self._open.pop()
                values.append(value)
                if lacking > 1:
                    self._open.append((values, lacking - 1))
                    break
                value = values
            else:
                return value
        return NOTHING

    def _value(self) -> Any:
        """Read one value and step behind it; of a list that is not empty, its head only."""
        data, at = self._data, self._at
        while True:
            end = data.find(_END, at)
            if end < 0:
                self._at, self._wanted = at, len(data) + 1
                return NOTHING
            kind, head, after = data[at], data[at + 1 : end], end + 2
            if kind == _LIST and (size := int(head)) > 0:
                self._open.append(([], size))
                at = after
                continue
            if kind == _TEXT and (size := int(head)) >= 0:
                if len(data) < after + size + 2:
                    self._at, self._wanted = at, after + size + 2
                    return NOTHING
                self._at = after + size + 2
                self._wanted = self._at + 1
                return bytes(data[after : after + size])
            self._at, self._wanted = after, after + 1
            return _short(kind, head)


def _short(kind: int, head: bytearray) -> Any:
    """Return a value that is over with its first line."""
    if kind == _NUMBER:
        return int(head)
    if kind == _LINE:
        return bytes(head)
    if kind == _ERROR:
        return Refusal(head.decode(errors="replace"))
    if kind == _TEXT:
        return None
    if kind == _LIST:
        return None if int(head) < 0 else []
    raise ValueError(f"{bytes([kind]) + head!r:.200}")
