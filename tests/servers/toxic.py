"""A TCP proxy between a client and a server, which misbehaves when told to."""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable
from enum import StrEnum
from typing import Self
from urllib.parse import urlsplit

CHUNK = 64 * 1024
# Chunks on their way in one direction: enough for a delay, bounded for back pressure.
IN_FLIGHT = 256
PROTOCOL_HEADER = 8
FRAME_HEADER = 7


class Direction(StrEnum):
    """Which way a chunk travels."""

    UP = "up"  # client to server
    DOWN = "down"  # server to client


Filter = Callable[[Direction, bytes], bytes | None]


class TcpProxy:
    """Listens on loopback and passes bytes to a server and back.

    `filter` sees every chunk and returns what goes on in its place, None for nothing. With
    `frames=True` a chunk is one AMQP frame (or the protocol header), so a test can drop exactly
    one confirm.

        async with TcpProxy(amqp_url, frames=True) as proxy:
            connection = await aio_pika.connect(proxy.url)
            proxy.black_hole()
    """

    def __init__(
        self,
        target: str,
        *,
        frames: bool = False,
        filter: Filter | None = None,  # noqa: A002  (what it is called everywhere)
    ) -> None:
        """Prepare a proxy for the server at the URL `target`."""
        self._target = urlsplit(target)
        self._frames = frames
        self.filter = filter
        self.connections_made = 0
        self._delay = 0.0
        self._flowing = asyncio.Event()
        self._flowing.set()
        self._server: asyncio.Server | None = None
        self._port = 0
        self._tasks: set[asyncio.Task[None]] = set()
        self._writers: set[asyncio.StreamWriter] = set()

    @property
    def url(self) -> str:
        """The target's URL with the proxy's address in place of its own."""
        user, at, _ = self._target.netloc.rpartition("@")
        return self._target._replace(netloc=f"{user}{at}127.0.0.1:{self._port}").geturl()

    @property
    def open_connections(self) -> int:
        """How many clients are connected now."""
        return len(self._tasks)

    async def __aenter__(self) -> Self:
        await self.listen()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    async def listen(self) -> None:
        """Accept connections, on the same port as before."""
        self._server = await asyncio.start_server(self._accepted, "127.0.0.1", self._port)
        self._port = self._server.sockets[0].getsockname()[1]

    def refuse(self) -> None:
        """Refuse new connections until `listen`, as a server that is down does."""
        if self._server is not None:
            self._server.close()
            self._server = None

    async def close(self) -> None:
        """Close everything."""
        self.refuse()
        self.drop_connections()
        for task in tuple(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    def black_hole(self) -> None:
        """Pass nothing on, either way, and keep every connection open: a cable pulled out."""
        self._flowing.clear()

    def resume(self) -> None:
        """Pass on again, beginning with what was held: TCP would have sent it again."""
        self._flowing.set()

    def delay(self, seconds: float) -> None:
        """Let every chunk arrive `seconds` later, each way; the throughput stays."""
        self._delay = seconds

    def drop_connections(self) -> None:
        """Reset every open connection on both sides; new ones are accepted."""
        for writer in tuple(self._writers):
            writer.transport.abort()

    async def _accepted(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        self.connections_made += 1
        try:
            await self._serve(reader, writer)
        except OSError:
            pass  # either side went away: that is what a proxy is for
        except asyncio.CancelledError:
            pass  # asyncio's server would log a connection that `close` has cancelled
        finally:
            self._tasks.discard(task)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        host, port = self._target.hostname or "127.0.0.1", self._target.port or 5672
        async with _closing(writer, self._writers):
            up_reader, up_writer = await asyncio.open_connection(host, port)
            async with _closing(up_writer, self._writers):
                ways = [
                    asyncio.ensure_future(self._pass(Direction.UP, reader, up_writer)),
                    asyncio.ensure_future(self._pass(Direction.DOWN, up_reader, writer)),
                ]
                try:
                    await asyncio.wait(ways, return_when=asyncio.FIRST_COMPLETED)
                finally:
                    for way in ways:
                        way.cancel()
                    await asyncio.gather(*ways, return_exceptions=True)

    async def _pass(
        self, direction: Direction, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        """Read chunks in one direction; a second task sends each when it is due."""
        loop = asyncio.get_running_loop()
        waiting: asyncio.Queue[tuple[float, bytes] | None] = asyncio.Queue(IN_FLIGHT)
        sending = asyncio.ensure_future(self._send(direction, waiting, writer))
        try:
            with contextlib.suppress(OSError):
                async for chunk in _chunks(reader, direction, frames=self._frames):
                    await waiting.put((loop.time() + self._delay, chunk))
            await waiting.put(None)
            await sending
        finally:
            sending.cancel()

    async def _send(
        self,
        direction: Direction,
        waiting: asyncio.Queue[tuple[float, bytes] | None],
        writer: asyncio.StreamWriter,
    ) -> None:
        loop = asyncio.get_running_loop()
        while (item := await waiting.get()) is not None:
            due, chunk = item
            if (early := due - loop.time()) > 0:
                await asyncio.sleep(early)
            await self._flowing.wait()
            passed = self.filter(direction, chunk) if self.filter else chunk
            if passed:
                writer.write(passed)
                await writer.drain()


@contextlib.asynccontextmanager
async def _closing(
    writer: asyncio.StreamWriter, writers: set[asyncio.StreamWriter]
) -> AsyncIterator[None]:
    writers.add(writer)
    try:
        yield
    finally:
        writers.discard(writer)
        writer.close()
        with contextlib.suppress(OSError):
            await writer.wait_closed()


async def _chunks(
    reader: asyncio.StreamReader, direction: Direction, *, frames: bool
) -> AsyncIterator[bytes]:
    """Yield what is read: as it comes, or cut into AMQP frames."""
    if not frames:
        while chunk := await reader.read(CHUNK):
            yield chunk
        return
    with contextlib.suppress(asyncio.IncompleteReadError):
        if direction is Direction.UP:
            yield await reader.readexactly(PROTOCOL_HEADER)
        while True:
            header = await reader.readexactly(FRAME_HEADER)
            size = int.from_bytes(header[3:7], "big")
            yield header + await reader.readexactly(size + 1)
