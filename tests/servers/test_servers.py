"""The test servers keep their promises: without this, a passing fault test proves nothing."""

import asyncio
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import aio_pika
import aiormq
import pamqp.commands
import pamqp.frame
import pytest

from tests.servers import process, rabbitmq, resolver
from tests.servers.toxic import Direction, TcpProxy
from tests.servers.wait import until, until_sync


async def declare(url: str, queue: str, **options) -> None:
    async with await aio_pika.connect(url) as connection:
        channel = await connection.channel()
        await channel.declare_queue(queue, durable=True, **options)


async def publish(url: str, queue: str, body: bytes) -> None:
    async with await aio_pika.connect(url) as connection:
        channel = await connection.channel()
        message = aio_pika.Message(body, delivery_mode=aio_pika.DeliveryMode.PERSISTENT)
        await channel.default_exchange.publish(message, routing_key=queue)


async def take(url: str, queue: str) -> bytes:
    async with await aio_pika.connect(url) as connection:
        channel = await connection.channel()
        found = await (await channel.get_queue(queue)).get(no_ack=True)
        return found.body


async def test_a_fresh_vhost_is_empty_and_takes_messages(amqp_url):
    await declare(amqp_url, "q")
    await publish(amqp_url, "q", b"hello")
    assert await take(amqp_url, "q") == b"hello"


async def test_a_vhost_is_gone_after_its_deletion(rabbitmq):
    url = rabbitmq.add_vhost("fast one/1")
    await declare(url, "q")
    rabbitmq.delete_vhost("fast one/1")
    # aiormq 7.2 answers the broker's close with InvalidFrameError, not with a connection error
    with pytest.raises(aiormq.exceptions.AMQPError):
        await aio_pika.connect(url)


def test_the_version_is_the_one_asked_for(rabbitmq):
    assert rabbitmq.version >= (3, 10)
    if os.environ.get("AMQFLOW_TEST_RABBITMQ") == "4":
        assert rabbitmq.version >= (4, 0)


def test_the_management_api_answers(rabbitmq, vhost):
    names = [found["name"] for found in rabbitmq.management("GET", "/api/vhosts")]
    assert vhost in names


@pytest.mark.rabbitmq_only("a process that is killed; tests/embedded restarts ours")
@pytest.mark.faults_long
async def test_a_durable_message_survives_kill_and_restart(private_rabbitmq):
    server = private_rabbitmq()
    await declare(server.url, "classic")
    await declare(server.url, "quorum", arguments={"x-queue-type": "quorum"})
    for queue in ("classic", "quorum"):
        await publish(server.url, queue, b"kept")
    before = server.pid
    await asyncio.to_thread(server.settle)
    await asyncio.to_thread(server.kill9)
    assert not server.running
    with pytest.raises(OSError):
        await aio_pika.connect(server.url)
    await asyncio.to_thread(server.start)
    assert server.pid != before
    for queue in ("classic", "quorum"):
        assert await take(server.url, queue) == b"kept"
    await asyncio.to_thread(server.restart)
    await declare(server.url, "classic")


@pytest.mark.faults_long
async def test_a_private_broker_comes_back_empty_and_running(private_rabbitmq):
    server = private_rabbitmq()
    await declare(server.url, "left-over")
    server.add_vhost("left-over")
    server.kill9()
    server.start()
    server.wipe()
    assert [found["name"] for found in server.management("GET", "/api/vhosts")] == ["/"]
    assert server.management("GET", "/api/queues") == []


@pytest.mark.rabbitmq_only("rabbitmqctl")
@pytest.mark.faults_long
def test_rabbitmqctl_speaks_to_the_private_node(private_rabbitmq):
    server = private_rabbitmq()
    server.add_vhost("one")
    assert "one" in server.ctl("list_vhosts").split()
    with pytest.raises(RuntimeError, match="no-such-command"):
        server.ctl("no-such-command")


@pytest.mark.faults
def test_redis_keeps_every_answered_write_over_a_kill(private_redis):
    server = private_redis()
    for number in range(100):
        server.cli("SET", f"key-{number}", number)
    server.kill9()
    assert not server.answers()
    server.start()
    assert server.cli("DBSIZE") == 100
    server.restart()
    assert server.cli("GET", "key-99") == "99"


@pytest.mark.faults
def test_a_paused_redis_answers_late(private_redis):
    server = private_redis()
    server.pause(0.3)
    began = time.monotonic()
    server.cli("GET", "key")
    assert time.monotonic() - began > 0.2


def test_a_redis_database_is_empty(redis_url, redis_server):
    number = int(redis_url.rpartition("/")[2])
    assert redis_server.cli("DBSIZE", db=number) == 0


async def test_the_proxy_passes_and_resets(amqp_url):
    await declare(amqp_url, "q")
    async with TcpProxy(amqp_url) as proxy:
        await publish(proxy.url, "q", b"1")
        assert await take(proxy.url, "q") == b"1"
        connection = await aio_pika.connect(proxy.url)
        proxy.drop_connections()
        await until(
            lambda: connection.transport is None or connection.transport.connection.is_closed,
            message="connection closed by the reset",
        )
        await until(lambda: proxy.open_connections == 0, message="proxy forgot the connection")
        proxy.refuse()
        with pytest.raises(OSError):
            await aio_pika.connect(proxy.url)
        await proxy.listen()
        await publish(proxy.url, "q", b"2")


