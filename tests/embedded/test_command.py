"""`amqflow broker` as a process: it says what it is and where, serves, and ends when told."""

import contextlib
import os
import re
import signal
from typing import TextIO

import pytest

from tests.broker.client import Connection
from tests.servers.command import Command
from tests.servers.process import free_port


@pytest.fixture
def run():
    """Start `amqflow broker` with arguments, and read what it says; it is killed in the end."""
    with contextlib.ExitStack() as started:

        def run(*arguments: str) -> tuple[Command, TextIO]:
            reading, writing = os.pipe()
            command = Command("-m", "amqflow", "broker", *arguments, stdout=writing, stderr=writing)
            os.close(writing)
            said = started.enter_context(os.fdopen(reading))
            started.callback(command.wait, 30)
            started.callback(command.kill)
            return command, said

        yield run


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_it_prints_its_urls_serves_and_ends_in_order(run, number):
    process, output = run("--port", "0", "--management-port", "0", "--vhost", "shop")
    said = [output.readline() for _ in range(3)]
    assert "never for production" in said[0]
    found = re.search(r"amqp://guest:guest@127\.0\.0\.1:(\d+)/", said[1])
    assert re.search(r"http://guest:guest@127\.0\.0\.1:\d+", said[2])
    connection = Connection(("127.0.0.1", int(found[1])))
    connection.open("shop")
    connection.channel().queue("q")
    process.send_signal(number)
    assert process.wait(timeout=30) == 0
    connection.drop()


def test_a_port_that_is_taken_is_one_sentence(run):
    port = str(free_port())
    _, output = run("--port", port, "--management-port", "0")
    output.readline(), output.readline()
    second, output = run("--port", port, "--management-port", "0")
    assert second.wait(timeout=30) == 1
    said = output.read()
    assert said.startswith("error: cannot listen on 127.0.0.1, port " + port)
    assert "--port" in said
