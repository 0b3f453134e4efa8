"""What every test shares: the servers, and asyncio as the one event loop."""

import os

import pytest

# Each level is a queue or two, and declaring the whole ladder is most of what a test of an
# application costs: 8 levels reach 25 s, and what waits longer enters again. The examples and the
# tests of the ladder itself have all 28.
os.environ.setdefault("AMQFLOW_DELAY_LEVELS", "8")

pytest_plugins = ["tests.servers.plugin", "tests.applications"]


@pytest.fixture(scope="session")
def anyio_backend():
    """`async def` tests run on asyncio: aio-pika knows no other loop."""
    return "asyncio"
