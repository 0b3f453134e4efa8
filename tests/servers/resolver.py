"""Which servers the tests get: those the environment names, Docker's, or private ones.

Nothing found is an error that says what to install: a test that needs a server never skips.
"""

import os
from collections.abc import Mapping
from urllib.parse import urlsplit

from tests.servers import docker
from tests.servers.embedded import EmbeddedBroker
from tests.servers.rabbitmq import Broker, RabbitMQ
from tests.servers.redis import RedisServer, RedisStore

AMQP_URL = "AMQFLOW_TEST_AMQP_URL"
MANAGEMENT_URL = "AMQFLOW_TEST_MANAGEMENT_URL"
REDIS_URL = "AMQFLOW_TEST_REDIS_URL"
#: Set to "embedded", the tests run on amqflow's own broker.
BROKER = "AMQFLOW_TEST_BROKER"

PrivateRabbitMQ = RabbitMQ | docker.RabbitMQContainer | EmbeddedBroker
PrivateRedis = RedisServer | docker.RedisContainer


def shared_rabbitmq() -> Broker:
    """Return the running broker that all tests share."""
    if url := os.environ.get(AMQP_URL):
        return Broker(url, os.environ.get(MANAGEMENT_URL) or _management_beside(url))
    return private_rabbitmq()


def shared_redis() -> RedisStore:
    """Return the running Redis that all tests share; its databases are flushed at will."""
    if url := os.environ.get(REDIS_URL):
        return RedisStore(urlsplit(url)._replace(path="").geturl())
    return private_redis()


def private_rabbitmq(conf: Mapping[str, str] | None = None) -> PrivateRabbitMQ:
    """Start a broker that may be killed; whoever asks for it closes it."""
    if os.environ.get(BROKER) == "embedded":
        return _started(EmbeddedBroker(conf))
    make = docker.RabbitMQContainer if docker.engine_answers() else RabbitMQ
    return _started(make(conf=conf))


def private_redis() -> PrivateRedis:
    """Start a Redis that may be killed; whoever asks for it closes it."""
    make = docker.RedisContainer if docker.engine_answers() else RedisServer
    return _started(make())


def _started(server):
    try:
        server.start()
    except BaseException:
        server.close()
        raise
    return server


def _management_beside(url: str) -> str:
    """Return the HTTP API's address where RabbitMQ's defaults put it."""
    place = urlsplit(url)
    user = f"{place.username or 'guest'}:{place.password or 'guest'}"
    return f"http://{user}@{place.hostname}:15672"
