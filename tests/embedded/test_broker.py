"""The broker over sockets: started, restarted, stopped, and clients that misbehave."""

import asyncio
import errno
import resource
import socket
import threading
import time
from dataclasses import dataclass
from urllib.parse import urlsplit

import aio_pika
import pamqp.commands as amqp
import pamqp.frame
import pytest

from amqflow.broker import PRODUCT, VERSION, Broker, Limits
from amqflow.broker.listening import listen
from amqflow.topology import BrokerFacts
from tests.broker.client import Connection, Refused
from tests.servers.wait import until


@pytest.fixture
async def broker():
    """A running broker with its HTTP API."""
    one = Broker(management_port=0)
    await one.start()
    yield one
    await one.stop()


@pytest.fixture
async def channel(broker):
    connection = await aio_pika.connect(broker.url)
    yield await connection.channel()
    await connection.close()


async def test_it_says_what_it_is_and_which_rabbitmq_it_behaves_like(broker):
    connection = await aio_pika.connect(broker.url)
    properties = connection.transport.connection.server_properties
    assert properties["product"] == PRODUCT
    assert properties["version"] == VERSION
    assert "never for production" in properties["information"]
    facts = BrokerFacts.parse(VERSION)
    assert facts.no_delivery_limit is None
    assert not facts.quorum_priorities
    await connection.close()


async def test_it_starts_in_a_tenth_of_a_second():
    took = []
    for _ in range(3):
        one = Broker(management_port=0)
        begun = time.thread_time()  # of this loop's thread alone: a busy machine does not matter
        await one.start()
        took.append(time.thread_time() - begun)
        await one.stop()
    assert min(took) < 0.1


async def test_a_restart_counts_one_delivery_however_many_consume(broker):
    connections = [await aio_pika.connect(broker.url) for _ in range(5)]
    got = asyncio.Queue()
    for connection in connections:
        channel = await connection.channel()
        await channel.set_qos(1)
        arguments = {"x-queue-type": "quorum", "x-delivery-limit": 2}
        queue = await channel.declare_queue("q", durable=True, arguments=arguments)
        await queue.consume(got.put)
    await channel.default_exchange.publish(aio_pika.Message(b"kept"), "q")
    await asyncio.wait_for(got.get(), 5)
    await broker.restart()
    for connection in connections:
        await connection.close()
    async with await aio_pika.connect(broker.url) as connection:
        channel = await connection.channel()
        message = await (await channel.get_queue("q")).get()
        assert (message.body, message.headers["x-delivery-count"]) == (b"kept", 1)


async def test_its_urls_hold_an_address_of_ipv6():
    one = Broker(host="::1", management_port=0)
    await one.start()
    try:
        assert one.management_url == f"http://guest:guest@[::1]:{one.management_port}"
        async with await aio_pika.connect(one.url):
            pass
    finally:
        await one.stop()


async def test_a_port_that_is_taken_is_an_error_and_nothing_keeps_listening(broker):
    with pytest.raises(OSError, match="in use"):
        await Broker(port=broker.port).start()
    other = Broker(management_port=broker.port)
    with pytest.raises(OSError, match="in use"):
        await other.start()
    with pytest.raises(OSError):
        await asyncio.open_connection("127.0.0.1", other.port)


async def test_users_vhosts_and_passwords_are_the_ones_given():
    one = Broker(users={"a b": "p/w"}, vhosts=("/", "shop/eu"))
    await one.start()
    try:
        async with await aio_pika.connect(one.vhost_url("shop/eu")) as connection:
            await (await connection.channel()).declare_queue("q")
        async with await aio_pika.connect(one.add_vhost("later")):
            pass
        with pytest.raises(aio_pika.exceptions.AMQPConnectionError):
            await aio_pika.connect(f"amqp://guest:guest@127.0.0.1:{one.port}/")
    finally:
        await one.stop()


