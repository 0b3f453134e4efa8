import pytest

from amqflow.transport import open_transport


@pytest.fixture
async def transport(amqp_url):
    door = open_transport(amqp_url)
    yield door
    await door.close()
