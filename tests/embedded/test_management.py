"""The management API: RabbitMQ's shapes, held against a real one's, and what a client may not do."""

import asyncio
import json
from http import HTTPStatus
from urllib.parse import quote

import aio_pika
import pytest

from amqflow.broker.tables import Field, plain
from tests.servers.embedded import EmbeddedBroker
from tests.servers.rabbitmq import Broker
from tests.servers.wait import until_sync


@pytest.fixture(scope="module")
def embedded():
    broker = EmbeddedBroker()
    broker.start()
    yield broker
    broker.close()


@pytest.fixture
def place(embedded):
    """A fresh virtual host on the embedded broker, as it stands in a path."""
    embedded.add_vhost("place/1")
    yield quote("place/1", safe="")
    embedded.delete_vhost("place/1")


def _furnish(broker: Broker, vhost: str) -> None:
    put = broker.management
    put("PUT", f"/api/queues/{vhost}/classic", {"durable": True, "arguments": {"x-max-length": 5}})
    put("PUT", f"/api/queues/{vhost}/quorum", {"durable": True, "arguments": QUORUM})
    put("PUT", f"/api/exchanges/{vhost}/topic", {"type": "topic", "durable": True})
    put("POST", f"/api/bindings/{vhost}/e/topic/q/classic", BINDING)
    put("POST", f"/api/bindings/{vhost}/e/topic/e/amq.fanout", {"routing_key": ""})
    put("PUT", f"/api/policies/{vhost}/limit", POLICY)


QUORUM = {"x-queue-type": "quorum"}
BINDING = {"routing_key": "a.#", "arguments": {"x": 1}}
POLICY = {
    "pattern": "^classic$",
    "definition": {"message-ttl": 1000},
    "priority": 1,
    "apply-to": "queues",
}

# What readers take from each answer: amqflow's plan, queues and doctor, and its tests' tools.
READ = {
    "/api/overview": {"rabbitmq_version", "product_name", "object_totals", "queue_totals"},
    "/api/whoami": {"name", "tags"},
    "/api/vhosts/{vhost}": {"name", "messages"},
    "/api/queues/{vhost}/classic": {
        "name",
        "vhost",
        "durable",
        "exclusive",
        "auto_delete",
        "arguments",
        "type",
        "policy",
        "messages",
        "messages_ready",
        "messages_unacknowledged",
        "consumers",
        "effective_policy_definition",
    },
    "/api/exchanges/{vhost}/topic": {
        "name",
        "type",
        "durable",
        "auto_delete",
        "internal",
        "arguments",
    },
    "/api/bindings/{vhost}": {
        "source",
        "destination",
        "destination_type",
        "routing_key",
        "arguments",
        "properties_key",
    },
    "/api/policies/{vhost}": {"name", "pattern", "apply-to", "definition", "priority", "vhost"},
    "/api/permissions/{vhost}/guest": {"user", "vhost", "configure", "write", "read"},
    "/api/definitions/{vhost}": {"queues", "exchanges", "bindings", "policies"},
}


def test_what_is_read_is_the_same_as_rabbitmqs(rabbitmq, vhost, embedded, place):
    _furnish(rabbitmq, vhost)
    _furnish(embedded, place)

    def counted() -> bool:
        found = rabbitmq.management("GET", f"/api/queues/{vhost}/classic")
        return "messages" in found and found.get("policy") == "limit"

    until_sync(counted, deadline=30)
    for path, keys in READ.items():
        real = rabbitmq.management("GET", path.format(vhost=vhost))
        ours = embedded.management("GET", path.format(vhost=place))
        assert _normal(ours, keys, "place/1") == _normal(real, keys, vhost), path


# Which differ between any two brokers.
OF_THE_BROKER = {"rabbitmq_version", "product_name", "object_totals", "queue_totals"}


def _normal(content, keys, vhost):
    if isinstance(content, list):
        parts = [_normal(one, keys, vhost) for one in content]
        return sorted(parts, key=lambda part: json.dumps(part, sort_keys=True))
    assert keys <= content.keys()
    found = {key: content[key] for key in keys - OF_THE_BROKER}
    if len(content.get("arguments") or {}) and "properties_key" in found:
        del found["properties_key"]  # a hash of the broker's own
    for key, value in found.items():
        if value == vhost:
            found[key] = "VHOST"
        elif isinstance(value, list) and value and isinstance(value[0], dict):
            parts = [{k: v for k, v in one.items() if k != "vhost"} for one in value]
            found[key] = sorted(parts, key=lambda part: json.dumps(part, sort_keys=True))
    return found


