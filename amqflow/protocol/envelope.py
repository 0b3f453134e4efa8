"""One AMQP message as data, with no AMQP library in it: what transports take and give."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from datetime import datetime


@dataclass(slots=True)
class Envelope:
    """A body with AMQP's basic properties (AMQP 0-9-1, class ``basic``) under their own names.

    ``timestamp`` is aware and in UTC; the wire keeps whole seconds. ``expiration`` is the text
    of a number of milliseconds, as the broker wants it.
    """

    body: bytes
    headers: dict[str, Any] = field(default_factory=dict)
    content_type: str | None = "application/json"
    content_encoding: str | None = "utf-8"
    delivery_mode: int = 2
    priority: int | None = None
    correlation_id: str | None = None
    reply_to: str | None = None
    expiration: str | None = None
    message_id: str | None = None
    timestamp: datetime | None = None
    type: str | None = None
    user_id: str | None = None
    app_id: str | None = None
