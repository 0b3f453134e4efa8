"""The short way out: joins what one loop turn wants to send on a channel into one write.

Per publish aiormq takes a lock, two futures and a time-out. All methods but publish and ack stay
aiormq's; both ways end in the same queue of its writer, so frames keep their order.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from aiormq.abc import ChannelFrame

if TYPE_CHECKING:
    from collections.abc import Callable

    from aiormq.abc import AbstractChannel


def body_max(channel: AbstractChannel) -> int:
    """Return how many bytes of a body one frame of a channel's connection takes."""
    tuned = channel.connection.connection_tune
    return max(4096, tuned.frame_max or 131072) - 8


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
            await asyncio.gather(self._spill, return_exceptions=True)

    def close(self) -> None:
        """Drop what is queued: the channel is gone."""
        self._buffer.clear()
        self.collect = None
        if self._spill is not None:
            self._spill.cancel()
