"""A pytest plugin: brokers of `serve.py` where aio-pika's and aiormq's suites ask Docker for one.

JUDGES_SERVE is the command that starts a broker. Nothing of the suites is changed: their
`docker_client` module finds this Docker client in the place of its own.
"""

import json
import os
import shlex
import subprocess
from collections.abc import Iterator

import pytest
from yarl import URL

from tests import docker_client

STARTED: dict[str, "Container"] = {}


class Container:
    """A broker in a process of its own."""

    def __init__(self) -> None:
        """Start it and wait for its ports."""
        self.process = subprocess.Popen(
            shlex.split(os.environ["JUDGES_SERVE"]),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        self.ports = json.loads(self.process.stdout.readline())
        self.id = str(self.process.pid)
        STARTED[self.id] = self

    def tell(self, verb: str) -> None:
        """Have it do something, and wait until that is done."""
        self.process.stdin.write(verb + "\n")
        self.process.stdin.flush()
        assert self.process.stdout.readline() == "ok\n"

    def close(self) -> None:
        """End it."""
        self.process.stdin.close()
        self.process.wait(60)


class StandIn:
    """What the suites ask of Docker."""

    def __init__(self, docker_host_info: object = None) -> None:
        """Take what Docker's client takes."""
        self.docker_host_info = docker_host_info

    def run(self, *_: object, **__: object) -> object:
        """Start a broker, whatever image, ports and environment are asked for."""
        container = Container()
        return docker_client.ContainerInfo(id=container.id, ports=container.ports, host="127.0.0.1")

    def inspect(self, container_id: str) -> dict:
        """Tell the ports, as Docker does."""
        ports = STARTED[container_id].ports
        return {
            "NetworkSettings": {
                "Ports": {name: [{"HostPort": str(port)}] for name, port in ports.items()}
            }
        }

    def _parse_ports(self, info: dict) -> dict[str, int]:
        found = info["NetworkSettings"]["Ports"]
        return {name: int(bound[0]["HostPort"]) for name, bound in found.items()}

    def kill(self, container_id: str) -> None:
        """SIGKILL the broker."""
        STARTED[container_id].tell("kill")

    def start(self, container_id: str) -> None:
        """Start the broker again."""
        STARTED[container_id].tell("start")

    def remove(self, container_id: str) -> None:
        """End the broker and forget its data."""
        STARTED.pop(container_id).close()

    def _request(self, _method: str, path: str, body: object = None) -> object:
        """Answer `docker exec … rabbitmqctl stop_app` and `start_app`."""
        if path.endswith("/exec"):
            container_id = path.split("/")[2]
            STARTED[container_id].tell(body["Cmd"][1])
            return {"Id": container_id}
        return {"Running": False, "ExitCode": 0}


docker_client.DockerClient = StandIn
docker_client.check_docker_available = lambda *_: None


@pytest.fixture(scope="session")
def rabbitmq_container() -> Iterator[object]:
    """The broker of aiormq's suite, which names no fixture for it."""
    client = StandIn()
    container = client.run()
    yield container
    client.remove(container.id)


@pytest.fixture(scope="session")
def amqp_direct_url(rabbitmq_container: object) -> URL:
    """The broker's address."""
    return URL.build(
        scheme="amqp",
        user="guest",
        password="guest",
        path="//",
        host=rabbitmq_container.host,
        port=rabbitmq_container.ports["5672/tcp"],
    )


def pytest_unconfigure() -> None:
    """End what the suite left running."""
    for container in list(STARTED.values()):
        container.close()
