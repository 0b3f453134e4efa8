"""Transports of every implementation: on a fresh virtual host, through a proxy."""

from contextlib import AsyncExitStack, asynccontextmanager

import pytest

from tests.servers import resolver
from tests.servers.process import ServerUnavailableError
from tests.servers.toxic import TcpProxy
from tests.transport.implementations import IMPLEMENTATIONS, Implementation
from tests.transport.suite import Seam, Wire


@pytest.fixture(params=IMPLEMENTATIONS, ids=lambda implementation: implementation.name)
def implementation(request) -> Implementation:
    return request.param


@pytest.fixture
async def open_seam(implementation):
    """Open further transports: `open_seam(url, heartbeat=30)`; they are closed after the test."""
    async with AsyncExitStack() as stack:

        def opened(url: str, *, heartbeat: int = 30) -> Seam:
            transport = implementation.make(url, heartbeat)
            stack.push_async_callback(transport.close)
            return Seam(transport, implementation)

        yield opened


@pytest.fixture
def seam(open_seam, amqp_url) -> Seam:
    """A transport on a fresh virtual host."""
    return open_seam(amqp_url)


@pytest.fixture
async def queue(seam) -> str:
    """A classic, durable queue."""
    await seam.transport.declare_queue("work")
    return "work"


@pytest.fixture
def wire(open_seam, amqp_url):
    """Open a transport whose frames a test may drop, hold or change."""

    @asynccontextmanager
    async def behind(url: str = amqp_url, *, heartbeat: int = 30):
        async with TcpProxy(url, frames=True) as proxy:
            yield Wire(proxy, open_seam(proxy.url, heartbeat=heartbeat))

    return behind


@pytest.fixture(scope="session")
def own_rabbitmq():
    """A broker of the suite's own, to be changed while it runs; bodies are of 1 MiB at most."""
    try:
        server = resolver.private_rabbitmq({"max_message_size": str(2**20)})
    except ServerUnavailableError as error:
        pytest.fail(str(error), pytrace=False)
    yield server
    server.close()
