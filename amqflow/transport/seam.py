"""The seam to the broker: what the rest of amqflow may ask of AMQP, and nothing more.

One implementation stands beside it (``aiopika``); ``tests/transport`` holds every
implementation to the same conformance suite.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, Protocol

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping

    from amqflow.abc import Gate
    from amqflow.protocol import Envelope

#: Seconds a declare, bind or other question to the broker may take.
CALL_TIMEOUT: Final = 15.0
#: Seconds for which closing waits for the broker's answer.
CLOSE_TIMEOUT: Final = 5.0
#: Seconds during which a refused message (``basic.nack``) is tried again: an election of a quorum
#: queue's leader takes a fraction of that, a caller of a full queue waits no longer.
NACK_PATIENCE: Final = 5.0


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

    @property
    def generation(self) -> int:
        """How many channels it has had; deliveries of an earlier one cannot be settled."""
        ...

    async def wait_active(self, timeout: float) -> None:
        """Wait until subscribed; raises BrokerUnavailable with the problem after ``timeout``."""
        ...

    async def commit(
        self, deliveries: Iterable[Delivery], envelope: Envelope, exchange: str, routing_key: str
    ) -> None:
        """Ack deliveries and publish a message, as one step of the broker's (AMQP's ``tx``).

        For consumers that are ``transactional``; one commit at a time. The publish is dropped where
        nothing is bound; an exchange that does not exist closes the channel, and nothing is acked.

        Raises:
            ChannelLost: the channel was lost: before the step, or after it.
            BrokerUnavailable: no answer within CALL_TIMEOUT; likewise.
            NotFound: as ChannelLost, and the broker said that there is no such exchange.
            EncodeError, MessageTooLarge: as for ``publish``.
        """
        ...

    async def pause(self) -> None:
        """Unsubscribe, keep the channel: what was delivered can still be settled."""
        ...

    async def resume(self) -> None:
        """Subscribe again after a pause, once fewer than ``prefetch`` deliveries are unsettled.

        The broker counts prefetch by subscription: what is still unsettled from before the
        pause comes on top, so that at most twice ``prefetch`` less one is held.
        """
        ...

    async def close(self) -> None:
        """Flush what was settled, then close the channel: the rest goes back to the queue."""
        ...


class Admin(Protocol):
    """Declares and questions. Each call runs on a channel of its own and may run concurrently.

    Names are any UTF-8 text of at most 255 bytes. Deleting what does not exist, and unbinding
    what is not bound, is no error: RabbitMQ confirms both.

    Raises:
        NotFound: an exchange or queue that is needed does not exist (404).
        TopologyMismatch: it exists with other arguments, or is in use or not empty where that
            was a condition (406); with the broker's words.
        AccessRefused: the user may not do this (403), or the queue is exclusive to another
            connection (405).
        TopologyError: a name is longer than 255 bytes, or an argument cannot be written.
        BrokerUnavailable: no answer within CALL_TIMEOUT, or no connection.
        ChannelLost: the connection closed before the answer; ask again.
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
        """Declare a queue, or with ``passive`` ask for its counts.

        An ``exclusive`` queue belongs to the connection that declares it; consumers of this
        transport may be on another one and be refused.
        """
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

    async def unbind_queue(
        self,
        queue: str,
        exchange: str,
        routing_key: str = "",
        arguments: Mapping[str, Any] | None = None,
    ) -> None:
        """Take a binding away; ``arguments`` are those it was bound with."""
        ...

    async def unbind_exchange(
        self,
        destination: str,
        source: str,
        routing_key: str = "",
        arguments: Mapping[str, Any] | None = None,
    ) -> None:
        """Take a binding between exchanges away; ``arguments`` are those it was bound with."""
        ...

    async def delete_queue(
        self, name: str, *, if_empty: bool = False, if_unused: bool = False
    ) -> int:
        """Delete a queue; returns how many messages went with it.

        Args:
            name: the queue.
            if_empty: refuse (TopologyMismatch) while it holds ready messages. RabbitMQ knows
                this for classic queues only, for others it is TopologyError.
            if_unused: refuse while it has consumers; likewise.
        """
        ...

    async def delete_exchange(self, name: str, *, if_unused: bool = False) -> None:
        """Delete an exchange; ``if_unused``: refuse (TopologyMismatch) while it has bindings."""
        ...

    async def purge_queue(self, name: str) -> int:
        """Drop the ready messages of a queue; returns how many."""
        ...


class Transport(Admin, Protocol):
    """One process's door to one broker, living in one event loop.

    Publishes, consumers and admin calls may use connections of their own. Nothing connects
    before it is needed. Every wait has a deadline, ``close`` included. A connection that shows
    no sign of life for two heartbeats is given up.

    Where the broker cannot be used: BrokerUnavailable, or AccessRefused where the login or the
    virtual host was refused; no error holds the URL's password.
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
        gate: Gate | None = None,
    ) -> None:
        """Publish persistent, mandatory and confirmed; returns after the broker's confirm.

        Args:
            envelope: the message; its ``message_id`` is in flight once at a time. Messages
                without one are in flight one at a time: a return names its message by id only.
            exchange: checked once before its first use.
            routing_key: at most 255 bytes.
            timeout: seconds until PublishTimeout, from when the gate opens.
            retry: publish again, same id, where the connection was lost before the confirm, and
                for up to NACK_PATIENCE seconds where the broker refused the message: a quorum
                queue without a leader refuses for the second or two of an election. A queue
                that is full (``reject-publish``) refuses the same way, so its PublishNacked
                comes later and says how often; where several queues are bound, those that took
                the message get it again with each try. ``False``: the first answer is raised.
            gate: the message is made ready now and sent when the gate opens.

        Raises:
            Unroutable: no queue took it.
            PublishNacked: the broker refused it.
            PublishTimeout: no confirm in time, with the reason where it is known.
            NotFound: the exchange does not exist.
            AccessRefused: the login, the virtual host, the exchange or the ``user_id`` is
                refused.
            MessageTooLarge: its headers do not fit a frame, or its body exceeds the broker's
                limit.
            EncodeError: a header or property cannot be written as AMQP, or read by the broker.
            TopologyError: the exchange's name or the routing key is longer than 255 bytes.
            AppClosed: the transport was closed.
            BrokerUnavailable, ChannelLost: only without ``retry``.
        """
        ...

    def consume(
        self,
        queue: str,
        on_delivery: Callable[[Delivery], None],
        *,
        prefetch: int,
        exclusive: bool = False,
        transactional: bool = False,
        arguments: Mapping[str, Any] | None = None,
    ) -> Consumer:
        """Subscribe to a queue, in the background and for ever.

        Args:
            queue: it need not exist yet.
            on_delivery: called in the loop, must not block. What it raises is logged, and the
                delivery stays unsettled. A message whose properties cannot be read is delivered
                without them.
            prefetch: how many unsettled deliveries the broker hands out; 0: no bound.
            exclusive: be the only consumer; tried again while there is another.
            transactional: acks are done by :meth:`Consumer.commit` only.
            arguments: of the subscription (``x-priority``, ``x-stream-offset`` …).

        Raises:
            TopologyError: the queue's name is longer than 255 bytes.
        """
        ...

    async def close(self) -> None:
        """Close consumers, publishers and connections."""
        ...
