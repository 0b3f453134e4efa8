"""The wire of the embedded store: who is let in, what a broken peer is told, who goes on."""

import asyncio
import os

import pytest

from amqflow import rendezvous
from amqflow.errors import StoreError, StoreUnavailable
from amqflow.rendezvous import Rendezvous
from amqflow.stores import frames
from amqflow.stores.embedded import EmbeddedClient
from amqflow.stores.server import StoreServer
from tests.servers.wait import until

TOKEN = "secret"


class Served:
    """A server whose methods tell what they were asked."""

    def __init__(self):
        self.held = asyncio.Event()
        self.waiting = 0
        self.server = StoreServer(
            {
                "echo": lambda payload: payload,
                "late": self.late,
                "fail": self.fail,
                "strange": lambda _: object(),
            },
            token=TOKEN,
        )

    async def late(self, payload):
        self.waiting += 1
        try:
            await self.held.wait()
        finally:
            self.waiting -= 1
        return payload

    def fail(self, payload):
        raise {"store": StoreError, "away": StoreUnavailable, "bug": KeyError}[payload](payload)

    async def line(self):
        host, _, port = self.server.address.rpartition(":")
        return await asyncio.open_connection(host, int(port))


@pytest.fixture
async def served(tmp_path, monkeypatch):
    tmp_path.chmod(0o700)
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path))
    made = Served()
    await made.server.start()
    address = made.server.address
    rendezvous.announce(
        Rendezvous("s", os.getpid(), f"amqp://{address}/", store=address, token=TOKEN)
    )
    yield made
    await made.server.stop()


@pytest.fixture
async def client(served):
    made = EmbeddedClient("s")
    yield made
    await made.close()


async def test_answers_come_to_the_request_they_belong_to(served, client):
    late = asyncio.create_task(client.call("late", 1))
    assert await asyncio.gather(*(client.call("echo", n) for n in range(50))) == list(range(50))
    assert not late.done()
    served.held.set()
    assert await late == 1


async def test_large_payloads_pass(client):
    payload = "x" * 5_000_000
    assert await client.call("echo", payload) == payload


async def test_too_large_a_payload_is_refused_and_the_line_stays(client, monkeypatch):
    await client.open()
    monkeypatch.setattr(frames, "LARGEST", 1000)
    with pytest.raises(StoreError, match=r"1,0\d\d bytes are more"):
        await client.call("echo", "x" * 1000)
    assert await client.call("echo", 1) == 1


@pytest.mark.parametrize(
    ("kind", "raised"), [("store", StoreError), ("away", StoreUnavailable), ("bug", StoreError)]
)
async def test_an_error_comes_as_what_it_is(client, kind, raised):
    with pytest.raises(StoreError, match=kind) as caught:
        await client.call("fail", kind)
    assert caught.type is raised
    assert await client.call("echo", 1) == 1


async def test_an_unknown_method_and_an_answer_that_is_no_json_are_refused(client):
    with pytest.raises(StoreError, match="no method 'nothing'"):
        await client.call("nothing", None)
    with pytest.raises(StoreError):
        await client.call("strange", None)
    assert await client.call("echo", 1) == 1


async def test_a_request_given_up_is_ended_at_the_server(served, client):
    with pytest.raises(StoreUnavailable, match="did not answer 'late' within"):
        await client.call("late", None, timeout=0.05)
    await until(lambda: served.waiting == 0)
    assert await client.call("echo", 1) == 1


async def test_a_client_that_leaves_leaves_nothing_running(served, client):
    waiting = asyncio.create_task(client.call("late", None))
    await until(lambda: served.waiting == 1)
    await client.close()
    with pytest.raises(StoreUnavailable, match="closed"):
        await waiting
    await until(lambda: served.waiting == 0)
    assert await client.call("echo", "again") == "again"


async def test_a_server_that_stops_wakes_who_waits(served, client):
    waiting = asyncio.create_task(client.call("late", None, timeout=None))
    await until(lambda: served.waiting == 1)
    await served.server.stop()
    with pytest.raises(StoreUnavailable, match="went away"):
        await waiting
    with pytest.raises(StoreUnavailable, match="no embedded broker answers"):
        await client.call("echo", 1)


async def test_a_client_finds_the_store_that_comes_back(served, client):
    assert await client.call("echo", 1) == 1
    port = int(served.server.address.rpartition(":")[2])
    await served.server.stop()
    with pytest.raises(StoreUnavailable):
        await client.call("echo", 1)
    again = Served()
    await again.server.start(port=port)
    try:
        assert await client.call("echo", 2) == 2
    finally:
        await again.server.stop()


@pytest.mark.parametrize(
    "sent",
    [
        frames.encode(0, frames.HELLO, "wrong"),
        frames.encode(0, frames.HELLO, None),
        frames.encode(1, "echo", 1),
        frames.encode(0, frames.HELLO, "x" * 5000),
        b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n",
        b"\x00\x00\x00\x05hello",
        b"\x00\x00\x00\x02[]",
    ],
    ids=["wrong", "none", "no-hello", "long", "http", "no-json", "no-frame"],
)
async def test_who_does_not_show_the_token_is_shut_out(served, client, sent):
    reader, writer = await served.line()
    writer.write(sent)
    async with asyncio.timeout(10):
        assert await reader.read() == b""
    writer.close()
    assert await client.call("echo", 1) == 1


async def test_garbage_after_the_token_ends_that_connection_only(served, client):
    reader, writer = await served.line()
    writer.write(frames.encode(0, frames.HELLO, TOKEN) + b"\xff\xff\xff\xff")
    async with asyncio.timeout(10):
        assert await reader.read() == frames.encode(0, frames.DONE, None)
    writer.close()
    assert await client.call("echo", 1) == 1


async def test_a_peer_that_never_reads_is_not_read_either(served, client):
    _, writer = await served.line()
    writer.write(frames.encode(0, frames.HELLO, TOKEN))
    request = frames.encode(1, "echo", "x" * 1_000_000)
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(1):
            for _ in range(200):
                writer.write(request)
                await writer.drain()
    writer.transport.abort()
    assert await client.call("echo", 1) == 1


async def test_who_says_nothing_is_shut_out_in_time(served, client, monkeypatch):
    monkeypatch.setattr("amqflow.stores.server.HELLO_TIMEOUT", 0.05)
    reader, writer = await served.line()
    async with asyncio.timeout(10):
        assert await reader.read() == b""
    writer.close()
    assert await client.call("echo", 1) == 1


def test_frames_are_found_however_they_are_cut():
    sent = b"".join(frames.encode(n, "echo", "x" * n) for n in range(30))
    for size in (1, 2, 3, 5, 64, len(sent)):
        found = []
        parser = frames.Frames()
        for at in range(0, len(sent), size):
            found += parser.feed(sent[at : at + size])
        assert found == [(n, "echo", "x" * n) for n in range(30)]
