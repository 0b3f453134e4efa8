"""A connection without its socket: bytes in, bytes out, and a table of what may come when.

The phases are those of ``rabbit_reader``; AMQP 0-9-1, 2.2.4 and 4.10.
"""

from __future__ import annotations

import logging
from enum import Enum
from typing import TYPE_CHECKING, Any, Final, Protocol

from pamqp import commands, constants

from amqflow.broker import identity, methods, publishing
from amqflow.broker.channel import Channel
from amqflow.broker.channel import Phase as ChannelPhase
from amqflow.broker.channel_methods import METHODS
from amqflow.broker.content import HEADER_SIZE, Assembler
from amqflow.broker.frames import (
    OVERHEAD,
    PROTOCOL_HEADER,
    FrameBroken,
    FrameReader,
    NotAmqp,
    shown,
)
from amqflow.broker.login import log_in
from amqflow.broker.methods import Method, encode, frame
from amqflow.broker.replies import Refusal, Reply

if TYPE_CHECKING:
    from collections.abc import Callable

    from pamqp.base import Frame

    from amqflow.broker.content import Content
    from amqflow.broker.frames import RawFrame
    from amqflow.broker.node import Node
    from amqflow.broker.queues import Queue
    from amqflow.broker.tables import Table
    from amqflow.broker.users import User
    from amqflow.broker.vhost import VirtualHost

log = logging.getLogger(__name__)

HEARTBEAT: Final = frame(constants.FRAME_HEARTBEAT, 0, b"")

_PUBLISH: Final = commands.Basic.Publish.index
_OPEN: Final = commands.Channel.Open.index
_CLOSE: Final = commands.Channel.Close.index
_CLOSE_OK: Final = commands.Channel.CloseOk.index


class Phase(Enum):
    """How far a connection is; the values are RabbitMQ's names."""

    GREETING = "greeting"
    STARTING = "starting"
    TUNING = "tuning"
    OPENING = "opening"
    RUNNING = "running"
    CLOSED = "closed"


class Line(Protocol):
    """What a connection asks of its socket."""

    def soon(self) -> None:
        """Send the connection's output at the end of this turn."""
        ...

    def now(self) -> None:
        """Send the connection's output."""
        ...

    def hang_up(self, after: float) -> None:
        """Close when the output is sent, at the latest ``after`` seconds from now."""
        ...

    def abort(self) -> None:
        """Close at once, whatever is unsent."""
        ...

    def tuned(self, heartbeat: int) -> None:
        """Take the heartbeat that was agreed on, in seconds; 0: none."""
        ...

    def pause(self, *, paused: bool) -> None:
        """Read nothing more, or go on."""
        ...


#: Seconds a client may take for its close-ok, and to read why it was closed without one.
CLOSE_TIMEOUT: Final = 30.0
FAREWELL: Final = 3.0

#: Octets of output after which it is sent before the turn ends.
_BATCH: Final = 64 * 1024


