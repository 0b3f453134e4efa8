"""A worker process per pool, shared by the tests of a module, and a blocking caller for it."""

import os
import secrets
import signal
import subprocess
from contextlib import contextmanager
from pathlib import Path

import pytest

from amqflow import AmqFlow
from amqflow.worker.pools import PoolCapabilities
from tests.servers.command import Command
from tests.servers.wait import until_sync

ROOT = Path(__file__).parents[2]

_THREADS = PoolCapabilities(parallel=True, kills=False, isolates=False, interrupts=False)
_LOOP = PoolCapabilities(parallel=True, kills=True, isolates=False, interrupts=True)
_CHILDREN = PoolCapabilities(parallel=True, kills=True, isolates=True, interrupts=True)
_SOLO = PoolCapabilities(parallel=False, kills=False, isolates=False, interrupts=True)
#: What each pool can do with ``def`` tasks, and with ``async def`` ones where another pool runs
#: those; test_conformance.py compares it with what the pools say, and with what they do.
DECLARED = {
    "asyncio": (_THREADS, _LOOP),
    "threads": (_THREADS, _THREADS),
    "processes": (_CHILDREN, _CHILDREN),
    "solo": (_SOLO, _SOLO),
}


class Stage:
    """A worker under test: its process, its log, its folder, and a caller."""

    def __init__(self, pool, folder, broker, store, *options, app="tests.worker.pool_app"):
        self.pool, self.folder = pool, folder
        self.can, self.acan = DECLARED[pool]
        self._options, self._app = options, app
        self._environment = {
            **os.environ,
            "PYTHONPATH": str(ROOT),
            "AMQFLOW_BROKER": broker,
            "AMQFLOW_BACKEND": store,
            "POOL_FOLDER": str(folder),
        }
        self.caller = AmqFlow("pool", broker=broker, backend=store)
        self._log = folder / "worker.log"
        self.process = None

    def start(self, *options, slots=2):
        mode = "ab" if self._log.exists() else "wb"
        with self._log.open(mode) as log:
            self.process = Command(
                *("-m", "amqflow", "-A", self._app, "worker"),
                *("-P", self.pool, "-c", str(slots), "-l", "info", *self._options, *options),
                env=self._environment,
                stdout=log,
                stderr=subprocess.STDOUT,
            )
        self.wait_for("ready")
        return self.process

    def log(self):
        return self._log.read_text(errors="replace")

    def wait_for(self, words, deadline=60):
        def there():
            assert self.process.poll() is None or words in self.log(), self.log()[-4000:]
            return words in self.log()

        until_sync(there, deadline=deadline, message=f"{words!r} in the log")

    def send(self, task, *args, queue="default", **options):
        return self.caller.send_task(task, args, queue=queue, **options)

    def get(self, task, *args, timeout=30, **options):
        return self.send(task, *args, **options).get(timeout=timeout)

    def lines(self, name):
        path = self.folder / name
        return path.read_text().split("\n")[:-1] if path.exists() else []

    def wait_lines(self, name, count=1, deadline=30):
        until_sync(lambda: len(self.lines(name)) >= count, deadline=deadline, message=name)
        return self.lines(name)

    def children(self):
        """Return the process ids of the worker's children."""
        path = Path(f"/proc/{self.process.pid}/task/{self.process.pid}/children")
        return [int(pid) for pid in path.read_text().split()]

    def stop(self, number=signal.SIGTERM, deadline=30):
        self.process.send_signal(number)
        return self.process.wait(deadline)

    def close(self):
        if self.process is not None and self.process.poll() is None:
            self.process.kill()
            self.process.wait()
        self.caller.close()


@contextmanager
def staged(pool, folder, rabbitmq, redis_server, databases, *options):
    """Set up a stage on a virtual host and a database of its own."""
    name = f"test-{secrets.token_hex(4)}"
    rabbitmq.add_vhost(name)
    number = next(databases)
    redis_server.cli("FLUSHDB", db=number)
    stage = Stage(pool, folder, rabbitmq.vhost_url(name), redis_server.db_url(number), *options)
    try:
        yield stage
    finally:
        stage.close()
        redis_server.cli("FLUSHDB", db=number)
        rabbitmq.delete_vhost(name)


@pytest.fixture(scope="module", params=list(DECLARED))
def worker(request, tmp_path_factory, rabbitmq, redis_server, _databases):
    """A running worker of each pool, shared by the tests of a module: they leave it alive."""
    pool = request.param
    folder = tmp_path_factory.mktemp(pool)
    with staged(pool, folder, rabbitmq, redis_server, _databases) as stage:
        stage.start()
        yield stage
        assert stage.process.poll() is None, stage.log()[-4000:]
        (folder / "go").touch()
        assert stage.stop() == 0, stage.log()[-4000:]


@pytest.fixture
def stage_of(tmp_path, rabbitmq, redis_server, _databases):
    """Make a stage for a pool, not started; one per test."""
    stages = []

    def make(pool, *options):
        manager = staged(pool, tmp_path, rabbitmq, redis_server, _databases, *options)
        stage = manager.__enter__()
        stages.append(manager)
        return stage

    yield make
    for manager in stages:
        manager.__exit__(None, None, None)
