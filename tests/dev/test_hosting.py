"""A broker and a store hosted under a name."""

import asyncio
import os
import socket
import time

import pytest

from amqflow import AmqFlow, rendezvous
from amqflow.dev.hosting import Host, HostOptions
from amqflow.errors import AmqflowError, NoEmbeddedBroker
from amqflow.transport import open_transport


async def test_what_is_hosted_is_found_and_used_by_its_name(runtime):
    app = AmqFlow("shop", broker="embedded://shop")

    @app.task
    def add(x: int, y: int) -> int:
        return x + y

    async with Host("shop") as host:
        assert rendezvous.find("shop") == host.entry
        assert host.entry.pid == os.getpid()
        async with app.arunning():
            assert app.hosted is not None, "running() has a broker of its own"
        transport = app.runtime().transport
        await transport.declare_queue("default")
        await add.adelay(1, 2)
        assert (await transport.declare_queue("default", passive=True)).messages == 1
        await app.aclose()
    with pytest.raises(NoEmbeddedBroker):
        rendezvous.find("shop")


async def test_a_client_follows_to_the_port_of_a_host_that_comes_back(runtime):
    app = AmqFlow("shop", broker="embedded://")

    @app.task
    def add(x: int, y: int) -> int:
        return x + y

    ports = set()
    for _ in range(2):
        async with Host("default") as host, asyncio.timeout(30):
            ports.add(host.entry.broker)
            other = open_transport(host.entry.broker)
            await other.declare_queue("default")
            await other.close()
            await add.adelay(1, 2)
    await app.aclose()
    assert len(ports) == 2


async def test_it_starts_within_a_tenth_of_a_second(runtime):
    async with Host("warm-up"):
        pass
    took = []
    for attempt in range(5):
        begun = time.thread_time()  # of this loop's thread alone: a busy machine does not matter
        async with Host(f"timed-{attempt}"):
            took.append(time.thread_time() - begun)
    assert min(took) < 0.1, took


async def test_a_name_is_hosted_once_and_the_second_leaves_nothing_open(runtime):
    async with Host("shop") as first:
        with pytest.raises(AmqflowError, match="is served already by process"):
            async with Host("shop"):
                pytest.fail("the name is taken")
        assert rendezvous.find("shop") == first.entry


async def test_a_port_that_is_taken_is_said(runtime):
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(
            AmqflowError, match=rf"cannot listen on 127\.0\.0\.1, port {port}.*--port"
        ):
            async with Host("shop", HostOptions(port=port)):
                pytest.fail("the port is taken")
    assert rendezvous.running() == []


async def test_parts_can_be_left_out(runtime):
    options = HostOptions(management_port=None, store=False, vhosts=("/", "other"))
    async with Host("shop", options) as host:
        assert host.entry.management is None
        assert host.entry.store is None
        app = AmqFlow("shop", broker=f"{host.entry.broker.rstrip('/')}/other")
        await app.runtime().transport.declare_queue("there")
        await app.aclose()
