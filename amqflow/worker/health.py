"""Answers probes over HTTP: is the worker alive, is it ready, what is it doing.

``/live`` is 200 while the event loop turns; ``/ready`` is 200 while every queue is consumed, else
503 with the reason; ``/status`` (and ``/``) is JSON for people and dashboards. Nothing is changed
by asking, nothing secret is told; by default only this machine may ask.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
from http import HTTPStatus
from typing import TYPE_CHECKING, Any, Final, Protocol

from amqflow.errors import ConfigurationError
from amqflow.logs import get_logger

if TYPE_CHECKING:
    from collections.abc import Mapping
    from typing import Self

log = get_logger("amqflow.worker")

#: Seconds a request may take to arrive.
READ_TIMEOUT: Final = 5.0
#: Bytes of a request's head; a probe's is a tenth of it.
MOST: Final = 8192
#: Words that fit a probe's log.
_TEXT: Final = "text/plain; charset=utf-8"
_JSON: Final = "application/json"


class Told(Protocol):
    """What is asked: a worker."""

    def unready(self) -> str | None:
        """Say why it takes no work now; None where it does."""
        ...

    def status(self) -> Mapping[str, Any]:
        """Return what it is doing."""
        ...


class HealthServer:
    """A listener of its own beside the worker, in its loop: ``async with HealthServer(…)``."""

    def __init__(self, worker: Told, port: int, host: str = "127.0.0.1") -> None:
        """Listen on ``host`` and ``port`` (0: any free one) once entered."""
        self._worker = worker
        self._host = host
        self.port = port
        self._server: asyncio.Server | None = None

    async def __aenter__(self) -> Self:
        """Listen.

        Raises:
            ConfigurationError: the port is taken, or the address is not this machine's.
        """
        try:
            self._server = await asyncio.start_server(
                self._serve, self._host, self.port, limit=MOST
            )
        except OSError as error:
            message = f"--health-port {self.port}: cannot listen on {self._host}: {error.strerror}"
            raise ConfigurationError(message) from error
        self.port = self._server.sockets[0].getsockname()[1]
        log.info("health", url=f"http://{self._host}:{self.port}/status")
        return self

    async def __aexit__(self, *_error: object) -> None:
        """Listen no more."""
        if self._server is not None:
            self._server.close()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(OSError, TimeoutError, EOFError, asyncio.LimitOverrunError):
            async with asyncio.timeout(READ_TIMEOUT):
                head = await reader.readuntil(b"\r\n\r\n")
                status, kind, body = self._answer(head.split(b"\r\n", 1)[0])
                writer.write(_written(status, kind, body, head=head.startswith(b"HEAD ")))
                await writer.drain()
        writer.close()

    def _answer(self, line: bytes) -> tuple[HTTPStatus, str, str]:
        method, _, rest = line.decode("latin-1").partition(" ")
        path = rest.split(" ", 1)[0].split("?", 1)[0]
        if method not in {"GET", "HEAD"}:
            return HTTPStatus.METHOD_NOT_ALLOWED, _TEXT, "only GET\n"
        match path.rstrip("/"):
            case "/live":
                return HTTPStatus.OK, _TEXT, "alive\n"
            case "/ready":
                why = self._worker.unready()
                if why is not None:
                    return HTTPStatus.SERVICE_UNAVAILABLE, _TEXT, f"{why}\n"
                return HTTPStatus.OK, _TEXT, "ready\n"
            case "" | "/status":
                text = json.dumps(self._worker.status(), indent=1, default=str)
                return HTTPStatus.OK, _JSON, f"{text}\n"
            case _:
                return HTTPStatus.NOT_FOUND, _TEXT, "ask for /live, /ready or /status\n"


def _written(status: HTTPStatus, kind: str, body: str, *, head: bool) -> bytes:
    data = body.encode()
    lines = (
        f"HTTP/1.1 {status.value} {status.phrase}",
        f"Content-Type: {kind}",
        f"Content-Length: {len(data)}",
        "Cache-Control: no-store",
        "Connection: close",
    )
    return ("\r\n".join(lines) + "\r\n\r\n").encode() + (b"" if head else data)
