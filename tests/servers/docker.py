"""Servers in Docker containers, where an engine answers: same verbs as the private ones.

The host ports are fixed, so that a container that was killed comes back at its address.
"""

import os
import tempfile
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Any

from docker import DockerClient
from docker.errors import DockerException
from testcontainers.core.container import DockerContainer

from tests.servers.process import free_port
from tests.servers.rabbitmq import START_DEADLINE, WRITE_NOW, Broker, server_properties
from tests.servers.redis import RedisStore
from tests.servers.wait import until_sync

RABBITMQ_IMAGES = {"": "rabbitmq:3.13-management", "4": "rabbitmq:4.0-management"}
REDIS_IMAGE = "redis:7"


@cache
def engine_answers() -> bool:
    """Say whether a Docker engine answers within two seconds."""
    if "DOCKER_HOST" not in os.environ and not Path("/var/run/docker.sock").exists():
        return False
    try:
        client = DockerClient.from_env(timeout=2)
    except DockerException:
        return False
    try:
        return bool(client.ping())
    except (DockerException, OSError):
        return False
    finally:
        client.close()


class _Container:
    """The life of one container: testcontainers' reaper ends it with the run."""

    def __init__(self, container: DockerContainer) -> None:
        self._container = container
        self._started = False

    @property
    def wrapped(self) -> Any:
        """The engine's own object, with its attributes fresh."""
        wrapped = self._container.get_wrapped_container()
        wrapped.reload()
        return wrapped

    @property
    def running(self) -> bool:
        return self._started and self.wrapped.status == "running"

    @property
    def pid(self) -> int:
        return int(self.wrapped.attrs["State"]["Pid"])

    def start(self) -> None:
        if self._started:
            self.wrapped.start()
        else:
            self._container.start()
            self._started = True

    def exec(self, *argv: str) -> str:
        done = self._container.exec(list(argv))
        output = done.output.decode(errors="replace")
        if done.exit_code:
            raise RuntimeError(f"{' '.join(argv)}: {output}")
        return output


class RabbitMQContainer(Broker):
    """RabbitMQ's official image, with the verbs of `RabbitMQ`."""

    private = True

    def __init__(
        self, *, flavour: str | None = None, conf: Mapping[str, str] | None = None
    ) -> None:
        """Prepare a container; see `RabbitMQ` for the arguments."""
        flavour = os.environ.get("AMQFLOW_TEST_RABBITMQ", "") if flavour is None else flavour
        port, management = free_port(), free_port()
        self._folder = tempfile.TemporaryDirectory(prefix="amqflow-rabbitmq-")
        lines = {"collect_statistics_interval": "1000"} | dict(conf or {})
        file = Path(self._folder.name, "conf")
        file.write_text("".join(f"{key} = {value}\n" for key, value in lines.items()))
        file.chmod(0o644)
        Path(self._folder.name).chmod(0o755)
        container = DockerContainer(RABBITMQ_IMAGES[flavour])
        container.with_bind_ports(5672, port).with_bind_ports(15672, management)
        container.with_volume_mapping(str(file), "/etc/rabbitmq/conf.d/90-amqflow.conf", "ro")
        self._container = _Container(container)
        self.ctl_used = False
        super().__init__(
            f"amqp://guest:guest@127.0.0.1:{port}/", f"http://guest:guest@127.0.0.1:{management}"
        )

    @property
    def running(self) -> bool:
        """Whether the container runs."""
        return self._container.running

    @property
    def pid(self) -> int:
        """The container's main process, as the host sees it."""
        return self._container.pid

    def start(self) -> None:
        """Start the container, or start it again on its data; return when clients can connect."""
        if not self.running:
            self._container.start()
            until_sync(self._answers, deadline=START_DEADLINE, message="RabbitMQ in Docker")

    def _answers(self) -> bool:
        # Docker's proxy accepts before the broker does: only connection.start proves it.
        try:
            return bool(server_properties(self.url))
        except (OSError, ValueError, AssertionError):
            return False

    def stop(self) -> None:
        """Stop the broker in order; its data stay."""
        self._container.wrapped.stop()

    def kill9(self) -> None:
        """SIGKILL the broker."""
        self._container.wrapped.kill()

    def restart(self) -> None:
        """Stop the broker in order and start it on its data."""
        self.stop()
        self.start()

    def close(self) -> None:
        """End the container and forget its data."""
        self._container.wrapped.remove(force=True, v=True)
        self._folder.cleanup()

    def ctl(self, *args: str, deadline: float = 90) -> str:
        """Run `rabbitmqctl` in the container and return what it prints."""
        self.ctl_used = True
        return self._container.exec("timeout", f"{deadline:g}", "rabbitmqctl", "--quiet", *args)

    def settle(self) -> None:
        """Let RabbitMQ write what it writes late."""
        self._container.exec("rabbitmqctl", "--quiet", "eval", WRITE_NOW)


class RedisContainer(RedisStore):
    """Redis's official image, with the verbs of `RedisServer`."""

    private = True

    def __init__(self) -> None:
        """Prepare a container; `start` starts it."""
        port = free_port()
        command = "redis-server --appendonly yes --appendfsync always --databases 256"
        container = DockerContainer(REDIS_IMAGE).with_bind_ports(6379, port).with_command(command)
        self._container = _Container(container)
        super().__init__(f"redis://127.0.0.1:{port}")

    @property
    def running(self) -> bool:
        """Whether the container runs."""
        return self._container.running

    @property
    def pid(self) -> int:
        """The container's main process, as the host sees it."""
        return self._container.pid

    def start(self) -> None:
        """Start the container, or start it again on its data; return when it answers."""
        if not self.running:
            self._container.start()
            until_sync(self.answers, deadline=60, message="Redis in Docker")

    def stop(self) -> None:
        """Stop the server in order; its data stay."""
        self._container.wrapped.stop()

    def kill9(self) -> None:
        """SIGKILL the server."""
        self._container.wrapped.kill()

    def restart(self) -> None:
        """Stop the server in order and start it on its data."""
        self.stop()
        self.start()

    def close(self) -> None:
        """End the container and forget its data."""
        self._container.wrapped.remove(force=True, v=True)