def test_columns_choose_what_is_told(embedded, place):
    _furnish(embedded, place)
    found = embedded.management("GET", f"/api/queues/{place}?columns=name,durable")
    assert found == [
        {"name": "classic", "durable": True},
        {"name": "quorum", "durable": True},
    ]


def test_a_policy_holds_as_long_as_it_is_there(embedded, place):
    _furnish(embedded, place)
    path = f"/api/queues/{place}/classic"
    assert embedded.management("GET", path)["policy"] == "limit"
    embedded.management("DELETE", f"/api/policies/{place}/limit")
    found = embedded.management("GET", path)
    assert (found["policy"], found["effective_policy_definition"]) == (None, {})


def test_messages_are_published_looked_at_and_purged(embedded, place):
    _furnish(embedded, place)
    body = {"routing_key": "a.b", "payload": "hello", "properties": {"headers": {"n": 1}}}
    assert embedded.management("POST", f"/api/exchanges/{place}/topic/publish", body) == {
        "routed": True
    }
    peek = {"count": 5, "ackmode": "ack_requeue_true", "encoding": "auto"}
    for redelivered in (False, True):
        (message,) = embedded.management("POST", f"/api/queues/{place}/classic/get", peek)
        assert message["payload"] == "hello"
        assert message["properties"] == {"headers": {"n": 1}}
        assert message["redelivered"] is redelivered
    embedded.management("DELETE", f"/api/queues/{place}/classic/contents")
    assert embedded.management("POST", f"/api/queues/{place}/classic/get", peek) == []


def test_definitions_of_a_vhost_make_the_same_vhost_elsewhere(embedded, place):
    _furnish(embedded, place)
    definitions = embedded.management("GET", f"/api/definitions/{place}")
    embedded.add_vhost("copy")
    try:
        embedded.management("POST", "/api/definitions/copy", definitions)
        copy = embedded.management("GET", "/api/definitions/copy")
    finally:
        embedded.delete_vhost("copy")
    for kind in ("queues", "exchanges", "bindings"):
        assert copy[kind] == definitions[kind]


@pytest.mark.parametrize(
    ("method", "path", "body", "said"),
    [
        ("GET", "/api/queues/{}/nope", None, "404.*Object Not Found"),
        ("GET", "/api/nonsense", None, "404.*Object Not Found"),
        ("GET", "/nonsense", None, "404.*Object Not Found"),
        ("GET", "/api/queues/nowhere", None, "404.*Object Not Found"),
        ("DELETE", "/api/queues/{}/nope", None, "404.*Object Not Found"),
        ("POST", "/api/whoami", {}, "405"),
        (
            "PUT",
            "/api/queues/{}/classic",
            {"durable": True},
            "400.*inequivalent arg .*x-max-length",
        ),
        ("PUT", "/api/queues/{}/q", {"durable": 3}, "400.*durable is no boolean"),
        ("PUT", "/api/queues/{}/q", {"arguments": {"x-max-length": "a"}}, "400.*expected integer"),
        ("PUT", "/api/queues/{}/q", {"arguments": [1]}, "400.*arguments is no object"),
        ("PUT", "/api/exchanges/{}/x", {"type": "odd"}, "400.*unknown exchange type .*odd"),
        ("PUT", "/api/policies/{}/p", {"pattern": "(", "definition": {"expires": 1}}, "400"),
        ("PUT", "/api/policies/{}/p", {"pattern": ".*"}, "400.*no policy provided"),
        ("POST", "/api/bindings/{}/e/topic/q/nope", {"routing_key": "a"}, "404.*no queue .*nope"),
        ("POST", "/api/queues/{}/classic/get", {"count": "many"}, "400"),
    ],
)
def test_what_is_wrong_is_said_in_rabbitmqs_words(embedded, place, method, path, body, said):
    _furnish(embedded, place)
    with pytest.raises(RuntimeError, match=said):
        embedded.management(method, path.format(place), body)


