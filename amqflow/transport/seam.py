"""The seam to the broker: what the rest of amqflow may ask of AMQP, and nothing more.

One implementation stands beside it (``aiopika``); ``tests/transport`` holds every
implementation to the same conformance suite.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, Protocol

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from amqflow.protocol import Envelope

#: Seconds a declare, bind or other question to the broker may take.
CALL_TIMEOUT: Final = 15.0


@dataclass(frozen=True, slots=True)
class ServerInfo:
    """What the broker says of itself when a connection opens.

    ``version`` is ``(3, 10, 8)`` for 3.10.8; an empty tuple where it says none. ``frame_max`` is
    in bytes.
    """

    product: str
    version: tuple[int, ...]
    frame_max: int


@dataclass(frozen=True, slots=True)
class QueueCounts:
    """Ready messages and consumers of a queue, as a declare answers them."""

    name: str
    messages: int
    consumers: int


class Delivery:
    """One message handed to a consumer; settle it exactly once with ack, requeue or reject.

    Settling is not awaited: it is queued, batched and flushed each loop turn (design 5.5). A
    delivery of a channel that has closed since is dropped silently: the broker has taken the
    message back by itself and hands it out again.
    """

    __slots__ = ("_channel", "envelope", "exchange", "queue", "redelivered", "routing_key", "tag")

    def __init__(
        self,
        channel: Settler,
        tag: int,
        envelope: Envelope,
        *,
        queue: str,
        exchange: str,
        routing_key: str,
        redelivered: bool,
    ) -> None:
        """Bind a message to the channel it came by."""
        self._channel = channel
        self.tag = tag
        self.envelope = envelope
        self.queue = queue
        self.exchange = exchange
        self.routing_key = routing_key
        self.redelivered = redelivered

    def ack(self) -> None:
        """Tell the broker that this message is done with."""
        self._channel.ack(self.tag)

    def requeue(self) -> None:
        """Give the message back to its queue."""
        self._channel.nack(self.tag, requeue=True)

    def reject(self) -> None:
        """Refuse the message: the broker dead-letters it, or drops it where none is declared."""
        self._channel.nack(self.tag, requeue=False)

    @property
    def live(self) -> bool:
        """Whether the channel it came by is still open, so that settling it means something."""
        return self._channel.live


class Settler(Protocol):
    """The channel side of a delivery."""

    @property
    def live(self) -> bool:
        """Whether the channel is open."""
        ...

    def ack(self, tag: int) -> None:
        """Queue an ack."""
        ...

    def nack(self, tag: int, *, requeue: bool) -> None:
        """Queue a negative ack."""
        ...


class Consumer(Protocol):
    """A supervised subscription to one queue: it comes back by itself, with backoff, for ever."""

    @property
    def queue(self) -> str:
        """The queue consumed."""
        ...

    @property
    def active(self) -> bool:
        """Whether the broker has confirmed the subscription and not taken it away since."""
        ...

    @property
    def problem(self) -> str | None:
        """Why it is not active, for people; None when it is."""
        ...

    async def wait_active(self, timeout: float) -> None:
        """Wait until subscribed; raises BrokerUnavailable with the problem after ``timeout``."""
        ...

    async def pause(self) -> None:
        """Unsubscribe, keep the channel: what was delivered can still be settled."""
        ...

    async def resume(self) -> None:
        """Subscribe again after a pause."""
        ...

    async def close(self) -> None:
        """Flush what was settled, then close the channel: the rest goes back to the queue."""
        ...


class Admin(Protocol):
    """Declares and questions. Each call runs on a channel of its own and may run concurrently.

    Raises NotFound (404), TopologyMismatch (406, with the broker's words), AccessRefused (403)
    and BrokerUnavailable.
    """

    async def declare_exchange(
        self,
        name: str,
        type: str = "direct",  # noqa: A002 - AMQP's word
        *,
        durable: bool = True,
        auto_delete: bool = False,
        internal: bool = False,
        arguments: Mapping[str, Any] | None = None,
        passive: bool = False,
    ) -> None:
        """Declare an exchange, or with ``passive`` ask whether it exists."""
        ...

    async def declare_queue(
        self,
        name: str,
        *,
        durable: bool = True,
        exclusive: bool = False,
        auto_delete: bool = False,
        arguments: Mapping[str, Any] | None = None,
        passive: bool = False,
    ) -> QueueCounts:
        """Declare a queue, or with ``passive`` ask for its counts."""
        ...

    async def bind_queue(
        self,
        queue: str,
        exchange: str,
        routing_key: str = "",
        arguments: Mapping[str, Any] | None = None,
    ) -> None:
        """Bind a queue to an exchange."""
        ...

    async def bind_exchange(
        self,
        destination: str,
        source: str,
        routing_key: str = "",
        arguments: Mapping[str, Any] | None = None,
    ) -> None:
        """Bind an exchange to another one."""
        ...

    async def delete_queue(self, name: str) -> int:
        """Delete a queue; returns how many messages went with it."""
        ...

    async def delete_exchange(self, name: str) -> None:
        """Delete an exchange."""
        ...

    async def purge_queue(self, name: str) -> int:
        """Drop the ready messages of a queue; returns how many."""
        ...


class Transport(Admin, Protocol):
    """One process's door to one broker, living in one event loop.

    Publishes, consumers and admin calls may use connections of their own. Nothing connects
    before it is needed.
    """

    async def server(self) -> ServerInfo:
        """Return what the broker says of itself, connecting when needed."""
        ...

    async def publish(
        self,
        envelope: Envelope,
        exchange: str,
        routing_key: str,
        *,
        timeout: float,
        retry: bool = True,
    ) -> None:
        """Publish persistent, mandatory and confirmed; returns after the broker's confirm.

        Args:
            envelope: the message; its ``message_id`` is in flight once at a time.
            exchange: checked once before its first use.
            routing_key: at most 255 bytes.
            timeout: seconds until PublishTimeout.
            retry: publish again, same id, where the connection was lost before the confirm.

        Raises:
            Unroutable: no queue took it.
            PublishNacked: the broker refused it.
            PublishTimeout: no confirm in time, with the reason where it is known.
            NotFound: the exchange does not exist.
        """
        ...

    def consume(
        self,
        queue: str,
        on_delivery: Callable[[Delivery], None],
        *,
        prefetch: int,
        exclusive: bool = False,
        arguments: Mapping[str, Any] | None = None,
    ) -> Consumer:
        """Subscribe to a queue; ``on_delivery`` is called in the loop and must not block."""
        ...

    async def close(self) -> None:
        """Close consumers, publishers and connections."""
        ...
