"""A small client of RabbitMQ's HTTP management API: what AMQP cannot tell, and policies.

Requests run in threads over the standard library's HTTP client, each with one deadline for all of
it. What goes wrong is one of amqflow's errors, with no password in it.
"""

from __future__ import annotations

import asyncio
import base64
import contextlib
import http.client
import json
import ssl
import time
from dataclasses import dataclass
from http import HTTPStatus
from typing import Any, Final
from urllib.parse import quote, unquote, urlsplit

from amqflow.errors import (
    AccessRefused,
    BrokerError,
    ConfigurationError,
    ManagementUnavailable,
    NotFound,
)

#: Seconds one request may take, from connecting to the last byte of the answer.
TIMEOUT: Final = 10.0
#: RabbitMQ's own ports (docs, "Management Plugin", "Configuration").
PORTS: Final = {"http": 15672, "https": 15671}
#: Bytes of an answer; 100,000 queues take about 60 MB.
MOST: Final = 256 * 2**20
#: Bytes read at one time.
_CHUNK: Final = 2**16
#: Characters of a foreign answer that an error shows.
_SHOWN: Final = 200


@dataclass(frozen=True, slots=True, repr=False)
class Address:
    """Where the API is, and as whom. Its text shows no password."""

    scheme: str
    host: str
    port: int
    path: str
    user: str
    password: str

    def __str__(self) -> str:
        """Show the address alone."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"{self.scheme}://{host}:{self.port}{self.path}"

    __repr__ = __str__

    @classmethod
    def of(cls, broker_url: str, management_url: str | None = None) -> Address:
        """Return the API's address: as set, or the broker's host with the API's usual port.

        Args:
            broker_url: ``amqp://`` or ``amqps://``; its user and password are used where the
                other URL names none.
            management_url: ``http://`` or ``https://``, with a path where a proxy puts the API
                behind one.

        Raises:
            ConfigurationError: the management URL cannot be read.
        """
        broker = urlsplit(broker_url)
        secure = broker.scheme.lower() == "amqps"
        if management_url is None:
            scheme, host, port, path = "https" if secure else "http", broker.hostname, None, ""
            own = broker
        else:
            own = urlsplit(management_url)
            scheme, host, path = own.scheme.lower(), own.hostname, own.path.rstrip("/")
            if scheme not in PORTS or not host:
                message = (
                    "management_url is no http:// or https:// URL; write it as "
                    "http://user:password@host:15672/path"
                )
                raise ConfigurationError(message)
            try:
                port = own.port or http.client.HTTPS_PORT if scheme == "https" else own.port or 80
            except ValueError:
                message = "management_url has a port that is no number from 0 to 65535"
                raise ConfigurationError(message) from None  # its text shows a piece of the URL
        named = own if own.username is not None else broker
        return cls(
            scheme,
            host or "localhost",
            port or PORTS[scheme],
            path.removesuffix("/api"),
            unquote(named.username or "guest"),
            unquote(named.password or "guest"),
        )


class Management:
    """The management API of one broker, looking at one virtual host.

    Every call raises:
        ManagementUnavailable: nobody answers there in time, or what answers is no RabbitMQ.
        AccessRefused: the user or password is wrong (401), or the user lacks the tag or the
            permission for this (401, 403).
        NotFound: there is no such thing, or no such virtual host (404).
        BrokerError: the broker refused the request; the message has its words.
    """

    def __init__(self, address: Address, vhost: str = "/", *, timeout: float = TIMEOUT) -> None:
        """Keep the address; nothing connects yet. ``timeout``: seconds a request may take."""
        self.address = address
        self.vhost = vhost
        self._timeout = timeout

    @classmethod
    def of(
        cls, broker_url: str, management_url: str | None = None, *, timeout: float = TIMEOUT
    ) -> Management:
        """Return the API of a broker by its AMQP URL, which names the virtual host too."""
        vhost = unquote(urlsplit(broker_url).path[1:]) or "/"
        return cls(Address.of(broker_url, management_url), vhost, timeout=timeout)

    async def check(self) -> None:
        """Prove that the API is there, takes the login, and knows the virtual host."""
        try:
            found = await self.get("/api/overview")
        except NotFound:
            raise self._no_api("it answers 404 to /api/overview") from None
        if not isinstance(found, dict) or "rabbitmq_version" not in found:
            raise self._no_api("its /api/overview does not read like RabbitMQ's")
        try:
            await self.get(self.path("vhosts"))
        except NotFound:
            message = (
                f"virtual host {self.vhost!r} does not exist on the broker at {self.address}; "
                f"rabbitmqctl add_vhost {self.vhost} creates it"
            )
            raise NotFound(message) from None

    def path(self, kind: str, *names: str) -> str:
        """Return the path of a thing in the virtual host; names may hold anything."""
        parts = [self.vhost, *names]
        return f"/api/{kind}/" + "/".join(quote(part, safe="") for part in parts)

    async def get(self, path: str) -> Any:
        """Return what a path answers, decoded."""
        return await self.call("GET", path)

    async def put(self, path: str, body: object) -> None:
        """Create or change what is at a path."""
        await self.call("PUT", path, body)

    async def delete(self, path: str) -> None:
        """Delete what is at a path; that nothing is there is no error."""
        with contextlib.suppress(NotFound):
            await self.call("DELETE", path)

    async def call(self, method: str, path: str, body: object = None) -> Any:
        """Send one request; return the decoded answer, None where it is empty."""
        end = time.monotonic() + self._timeout
        try:
            async with asyncio.timeout(self._timeout + 1.0):  # the thread's own comes first
                status, answer = await asyncio.to_thread(self._exchange, method, path, body, end)
        except ssl.SSLError as error:
            raise self._away(f"TLS failed: {error.reason or error}") from error
        except TimeoutError as error:
            raise self._away(f"no answer within {self._timeout:g} s") from error
        except (OSError, http.client.HTTPException, ValueError) as error:
            raise self._away(str(error) or type(error).__name__) from error
        if status >= HTTPStatus.BAD_REQUEST:
            raise self._refusal(status, answer, f"{method} {path}")
        if status >= HTTPStatus.MULTIPLE_CHOICES:
            raise self._no_api(f"it redirects ({status})")
        if not answer:
            return None
        try:
            return json.loads(answer)
        except ValueError:
            raise self._no_api("its answer is no JSON") from None

    def _exchange(self, method: str, path: str, body: object, end: float) -> tuple[int, bytes]:
        address = self.address
        left = max(0.001, end - time.monotonic())
        if address.scheme == "https":
            connection: http.client.HTTPConnection = http.client.HTTPSConnection(
                address.host, address.port, timeout=left, context=ssl.create_default_context()
            )
        else:
            connection = http.client.HTTPConnection(address.host, address.port, timeout=left)
        login = base64.b64encode(f"{address.user}:{address.password}".encode()).decode()
        headers = {"Authorization": f"Basic {login}", "Content-Type": "application/json"}
        data = None if body is None else json.dumps(body)
        try:
            connection.request(method, address.path + path, body=data, headers=headers)
            response = connection.getresponse()
            chunks: list[bytes] = []
            size = 0
            while chunk := response.read1(_CHUNK):
                chunks.append(chunk)
                size += len(chunk)
                if size > MOST:
                    message = f"the answer is larger than {MOST:,} bytes"
                    raise ValueError(message)
                if time.monotonic() > end:
                    raise TimeoutError
            return response.status, b"".join(chunks)
        finally:
            connection.close()

    def _away(self, why: str) -> ManagementUnavailable:
        return ManagementUnavailable(
            f"the management API at {self.address} cannot be used: {why}; enable it "
            "(rabbitmq-plugins enable rabbitmq_management), or set management_url"
        )

    def _no_api(self, why: str) -> ManagementUnavailable:
        return ManagementUnavailable(
            f"what answers at {self.address} is no management API of RabbitMQ: {why}; set "
            "management_url, with its path where it is behind one"
        )

    def _refusal(self, status: int, answer: bytes, doing: str) -> BrokerError:
        words = _words(answer)
        user = self.address.user
        if status == HTTPStatus.UNAUTHORIZED:
            reason = (
                f"user {user!r} lacks a tag for this (rabbitmqctl set_user_tags {user} "
                f"policymaker): {words}"
                if "not_authorised" in words.lower() and "login failed" not in words.lower()
                else f"it refused user {user!r}; check user, password and the user's tags ({words})"
            )
            return AccessRefused(f"the management API at {self.address}: {reason}")
        if status == HTTPStatus.FORBIDDEN:
            return AccessRefused(
                f"the management API at {self.address} does not let user {user!r} do this "
                f"({doing}): {words}"
            )
        if status == HTTPStatus.NOT_FOUND:
            return NotFound(f"the management API at {self.address}: {doing}: not found")
        if status >= HTTPStatus.INTERNAL_SERVER_ERROR:
            return ManagementUnavailable(
                f"the management API at {self.address} answers {status} to {doing}: {words}"
            )
        return BrokerError(f"the management API at {self.address} refused {doing}: {words}")


def _words(answer: bytes) -> str:
    """Return what an answer says, on one line, without what a terminal would act on."""
    text = answer.decode("utf-8", "replace")
    try:
        said = json.loads(text)
        if isinstance(said, dict):
            text = ": ".join(str(said[key]) for key in ("error", "reason") if key in said) or text
    except ValueError:
        pass
    shown = " ".join("".join(sign if sign.isprintable() else " " for sign in text).split())
    return shown[:_SHOWN] or "no reason given"