async def test_a_restart_keeps_what_is_durable(broker, channel):
    for name, options in {
        "kept": {"durable": True},
        "quorum": {"durable": True, "arguments": {"x-queue-type": "quorum"}},
        "transient": {"durable": False},
        "own": {"exclusive": True},
    }.items():
        queue = await channel.declare_queue(name, **options)
        for mode in aio_pika.DeliveryMode.PERSISTENT, aio_pika.DeliveryMode.NOT_PERSISTENT:
            message = aio_pika.Message(mode.name.encode(), delivery_mode=mode)
            await channel.default_exchange.publish(message, queue.name)
    exchange = await channel.declare_exchange("x", "topic", durable=True)
    await channel.declare_exchange("y", "topic", durable=False)
    await (await channel.get_queue("kept")).bind(exchange, "a.#")
    await (await channel.get_queue("kept")).get(no_ack=False)  # out, never acknowledged
    url = broker.url
    await broker.restart()
    assert broker.url == url
    await until(lambda: channel.is_closed)
    async with await aio_pika.connect(url) as connection:
        fresh = await connection.channel()
        kept = await fresh.declare_queue("kept", passive=True)
        assert kept.declaration_result.message_count == 1
        message = await kept.get()
        assert (message.body, message.redelivered) == (b"PERSISTENT", True)
        quorum = await fresh.declare_queue("quorum", passive=True)
        assert quorum.declaration_result.message_count == 2
        await (await fresh.get_exchange("x")).publish(aio_pika.Message(b"routed"), "a.b")
        assert (await kept.get()).body == b"routed"
        for gone in "transient", "own":
            with pytest.raises(aio_pika.exceptions.ChannelNotFoundEntity):
                await (await connection.channel()).declare_queue(gone, passive=True)
        with pytest.raises(aio_pika.exceptions.ChannelNotFoundEntity):
            await (await connection.channel()).declare_exchange("y", passive=True)


@pytest.mark.parametrize(
    ("host", "named"), [("0.0.0.0", "127.0.0.1"), ("", "127.0.0.1"), ("localhost", "localhost")]
)
async def test_its_urls_name_an_address_to_connect_to(host, named):
    one = Broker(host, management_port=0)
    await one.start()
    try:
        assert urlsplit(one.url).hostname == urlsplit(one.management_url).hostname == named
        for address in one._server.sockets:  # localhost may be two addresses, with one port
            assert address.getsockname()[1] == one.port
            with socket.create_connection(address.getsockname()[:2], timeout=30):
                pass
        async with await aio_pika.connect(one.url):
            pass
    finally:
        await one.stop()


async def test_a_free_port_is_the_same_on_every_address():
    class Listening:
        def __init__(self, *ports: int) -> None:
            self.sockets = [Bound(port) for port in ports]

        def close(self) -> None:
            closed.append([one.port for one in self.sockets])

        async def wait_closed(self) -> None:
            """Be closed."""

    @dataclass
    class Bound:
        port: int

        def getsockname(self) -> tuple[str, int]:
            return ("", self.port)

    async def create(port: int) -> Listening:
        if port == 1:
            raise OSError(errno.EADDRINUSE, "taken on the other address")
        return Listening(port, port) if port else Listening(*free.pop())

    closed, free = [], [(5, 6), (1, 2)]
    server, port = await listen(create, 0)
    assert [one.port for one in server.sockets] == [5, 5]
    assert port == 5
    assert closed == [[1, 2], [5, 6]]


async def test_a_robust_client_comes_back_after_a_restart(broker):
    connection = await aio_pika.connect_robust(broker.url, reconnect_interval=0.05)
    channel = await connection.channel()
    queue = await channel.declare_queue("work", durable=True)
    got = []

    async def take(message: aio_pika.abc.AbstractIncomingMessage) -> None:
        got.append(message.body)
        await message.ack()

    await queue.consume(take)
    await broker.restart()
    await connection.connected.wait()

    async def publish() -> bool:
        async with await aio_pika.connect(broker.url) as other:
            sender = await other.channel()
            await sender.default_exchange.publish(aio_pika.Message(b"after"), "work")
        return True

    await publish()
    await until(lambda: got == [b"after"], deadline=30)
    await connection.close()


