"""The short way for hot frames: past aiormq's queues and tasks, on its public attributes.

Per delivery aiormq queues each of three frames to a reader task and starts a task for the
callback; per publish it takes a lock, two futures and a time-out. :class:`FrameTap` stands in
for a channel's incoming queue and hands content frames over at once; :class:`FrameWriter`
joins what one loop turn wants to send into one write. All other methods stay aiormq's.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

from aiormq.abc import ChannelFrame
from pamqp import commands
from pamqp.body import ContentBody
from pamqp.header import ContentHeader

from amqflow.protocol import Envelope

if TYPE_CHECKING:
    from collections.abc import Callable

    from aiormq.abc import AbstractChannel

    Content = Callable[[Any, Envelope], None]
    Confirm = Callable[[int, bool, bool], None]


def envelope_of(properties: commands.Basic.Properties, body: bytes) -> Envelope:
    """Return the neutral form of a message's content."""
    return Envelope(
        body=body,
        headers=properties.headers or {},  # type: ignore[arg-type]
        content_type=properties.content_type,
        content_encoding=properties.content_encoding,
        delivery_mode=properties.delivery_mode or 1,
        priority=properties.priority,
        correlation_id=properties.correlation_id,
        reply_to=properties.reply_to,
        expiration=properties.expiration,
        message_id=properties.message_id,
        timestamp=properties.timestamp,
        type=properties.message_type,
        user_id=properties.user_id,
        app_id=properties.app_id,
    )


def properties_of(envelope: Envelope) -> commands.Basic.Properties:
    """Return pamqp's form of a message's properties."""
    return commands.Basic.Properties(
        content_type=envelope.content_type,
        content_encoding=envelope.content_encoding,
        headers=envelope.headers,
        delivery_mode=envelope.delivery_mode,
        priority=envelope.priority,
        correlation_id=envelope.correlation_id,
        reply_to=envelope.reply_to,
        expiration=envelope.expiration,
        message_id=envelope.message_id,
        timestamp=envelope.timestamp,
        message_type=envelope.type,
        user_id=envelope.user_id,
        app_id=envelope.app_id,
    )


class FrameTap:
    """Stands where aiormq keeps a channel's incoming frames and takes content frames out.

    The channel must not use ``basic_get``, aiormq's consumers or aiormq's publisher confirms:
    their frames would be ours.
    """

    def __init__(
        self,
        channel: AbstractChannel,
        *,
        on_deliver: Content | None = None,
        on_return: Content | None = None,
        on_confirm: Confirm | None = None,
        on_cancel: Callable[[], None] | None = None,
    ) -> None:
        """Tap ``channel``; the callbacks run in the connection's reader and must not block."""
        self._queue: asyncio.Queue[Any] = channel.frames
        self._on_deliver = on_deliver
        self._on_return = on_return
        self._on_confirm = on_confirm
        self._on_cancel = on_cancel
        self._method: Any = None
        self._header: ContentHeader | None = None
        self._missing = 0
        self._chunks: list[bytes] = []
        channel.frames = self  # type: ignore[assignment]

    async def put(self, item: tuple[int, Any]) -> None:
        """Take one incoming frame (called by aiormq's connection reader)."""
        frame = item[1]
        kind = type(frame)
        if kind is commands.Basic.Deliver or kind is commands.Basic.Return:
            self._method = frame
        elif kind is ContentHeader:
            self._header = frame
            self._missing = frame.body_size
            if not self._missing:
                self._complete(b"")
        elif kind is ContentBody:
            self._missing -= len(frame.value)
            if self._missing > 0:
                self._chunks.append(frame.value)
            elif self._chunks:
                self._chunks.append(frame.value)
                body = b"".join(self._chunks)
                self._chunks.clear()
                self._complete(body)
            else:
                self._complete(frame.value)
        elif kind is commands.Basic.Ack and self._on_confirm is not None:
            self._on_confirm(frame.delivery_tag, frame.multiple, True)
        elif kind is commands.Basic.Nack and self._on_confirm is not None:
            self._on_confirm(frame.delivery_tag, frame.multiple, False)
        else:
            if kind is commands.Basic.Cancel and self._on_cancel is not None:
                self._on_cancel()
            await self._queue.put(item)

    def _complete(self, body: bytes) -> None:
        method, header = self._method, self._header
        self._method = self._header = None
        if method is None or header is None:
            return
        handler = self._on_deliver if type(method) is commands.Basic.Deliver else self._on_return
        if handler is not None:
            handler(method, envelope_of(header.properties, body))

    async def get(self) -> Any:
        """Hand aiormq's reader the frames that are not ours."""
        return await self._queue.get()

    def task_done(self) -> None:
        """Answer aiormq's reader."""
        self._queue.task_done()


class FrameWriter:
    """Joins the frames of one loop turn into one write to the connection."""

    def __init__(self, channel: AbstractChannel) -> None:
        """Write to ``channel``'s connection."""
        self._write_queue = channel.write_queue  # type: ignore[attr-defined]
        self._loop = asyncio.get_running_loop()
        self._buffer: list[bytes] = []
        self._scheduled = False
        self._spill: asyncio.Task[None] | None = None
        #: Called at each flush for frames that were only counted until now (acks).
        self.collect: Callable[[], bytes] | None = None

    def write(self, *frames: bytes) -> None:
        """Queue frames of one message or method; they stay together and in order."""
        self._buffer.extend(frames)
        self.schedule()

    def schedule(self) -> None:
        """Flush at the end of this loop turn."""
        if not self._scheduled:
            self._scheduled = True
            self._loop.call_soon(self._flush)

    def _payload(self) -> bytes:
        if self.collect is not None and (acks := self.collect()):
            self._buffer.append(acks)
        payload = b"".join(self._buffer)
        self._buffer.clear()
        return payload

    def _flush(self) -> None:
        self._scheduled = False
        if self._spill is not None and not self._spill.done():
            return  # the running spill takes the buffer along
        if self._write_queue.full():
            self._spill = self._loop.create_task(self._put())
        elif payload := self._payload():
            self._write_queue.put_nowait(ChannelFrame(payload=payload, should_close=False))

    async def _put(self) -> None:
        while payload := self._payload():
            await self._write_queue.put(ChannelFrame(payload=payload, should_close=False))

    async def drain(self) -> None:
        """Wait until everything queued so far was handed to the connection's writer."""
        self._flush()
        if self._spill is not None:
            await self._spill

    def close(self) -> None:
        """Drop what is queued: the channel is gone."""
        self._buffer.clear()
        self.collect = None
        if self._spill is not None:
            self._spill.cancel()
