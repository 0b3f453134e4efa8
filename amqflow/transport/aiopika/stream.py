"""The incoming bytes of a connection: content frames of tapped channels go straight to their tap.

aiormq reads each frame with three awaits, queues it to a task of its channel and starts a task
for each delivery; at thousands of messages a second that is most of a worker's time. The stream
stands between the socket and aiormq (by aiormq's own ``transport_factory``): what a tap wants is
taken out as it arrives, everything else aiormq reads as ever.
"""

from __future__ import annotations

import asyncio
import time
from struct import Struct
from typing import TYPE_CHECKING, Any, Final, Protocol

from aiormq.connection import TransportFactory

from amqflow.transport.aiopika.content import read_header

if TYPE_CHECKING:
    from collections.abc import Callable

    from yarl import URL

    from amqflow.protocol import Envelope

    class Confirm(Protocol):
        """``on_confirm(tag, multiple, ack=…)``."""

        def __call__(self, tag: int, multiple: bool, /, *, ack: bool) -> None:
            """Take a confirm."""
            ...

    Deliver = Callable[[int, bool, str, str, Envelope], None]
    Return = Callable[[str, str, str, Envelope], None]

_FRAME: Final = Struct(">BHL")
_TAG: Final = Struct(">Q")
_AROUND: Final = 8  # type, channel, size, end

_METHOD, _HEADER, _BODY = 1, 2, 3
_FRAME_TYPES: Final = (1, 2, 3, 8)
_HEARTBEAT: Final = b"\x08\x00\x00\x00\x00\x00\x00\xce"
#: Seconds between heartbeats handed to aiormq while it sees no frames because taps take them.
_SIGN_OF_LIFE: Final = 1.0
#: Bytes aiormq may leave unread before the socket is paused.
_LIMIT: Final = 2**20

_CONNECTION_CLOSE: Final = b"\x00\x0a\x00\x32"
_CHANNEL_CLOSE: Final = b"\x00\x14\x00\x28"
_RETURN: Final = b"\x00\x3c\x00\x32"
_DELIVER: Final = b"\x00\x3c\x00\x3c"
_ACK: Final = b"\x00\x3c\x00\x50"
_NACK: Final = b"\x00\x3c\x00\x78"
_COMMITTED: Final = b"\x00\x5a\x00\x15"


class Tap:
    """Takes the content frames of one channel; the callbacks run as bytes arrive.

    ``on_deliver(tag, redelivered, exchange, routing_key, envelope)``,
    ``on_return(reply_text, exchange, routing_key, envelope)``,
    ``on_confirm(tag, multiple, ack=…)``. ``on_close()`` is told that the broker closes the
    channel, before aiormq answers it: what is written after the answer closes the connection.
    ``on_committed()`` is told of a ``tx.commit-ok``, and says whether the commit was its own.
    """

    __slots__ = (
        "_chunks",
        "_close",
        "_committed",
        "_confirm",
        "_deliver",
        "_envelope",
        "_method",
        "_missing",
        "_return",
    )

    def __init__(
        self,
        *,
        on_deliver: Deliver | None = None,
        on_return: Return | None = None,
        on_confirm: Confirm | None = None,
        on_close: Callable[[], None] | None = None,
        on_committed: Callable[[], bool] | None = None,
    ) -> None:
        """Want the frames there is a callback for."""
        self._close = on_close
        self._committed = on_committed
        self._deliver = on_deliver
        self._return = on_return
        self._confirm = on_confirm
        self._method: tuple[Any, ...] | None = None
        self._envelope: Envelope | None = None
        self._missing = 0
        self._chunks: list[bytes] = []

    def method(self, frame: bytes) -> bool:
        """Take a method frame; False where it is aiormq's."""
        kind = frame[7:11]
        if kind == _DELIVER and self._deliver is not None:
            at = 12 + frame[11]  # past the consumer tag: this channel has one consumer
            tag = _TAG.unpack_from(frame, at)[0]
            redelivered = frame[at + 8] != 0
            end = at + 10 + frame[at + 9]
            exchange = frame[at + 10 : end].decode(errors="replace")
            key = frame[end + 1 : end + 1 + frame[end]].decode(errors="replace")
            self._method = (tag, redelivered, exchange, key)
            return True
        if kind == _ACK and self._confirm is not None:
            self._confirm(_TAG.unpack_from(frame, 11)[0], bool(frame[19] & 1), ack=True)
            return True
        if kind == _NACK and self._confirm is not None:
            self._confirm(_TAG.unpack_from(frame, 11)[0], bool(frame[19] & 1), ack=False)
            return True
        if kind == _RETURN and self._return is not None:
            texts: list[str] = []
            at = 13  # past the reply code
            for _ in range(3):
                end = at + 1 + frame[at]
                texts.append(frame[at + 1 : end].decode(errors="replace"))
                at = end
            self._method = tuple(texts)
            return True
        if kind == _COMMITTED and self._committed is not None:
            return self._committed()
        if kind == _CHANNEL_CLOSE and self._close is not None:
            self._close()
        return False

    def header(self, frame: bytes) -> bool:
        """Take a content header; False where its method was not ours."""
        if self._method is None:
            return False
        self._missing, self._envelope = read_header(frame)
        if not self._missing:
            self._complete(b"")
        return True

    def body(self, payload: bytes) -> bool:
        """Take a part of a body; False where its method was not ours."""
        if self._envelope is None:
            return False
        self._missing -= len(payload)
        if self._missing > 0:
            self._chunks.append(payload)
        elif self._chunks:
            self._chunks.append(payload)
            whole = b"".join(self._chunks)
            self._chunks.clear()
            self._complete(whole)
        else:
            self._complete(payload)
        return True

    def _complete(self, body: bytes) -> None:
        method, envelope = self._method, self._envelope
        self._method = self._envelope = None
        if method is None or envelope is None:  # pragma: no cover - frames come in order
            return
        envelope.body = body
        if len(method) == 4 and self._deliver is not None:  # noqa: PLR2004 - a deliver's fields
            tag, redelivered, exchange, key = method
            self._deliver(tag, redelivered, exchange, key, envelope)
        elif self._return is not None:
            text, exchange, key = method
            self._return(text, exchange, key, envelope)