async def test_removing_a_vhost_closes_its_connections(broker):
    broker.add_vhost("going")
    connection = await aio_pika.connect(broker.vhost_url("going"))
    broker.remove_vhost("going")
    await until(lambda: connection.is_closed or connection.transport.connection.is_closed)
    with pytest.raises(aio_pika.exceptions.AMQPError):
        await aio_pika.connect(broker.vhost_url("going"))


async def test_vhosts_may_be_added_from_another_thread(broker):
    urls = []
    thread = threading.Thread(target=lambda: urls.append(broker.add_vhost("threaded")))
    thread.start()
    await until(lambda: bool(urls))
    thread.join()
    async with await aio_pika.connect(urls[0]):
        pass


async def test_a_message_larger_than_the_limit_closes_its_channel():
    one = Broker(limits=Limits(max_message_size=1000))
    await one.start()
    try:
        async with await aio_pika.connect(one.url) as connection:
            channel = await connection.channel()
            await channel.declare_queue("q")
            await channel.default_exchange.publish(aio_pika.Message(bytes(1000)), "q")
            with pytest.raises(aio_pika.exceptions.ChannelPreconditionFailed, match="size 1001"):
                await channel.default_exchange.publish(aio_pika.Message(bytes(1001)), "q")
    finally:
        await one.stop()


# -- clients that misbehave ------------------------------------------------------------------


def _held(broker: Broker) -> int:
    """Octets the broker holds for its clients' sockets."""
    return sum(
        connection.output_size + connection._line._transport.get_write_buffer_size()
        for connection in broker._node.connections
    )


def _bare(broker: Broker) -> Connection:
    connection = Connection(("127.0.0.1", broker.port))
    connection.open()
    return connection


async def test_a_consumer_that_never_reads_is_sent_no_more_than_fits(broker, channel):
    await channel.declare_queue("flood")
    body = bytes(100_000)
    for _ in range(200):  # 20 MB
        await channel.default_exchange.publish(aio_pika.Message(body), "flood")
    deaf = await asyncio.to_thread(_bare, broker)

    def consume() -> None:
        deaf.channel().call(amqp.Basic.Consume(queue="flood", no_ack=True))

    await asyncio.to_thread(consume)
    await until(lambda: _held(broker) > 0)
    assert _held(broker) < 2 * 2**20
    queue = broker._node.vhosts["/"].queues["flood"]
    assert queue.length > 50
    # Others are served; and when it reads, it gets the rest.
    assert (await (await channel.get_queue("flood")).get()).body == body
    deaf.socket.settimeout(30)

    def read() -> None:
        while queue.length or _held(broker):
            deaf.socket.recv(2**20)

    await asyncio.to_thread(read)
    deaf.drop()


async def test_replies_to_a_client_that_never_reads_are_bounded(broker, channel):
    deaf = await asyncio.to_thread(_bare, broker)

    def ask() -> None:
        asking = deaf.channel()
        asking.call(amqp.Basic.Consume(queue="amq.rabbitmq.reply-to", no_ack=True))

    await asyncio.to_thread(ask)
    (token,) = broker._node.reply_consumers
    body = bytes(1_000_000)
    for _ in range(40):  # 40 MB
        await channel.default_exchange.publish(
            aio_pika.Message(body), f"amq.rabbitmq.reply-to.{token}", mandatory=False
        )
    assert 0 < _held(broker) < 16 * 2**20
    deaf.drop()


async def test_a_client_that_asks_and_never_reads_is_read_no_more(broker):
    deaf = await asyncio.to_thread(_bare, broker)
    channel = await asyncio.to_thread(deaf.channel)
    await asyncio.to_thread(channel.queue, "q")
    flood = pamqp.frame.marshal(amqp.Queue.Declare(queue="q", passive=True), 1) * 2000
    deaf.socket.setblocking(False)
    loop = asyncio.get_running_loop()
    with pytest.raises(TimeoutError):  # the socket takes nothing more
        while True:
            async with asyncio.timeout(1):
                await loop.sock_sendall(deaf.socket, flood)
    assert _held(broker) < 16 * 2**20
    async with await aio_pika.connect(broker.url) as connection:
        await connection.channel()
    deaf.socket.close()


