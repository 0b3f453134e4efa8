"""`amqflow broker` as a process: it says what it is and where, serves, and ends when told."""

import re
import signal
import subprocess
import sys

import pytest

from tests.broker.client import Connection
from tests.servers.process import free_port


@pytest.fixture
def run():
    """Start `amqflow broker` with arguments; it is killed after the test."""
    started: list[subprocess.Popen[str]] = []

    def run(*arguments: str) -> subprocess.Popen[str]:
        command = [sys.executable, "-m", "amqflow", "broker", *arguments]
        process = subprocess.Popen(
            command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
        )
        started.append(process)
        return process

    yield run
    for process in started:
        process.kill()
        process.communicate()


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_it_prints_its_urls_serves_and_ends_in_order(run, number):
    process = run("--port", "0", "--management-port", "0", "--vhost", "shop")
    said = [process.stdout.readline() for _ in range(3)]
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
    first = run("--port", port, "--management-port", "0")
    first.stdout.readline(), first.stdout.readline()
    _, said = (second := run("--port", port, "--management-port", "0")).communicate(timeout=30)
    assert second.returncode == 1
    assert said.startswith("error: cannot listen on 127.0.0.1, port " + port)
    assert "--port" in said
