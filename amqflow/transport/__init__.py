"""The door to the broker: publish, consume, declare."""

from __future__ import annotations

from typing import TYPE_CHECKING

from amqflow.errors import ConfigurationError
from amqflow.transport.acks import AckBatch
from amqflow.transport.aiopika import AioPikaTransport
from amqflow.transport.seam import (
    Admin,
    Consumer,
    Delivery,
    QueueCounts,
    ServerInfo,
    Transport,
)

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = [
    "AckBatch",
    "Admin",
    "AioPikaTransport",
    "Consumer",
    "Delivery",
    "QueueCounts",
    "ServerInfo",
    "Transport",
    "open_transport",
]


def open_transport(url: str, *, name: str = "amqflow") -> Transport:
    """Return the transport for a broker URL; nothing connects yet.

    Raises:
        ConfigurationError: the URL's scheme is not ``amqp`` or ``amqps``.
    """
    makers: dict[str, Callable[[str, str], Transport]] = {
        "amqp": lambda address, label: AioPikaTransport(address, name=label),
        "amqps": lambda address, label: AioPikaTransport(address, name=label),
    }
    scheme = url.partition("://")[0].lower()
    if scheme not in makers or "://" not in url:
        message = (
            f"broker URL with scheme {scheme[:20]!r}: amqflow speaks to RabbitMQ, use "
            "amqp://user:password@host:5672/vhost or amqps://…"
        )
        raise ConfigurationError(message)
    return makers[scheme](url, name)
