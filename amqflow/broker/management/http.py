"""HTTP/1.1, as little of it as the management API needs: a request with a JSON body, an answer.

Everything has a bound: the head, the body, the time a client may be idle.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
from dataclasses import dataclass, field
from http import HTTPStatus
from typing import TYPE_CHECKING, Any, Final

from amqflow.broker.listening import listen

if TYPE_CHECKING:
    from collections.abc import Callable

HEAD_LIMIT: Final = 64 * 1024
BODY_LIMIT: Final = 16 * 1024 * 1024
IDLE: Final = 60.0


@dataclass(frozen=True, slots=True)
class Request:
    """What a client asks; ``target`` is path and query as they came."""

    method: str
    target: str
    headers: dict[str, str] = field(default_factory=dict)
    body: bytes = b""


@dataclass(frozen=True, slots=True)
class Answer:
    """A status and what is sent as JSON; None: nothing."""

    status: HTTPStatus
    content: Any = None


class _Malformed(ValueError):
    """A request that cannot be answered, or whose end cannot be found."""


class HttpServer:
    """Listens, and answers every request with one function."""

    def __init__(self, answer: Callable[[Request], Answer]) -> None:
        """Keep the function; nothing listens yet."""
        self._answer = answer
        self._server: asyncio.Server | None = None
        self._clients: set[asyncio.Task[None]] = set()

    async def start(self, host: str, port: int) -> int:
        """Listen; return the port.

        Raises:
            OSError: it is taken.
        """
        self._server, port = await listen(
            lambda port: asyncio.start_server(self._client, host, port, limit=HEAD_LIMIT), port
        )
        return port

    async def close(self) -> None:
        """Listen no more, and hang up on everybody."""
        if self._server is not None:
            self._server.close()
        clients = list(self._clients)
        for client in clients:
            client.cancel()
        await asyncio.gather(*clients, return_exceptions=True)

    async def _client(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._clients.add(task)
        try:
            with contextlib.suppress(OSError, TimeoutError, asyncio.CancelledError):
                await self._serve(reader, writer)
        finally:
            self._clients.discard(task)
            writer.close()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while (request := await _read(reader, writer)) is not None:
            writer.write(_written(self._answer(request), request.method))
            await writer.drain()
            if request.headers.get("connection", "").lower() == "close":
                return


async def _read(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> Request | None:
    """Return the next request; None where the client has left or cannot be understood."""
    try:
        async with asyncio.timeout(IDLE):
            head = await reader.readuntil(b"\r\n\r\n")
            request, length = _parsed(head)
            if request.headers.get("expect", "").lower() == "100-continue":
                writer.write(b"HTTP/1.1 100 Continue\r\n\r\n")
            body = await reader.readexactly(length)
    except asyncio.IncompleteReadError:
        return None
    except (_Malformed, asyncio.LimitOverrunError) as error:
        content = {"error": "bad_request", "reason": str(error)}
        writer.write(_written(Answer(HTTPStatus.BAD_REQUEST, content), "GET"))
        return None
    return Request(request.method, request.target, request.headers, body)


def _parsed(head: bytes) -> tuple[Request, int]:
    first, *lines = head.decode("latin-1").split("\r\n")
    parts = first.split(" ")
    if len(parts) != 3 or not parts[2].startswith("HTTP/1."):  # noqa: PLR2004 - a request line
        raise _Malformed("no HTTP/1.1 request")
    headers = {}
    for line in lines:
        name, colon, value = line.partition(":")
        if colon:
            headers[name.strip().lower()] = value.strip()
    if "transfer-encoding" in headers:
        raise _Malformed("a body must say its Content-Length")
    size = headers.get("content-length", "0")
    if not size.isdecimal() or int(size) > BODY_LIMIT:
        raise _Malformed("a Content-Length that cannot be")
    return Request(parts[0], parts[1], headers), int(size)


def _written(answer: Answer, method: str) -> bytes:
    body = b"" if answer.content is None else json.dumps(answer.content).encode()
    lines = [
        f"HTTP/1.1 {answer.status.value} {answer.status.phrase}",
        "content-type: application/json",
        "cache-control: no-cache",
    ]
    if answer.status is not HTTPStatus.NO_CONTENT:
        lines.append(f"content-length: {len(body)}")
    if answer.status is HTTPStatus.UNAUTHORIZED:
        lines.append('www-authenticate: Basic realm="RabbitMQ Management"')
    head = "\r\n".join(lines) + "\r\n\r\n"
    return head.encode("latin-1") + (b"" if method == "HEAD" else body)
