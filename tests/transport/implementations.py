"""The table of transports the suite runs on, with what each can do."""

from collections.abc import Callable
from dataclasses import dataclass

from amqflow.transport import AioPikaTransport, Transport


@dataclass(frozen=True)
class Implementation:
    """One transport and its capabilities.

    `make(url, heartbeat)` returns it, unconnected; `heartbeat` is in seconds.
    """

    name: str
    make: Callable[[str, int], Transport]
    #: Connections it holds once it has published, asked and consumed.
    connections: int


IMPLEMENTATIONS = (
    Implementation(
        "aiopika",
        lambda url, heartbeat: AioPikaTransport(url, name="suite", heartbeat=heartbeat),
        connections=3,
    ),
)
