"""A bare AMQP 0-9-1 client over a blocking socket: what the broker says is seen as it was said.

It checks nothing, recovers nothing and reads only when asked, so that a test can send what no
client library would and read the order in which answers came.
"""

import socket
import struct
import time
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import pamqp.body
import pamqp.commands as amqp
import pamqp.frame
import pamqp.header
import pamqp.heartbeat
from pamqp.exceptions import UnmarshalingException

from tests.servers.wait import until_sync

HEADER = b"AMQP\x00\x00\x09\x01"
METHOD, CONTENT_HEADER, CONTENT_BODY, HEARTBEAT = 1, 2, 3, 8
END = b"\xce"
PASSIVE, EXCLUSIVE = 1, 4  # bits of queue.declare

# What a loaded machine may take to answer; nothing waits this long when all is well.
DEADLINE = 15.0

CAPABILITIES = {
    "authentication_failure_close": True,
    "basic.nack": True,
    "connection.blocked": True,
    "consumer_cancel_notify": True,
    "publisher_confirms": True,
}


class Refused(Exception):
    """The broker closed a channel or the connection: level, code, text and the method blamed."""

    level: str
    code: int
    text: str
    method: str | None

    def __init__(self, level: str, code: int, text: str, method: str | None) -> None:
        super().__init__(level, code, text, method)
        self.level, self.code, self.text, self.method = self.args


class HungUp(Exception):
    """The broker closed the socket without a word of AMQP."""


class Silence(AssertionError):
    """The broker said nothing before the deadline."""


@contextmanager
def refused(level: str, code: int, text: str, method: str | None) -> Iterator[None]:
    """Hold the block to being refused exactly so.

    Args:
        level: "channel" or "connection": what the broker closes.
        code: The reply code.
        text: The whole reply text.
        method: The method blamed, as `Queue.Declare`; None where the broker names none (0, 0).
    """
    try:
        yield
    except Refused as refusal:
        expected = (level, code, text, method)
        if refusal.args != expected:
            raise AssertionError(f"refused with {refusal.args}\n    expected {expected}") from None
    else:
        raise AssertionError(f"not refused: {level} {code} {text}")


@dataclass(slots=True)
class Message:
    """A delivery, an answer to basic.get, or a return: its method and its content."""

    method: Any
    properties: Any
    body: bytes
    frames: int

    def __repr__(self) -> str:
        return f"{self.method.name}({self.body[:40]!r})"

    @property
    def tag(self) -> int:
        return self.method.delivery_tag

    @property
    def redelivered(self) -> bool:
        return self.method.redelivered

    @property
    def headers(self) -> dict[str, Any]:
        return self.properties.headers or {}

    @property
    def deaths(self) -> list[dict[str, Any]]:
        """The x-death header, without the times."""
        return [
            {key: value for key, value in death.items() if key != "time"}
            for death in self.headers.get("x-death", [])
        ]

    @property
    def route(self) -> tuple[str, str]:
        return self.method.exchange, self.method.routing_key


class Counts(NamedTuple):
    """What queue.declare-ok tells of a queue."""

    messages: int
    consumers: int


