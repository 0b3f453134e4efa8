from contextlib import asynccontextmanager

import pytest

from amqflow.transport import open_transport


@asynccontextmanager
async def opened(url):
    door = open_transport(url)
    try:
        yield door
    finally:
        await door.close()


@pytest.fixture
def connect(amqp_url):
    """Opens a connection to the test's virtual host, or to another URL."""
    return lambda url=amqp_url: opened(url)


@pytest.fixture
async def transport(connect):
    async with connect() as door:
        yield door
