"""A Redis for tests: a private server of our own, or one somebody else runs."""

import shutil
import tempfile
from pathlib import Path
from typing import Any

import redis

from tests.servers.process import Child, ServerUnavailableError, free_port, wait_ready

INSTALL = (
    "no Redis for the tests: run `make servers` as root on Debian or Ubuntu, install "
    "`redis-server` (it need not run), start Docker, or set AMQFLOW_TEST_REDIS_URL"
)


class RedisStore:
    """What every Redis of the tests can do, whoever runs it."""

    private = False

    def __init__(self, url: str) -> None:
        """Stand for the Redis at `url`, a URL without a database number."""
        self.url = url

    def db_url(self, number: int) -> str:
        """Return the URL of one database."""
        return f"{self.url.rstrip('/')}/{number}"

    def cli(self, *args: object, db: int = 0) -> Any:
        """Run one command and return its decoded answer."""
        with redis.Redis.from_url(self.db_url(db), decode_responses=True) as client:
            return client.execute_command(*args)

    @property
    def databases(self) -> int:
        """How many numbered databases it has."""
        return int(self.cli("CONFIG", "GET", "databases")["databases"])

    def answers(self) -> bool:
        """Say whether it accepts commands."""
        try:
            return bool(self.cli("PING"))
        except redis.ConnectionError:  # BusyLoadingError, while the AOF is read, is one too
            return False

    def close(self) -> None:
        """End it if it is ours; one that somebody else runs is left alone."""

    def pause(self, seconds: float) -> None:
        """Let every client wait for `seconds`; connections stay open."""
        self.cli("CLIENT", "PAUSE", int(seconds * 1000), "ALL")


class RedisServer(RedisStore):
    """A server started from the installed binary: own port and folder, every write on disk.

    AOF with `appendfsync always` and no eviction: what was answered survives `kill9`.
    """

    private = True

    def __init__(self) -> None:
        """Prepare a server; `start` starts it."""
        binary = shutil.which("redis-server") or shutil.which("valkey-server")
        if binary is None:
            raise ServerUnavailableError(INSTALL)
        self._binary = binary
        self._port = free_port()
        self._folder = tempfile.TemporaryDirectory(
            prefix="amqflow-redis-", ignore_cleanup_errors=True
        )
        self._child: Child | None = None
        super().__init__(f"redis://127.0.0.1:{self._port}")

    @property
    def running(self) -> bool:
        """Whether the server's process lives."""
        return self._child is not None and self._child.alive

    @property
    def pid(self) -> int:
        """The server's process id."""
        if self._child is None:
            raise ServerUnavailableError("this Redis was not started")
        return self._child.pid

    def start(self) -> None:
        """Start the server, or start it again on its data; return when it answers."""
        if self.running:
            return
        options = {
            "port": str(self._port),
            "bind": "127.0.0.1",
            "dir": self._folder.name,
            "appendonly": "yes",
            "appendfsync": "always",
            "save": "",
            "maxmemory-policy": "noeviction",
            "databases": "256",
            "daemonize": "no",
        }
        argv = [part for key, value in options.items() for part in (f"--{key}", value)]
        self._child = Child(
            [self._binary, *argv], env={"LANG": "C.UTF-8"}, log=Path(self._folder.name, "redis.out")
        )
        wait_ready(self._child, self.answers, name="Redis")

    def stop(self) -> None:
        """Stop the server in order; its data stay."""
        if self._child is not None:
            self._child.terminate(deadline=10)

    def kill9(self) -> None:
        """SIGKILL the server."""
        if self._child is not None:
            self._child.kill()

    def restart(self) -> None:
        """Stop the server in order and start it on its data."""
        self.stop()
        self.start()

    def close(self) -> None:
        """End the server and forget its data."""
        self.kill9()
        self._folder.cleanup()
