"""The fault switch: what goes wrong between a client and its broker, on request.

Every fault is one a real broker shows: a confirm that never comes or comes late, a publish that
is refused, a channel or connection that is closed or cut, a memory alarm.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from amqflow.broker.replies import Refusal, Reply

if TYPE_CHECKING:
    from amqflow.broker.channel import Channel
    from amqflow.broker.connection import Connection
    from amqflow.broker.node import Node


@dataclass(slots=True)
class _Fate:
    """What happens to the next ``left`` publishes under confirm; None: to all."""

    kind: Literal["drop", "delay", "nack"]
    left: int | None
    vhost: str | None
    seconds: float = 0.0


class Faults:
    """Makes a broker misbehave. A ``vhost`` limits a fault to one virtual host.

    Its methods are called in the broker's own thread.
    """

    def __init__(self, node: Node) -> None:
        """Begin without faults."""
        self._node = node
        self._fates: deque[_Fate] = deque()
        #: Why publishers are blocked; None: they are not.
        self.blocked: str | None = None

    # -- publishing ------------------------------------------------------------------------

    def drop_confirms(self, count: int | None = 1, *, vhost: str | None = None) -> None:
        """Never confirm the next publishes; the messages are taken all the same.

        Args:
            count: how many; None: all until :meth:`clear`.
            vhost: only in this virtual host.
        """
        self._fates.append(_Fate("drop", count, vhost))

    def delay_confirms(
        self, seconds: float, count: int | None = 1, *, vhost: str | None = None
    ) -> None:
        """Confirm the next publishes late, by the broker's clock; see :meth:`drop_confirms`."""
        self._fates.append(_Fate("delay", count, vhost, seconds))

    def refuse_publishes(self, count: int | None = 1, *, vhost: str | None = None) -> None:
        """Answer the next publishes with basic.nack and drop the messages."""
        self._fates.append(_Fate("nack", count, vhost))

    def fate_of_publish(self, vhost: str) -> _Fate | None:
        """Return what is to happen to a publish under confirm now; None: what should."""
        for fate in self._fates:
            if fate.vhost not in {None, vhost}:
                continue
            if fate.left is not None:
                fate.left -= 1
                if fate.left <= 0:
                    self._fates.remove(fate)
            return fate
        return None

    # -- closing ---------------------------------------------------------------------------

    def close_channels(
        self,
        reply: Reply = Reply.PRECONDITION_FAILED,
        text: str = "closed by the fault switch",
        *,
        vhost: str | None = None,
    ) -> int:
        """Close every open channel with an error; return how many."""
        channels = [
            channel
            for connection in self._connections(vhost)
            for channel in list(connection.channels.values())
            if channel.running
        ]
        for channel in channels:
            self._close(channel, reply, text)
        return len(channels)

    def _close(self, channel: Channel, reply: Reply, text: str) -> None:
        channel.fail(Refusal(reply, text), 0)
        channel.connection.flush()

    def close_connections(
        self, text: str = "closed by the fault switch", *, vhost: str | None = None
    ) -> int:
        """Close every connection with 320 CONNECTION_FORCED; return how many."""
        connections = self._connections(vhost)
        for connection in connections:
            connection.shut(text)
        return len(connections)

    def cut_connections(self, *, vhost: str | None = None) -> int:
        """Cut every connection without a word, as a network does; return how many."""
        connections = self._connections(vhost)
        for connection in connections:
            connection.abort()
        return len(connections)

    def _connections(self, vhost: str | None) -> list[Connection]:
        return [
            connection
            for connection in self._node.connections
            if connection.vhost is not None and vhost in {None, connection.vhost.name}
        ]

    # -- blocking --------------------------------------------------------------------------

    def block(self, reason: str = "low on memory") -> None:
        """Block publishers, as a memory or disk alarm does: they are told and not read from."""
        self.blocked = reason
        for connection in list(self._node.connections):
            connection.check_blocked()

    def unblock(self) -> None:
        """Let publishers go on."""
        self.blocked = None
        for connection in list(self._node.connections):
            connection.check_blocked()

    def clear(self) -> None:
        """Take every fault back."""
        self._fates.clear()
        if self.blocked is not None:
            self.unblock()