async def test_a_thousand_half_open_connections_disturb_nobody(broker, channel):
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = 4096 if hard == resource.RLIM_INFINITY else min(4096, hard)
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(soft, wanted), hard))
    count = min(1000, (max(soft, wanted) - 200) // 2)
    stuck = []
    try:
        for number in range(count):
            half = socket.create_connection(("127.0.0.1", broker.port))
            half.sendall(b"AMQP\x00\x00\x09\x01"[: number % 9])
            stuck.append(half)
        await until(lambda: len(broker._node.connections) > count)
        await channel.declare_queue("q")
        await channel.default_exchange.publish(aio_pika.Message(b"works"), "q")
        assert (await (await channel.get_queue("q")).get()).body == b"works"
    finally:
        for half in stuck:
            half.close()
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    await until(lambda: len(broker._node.connections) == 1)


async def test_who_does_not_shake_hands_is_cut_off(broker, monkeypatch):
    monkeypatch.setattr("amqflow.broker.line.HANDSHAKE_TIMEOUT", 0.1)
    reader, writer = await asyncio.open_connection("127.0.0.1", broker.port)
    writer.write(b"AMQP\x00\x00\x09\x01")
    async with asyncio.timeout(10):
        assert b"product" in await reader.read()
    writer.close()


async def test_a_client_whose_heartbeats_stop_is_cut_off(broker):
    silent = Connection(("127.0.0.1", broker.port))
    await asyncio.to_thread(lambda: silent.open(heartbeat=1))
    queue = await asyncio.to_thread(lambda: silent.channel().queue(exclusive=True))
    assert queue in broker._node.vhosts["/"].queues
    await until(lambda: not broker._node.connections, deadline=60)
    assert queue not in broker._node.vhosts["/"].queues
    silent.drop()


async def test_a_wrong_password_is_told_where_the_client_can_take_it(broker):
    stranger = Connection(("127.0.0.1", broker.port))
    with pytest.raises(Refused, match="ACCESS_REFUSED"):
        await asyncio.to_thread(lambda: stranger.open(response="\x00guest\x00wrong"))
    stranger.drop()


async def test_stopped_and_started_it_begins_with_its_first_virtual_hosts():
    broker = Broker(vhosts=("/", "shop"))
    await broker.start()
    broker.add_vhost("later")
    await broker.stop()
    await broker.start()
    for name, there in (("/", True), ("shop", True), ("later", False)):
        try:
            await (await aio_pika.connect(broker.vhost_url(name))).close()
        except aio_pika.exceptions.AMQPException:
            assert not there, name
        else:
            assert there, name
    await broker.stop()


async def test_a_restart_dead_letters_what_it_was_delivered_too_often(broker, channel):
    await channel.declare_queue("dead", durable=True)
    queue = await channel.declare_queue(
        "work",
        durable=True,
        arguments={
            "x-queue-type": "quorum",
            "x-delivery-limit": 1,
            "x-dead-letter-exchange": "",
            "x-dead-letter-routing-key": "dead",
        },
    )
    await channel.default_exchange.publish(aio_pika.Message(b"poison", delivery_mode=2), "work")
    for _ in range(2):
        await queue.consume(_hold)
        await until(lambda: ready(broker, "work") == 0)
        await broker.restart()
        connection = await aio_pika.connect(broker.url)
        queue = await (await connection.channel()).get_queue("work")
    dead = await (await connection.channel()).get_queue("dead")
    message = await dead.get(timeout=10)
    assert message.headers["x-death"][0]["reason"] == "delivery_limit"
    await connection.close()


def ready(broker, name):
    return len(broker._node.vhosts["/"].queues[name].ready)


async def _hold(message):
    """Take a message and settle it never."""