class FrameStream(asyncio.StreamReader):
    """What aiormq reads from; splits frames to serve the taps."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        """Pass everything on until a channel is tapped."""
        super().__init__(limit=_LIMIT, loop=loop)
        self.taps: dict[int, Tap] = {}
        #: Code and words with which the broker closes the connection, once it does.
        self.refusal: tuple[int, str] | None = None
        #: The first bytes of what answers, where it does not speak AMQP.
        self.alien: bytes | None = None
        self._rest = b""
        self._seen = time.monotonic()
        self._greeted = False
        self._silent = 0

    def watch(self, transport: asyncio.Transport, heartbeat: float) -> None:
        """Abort the connection when nothing has come for two heartbeats (seconds).

        aiormq's own patience is three and more. Silence is counted in looks, not by the clock,
        so that a loop that stood still does not take its own sleep for the broker's.
        """
        if transport.is_closing():
            return
        self._silent += 1
        if self._silent > 4:  # noqa: PLR2004 - looks, half a heartbeat apart
            transport.abort()
            return
        asyncio.get_running_loop().call_later(heartbeat / 2, self.watch, transport, heartbeat)

    def _noted(self, frame: bytes) -> bytes:
        """Keep what the broker says when it closes the connection: aiormq loses it at times.

        RabbitMQ cuts its words off at 255 bytes, within a character too; aiormq would give up
        the connection over that, so the rest of a character is written as question marks.
        """
        if frame[:1] != b"\x01" or frame[7:11] not in (_CONNECTION_CLOSE, _CHANNEL_CLOSE):
            return frame
        end = 14 + frame[13]
        raw = frame[14:end]
        text = raw.decode(errors="ignore")
        if frame[7:11] == _CONNECTION_CLOSE:
            self.refusal = (int.from_bytes(frame[11:13], "big"), text)
        return frame[:14] + text.encode().ljust(len(raw), b"?") + frame[end:]

    def _greet(self, buffer: bytes) -> bool:
        """Look at the first bytes: False where they are no AMQP frame.

        They are an HTTP server's, or a broker's that wants another version of the protocol;
        aiormq would wait for the end of a frame that never was.
        """
        if self.alien is None and buffer[:1] == b"\x01":
            self._greeted = True
        elif self.alien is None and buffer:
            self.alien = buffer[:40]
            self.feed_eof()
        return self._greeted

    def feed_data(self, data: Any) -> None:
        """Take bytes from the socket (called by asyncio)."""
        self._silent = 0
        buffer = self._rest + data if self._rest else bytes(data)
        at, size = 0, len(buffer)
        others: list[bytes] = []
        taps = self.taps
        if not (self._greeted or self._greet(buffer)):
            return
        while size - at >= _AROUND:
            kind, channel, length = _FRAME.unpack_from(buffer, at)
            end = at + length + _AROUND
            if kind not in _FRAME_TYPES:
                end = size  # broken: aiormq says so
            if end > size:
                break
            tap = taps.get(channel)
            if (
                tap is None
                or not 0 < kind < 4  # noqa: PLR2004 - heartbeats are aiormq's
                or not (
                    tap.method(buffer[at:end])
                    if kind == _METHOD
                    else tap.header(buffer[at:end])
                    if kind == _HEADER
                    else tap.body(buffer[at + 7 : end - 1])
                )
            ):
                others.append(self._noted(buffer[at:end]))
            at = end
        self._rest = buffer[at:]
        now = time.monotonic()
        if others:
            self._seen = now
            super().feed_data(b"".join(others))
        elif now - self._seen > _SIGN_OF_LIFE:
            # aiormq gives a connection up that shows it no frame for three heartbeats.
            self._seen = now
            super().feed_data(_HEARTBEAT)


class FrameStreams(TransportFactory):
    """Opens the socket of one connection with a :class:`FrameStream` before it."""

    def __init__(self) -> None:
        """Make the stream when aiormq connects."""
        self.stream: FrameStream | None = None
        self.transport: asyncio.Transport | None = None

    async def create(
        self, url: URL, **kwargs: Any
    ) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        """Connect, by TLS where the URL says so (called by aiormq)."""
        provider = kwargs.pop("ssl_context_provider", None)
        context = None
        if url.scheme == "amqps" and provider is not None:
            context = await provider.get_context()
        loop = asyncio.get_running_loop()
        stream = FrameStream(loop)
        protocol = asyncio.StreamReaderProtocol(stream, loop=loop)
        transport, _ = await loop.create_connection(
            lambda: protocol, url.host or "localhost", url.port or 5672, ssl=context, **kwargs
        )
        self.stream = stream
        self.transport = transport
        return stream, asyncio.StreamWriter(transport, protocol, stream, loop)
