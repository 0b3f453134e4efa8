"""The suite's brokers: RabbitMQ as the resolver finds it, and the embedded one."""

import os
import secrets
from collections.abc import Callable, Iterator
from functools import partial
from itertools import count

import pytest

from tests.broker import differences
from tests.broker.client import Channel, Connection
from tests.broker.served import Served
from tests.servers import resolver
from tests.servers.embedded import EmbeddedBroker

# AMQFLOW_TEST_BROKER chooses one; without it the suite runs on both.
BROKERS = {"rabbitmq": ["rabbitmq"], "embedded": ["embedded"]}.get(
    os.environ.get(resolver.BROKER, ""), ["rabbitmq", "embedded"]
)


@pytest.fixture(scope="session")
def _rabbitmq(rabbitmq) -> Iterator[Served]:
    vhost = f"suite-{secrets.token_hex(4)}"
    url = rabbitmq.add_vhost(vhost)
    name = "RabbitMQ 3.10" if rabbitmq.version < (4,) else "RabbitMQ 4.0"
    yield Served(name, url, vhost)
    rabbitmq.delete_vhost(vhost)


@pytest.fixture(scope="session")
def _embedded() -> Iterator[Served]:
    broker = EmbeddedBroker()
    broker.start()
    yield Served("embedded", broker.add_vhost("suite"), "suite")
    broker.close()


@pytest.fixture(scope="session", params=BROKERS)
def served(request) -> Served:
    """The broker under test."""
    return request.getfixturevalue(f"_{request.param}")


@pytest.fixture
def connect(served) -> Iterator[Callable[..., Connection]]:
    """Open further connections: `connect(heartbeat=1)`; they are dropped after the test."""
    opened: list[Connection] = []

    def connect(**options) -> Connection:
        opened.append(served.connect(**options))
        return opened[-1]

    yield connect
    for connection in opened:
        connection.drop()


@pytest.fixture
def connection(connect) -> Connection:
    return connect()


@pytest.fixture
def channel(connection) -> Channel:
    return connection.channel()


@pytest.fixture
def other(connect) -> Channel:
    """A channel of another connection."""
    return connect().channel()


_numbers = count()


@pytest.fixture
def name() -> str:
    """A name nothing else in the virtual host has, for a queue or an exchange."""
    return f"n{next(_numbers)}"


@pytest.fixture
def queue(channel, name) -> str:
    """A classic, durable, empty queue that ends with the test."""
    return channel.queue(f"{name}-queue", exclusive=True)


@pytest.fixture
def differs(served) -> Callable[[str], object]:
    """Tell what the broker under test does where brokers differ: `differs("a body too long")`."""
    return partial(differences.of, served.name)
