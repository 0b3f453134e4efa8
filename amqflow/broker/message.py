"""A published message: what every queue it is routed to shares."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Final

from amqflow.broker import properties as props
from amqflow.broker.methods import frame, short_string
from amqflow.broker.replies import precondition_failed

if TYPE_CHECKING:
    from amqflow.broker.properties import Properties
    from amqflow.broker.tables import Table

#: RabbitMQ's longest time to live, ten years in milliseconds.
LONGEST_TTL: Final = 315_360_000_000

_PERSISTENT: Final = 2
_INTEGER: Final = re.compile(r"[+-]?\d+")
_HEADER_START: Final = b"\x00\x3c\x00\x00"


class Message:
    """Content with its address. ``keys`` are the routing key and those of CC and BCC headers."""

    __slots__ = (
        "address",
        "body",
        "exchange",
        "keys",
        "persistent",
        "priority",
        "properties",
        "ttl",
    )

    def __init__(
        self, exchange: str, keys: tuple[str, ...], properties: Properties, body: bytes
    ) -> None:
        """Read what queues ask for: persistence, priority and time to live (in seconds)."""
        self.exchange = exchange
        self.keys = keys
        self.properties = properties
        self.body = body
        #: Exchange and routing key as they stand in a delivery.
        self.address = short_string(exchange) + short_string(keys[0])
        self.persistent = properties.number(props.DELIVERY_MODE) == _PERSISTENT
        self.priority = properties.number(props.PRIORITY) or 0
        expiration = properties.expiration
        self.ttl = None if expiration is None else int(expiration) / 1000

    @property
    def routing_key(self) -> str:
        """The key it was published with."""
        return self.keys[0]

    def with_headers(self, add: Table) -> Message:
        """Return a copy with headers added."""
        properties = self.properties.with_headers(add)
        return Message(self.exchange, self.keys, properties, self.body)

    def content(self, channel: int, body_limit: int) -> bytes:
        """Return the header frame and the body frames.

        Args:
            channel: the channel's number.
            body_limit: the most octets of a body in one frame.
        """
        raw = self.properties.raw
        body = self.body
        size = len(body)
        header = frame(2, channel, _HEADER_START + size.to_bytes(8, "big") + raw)
        if size == 0:
            return header
        if size <= body_limit:
            return header + frame(3, channel, body)
        parts = [header]
        parts += (
            frame(3, channel, body[at : at + body_limit]) for at in range(0, size, body_limit)
        )
        return b"".join(parts)


def routing_keys(routing_key: str, properties: Properties) -> tuple[tuple[str, ...], Properties]:
    """Return all keys a message is routed by, and its properties without the BCC header.

    Raises:
        Refusal: CC or BCC is no array.
        ValueError: the headers are malformed.
    """
    if not properties.has_headers:
        return (routing_key,), properties
    raw = properties.headers_raw
    if b"\x02CC" not in raw and b"\x03BCC" not in raw:
        return (routing_key,), properties
    keys = [routing_key]
    for name in ("CC", "BCC"):
        field = properties.headers.get(name)
        if field is None:
            continue
        if field.type != "array":
            reason = f'{{unacceptable_type_in_header,"{name}",{field.type}}}'
            raise precondition_failed(f"invalid message: {reason}")
        keys += (item.value for item in field.value if item.type == "longstr")
    if "BCC" in properties.headers:
        properties = properties.with_headers({}, frozenset({"BCC"}))
    return tuple(keys), properties


def check_delivery_mode(mode: int | None) -> None:
    """Refuse a delivery mode that is none.

    Raises:
        Refusal: 406.
    """
    if mode not in {None, 1, _PERSISTENT}:
        raise precondition_failed(f"invalid message: {{delivery_mode_unknown,{mode}}}")


def check_expiration(expiration: str | None) -> None:
    """Refuse an ``expiration`` that is no number of milliseconds.

    Raises:
        Refusal: 406, in RabbitMQ's words.
    """
    if expiration is None:
        return
    found = _INTEGER.match(expiration)
    if found is None:
        problem = "no_integer"
    elif rest := expiration[found.end() :]:
        problem = f'{{leftover_string,"{rest}"}}'
    elif (number := int(expiration)) < 0:
        problem = f"{{value_negative,{number}}}"
    elif number > LONGEST_TTL:
        problem = f"{{value_too_large,{number}}}"
    else:
        return
    raise precondition_failed(f"invalid expiration '{expiration}': {problem}")
