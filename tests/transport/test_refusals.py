"""Brokers that cannot be used: each is named in a sentence, in time, and no secret with it."""

import asyncio
import socket
import time
import traceback

import pytest

from amqflow.errors import AccessRefused, BrokerUnavailable, ConfigurationError, PublishTimeout
from tests.servers.wait import until
from tests.transport.suite import Inbox, message

SECRET = "s3cret-w0rd"


def closed_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as server:
        return server.getsockname()[1]


def saying(greeting: bytes):
    """Return a server's side: it says something at once, then nothing until the client leaves."""

    async def serve(reader, writer):
        try:
            writer.write(greeting)
            while await reader.read(1024):
                pass
        except OSError:
            pass
        finally:
            writer.close()

    return serve


def no_secret(error: BaseException) -> None:
    assert SECRET not in "".join(traceback.format_exception(error))


async def refused(seam, kind, match: str, *, within: float = 30) -> None:
    """Ask, publish and consume: each says the same, in time."""
    started = time.monotonic()
    with pytest.raises(kind, match=match) as asked:
        await seam.transport.declare_queue("work")
    no_secret(asked.value)
    with pytest.raises(kind, match=match) as published:
        await seam.transport.publish(message(), "", "work", timeout=5, retry=False)
    no_secret(published.value)
    consumer = seam.transport.consume("work", Inbox(), prefetch=1)
    with pytest.raises(BrokerUnavailable, match=match) as consumed:
        await consumer.wait_active(1)
    no_secret(consumed.value)
    assert time.monotonic() - started < within


async def test_a_port_nobody_listens_on(open_seam):
    port = closed_port()
    seam = open_seam(f"amqp://guest:{SECRET}@127.0.0.1:{port}/")
    await refused(seam, BrokerUnavailable, f"127.0.0.1:{port}")
    with pytest.raises(PublishTimeout, match=f"127.0.0.1:{port}") as late:
        await seam.transport.publish(message(), "", "work", timeout=0.5)
    no_secret(late.value)


async def test_a_host_that_does_not_exist(open_seam):
    seam = open_seam(f"amqp://guest:{SECRET}@no-such-host.invalid/")
    await refused(seam, BrokerUnavailable, "no-such-host.invalid", within=15)


async def test_a_wrong_password(open_seam, rabbitmq, caplog):
    seam = open_seam(rabbitmq.url.replace("guest:guest", f"guest:{SECRET}"))
    await refused(seam, AccessRefused, "refused the login")
    assert SECRET not in caplog.text


async def test_a_virtual_host_that_does_not_exist(open_seam, rabbitmq):
    seam = open_seam(rabbitmq.vhost_url("no/such vhost"))
    await refused(seam, AccessRefused, "'no/such vhost'.*not found")


async def test_a_virtual_host_the_user_may_not_enter(open_seam, rabbitmq, vhost):
    rabbitmq.management("PUT", f"/api/users/{vhost}", {"password": SECRET, "tags": ""})
    try:
        url = rabbitmq.vhost_url(vhost).replace("guest:guest", f"{vhost}:{SECRET}")
        await refused(open_seam(url), AccessRefused, f"virtual host '{vhost}'.*refused for user")
    finally:
        rabbitmq.management("DELETE", f"/api/users/{vhost}")


async def test_a_limit_on_connections_is_no_refusal_for_ever(open_seam, rabbitmq, vhost):
    rabbitmq.management("PUT", f"/api/vhost-limits/{vhost}/max-connections", {"value": 0})
    seam = open_seam(rabbitmq.vhost_url(vhost))
    with pytest.raises(BrokerUnavailable, match="limit"):
        await seam.transport.declare_queue("work")
    consumer = seam.transport.consume("work", Inbox(), prefetch=1)
    await until(lambda: "limit" in (consumer.problem or ""))
    rabbitmq.management("DELETE", f"/api/vhost-limits/{vhost}/max-connections")
    await seam.transport.declare_queue("work")
    await consumer.wait_active(10)


@pytest.mark.parametrize(
    "greeting",
    [b"HTTP/1.1 400 Bad Request\r\n\r\n", b"AMQP\x00\x01\x00\x00", b"-ERR unknown command\r\n"],
    ids=["http", "another version of AMQP", "redis"],
)
async def test_another_protocol_is_told_from_a_broker(open_seam, greeting):
    async with await asyncio.start_server(saying(greeting), "127.0.0.1", 0) as server:
        port = server.sockets[0].getsockname()[1]
        seam = open_seam(f"amqp://guest:{SECRET}@127.0.0.1:{port}/")
        await refused(seam, BrokerUnavailable, f"127.0.0.1:{port}.*does not speak AMQP")


async def test_a_server_that_says_nothing(open_seam):
    async with await asyncio.start_server(saying(b""), "127.0.0.1", 0) as server:
        port = server.sockets[0].getsockname()[1]
        seam = open_seam(f"amqp://guest:{SECRET}@127.0.0.1:{port}/")
        started = time.monotonic()
        with pytest.raises(PublishTimeout, match=f"127.0.0.1:{port}"):
            await seam.transport.publish(message(), "", "work", timeout=0.5)
        assert time.monotonic() - started < 15


@pytest.mark.parametrize(
    "url",
    [f"amqp://guest:{SECRET}/x@localhost/", f"amqp://guest:{SECRET}@localhost:port/"],
    ids=["a slash in the password", "a port that is no number"],
)
def test_a_url_that_cannot_be_read(implementation, url):
    with pytest.raises(ConfigurationError, match="URL") as caught:
        implementation.make(url, 30)
    no_secret(caught.value)