@dataclass(slots=True, eq=False)
class Channel:
    """One channel: methods sent, and what came for it that answers no method, in order."""

    connection: "Connection"
    number: int
    inbox: deque[Any] = field(default_factory=deque)
    refusal: Refused | None = None
    _answers: deque[Any] = field(default_factory=deque)
    _content: list[Any] = field(default_factory=list)

    # What goes out.

    def cast(self, method: Any) -> None:
        """Send a method; wait for nothing."""
        self.connection.send(self.number, method)

    def call(self, method: Any, *, deadline: float = DEADLINE) -> Any:
        """Send a method and return its answer."""
        self.cast(method)
        return self.answer(deadline=deadline)

    def answer(self, *, deadline: float = DEADLINE) -> Any:
        """Return the next answer to a synchronous method."""
        return self._wait(self._answers, deadline)

    def open(self) -> "Channel":
        self.call(amqp.Channel.Open())
        return self

    def close(self) -> None:
        self.call(amqp.Channel.Close(200, "done", 0, 0))

    def confirm(self) -> "Channel":
        """Put the channel into confirm mode."""
        self.call(amqp.Confirm.Select())
        return self

    def publish(
        self,
        body: bytes = b"",
        queue: str = "",
        *,
        exchange: str = "",
        mandatory: bool = False,
        immediate: bool = False,
        **properties: Any,
    ) -> None:
        """Publish to a routing key; through the default exchange that is a queue's name."""
        method = amqp.Basic.Publish(0, exchange, queue, mandatory, immediate)
        self.connection.send(self.number, method, *self._frames(body, properties))

    def publish_raw(self, queue: str, properties: bytes, body: bytes = b"") -> None:
        """Publish with properties as they are on the wire: their flags and what these announce."""
        header = struct.pack(">HHQ", 60, 0, len(body)) + properties
        self.cast(amqp.Basic.Publish(0, "", queue))
        self.connection.write(raw_frame(CONTENT_HEADER, self.number, header))
        if body:
            self.connection.write(raw_frame(CONTENT_BODY, self.number, body))

    def publish_all(self, bodies: Any, queue: str, **properties: Any) -> None:
        for body in bodies:
            self.publish(
                body if isinstance(body, bytes) else str(body).encode(), queue, **properties
            )

    def published(self, body: bytes = b"", queue: str = "", **options: Any) -> Any:
        """Publish on a channel in confirm mode and return what comes first: a confirm or a return."""
        self.publish(body, queue, **options)
        return self.event()

    def _frames(self, body: bytes, properties: dict[str, Any]) -> list[Any]:
        header = pamqp.header.ContentHeader(0, len(body), amqp.Basic.Properties(**properties))
        size = self.connection.frame_max - 8
        return [
            header,
            *(
                pamqp.body.ContentBody(body[start : start + size])
                for start in range(0, len(body), size)
            ),
        ]

    # The methods tests use most, with RabbitMQ's usual defaults.

    def queue(
        self,
        name: str = "",
        *,
        durable: bool = True,
        passive: bool = False,
        exclusive: bool = False,
        auto_delete: bool = False,
        arguments: dict[str, Any] | None = None,
    ) -> str:
        """Declare a queue and return its name."""
        return self.call(
            amqp.Queue.Declare(
                0, name, passive, durable, exclusive, auto_delete, False, arguments or {}
            )
        ).queue

    def queue_of_any_name(self, name: bytes, flags: int = EXCLUSIVE) -> str:
        """Declare a queue whose name no client library would send; return the broker's name."""
        declare = raw_method(50, 10, bytes([0, 0, len(name)]) + name + bytes([flags, 0, 0, 0, 0]))
        self.connection.write(raw_frame(METHOD, self.number, declare))
        return self.answer().queue

    def counts(self, queue: str) -> Counts:
        """Return a queue's ready messages and consumers, by passive declare."""
        answer = self.call(amqp.Queue.Declare(queue=queue, passive=True))
        return Counts(answer.message_count, answer.consumer_count)

    def ready(self, queue: str) -> int:
        return self.counts(queue).messages

    def holds(self, queue: str, messages: int) -> bool:
        """Wait until a queue holds that many ready messages: RabbitMQ counts ahead of publishes."""
        return until_sync(
            lambda: self.ready(queue) == messages, message=f"{messages} messages in {queue}"
        )

    def exchange(
        self,
        name: str,
        kind: str = "direct",
        *,
        durable: bool = True,
        passive: bool = False,
        auto_delete: bool = False,
        internal: bool = False,
        arguments: dict[str, Any] | None = None,
    ) -> str:
        """Declare an exchange and return its name."""
        self.call(
            amqp.Exchange.Declare(
                0, name, kind, passive, durable, auto_delete, internal, False, arguments or {}
            )
        )
        return name

    def bind(
        self, queue: str, exchange: str, key: str = "", arguments: dict[str, Any] | None = None
    ) -> None:
        self.call(amqp.Queue.Bind(0, queue, exchange, key, False, arguments or {}))

    def unbind(
        self, queue: str, exchange: str, key: str = "", arguments: dict[str, Any] | None = None
    ) -> None:
        self.call(amqp.Queue.Unbind(0, queue, exchange, key, arguments or {}))

    def bind_exchange(
        self,
        destination: str,
        source: str,
        key: str = "",
        arguments: dict[str, Any] | None = None,
    ) -> None:
        self.call(amqp.Exchange.Bind(0, destination, source, key, False, arguments or {}))

    def get(self, queue: str, *, no_ack: bool = False) -> Message | None:
        """Return the message basic.get gives, None for get-empty."""
        answer = self.call(amqp.Basic.Get(0, queue, no_ack))
        return answer if isinstance(answer, Message) else None

    def drain(self, queue: str) -> list[bytes]:
        """Take every ready message off a queue and return the bodies."""
        bodies = []
        while message := self.get(queue, no_ack=True):
            bodies.append(message.body)
        return bodies

    def consume(
        self,
        queue: str,
        tag: str = "",
        *,
        no_ack: bool = False,
        exclusive: bool = False,
        no_local: bool = False,
        arguments: dict[str, Any] | None = None,
    ) -> str:
        """Start a consumer and return its tag."""
        return self.call(
            amqp.Basic.Consume(0, queue, tag, no_local, no_ack, exclusive, False, arguments or {})
        ).consumer_tag

    def cancel(self, tag: str) -> str:
        return self.call(amqp.Basic.Cancel(tag)).consumer_tag

    def qos(self, count: int, *, shared: bool = False) -> None:
        """Limit unacked deliveries: of each new consumer, or of the channel if `shared`."""
        self.call(amqp.Basic.Qos(0, count, shared))

    def ack(self, tag: int = 0, *, multiple: bool = False) -> None:
        self.cast(amqp.Basic.Ack(tag, multiple))

    def nack(self, tag: int = 0, *, multiple: bool = False, requeue: bool = True) -> None:
        self.cast(amqp.Basic.Nack(tag, multiple, requeue))

    def reject(self, tag: int = 0, *, requeue: bool = True) -> None:
        self.cast(amqp.Basic.Reject(tag, requeue))

    def recover(self, *, requeue: bool = True) -> None:
        self.call(amqp.Basic.Recover(requeue))

    # What comes in.

    def event(self, *, deadline: float = DEADLINE) -> Any:
        """Return what came next and answers no method: a Message, an ack, nack or cancel."""
        return self._wait(self.inbox, deadline)

    def events(self, number: int, *, deadline: float = DEADLINE) -> list[Any]:
        end = time.monotonic() + deadline
        return [self.event(deadline=end - time.monotonic()) for _ in range(number)]

    def delivery(self, *, deadline: float = DEADLINE) -> Message:
        """Return what came next, which is a delivery."""
        event = self.event(deadline=deadline)
        assert isinstance(event, Message), event
        assert isinstance(event.method, amqp.Basic.Deliver), event
        return event

    def deliveries(self, number: int, *, deadline: float = DEADLINE) -> list[Message]:
        end = time.monotonic() + deadline
        return [self.delivery(deadline=end - time.monotonic()) for _ in range(number)]

    def bodies(self, number: int) -> list[bytes]:
        return [message.body for message in self.deliveries(number)]

    def wait_closed(self, *, deadline: float = DEADLINE) -> None:
        """Wait until the broker closes the channel or the connection, and raise `Refused`."""
        end = time.monotonic() + deadline
        while self.refusal is None:
            self.connection.read(end)
        raise self.refusal

    def sync(self) -> None:
        """Make a round trip through the channel: what was sent before has been looked at."""
        self.exchange("amq.direct", passive=True)

    def quiet(self, seconds: float = 0.1) -> bool:
        """Say whether nothing comes for the channel: two round trips and `seconds` of listening."""
        self.sync()
        self.sync()
        end = time.monotonic() + seconds
        try:
            while not self.inbox and not self.refusal:
                self.connection.read(end)
        except Silence:
            return True
        return False

    def _wait(self, place: deque[Any], deadline: float) -> Any:
        end = time.monotonic() + deadline
        while not place:
            if self.refusal is not None:
                raise self.refusal
            self.connection.read(end)
        return place.popleft()

    def take(self, frame: Any) -> None:
        """Sort a frame that came for the channel: a close, content, an answer, or an event."""
        if isinstance(frame, amqp.Channel.Close):
            self.refusal = Refused(
                "channel",
                frame.reply_code,
                frame.reply_text,
                blamed(frame.class_id, frame.method_id),
            )
            if not self.connection.mute:
                self.cast(amqp.Channel.CloseOk())
        elif isinstance(frame, CONTENT_METHODS):
            assert not self._content, "a content method before the last content's end"
            self._content = [frame]
        elif isinstance(frame, pamqp.header.ContentHeader | pamqp.body.ContentBody):
            self._content.append(frame)
        elif isinstance(frame, amqp.Channel.Flow):
            self.inbox.append(frame)
            self.cast(amqp.Channel.FlowOk(frame.active))
        elif isinstance(frame, EVENTS):
            self.inbox.append(frame)
        else:
            self._answers.append(frame)
        self._complete()

    def _complete(self) -> None:
        """Hand on the content that is whole."""
        if len(self._content) < 2:
            return
        method, header, *parts = self._content
        body = b"".join(part.value for part in parts)
        if len(body) < header.body_size:
            return
        self._content = []
        message = Message(method, header.properties, body, len(parts))
        (self._answers if isinstance(method, amqp.Basic.GetOk) else self.inbox).append(message)


