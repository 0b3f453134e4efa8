"""What every test shares: the servers, and asyncio as the one event loop."""

import pytest

pytest_plugins = ["tests.servers.plugin", "tests.applications"]


@pytest.fixture(scope="session")
def anyio_backend():
    """`async def` tests run on asyncio: aio-pika knows no other loop."""
    return "asyncio"
