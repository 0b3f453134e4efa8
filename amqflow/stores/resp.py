"""Redis's pub/sub answers, parsed: RESP2 as far as a connection in subscribe mode speaks it.

https://redis.io/docs/latest/develop/reference/protocol-spec/
"""

from __future__ import annotations

from typing import Any, Final

_END: Final = b"\r\n"
#: What says that an answer is not there in full.
_PART: Final = object()


class Answers:
    """Takes bytes as they come and gives answers as they are complete.

    redis-py's parser takes six awaits for one message; a caller that waits for a result pays them
    for every acknowledgement and every message.
    """

    __slots__ = ("_at", "_data")

    def __init__(self) -> None:
        """Hold nothing yet."""
        self._data = b""
        self._at = 0

    def feed(self, data: bytes) -> None:
        """Take what came."""
        self._data = self._data[self._at :] + data if self._at < len(self._data) else data
        self._at = 0

    def next(self) -> Any:
        """Return the next answer, None where none is complete; a null inside one is None too.

        Raises:
            ValueError: These are no answers of Redis.
        """
        if self._at >= len(self._data):
            return None
        value, after = self._parsed(self._at)
        if value is _PART:
            return None
        self._at = after
        return value

    def _parsed(self, at: int) -> tuple[Any, int]:
        """Return the answer that starts at a place, and where it ends; _PART where it does not."""
        end = self._data.find(_END, at)
        if end < 0:
            return _PART, at
        kind, head, after = self._data[at : at + 1], self._data[at + 1 : end], end + 2
        if kind == b"$":
            return self._text(int(head), after)
        if kind == b"*":
            return self._list(int(head), after)
        if kind not in {b":", b"+"}:
            raise ValueError(f"{kind + head!r:.200}")
        return int(head) if kind == b":" else head, after

    def _text(self, size: int, at: int) -> tuple[Any, int]:
        if size < 0:
            return None, at
        if len(self._data) < at + size + 2:
            return _PART, at
        return self._data[at : at + size], at + size + 2

    def _list(self, size: int, at: int) -> tuple[Any, int]:
        values = []
        for _ in range(size):
            value, at = self._parsed(at)
            if value is _PART:
                return _PART, at
            values.append(value)
        return values, at
