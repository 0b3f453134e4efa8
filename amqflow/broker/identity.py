"""What the embedded broker says of itself when a client connects.

The product's name is its own. The version is that of the RabbitMQ whose behaviour it has, so that
a client that asks "what does this broker know?" gets the right answer: no delivery limit unless
one is set, no priorities on quorum queues, TTL and at-least-once dead-lettering on quorum queues.
"""

from __future__ import annotations

from typing import Final

from amqflow.broker.tables import Field, Table

PRODUCT: Final = "amqflow embedded broker"

#: The RabbitMQ whose behaviour this is; every rule here was compared with that release.
VERSION: Final = "3.10.8"

#: Mechanisms a client may log in with, as RabbitMQ 3.10 lists them.
MECHANISMS: Final = "AMQPLAIN PLAIN"

LOCALE: Final = "en_US"

#: What is offered in connection.tune, RabbitMQ's defaults.
CHANNEL_MAX: Final = 2047
FRAME_MAX: Final = 131072
HEARTBEAT: Final = 60

#: The least frame size a client may ask for, and the largest before it has asked (AMQP 4.2.3).
FRAME_MIN: Final = 4096

#: RabbitMQ 3.10's default ``max_message_size``: 128 MiB.
MAX_MESSAGE_SIZE: Final = 134_217_728

_CAPABILITIES: Final = (
    "publisher_confirms",
    "exchange_exchange_bindings",
    "basic.nack",
    "consumer_cancel_notify",
    "connection.blocked",
    "consumer_priorities",
    "authentication_failure_close",
    "per_consumer_qos",
    "direct_reply_to",
)


def server_properties(name: str) -> Table:
    """Return the field table of connection.start; ``name`` is this broker's."""
    texts = {
        "cluster_name": name,
        "copyright": "The authors of amqflow",
        "information": "For development and tests. In memory: never for production.",
        "platform": "Python",
        "product": PRODUCT,
        "version": VERSION,
    }
    capabilities: Table = {known: Field("bool", value=True) for known in _CAPABILITIES}
    return {
        "capabilities": Field("table", capabilities),
        **{key: Field("longstr", text) for key, text in texts.items()},
    }
