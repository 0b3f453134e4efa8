"""The pytest plugin that hands servers to the tests."""

import itertools
import os
import secrets
from collections.abc import Callable, Iterator

import pytest

from tests.servers import resolver
from tests.servers.process import ServerUnavailableError
from tests.servers.rabbitmq import Broker
from tests.servers.redis import RedisStore


def _found(resolve: Callable[..., object], *args: object):
    """Resolve a server; where there is none the test fails with the sentence alone."""
    try:
        return resolve(*args)
    except ServerUnavailableError as error:
        reason = str(error)
    return pytest.fail(reason, pytrace=False)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """On the embedded broker, leave out what is about RabbitMQ itself, with the test's reason."""
    if os.environ.get(resolver.BROKER) != "embedded":
        return
    for item in items:
        if (marker := item.get_closest_marker("rabbitmq_only")) is not None:
            item.add_marker(pytest.mark.skip(reason=f"about RabbitMQ: {marker.args[0]}"))


@pytest.fixture(scope="session")
def rabbitmq() -> Iterator[Broker]:
    """The broker all tests share: never kill it, stay in your own vhost."""
    broker = _found(resolver.shared_rabbitmq)
    yield broker
    broker.close()


@pytest.fixture(scope="session")
def redis_server() -> Iterator[RedisStore]:
    """The Redis all tests share: never kill it, stay in your own database."""
    store = _found(resolver.shared_redis)
    yield store
    store.close()


@pytest.fixture
def vhost(rabbitmq: Broker) -> Iterator[str]:
    """The name of a fresh virtual host on the shared broker."""
    name = f"test-{secrets.token_hex(4)}"
    rabbitmq.add_vhost(name)
    yield name
    rabbitmq.delete_vhost(name)


@pytest.fixture
def amqp_url(rabbitmq: Broker, vhost: str) -> str:
    """The URL of a fresh virtual host on the shared broker."""
    return rabbitmq.vhost_url(vhost)


@pytest.fixture(scope="session")
def _databases(redis_server: RedisStore) -> Iterator[int]:
    """The numbers of the shared Redis's databases, each worker process in its own range."""
    worker = int(os.environ.get("PYTEST_XDIST_WORKER", "gw0").removeprefix("gw"))
    workers = int(os.environ.get("PYTEST_XDIST_WORKER_COUNT", "1"))
    own = range(worker, redis_server.databases, workers)
    return itertools.cycle(own)


@pytest.fixture
def redis_url(redis_server: RedisStore, _databases: Iterator[int]) -> Iterator[str]:
    """The URL of an empty database on the shared Redis."""
    number = next(_databases)
    redis_server.cli("FLUSHDB", db=number)
    yield redis_server.db_url(number)
    redis_server.cli("FLUSHDB", db=number)


@pytest.fixture(scope="session")
def _idle_rabbitmq() -> Iterator[list[resolver.PrivateRabbitMQ]]:
    """Private brokers between two tests: starting one takes seconds, emptying one does not."""
    idle: list[resolver.PrivateRabbitMQ] = []
    yield idle
    for server in idle:
        server.close()


@pytest.fixture
def private_rabbitmq(
    _idle_rabbitmq: list[resolver.PrivateRabbitMQ],
) -> Iterator[Callable[..., resolver.PrivateRabbitMQ]]:
    """Give the test running, empty brokers of its own to kill and restart.

    `private_rabbitmq()` may be one an earlier test has used, emptied; with `conf=` (lines of
    rabbitmq.conf) it is a new one that ends with the test.
    """
    lent: list[tuple[resolver.PrivateRabbitMQ, bool]] = []

    def lend(conf: dict[str, str] | None = None) -> resolver.PrivateRabbitMQ:
        pooled = conf is None
        if pooled and _idle_rabbitmq:
            server = _idle_rabbitmq.pop()
        else:
            server = _found(resolver.private_rabbitmq, conf)
        lent.append((server, pooled))
        return server

    yield lend
    for server, pooled in lent:
        if not pooled or server.ctl_used:
            server.close()
        else:
            server.start()
            server.wipe()
            _idle_rabbitmq.append(server)


@pytest.fixture
def private_redis() -> Iterator[Callable[[], resolver.PrivateRedis]]:
    """Give the test Redis servers of its own to kill, pause and reconfigure."""
    lent: list[resolver.PrivateRedis] = []

    def lend() -> resolver.PrivateRedis:
        lent.append(_found(resolver.private_redis))
        return lent[-1]

    yield lend
    for server in lent:  # a new one takes 30 ms: not worth a pool
        server.close()