def test_who_may_not_is_refused(embedded, place):
    embedded.management("PUT", "/api/users/reader", {"password": "r", "tags": "management"})
    embedded.management("PUT", "/api/users/nobody", {"password": "n", "tags": ""})
    rights = {"configure": "^own", "write": "^own", "read": ".*"}
    embedded.management("PUT", f"/api/permissions/{place}/reader", rights)

    def as_user(login: str) -> Broker:
        return Broker("", embedded.management_url.replace("guest:guest", login))

    for login, said in {"guest:no": "Login failed", "nobody:n": "Not management user"}.items():
        with pytest.raises(RuntimeError, match=f"401.*{said}"):
            as_user(login).management("GET", "/api/whoami")
    reader = as_user("reader:r")
    assert [one["name"] for one in reader.management("GET", "/api/vhosts")] == ["place/1"]
    for method, path, body, said in (
        ("GET", "/api/users", None, "Not administrator user"),
        ("PUT", f"/api/policies/{place}/p", POLICY, "Not policymaker user"),
        ("GET", "/api/queues/%2F", None, "not authorised to access virtual host"),
        ("PUT", f"/api/queues/{place}/foreign", {}, "access to queue .*foreign"),
    ):
        with pytest.raises(RuntimeError, match=said):
            reader.management(method, path, body)
    reader.management("PUT", f"/api/queues/{place}/own", {})
    assert "password" not in json.dumps(embedded.management("GET", "/api/users"))


async def test_permissions_hold_over_amqp(embedded, place):
    manage = embedded.management
    await asyncio.to_thread(manage, "PUT", "/api/users/amqp", {"password": "a", "tags": ""})
    rights = {"configure": "^own", "write": "^own", "read": "^own"}
    await asyncio.to_thread(manage, "PUT", f"/api/permissions/{place}/amqp", rights)
    url = embedded.vhost_url("place/1").replace("guest:guest", "amqp:a")
    async with await aio_pika.connect(url) as connection:
        await (await connection.channel()).declare_queue("own")
        with pytest.raises(aio_pika.exceptions.ChannelClosed, match="access to queue 'other'"):
            await (await connection.channel()).declare_queue("other")
        channel = await connection.channel()
        with pytest.raises(aio_pika.exceptions.ChannelClosed, match=r"exchange 'amq\.default'"):
            await channel.default_exchange.publish(aio_pika.Message(b""), "own")
    await asyncio.to_thread(manage, "DELETE", "/api/users/amqp")


async def test_what_is_no_http_is_answered_and_left(embedded):
    host, port = embedded.management_url.rpartition("@")[2].split(":")
    for said in (b"nonsense\r\n\r\n", b"GET / HTTP/1.1\r\ncontent-length: -1\r\n\r\n"):
        reader, writer = await asyncio.open_connection(host, int(port))
        writer.write(said)
        async with asyncio.timeout(10):
            answer = await reader.read()
        assert answer.startswith(f"HTTP/1.1 {HTTPStatus.BAD_REQUEST.value}".encode())
        writer.close()
    reader, writer = await asyncio.open_connection(host, int(port))
    writer.write(b"GET / HTTP/1.1\r\n" + b"x: y\r\n" * 20_000 + b"\r\n")
    async with asyncio.timeout(10):
        assert b"400" in await reader.read(100)
    writer.close()


@pytest.mark.parametrize(
    "definition",
    [
        {"message-ttl": "soon"},
        {"max-length": -1},
        {"delivery-limit": "many"},
        {"dead-letter-exchange": 5},
        {"dead-letter-exchange": "", "dead-letter-routing-key": "k" * 256},
    ],
)
def test_a_policy_that_means_nothing_is_refused_and_queues_are_declared(
    embedded, place, definition
):
    with pytest.raises(RuntimeError, match="400"):
        embedded.management(
            "PUT", f"/api/policies/{place}/wrong", {"pattern": ".*", "definition": definition}
        )
    embedded.management("PUT", f"/api/queues/{place}/q", {"durable": True})


@pytest.mark.parametrize(
    ("method", "path", "body", "status"),
    [
        ("PUT", "/api/queues/%2F/" + "n" * 256, {"durable": True}, "400"),
        ("GET", "//[/api", None, "400"),
        ("POST", "/api/exchanges/%2F/amq.default/publish", {"headers": {"n": 2**64}}, "500"),
    ],
)
def test_every_request_is_answered(embedded, method, path, body, status):
    if method == "POST":
        body = {"routing_key": "", "payload": "", "payload_encoding": "string", "properties": body}
    with pytest.raises(RuntimeError, match=status):
        embedded.management(method, path, body)


def test_a_moment_that_no_year_has_is_shown_as_a_number():
    assert plain(Field("timestamp", 2**64 - 1)) == 2**64 - 1
