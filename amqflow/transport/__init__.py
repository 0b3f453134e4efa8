"""The door to the broker: publish, consume, declare."""

from __future__ import annotations

from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from amqflow import rendezvous
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
        ConfigurationError: the URL's scheme is not ``amqp``, ``amqps`` or ``embedded``, its port
            no port, or its embedded name no name.
    """
    makers: dict[str, Callable[[str, str], Transport]] = {
        "amqp": lambda address, label: AioPikaTransport(address, name=label),
        "amqps": lambda address, label: AioPikaTransport(address, name=label),
        rendezvous.SCHEME: _embedded,
    }
    scheme = url.partition("://")[0].lower()
    if scheme not in makers or "://" not in url:
        message = (
            f"broker URL with scheme {scheme[:20]!r}: amqflow speaks to RabbitMQ, use "
            "amqp://user:password@host:5672/vhost or amqps://…; embedded:// joins the broker of "
            "'amqflow dev'"
        )
        raise ConfigurationError(message)
    try:
        _ = urlsplit(url).port
    except ValueError:
        message = (
            "broker URL with a port that is no number from 0 to 65535; in a user or password "
            "write '/' as %2F, ':' as %3A and '@' as %40"
        )
        raise ConfigurationError(message) from None  # its text shows a piece of the password
    return makers[scheme](url, name)


def _embedded(url: str, label: str) -> Transport:
    name = rendezvous.name_of(url)
    return AioPikaTransport(url, name=label, locate=lambda: rendezvous.find(name).broker)