class Connection:
    """One client.

    Attributes:
        congested: its socket takes nothing more; its consumers get nothing until it does.
        flooded: so much waits for its socket that it is not read from, and gets no replies.
        exclusive_queues: the queues that go with it.
        to_confirm: channels with confirms that have not been sent.
    """

    def __init__(self, node: Node, line: Line, peer: tuple[str, int], number: int) -> None:
        """Wait for the protocol header.

        Args:
            node: the broker.
            line: the socket.
            peer: the client's address.
            number: unlike that of all other connections of this broker.
        """
        self.node = node
        self.peer = peer
        self.number = number
        self.phase = Phase.GREETING
        self.user: User | None = None
        self.vhost: VirtualHost | None = None
        self.client_properties: Table = {}
        self.mechanism = ""
        self.channel_max = identity.CHANNEL_MAX
        self.frame_max = identity.FRAME_MAX
        self.heartbeat = 0
        self.channels: dict[int, Channel] = {}
        self.exclusive_queues: dict[Queue, None] = {}
        self.to_confirm: dict[Channel, None] = {}
        self.congested = False
        self.flooded = False
        self.connected_at = node.clock.now()
        self.output: list[bytes] = []
        self.output_size = 0
        self._line = line
        self._reader = FrameReader()
        self._contents: dict[int, Assembler] = {}
        self._has_published = False
        self._blocked = False
        self._capabilities: frozenset[str] = frozenset()

    @classmethod
    def inside(cls, node: Node, user: User, vhost: VirtualHost) -> Connection:
        """Return a connection without a client, for the management API: nobody hears it."""
        connection = cls(node, _NoLine(), ("127.0.0.1", 0), 0)
        connection.user = user
        connection.vhost = vhost
        connection.phase = Phase.RUNNING
        return connection

    @property
    def blocked(self) -> bool:
        """Whether it is not read from because of an alarm."""
        return self._blocked

    @property
    def name(self) -> str:
        """What the management API calls it."""
        return f"{self.peer[0]}:{self.peer[1]} -> {self.node.address}"

    @property
    def body_limit(self) -> int:
        """The most octets of a body that one frame carries."""
        return self.frame_max - OVERHEAD

    def knows(self, capability: str) -> bool:
        """Whether the client said that it has a capability."""
        return capability in self._capabilities

    def entered(self) -> tuple[VirtualHost, User]:
        """Return the virtual host the client is in, and who it is.

        Raises:
            Refusal: it has not come so far.
        """
        if self.vhost is None or self.user is None:
            raise Refusal(Reply.CHANNEL_ERROR, "no virtual host was opened")
        return self.vhost, self.user

    # -- output ----------------------------------------------------------------------------

    def write(self, data: bytes) -> None:
        """Send bytes with this turn's."""
        if not self.output:
            self._line.soon()
        self.output.append(data)
        self.output_size += len(data)
        if self.output_size > _BATCH:
            self._line.now()

    def flush(self) -> None:
        """Send the confirms that have come together, and then everything."""
        for channel in list(self.to_confirm):
            channel.flush_confirms()
        self.to_confirm.clear()
        if self.output:
            self._line.now()

    def take_output(self) -> bytes:
        """Return what is to be sent; it is no longer here."""
        data = self.output[0] if len(self.output) == 1 else b"".join(self.output)
        self.output.clear()
        self.output_size = 0
        return data

    def _send(self, kind: type[Frame], **values: Any) -> None:
        self.write(encode(0, kind, **values))

    def drained(self) -> None:
        """Go on: the socket takes output again."""
        self.congested = False
        for channel in list(self.channels.values()):
            channel.wake_all()

    # -- input -----------------------------------------------------------------------------

    def receive(self, data: bytes) -> None:
        """Take bytes from the client and do what they say."""
        try:
            for raw in self._reader.feed(data):
                if self.phase is Phase.GREETING:
                    self._greet()
                elif raw is not None:
                    self._frame(raw)
        except NotAmqp:
            self.write(PROTOCOL_HEADER)
            self._end(0.0)
        except FrameBroken as broken:
            raw = broken.frame
            text = f"type {raw.type}, {shown(raw.payload)}: {broken.problem}"
            self._fail(Refusal(Reply.FRAME_ERROR, text), 0, lost=True)
        self.flush()

    def _greet(self) -> None:
        self.phase = Phase.STARTING
        self._send(
            commands.Connection.Start,
            version_major=0,
            version_minor=9,
            server_properties=identity.server_properties(self.node.name),
            mechanisms=identity.MECHANISMS,
            locales=identity.LOCALE,
        )

    def _frame(self, raw: RawFrame) -> None:
        if raw.channel == 0:
            self._frame_of_connection(raw)
        elif self.phase is Phase.RUNNING:
            self._frame_of_channel(raw)
        elif self.phase is not Phase.CLOSED:
            text = f"type {raw.type}, {shown(raw.payload)}"
            self._fail(Refusal(Reply.UNEXPECTED_FRAME, text), 0)

    # -- channel 0 ---------------------------------------------------------------------------

    def _frame_of_connection(self, raw: RawFrame) -> None:
        problem = _strangeness(raw)
        if problem is None and raw.type == constants.FRAME_HEARTBEAT:
            return
        if problem is None and raw.type != constants.FRAME_METHOD:
            problem = _unexpected(raw)
        if problem is not None:
            self._fail(problem, 0)
            return
        method = self._decoded(raw.payload)
        if method is None:
            return
        try:
            self._method_of_connection(method)
        except Refusal as refusal:
            self._fail(refusal, method.index)

    def _decoded(self, payload: bytes) -> Method | None:
        """Return a method; None where it is none, and the connection has ended."""
        try:
            return methods.decode(payload)
        except methods.MalformedMethod as error:
            fields = ",".join(map(str, payload[4:]))
            refusal = Refusal(Reply.FRAME_ERROR, f"cannot decode <<{fields}>>")
            self._fail(refusal, error.index)
        except methods.MalformedString:
            self._fail(Refusal(Reply.FRAME_ERROR, "Malformed UTF-8 in shortstr"), 0)
        except methods.UnknownMethod as error:
            self._fail(Refusal(Reply.COMMAND_INVALID, f"unknown method {error}"), 0)
        return None

    def _method_of_connection(self, method: Method) -> None:
        index = method.index
        if self.phase is Phase.CLOSED:
            if index == commands.Connection.CloseOk.index:
                self._line.hang_up(0)
            elif index == commands.Connection.Close.index:
                self._send(commands.Connection.CloseOk)
            return
        handle = _CONNECTION_METHODS.get((self.phase, index))
        if handle is None:
            raise Refusal(
                Reply.CHANNEL_ERROR,
                f"unexpected method in connection state {self.phase.value}",
            )
        handle(self, method)

    def start_ok(self, method: Method) -> None:
        """Log the client in."""
        self.client_properties = method.client_properties or {}
        known = self.client_properties.get("capabilities")
        if known is not None and known.type == "table":
            self._capabilities = frozenset(
                name for name, field in known.value.items() if field.value is True
            )
        self.mechanism = method.mechanism
        self.user = log_in(method.mechanism, method.response, self.node.users)
        if self.user is None:
            self._refuse_login()
            return
        self.phase = Phase.TUNING
        self._send(
            commands.Connection.Tune,
            channel_max=identity.CHANNEL_MAX,
            frame_max=identity.FRAME_MAX,
            heartbeat=identity.HEARTBEAT,
        )

    def _refuse_login(self) -> None:
        if not self.knows("authentication_failure_close"):
            self._end(0)
            return
        text = (
            f"Login was refused using authentication mechanism {self.mechanism}. For details see "
            "the broker logfile."
        )
        self._fail(Refusal(Reply.ACCESS_REFUSED, text), 0)

    def tune_ok(self, method: Method) -> None:
        """Take the client's limits, within ours."""
        _check_limit("frame_max", method.frame_max, identity.FRAME_MIN, identity.FRAME_MAX)
        _check_limit("channel_max", method.channel_max, 1, identity.CHANNEL_MAX)
        self.frame_max = method.frame_max
        self.channel_max = method.channel_max
        self.heartbeat = method.heartbeat
        self._reader.limit = method.frame_max
        self.phase = Phase.OPENING
        self._line.tuned(method.heartbeat)

    def open(self, method: Method) -> None:
        """Enter a virtual host."""
        name, user = method.virtual_host, self.user
        assert user is not None
        vhost = self.node.vhosts.get(name)
        if vhost is None:
            raise Refusal(Reply.NOT_ALLOWED, f"vhost {name} not found")
        here = sum(1 for one in self.node.connections if one.vhost is vhost)
        if 0 <= vhost.max_connections <= here:
            raise Refusal(
                Reply.NOT_ALLOWED,
                f"access to vhost '{name}' refused for user '{user.name}': "
                f"connection limit ({vhost.max_connections}) is reached",
            )
        if user.in_vhost(name) is None:
            raise Refusal(
                Reply.NOT_ALLOWED, f"access to vhost '{name}' refused for user '{user.name}'"
            )
        self.vhost = vhost
        self.phase = Phase.RUNNING
        self._send(commands.Connection.OpenOk)

    def close(self, _method: Method) -> None:
        """End in order: everything the client had is given back before it is told."""
        self.flush()
        self._release()
        self._send(commands.Connection.CloseOk)
        # The socket is the client's to close: closed here at once, it would look to one that is
        # still busy with its own end like a connection that was lost.
        self._end(FAREWELL)

    def update_secret(self, _method: Method) -> None:
        """Take a new password for a login that holds: there is nothing to be done."""
        self._send(commands.Connection.UpdateSecretOk)

    # -- channels ----------------------------------------------------------------------------

    def _frame_of_channel(self, raw: RawFrame) -> None:
        kind, number, payload = raw
        problem = _strangeness(raw)
        if problem is not None:
            self._fail(problem, 0)
        elif kind == constants.FRAME_METHOD:
            self._method_frame(number, payload)
        elif kind == constants.FRAME_HEARTBEAT:
            self._fail(_unexpected(raw), 0)
        else:
            self._content_frame(number, kind, payload)

    def _method_frame(self, number: int, payload: bytes) -> None:
        method = self._decoded(payload)
        if method is None:
            return
        channel = self.channels.get(number)
        index = method.index
        if channel is None and (channel := self._new_channel(number)) is None:
            return
        if channel.phase is ChannelPhase.CLOSING:
            self._method_of_closing(channel, index)
            return
        content = self._contents[number]
        if not content.expects_method:
            self._fail(content.refuse_method(), _PUBLISH)
            return
        try:
            if index == _PUBLISH:
                content.begin(method, self.node.limits.max_message_size)
            else:
                self._method_of_channel(channel, index, method)
        except Refusal as refusal:
            self._refused(channel, refusal, index)
        except Exception as error:  # noqa: BLE001 - our mistake, and this client's end only
            self._broken(error, index)

    def _new_channel(self, number: int) -> Channel | None:
        """Return a new channel; None where there is one too many, and the connection has ended."""
        if len(self.channels) >= self.channel_max:
            text = (
                f"number of channels opened ({len(self.channels)}) has reached the negotiated "
                f"channel_max ({self.channel_max})"
            )
            self._fail(Refusal(Reply.NOT_ALLOWED, text), 0)
            return None
        channel = self.channels[number] = Channel(self, number)
        self._contents[number] = Assembler()
        return channel

    def _method_of_channel(self, channel: Channel, index: int, method: Method) -> None:
        if index == _OPEN:
            if channel.running:
                raise Refusal(Reply.CHANNEL_ERROR, "second 'channel.open' seen")
            channel.phase = ChannelPhase.RUNNING
            channel.send(commands.Channel.OpenOk)
            return
        if not channel.running:
            raise Refusal(Reply.CHANNEL_ERROR, "expected 'channel.open'")
        if index == _CLOSE:
            channel.flush_confirms()
            channel.release()
            self._drop_channel(channel)
            self.write(encode(channel.number, commands.Channel.CloseOk))
            return
        handle = METHODS.get(index)
        if handle is None:
            raise Refusal(Reply.COMMAND_INVALID, "unimplemented method")
        handle(channel, method)

    def _method_of_closing(self, channel: Channel, index: int) -> None:
        if index == _CLOSE_OK:
            self._drop_channel(channel)
        elif index == _CLOSE:
            self.write(encode(channel.number, commands.Channel.CloseOk))

    def _drop_channel(self, channel: Channel) -> None:
        self.channels.pop(channel.number, None)
        self._contents.pop(channel.number, None)

    def _content_frame(self, number: int, kind: int, payload: bytes) -> None:
        channel = self.channels.get(number)
        if channel is None and (channel := self._new_channel(number)) is None:
            return
        if channel.phase is ChannelPhase.CLOSING:
            return
        assembler = self._contents[number]
        blamed = 0 if assembler.expects_method else _PUBLISH
        try:
            content = assembler.add(kind, payload)
            if content is None:
                return
            self._publish(channel, content)
        except Refusal as refusal:
            self._refused(channel, refusal, blamed)
        except ValueError:
            self._fail(Refusal(Reply.INTERNAL_ERROR, ""), 0)
        except Exception as error:  # noqa: BLE001 - as above
            self._broken(error, 0)

    def _broken(self, error: Exception, index: int) -> None:
        """Close with 541: what the client sent met a mistake of this broker's."""
        log.error("the embedded broker failed at what %s sent", self.name, exc_info=error)
        self._fail(Refusal(Reply.INTERNAL_ERROR, ""), index)

    def _publish(self, channel: Channel, content: Content) -> None:
        if not channel.running:
            raise Refusal(Reply.CHANNEL_ERROR, "expected 'channel.open'")
        if not self._has_published:
            self._has_published = True
            self.check_blocked()
        publishing.publish(channel, *content)

    def _refused(self, channel: Channel, refusal: Refusal, index: int) -> None:
        if refusal.hard:
            self._fail(refusal, index)
        else:
            channel.fail(refusal, index)

    # -- blocking ----------------------------------------------------------------------------

    def check_blocked(self) -> None:
        """Block a client that has published while the broker has an alarm, or let it go on."""
        reason = self.node.faults.blocked
        blocked = reason is not None and self._has_published and self.phase is Phase.RUNNING
        if blocked == self._blocked:
            return
        self._blocked = blocked
        if self.knows("connection.blocked"):
            if blocked:
                self._send(commands.Connection.Blocked, reason=reason)
            else:
                self._send(commands.Connection.Unblocked)
            self.flush()
        self._line.pause(paused=blocked)

    # -- ending ------------------------------------------------------------------------------

    def shut(self, text: str) -> None:
        """Close by force of an operator: 320, and no more is heard."""
        self._fail(Refusal(Reply.CONNECTION_FORCED, text), 0)
        self.flush()

    def abort(self) -> None:
        """Cut the line."""
        self._line.abort()
        self.lost()

    def lost(self) -> None:
        """Give everything back: the socket is gone."""
        self.phase = Phase.CLOSED
        self._release()
        self.node.connections.pop(self, None)

    def _fail(self, refusal: Refusal, index: int, *, lost: bool = False) -> None:
        """End with an error, whatever the phase: RabbitMQ often hangs up without a word.

        Args:
            refusal: why.
            index: the method that failed; 0: none.
            lost: nothing the client says can be understood any more.
        """
        if self.phase is Phase.CLOSED:
            return
        self.flush()
        self._release()
        self._send(
            commands.Connection.Close,
            reply_code=refusal.reply.code,
            reply_text=refusal.text,
            class_id=index >> 16,
            method_id=index & 0xFFFF,
        )
        self._end(FAREWELL if lost else CLOSE_TIMEOUT)

    def _end(self, timeout: float) -> None:
        self.phase = Phase.CLOSED
        if self._blocked:
            self._blocked = False
            self._line.pause(paused=False)
        self._line.hang_up(timeout)

    def _release(self) -> None:
        for channel in list(self.channels.values()):
            channel.release()
        self.channels.clear()
        self._contents.clear()
        vhost = self.vhost
        if vhost is not None:
            for queue in list(self.exclusive_queues):
                vhost.delete_queue(queue)
        self.vhost = None


