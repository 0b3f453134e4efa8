"""A message's properties as they came: read where the broker must, changed only where it must.

AMQP 0-9-1, 4.2.6.1: a flag for each property, then the values that are there.
"""

from __future__ import annotations

import struct
from typing import Any, Final

from amqflow.broker import tables
from amqflow.broker.tables import Field, Table, octets, text

_FLAGS: Final = struct.Struct(">H")
_LONG: Final = struct.Struct(">I")

HEADERS: Final = 1 << 13
DELIVERY_MODE: Final = 1 << 12
PRIORITY: Final = 1 << 11
REPLY_TO: Final = 1 << 9
EXPIRATION: Final = 1 << 8
USER_ID: Final = 1 << 4

#: Every property in order: its flag and how its size is told (0: a short string).
_LAYOUT: Final = (
    (1 << 15, 0),  # content_type
    (1 << 14, 0),  # content_encoding
    (HEADERS, -1),
    (DELIVERY_MODE, 1),
    (PRIORITY, 1),
    (1 << 10, 0),  # correlation_id
    (REPLY_TO, 0),
    (EXPIRATION, 0),
    (1 << 7, 0),  # message_id
    (1 << 6, 8),  # timestamp
    (1 << 5, 0),  # type
    (USER_ID, 0),
    (1 << 3, 0),  # app_id
    (1 << 2, 0),  # cluster_id
)
_NAMES: Final = (
    "content_type",
    "content_encoding",
    "headers",
    "delivery_mode",
    "priority",
    "correlation_id",
    "reply_to",
    "expiration",
    "message_id",
    "timestamp",
    "type",
    "user_id",
    "app_id",
    "cluster_id",
)


class Properties:
    """The properties of one message; ``raw`` is what a content header carries after the size."""

    __slots__ = ("_items", "_parts", "_table", "raw")

    def __init__(self, raw: bytes) -> None:
        """Find each property's place.

        Raises:
            ValueError: the octets are cut short or left over.
        """
        self.raw = raw
        self._table: Table | None = None
        self._items: list[tuple[bytes, bytes]] | None = None
        self._parts: dict[int, tuple[int, int]] = {}
        parts = self._parts
        try:
            flags = _FLAGS.unpack_from(raw)[0]
            at = 2
            if flags & 0b11:
                raise ValueError("an unknown property")
            for flag, size in _LAYOUT:
                if not flags & flag:
                    continue
                if size == 0:
                    stop = at + 1 + raw[at]
                elif size > 0:
                    stop = at + size
                else:
                    stop = at + 4 + _LONG.unpack_from(raw, at)[0]
                parts[flag] = (at, stop)
                at = stop
        except (IndexError, struct.error) as error:
            raise ValueError("properties are cut short") from error
        if at != len(raw):
            raise ValueError("properties do not end where they should")

    def number(self, flag: int) -> int | None:
        """Return a property of one octet; None: not set."""
        place = self._parts.get(flag)
        return None if place is None else self.raw[place[0]]

    def string(self, flag: int) -> str | None:
        """Return a property that is a short string; None: not set."""
        place = self._parts.get(flag)
        return None if place is None else text(self.raw[place[0] + 1 : place[1]])

    @property
    def has_headers(self) -> bool:
        """Whether there is a table of headers, be it empty."""
        return HEADERS in self._parts

    @property
    def headers_raw(self) -> bytes:
        """The content of the headers' table; empty where there is none."""
        place = self._parts.get(HEADERS)
        return b"" if place is None else self.raw[place[0] + 4 : place[1]]

    @property
    def headers(self) -> Table:
        """The headers, decoded once.

        Raises:
            ValueError: they are malformed.
        """
        if self._table is None:
            self._table = tables.decode(self.headers_raw)
        return self._table

    @property
    def expiration(self) -> str | None:
        """The time to live as it came, in milliseconds."""
        return self.string(EXPIRATION)

    def check_headers(self) -> None:
        """Refuse headers that cannot be taken apart; their values are looked at when needed.

        Raises:
            ValueError: they are malformed.
        """
        if HEADERS in self._parts:
            self._split()

    def header(self, name: str) -> Field | None:
        """Return one header; None: not there."""
        wanted = octets(name)
        for key, item in self._split():
            if key == wanted:
                return tables.decode(item)[name]
        return None

    def _split(self) -> list[tuple[bytes, bytes]]:
        if self._items is None:
            self._items = tables.split(self.headers_raw)
        return self._items

    def with_headers(self, add: Table, drop: frozenset[str] = frozenset()) -> Properties:
        """Return a copy with headers added (the old ones of these names go) or dropped.

        Those that are neither keep their octets.
        """
        gone = {octets(name) for name in drop.union(add)}
        kept = [item for name, item in self._split() if name not in gone]
        added = [tables.encode_item(name, field) for name, field in add.items()]
        content = b"".join((*kept, *added))
        return self._replaced({HEADERS: _LONG.pack(len(content)) + content})

    def with_string(self, flag: int, value: str | None) -> Properties:
        """Return a copy with a short string set; None takes it away."""
        if value is None:
            return self._replaced({flag: b""})
        raw = octets(value)
        return self._replaced({flag: bytes([len(raw)]) + raw})

    def _replaced(self, parts: dict[int, bytes]) -> Properties:
        flags = 0
        values = []
        for flag, _ in _LAYOUT:
            if flag in parts:
                value = parts[flag]
            elif flag in self._parts:
                begin, stop = self._parts[flag]
                value = self.raw[begin:stop]
            else:
                continue
            if value:
                flags |= flag
                values.append(value)
        return Properties(_FLAGS.pack(flags) + b"".join(values))


def written(named: dict[str, Any]) -> Properties:
    """Return properties given by name, as the management API takes them.

    Raises:
        ValueError: a name is unknown, or a value is none of its kind.
    """
    flags, values = 0, []
    for (flag, size), name in zip(_LAYOUT, _NAMES, strict=True):
        value = named.get(name)
        if value is None:
            continue
        flags |= flag
        if size == 0:
            raw = octets(str(value))
            values.append(bytes([len(raw)]) + raw)
        elif size > 0:
            values.append(int(value).to_bytes(size, "big"))
        else:
            content = tables.encode({key: tables.typed(item) for key, item in value.items()})
            values.append(_LONG.pack(len(content)) + content)
    return Properties(_FLAGS.pack(flags) + b"".join(values))


def string_array(values: list[str]) -> Field:
    """Return strings as the array a header holds."""
    return Field("array", [Field("longstr", value) for value in values])
