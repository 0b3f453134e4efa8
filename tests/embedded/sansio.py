"""The embedded broker without sockets: a node, clients that are bytes, and a clock to step."""

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import pamqp.body
import pamqp.commands as amqp
import pamqp.frame
import pamqp.header

from amqflow.broker.connection import Connection, Phase
from amqflow.broker.node import Node

HEADER = b"AMQP\x00\x00\x09\x01"
CAPABILITIES = {"consumer_cancel_notify": True, "connection.blocked": True}


@contextmanager
def no_mistakes() -> Iterator[None]:
    """See that the broker meets nothing it did not foresee: it would say 541, and log why."""
    met: list[logging.LogRecord] = []
    handler = logging.Handler()
    handler.emit = met.append  # type: ignore[method-assign]
    log = logging.getLogger("amqflow.broker")
    log.addHandler(handler)
    try:
        yield
    finally:
        log.removeHandler(handler)
    assert [(one.getMessage(), one.exc_info) for one in met] == []


@dataclass
class SteppedClock:
    """A clock that moves when told to."""

    moment: float = 1_800_000_000.0

    def now(self) -> float:
        return self.moment

    def monotonic(self) -> float:
        return self.moment

    def step(self, seconds: float) -> None:
        self.moment += seconds


@dataclass
class Socket:
    """What a connection does to its socket, remembered."""

    connection: Connection | None = None
    sent: bytearray = field(default_factory=bytearray)
    closed: bool = False
    paused: bool = False
    heartbeat: int | None = None

    def soon(self) -> None:
        """Wait for the end of the turn, which is `now` here."""

    def now(self) -> None:
        if self.connection is not None and self.connection.output:
            self.sent += self.connection.take_output()

    def hang_up(self, after: float) -> None:
        self.now()
        self.closed = True

    def abort(self) -> None:
        self.closed = True

    def tuned(self, heartbeat: int) -> None:
        self.heartbeat = heartbeat

    def pause(self, *, paused: bool) -> None:
        self.paused = paused


@dataclass
class Message:
    """A delivery, return or answer to basic.get."""

    method: Any
    properties: Any
    body: bytes

    @property
    def headers(self) -> dict[str, Any]:
        return self.properties.headers or {}


class Client:
    """One client; everything it is sent is in `heard`, per channel, in order."""

    def __init__(self, node: Node, *, handshake: bool = True) -> None:
        self.socket = Socket()
        self.connection = Connection(node, self.socket, ("127.0.0.1", 1), 1)
        self.socket.connection = self.connection
        node.connections[self.connection] = None
        self.heard: list[tuple[int, Any]] = []
        if handshake:
            self.greet()

    def greet(self, vhost: str = "/") -> None:
        self.write(HEADER)
        properties = {"capabilities": CAPABILITIES}
        self.send(0, amqp.Connection.StartOk(properties, "PLAIN", "\x00guest\x00guest", "en_US"))
        self.send(0, amqp.Connection.TuneOk(2047, 131072, 0))
        self.send(0, amqp.Connection.Open(vhost))
        assert self.connection.phase is Phase.RUNNING

    def write(self, data: bytes) -> None:
        """Send bytes; what comes back is heard at once."""
        self.connection.receive(data)
        self.listen()

    def send(self, number: int, *frames: Any) -> None:
        self.write(b"".join(pamqp.frame.marshal(frame, number) for frame in frames))

    def listen(self) -> None:
        """Take in what was sent to it since."""
        self.socket.now()
        data, at = bytes(self.socket.sent), 0
        while at < len(data):
            end = at + 8 + int.from_bytes(data[at + 3 : at + 7], "big")
            _, number, frame = pamqp.frame.unmarshal(data[at:end])
            self.heard.append((number, frame))
            at = end
        self.socket.sent.clear()

    def call(self, method: Any, *, number: int = 1) -> Any:
        """Send a method and return what is heard first."""
        self.heard.clear()
        self.send(number, method)
        return self.heard[0][1] if self.heard else None

    def open(self, number: int = 1) -> "Client":
        self.call(amqp.Channel.Open(), number=number)
        return self

    def queue(self, name: str, durable: bool = True, **arguments: Any) -> Any:
        """Declare a queue; `x_message_ttl=5` is an argument of it."""
        table = {key.replace("_", "-"): value for key, value in arguments.items()}
        return self.call(amqp.Queue.Declare(queue=name, durable=durable, arguments=table))

    def ready(self, name: str) -> int:
        return self.call(amqp.Queue.Declare(queue=name, passive=True)).message_count

    def publish(self, name: str, body: bytes = b"x", exchange: str = "", **properties: Any) -> None:
        header = pamqp.header.ContentHeader(0, len(body), amqp.Basic.Properties(**properties))
        frames = [header, *([pamqp.body.ContentBody(body)] if body else [])]
        self.send(1, amqp.Basic.Publish(exchange=exchange, routing_key=name), *frames)

    def get(self, name: str, *, no_ack: bool = True) -> Message | None:
        self.heard.clear()
        self.send(1, amqp.Basic.Get(queue=name, no_ack=no_ack))
        found = self.messages()
        return found[0] if found else None

    def consume(self, name: str, **options: Any) -> None:
        self.send(1, amqp.Basic.Consume(queue=name, **options))

    def messages(self) -> list[Message]:
        """Return the messages heard, and forget all that was heard."""
        self.listen()
        found: list[Message] = []
        for _, frame in self.heard:
            if isinstance(frame, amqp.Basic.Deliver | amqp.Basic.GetOk | amqp.Basic.Return):
                found.append(Message(frame, None, b""))
            elif isinstance(frame, pamqp.header.ContentHeader):
                found[-1].properties = frame.properties
            elif isinstance(frame, pamqp.body.ContentBody):
                found[-1].body += frame.value
        self.heard.clear()
        return found

    def methods(self) -> list[str]:
        """Return the names of the methods heard, and forget all that was heard."""
        self.listen()
        names = [frame.name for _, frame in self.heard if hasattr(frame, "valid_responses")]
        self.heard.clear()
        return names
