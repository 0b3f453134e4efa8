"""A connection's socket: asyncio around :mod:`amqflow.broker.connection`.

Output is written once a turn of the loop. A client that does not read gets no more deliveries,
and if it keeps asking it is not read from: what is held for it stays bounded.
"""

from __future__ import annotations

import asyncio
import socket
from typing import TYPE_CHECKING, Final, cast

from amqflow.broker.connection import HEARTBEAT, Connection, Phase

if TYPE_CHECKING:
    from amqflow.broker.node import Node

#: Octets in the socket's buffer above which its consumers pause, and the client is not read.
HIGH_WATER: Final = 256 * 1024
FLOOD: Final = 8 * 1024 * 1024

#: Seconds a client may take to log in and enter a virtual host (RabbitMQ's handshake_timeout).
HANDSHAKE_TIMEOUT: Final = 10.0


class Server(asyncio.Protocol):
    """One accepted socket."""

    def __init__(self, node: Node, number: int) -> None:
        """Wait to be connected."""
        self._node = node
        self._number = number
        self._loop = asyncio.get_running_loop()
        self._transport: asyncio.Transport | None = None
        self._connection: Connection | None = None
        self._scheduled = False
        self._reading = True
        self._blocked = False
        self._heartbeat = 0
        self._handshake_due = self._loop.time() + HANDSHAKE_TIMEOUT
        self._heard = self._sent = 0.0
        self._timer: asyncio.TimerHandle | None = None
        self._closer: asyncio.TimerHandle | None = None

    # -- asyncio's side ----------------------------------------------------------------------

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Begin."""
        self._transport = cast("asyncio.Transport", transport)
        self._transport.set_write_buffer_limits(high=HIGH_WATER)
        raw = transport.get_extra_info("socket")
        if raw is not None:
            raw.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        peer = transport.get_extra_info("peername") or ("", 0)
        self._connection = Connection(self._node, self, (str(peer[0]), int(peer[1])), self._number)
        self._node.connections[self._connection] = None
        self._timer = self._loop.call_later(HANDSHAKE_TIMEOUT, self._handshake_late)

    def data_received(self, data: bytes) -> None:
        """Hand bytes to the connection."""
        connection = self._connection
        if connection is None:
            return
        self._heard = self._loop.time()
        connection.receive(data)

    def eof_received(self) -> bool:
        """Let the socket close: AMQP has no half-closed connections."""
        return False

    def connection_lost(self, exc: Exception | None) -> None:  # noqa: ARG002 - the protocol's
        """Give everything back."""
        for handle in (self._timer, self._closer):
            if handle is not None:
                handle.cancel()
        connection, self._connection = self._connection, None
        if connection is not None:
            connection.lost()

    def pause_writing(self) -> None:
        """Stop deliveries: the client reads slower than it is sent to."""
        if self._connection is not None:
            self._connection.congested = True

    def resume_writing(self) -> None:
        """Go on with deliveries."""
        connection = self._connection
        if connection is None:
            return
        if connection.flooded:
            connection.flooded = False
            self._hold_reading()
        connection.drained()

    # -- the connection's side ---------------------------------------------------------------

    def soon(self) -> None:
        """Send the output at the end of this turn."""
        if not self._scheduled:
            self._scheduled = True
            self._loop.call_soon(self._end_of_turn)

    def _end_of_turn(self) -> None:
        self._scheduled = False
        self.now()

    def now(self) -> None:
        """Send the output."""
        connection, transport = self._connection, self._transport
        if connection is None or transport is None or not connection.output:
            return
        self._sent = self._loop.time()
        transport.write(connection.take_output())
        if connection.congested and not connection.flooded:
            size = transport.get_write_buffer_size()
            if size > FLOOD:
                connection.flooded = True
                self._hold_reading()

    def pause(self, *, paused: bool) -> None:
        """Read nothing more, or go on."""
        self._blocked = paused
        self._hold_reading()

    def _hold_reading(self) -> None:
        transport = self._transport
        connection = self._connection
        if connection is None or transport is None or transport.is_closing():
            return
        reading = not (self._blocked or connection.flooded)
        if reading == self._reading:
            return
        self._reading = reading
        if reading:
            transport.resume_reading()
            self._heard = self._loop.time()
        else:
            transport.pause_reading()

    def hang_up(self, after: float) -> None:
        """Close when the output is sent."""
        self.now()
        if self._closer is not None:
            self._closer.cancel()
        if after:
            self._closer = self._loop.call_later(after, self._close)
        else:
            self._close()

    def _close(self) -> None:
        transport = self._transport
        if transport is None:
            return
        if transport.get_write_buffer_size():
            # The client does not read: a second is what it gets to change its mind.
            self._closer = self._loop.call_later(1.0, transport.abort)
        transport.close()

    def abort(self) -> None:
        """Close at once."""
        if self._transport is not None:
            self._transport.abort()

    # -- heartbeats --------------------------------------------------------------------------

    def _handshake_late(self) -> None:
        if self._connection is not None and self._connection.phase is not Phase.RUNNING:
            self.abort()

    def tuned(self, heartbeat: int) -> None:
        """Send heartbeats twice in the interval; expect the client to within two."""
        self._heartbeat = heartbeat
        if heartbeat:
            self._heard = self._sent = self._loop.time()
            if self._timer is not None:
                self._timer.cancel()
            self._timer = self._loop.call_later(heartbeat / 2, self._beat)

    def _beat(self) -> None:
        connection = self._connection
        if connection is None:
            return
        now = self._loop.time()
        late = self._reading and now - self._heard > 2 * self._heartbeat
        if late or (connection.phase is not Phase.RUNNING and now > self._handshake_due):
            self.abort()
            return
        if now - self._sent >= self._heartbeat / 2:
            connection.write(HEARTBEAT)
        self._timer = self._loop.call_later(self._heartbeat / 2, self._beat)