CONTENT_METHODS = (amqp.Basic.Deliver, amqp.Basic.GetOk, amqp.Basic.Return)
EVENTS = (amqp.Basic.Ack, amqp.Basic.Nack, amqp.Basic.Cancel)


class Connection:
    """A socket to the broker, its frames sorted by channel."""

    def __init__(self, address: tuple[str, int]) -> None:
        self.socket = socket.create_connection(address, timeout=DEADLINE)
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.channels: dict[int, Channel] = {}
        self.control = self.channels[0] = Channel(self, 0)
        self.frame_max = 131072
        self.heartbeats = 0
        self.blocked: deque[Any] = deque()
        self.refusal: Refused | None = None
        self.mute = False  # answer no close: what a half-dead client does
        self._received = bytearray()

    # Opening and closing.

    def open(
        self,
        vhost: str = "/",
        *,
        mechanism: str = "PLAIN",
        response: str = "\x00guest\x00guest",
        capabilities: dict[str, bool] | None = None,
        channel_max: int | None = None,
        frame_max: int | None = None,
        heartbeat: int = 0,
    ) -> amqp.Connection.Tune:
        """Shake hands; return the broker's tune."""
        self.write(HEADER)
        start = self.control.answer()
        assert isinstance(start, amqp.Connection.Start), start
        self.properties = start.server_properties
        self.start = start
        tune = self.control.call(
            amqp.Connection.StartOk(
                {
                    "product": "amqflow tests",
                    "capabilities": CAPABILITIES if capabilities is None else capabilities,
                },
                mechanism,
                response,
                "en_US",
            )
        )
        assert isinstance(tune, amqp.Connection.Tune), tune
        self.frame_max = tune.frame_max if frame_max is None else frame_max
        self.control.cast(
            amqp.Connection.TuneOk(
                tune.channel_max if channel_max is None else channel_max, self.frame_max, heartbeat
            )
        )
        self.frame_max = self.frame_max or 131072
        answer = self.control.call(amqp.Connection.Open(vhost))
        assert isinstance(answer, amqp.Connection.OpenOk), answer
        return tune

    def channel(self, number: int | None = None) -> Channel:
        """Open a channel: the lowest free number, unless one is given."""
        if number is None:
            number = next(n for n in range(1, 65536) if n not in self.channels)
        self.channels[number] = Channel(self, number)
        return self.channels[number].open()

    def close(self) -> None:
        """Close the connection in order."""
        self.control.call(amqp.Connection.Close(200, "bye", 0, 0))
        self.drop()

    def drop(self) -> None:
        """Close the socket: what a killed client does."""
        self.socket.close()

    # Sending.

    def send(self, channel: int, *frames: Any) -> None:
        """Send frames on a channel in one write."""
        self.write(b"".join(pamqp.frame.marshal(frame, channel) for frame in frames))

    def write(self, data: bytes) -> None:
        """Send bytes as they are."""
        self.socket.settimeout(DEADLINE)
        try:
            self.socket.sendall(data)
        except (BrokenPipeError, ConnectionResetError):
            # It closed its end: what it said first is still to be read.
            return

    # Reading.

    def read(self, end: float) -> None:
        """Read one frame, until the monotonic time `end`, and hand it to its channel."""
        if self.refusal is not None:
            raise self.refusal
        number, frame = self.frame(end)
        if isinstance(frame, pamqp.heartbeat.Heartbeat):
            self.heartbeats += 1
        elif isinstance(frame, amqp.Connection.Close):
            self._refuse(frame)
        elif isinstance(frame, amqp.Connection.Blocked | amqp.Connection.Unblocked):
            self.blocked.append(frame)
        else:
            self.channels[number].take(frame)

    def frame(self, end: float) -> tuple[int, Any]:
        """Return the next frame with its channel's number."""
        while True:
            if (frame := self._parsed()) is not None:
                return frame
            self._receive(end)

    def raw(self, number: int, *, deadline: float = DEADLINE) -> bytes:
        """Return the next `number` bytes as they came; fewer if the broker hangs up before."""
        end = time.monotonic() + deadline
        try:
            while len(self._received) < number:
                self._receive(end)
        except HungUp:
            pass
        data = bytes(self._received[:number])
        del self._received[:number]
        return data

    def wait_closed(self, *, deadline: float = DEADLINE) -> None:
        """Read until the broker closes the connection, and raise `Refused`."""
        end = time.monotonic() + deadline
        while True:
            self.read(end)

    def hangs_up(self, *, deadline: float = DEADLINE) -> bool:
        """Say whether the broker closes the socket, whatever it sends before."""
        end = time.monotonic() + deadline
        try:
            while True:
                self._receive(end)
        except HungUp:
            return True
        except Silence:
            return False

    def _refuse(self, frame: Any) -> None:
        refusal = Refused(
            "connection",
            frame.reply_code,
            frame.reply_text,
            blamed(frame.class_id, frame.method_id),
        )
        if not self.mute:
            self.send(0, amqp.Connection.CloseOk())
        self.refusal = refusal
        for channel in self.channels.values():
            channel.refusal = channel.refusal or refusal

    def _parsed(self) -> tuple[int, Any] | None:
        received = self._received
        if received[:4] == b"AMQP":
            return None
        if len(received) < 7:
            return None
        kind, number, size = struct.unpack(">BHI", received[:7])
        if len(received) < size + 8:
            return None
        data = bytes(received[: size + 8])
        del received[: size + 8]
        assert data.endswith(END), data
        if kind == CONTENT_BODY and not size:
            return number, pamqp.body.ContentBody(b"")
        try:
            _, _, frame = pamqp.frame.unmarshal(data)
        except UnmarshalingException as error:
            raise AssertionError(f"the broker sent what is no frame: {data!r}") from error
        return number, frame

    def _receive(self, end: float) -> None:
        left = end - time.monotonic()
        if left <= 0:
            raise Silence("the broker said nothing before the deadline")
        self.socket.settimeout(left)
        try:
            data = self.socket.recv(1 << 18)
        except TimeoutError:
            raise Silence("the broker said nothing before the deadline") from None
        except ConnectionResetError:
            raise HungUp("reset") from None
        if not data:
            raise HungUp("closed")
        self._received += data


def blamed(class_id: int, method_id: int) -> str | None:
    """Return the name of the method that a close blames."""
    if not class_id and not method_id:
        return None
    method = amqp.INDEX_MAPPING.get(class_id << 16 | method_id)
    return method.name if method else f"{class_id}.{method_id}"


def raw_frame(kind: int, channel: int, payload: bytes, end: bytes = END) -> bytes:
    """Return a frame's bytes, whatever they mean."""
    return struct.pack(">BHI", kind, channel, len(payload)) + payload + end


def raw_method(class_id: int, method_id: int, arguments: bytes = b"") -> bytes:
    """Return a method frame's payload."""
    return struct.pack(">HH", class_id, method_id) + arguments