class _NoLine:
    """A socket that is none."""

    def soon(self) -> None:
        """Do nothing."""

    def now(self) -> None:
        """Do nothing."""

    def hang_up(self, after: float) -> None:
        """Do nothing."""

    def abort(self) -> None:
        """Do nothing."""

    def tuned(self, heartbeat: int) -> None:
        """Do nothing."""

    def pause(self, *, paused: bool) -> None:
        """Do nothing."""


#: What a client may say on channel 0, and when.
_CONNECTION_METHODS: Final[dict[tuple[Phase, int], Callable[[Connection, Any], None]]] = {
    (Phase.STARTING, commands.Connection.StartOk.index): Connection.start_ok,
    (Phase.TUNING, commands.Connection.TuneOk.index): Connection.tune_ok,
    (Phase.OPENING, commands.Connection.Open.index): Connection.open,
    (Phase.RUNNING, commands.Connection.Close.index): Connection.close,
    (Phase.RUNNING, commands.Connection.UpdateSecret.index): Connection.update_secret,
}


def _check_limit(name: str, asked: int, least: int, most: int) -> None:
    """Refuse a limit outside what the server allows; 0 asks for none, which is too much."""
    if asked and asked < least:
        word, bound, limit = "lower", "minimum", least
    elif not asked or asked > most:
        word, bound, limit = "higher", "maximum", most
    else:
        return
    detail = "" if asked else " (no limit)"
    raise Refusal(
        Reply.NOT_ALLOWED,
        f"negotiated {name} = {asked}{detail} is {word} than the {bound} allowed value ({limit})",
    )


#: The least octets of each frame's payload; every type that may come is here.
_LEAST: Final = {
    constants.FRAME_METHOD: 4,
    constants.FRAME_HEADER: HEADER_SIZE,
    constants.FRAME_BODY: 0,
    constants.FRAME_HEARTBEAT: 0,
}


def _strangeness(raw: RawFrame) -> Refusal | None:
    """Return what is wrong with a frame as such; None: nothing."""
    least = _LEAST.get(raw.type)
    size = len(raw.payload)
    if least is not None and size >= least and (raw.type != constants.FRAME_HEARTBEAT or not size):
        return None
    text = f"type {raw.type}, {shown(raw.payload)}: unknown_frame"
    return Refusal(Reply.FRAME_ERROR, text)


def _unexpected(raw: RawFrame) -> Refusal:
    return Refusal(Reply.UNEXPECTED_FRAME, f"type {raw.type}, {shown(raw.payload)}")