async def test_a_black_hole_holds_what_is_sent_until_it_resumes(amqp_url):
    await declare(amqp_url, "q")
    async with TcpProxy(amqp_url) as proxy, await aio_pika.connect(proxy.url) as connection:
        channel = await connection.channel()
        proxy.black_hole()
        sending = asyncio.ensure_future(
            channel.default_exchange.publish(aio_pika.Message(b"held"), routing_key="q")
        )
        done, _ = await asyncio.wait([sending], timeout=0.2)
        assert not done
        proxy.resume()
        await asyncio.wait_for(sending, 5)
    assert await take(amqp_url, "q") == b"held"


async def test_a_delay_is_felt_both_ways(amqp_url):
    await declare(amqp_url, "q")
    async with TcpProxy(amqp_url) as proxy, await aio_pika.connect(proxy.url) as connection:
        channel = await connection.channel()
        proxy.delay(0.1)
        began = time.monotonic()
        await channel.default_exchange.publish(aio_pika.Message(b"late"), routing_key="q")
        assert time.monotonic() - began >= 0.2
        proxy.delay(0)


async def test_a_filter_drops_exactly_one_confirm(amqp_url):
    await declare(amqp_url, "q")
    dropped = []

    def drop_first_confirm(direction: Direction, chunk: bytes) -> bytes | None:
        if direction is Direction.DOWN and not dropped:
            frame = pamqp.frame.unmarshal(chunk)[2]
            if isinstance(frame, pamqp.commands.Basic.Ack):
                dropped.append(frame)
                return None
        return chunk

    async with TcpProxy(amqp_url, frames=True, filter=drop_first_confirm) as proxy:
        connection = await aio_pika.connect(proxy.url)
        channel = await connection.channel()
        with pytest.raises(TimeoutError):
            await channel.default_exchange.publish(
                aio_pika.Message(b"once"), routing_key="q", timeout=0.3
            )
        proxy.drop_connections()
        await until(lambda: proxy.open_connections == 0)
    assert len(dropped) == 1
    assert await take(amqp_url, "q") == b"once"


async def test_until_says_what_it_waited_for():
    with pytest.raises(AssertionError, match=r"the moon: not within 0\.1 s \(last: 0\)"):
        await until(lambda: 0, deadline=0.1, message="the moon")
    with pytest.raises(AssertionError, match="an answer"):
        await until(lambda: asyncio.sleep(5), deadline=0.1, message="an answer")
    with pytest.raises(AssertionError, match="the sun"):
        until_sync(lambda: None, deadline=0.1, message="the sun")
    assert await until(lambda: asyncio.sleep(0, "yes")) == "yes"


def test_without_a_server_the_error_says_what_to_install(monkeypatch):
    for name in ("AMQFLOW_TEST_RABBITMQ", resolver.BROKER):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(rabbitmq, "SCRIPTS", ())
    monkeypatch.setattr(rabbitmq.shutil, "which", lambda _: None)
    monkeypatch.setattr(resolver.docker, "engine_answers", lambda: False)
    with pytest.raises(process.ServerUnavailableError, match="install `rabbitmq-server`"):
        resolver.private_rabbitmq()
    with pytest.raises(process.ServerUnavailableError, match="install `redis-server`"):
        resolver.private_redis()


def test_the_environment_names_the_shared_servers(monkeypatch):
    monkeypatch.setenv(resolver.AMQP_URL, "amqp://me:secret@rabbit.example:5673/")
    monkeypatch.setenv(resolver.REDIS_URL, "redis://redis.example:6380/3")
    broker, store = resolver.shared_rabbitmq(), resolver.shared_redis()
    assert not broker.private
    assert not store.private
    assert broker.vhost_url("a/b") == "amqp://me:secret@rabbit.example:5673/a%2Fb"
    assert broker.management_url == "http://me:secret@rabbit.example:15672"
    assert store.db_url(4) == "redis://redis.example:6380/4"


@pytest.mark.faults
def test_a_run_that_is_killed_leaves_no_server_behind(tmp_path):
    """SIGKILL of the process that started them ends the servers too."""
    script = (
        "import time; from tests.servers import resolver\n"
        "store = resolver.private_redis(); print(store.pid, flush=True); time.sleep(60)"
    )
    root = Path(__file__).parents[2]
    with subprocess.Popen(
        [sys.executable, "-c", script],
        cwd=root,
        env=os.environ | {"TMPDIR": str(tmp_path)},
        stdout=subprocess.PIPE,
    ) as run:
        pid = int(run.stdout.readline())
        run.send_signal(signal.SIGKILL)
    until_sync(lambda: not _alive(pid), message="the orphaned Redis has ended")


def _alive(pid: int) -> bool:
    """Say whether a process runs; a zombie that init has not reaped yet does not."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


@pytest.mark.faults_long
def test_a_command_runs_beside_servers_of_its_own():
    script = (
        "import os; print(os.environ['AMQFLOW_BROKER'], os.environ['AMQFLOW_BACKEND'])\n"
        "raise SystemExit(7)"
    )
    done = subprocess.run(
        [sys.executable, "-m", "tests.servers", "run", "--", sys.executable, "-c", script],
        cwd=Path(__file__).parents[2],
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )
    assert done.returncode == 7, done.stderr
    assert done.stdout.startswith("amqp://guest:guest@127.0.0.1:")
    assert " redis://127.0.0.1:" in done.stdout
