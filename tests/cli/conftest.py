"""Commands as users type them: processes in a folder of their own."""

import os
import signal
import subprocess
import textwrap
from contextlib import contextmanager
from pathlib import Path

import pytest

from amqflow.transport import open_transport
from tests.servers.command import Command, run
from tests.servers.wait import until_sync

ROOT = Path(__file__).parents[2]


class Started:
    """A command that runs; what it has printed on both streams so far is `printed()`."""

    def __init__(self, process, log):
        self._process, self._log = process, log

    def printed(self):
        return self._log.read_text(errors="replace")

    def wait_for(self, words, deadline=90):
        """Wait until `words` are printed."""

        def there():
            assert self._process.poll() is None or words in self.printed(), self.printed()
            return words in self.printed()

        until_sync(there, deadline=deadline, message=f"{words!r} in {self.printed()!r}")

    @property
    def pid(self):
        return self._process.pid

    def send(self, number):
        self._process.send_signal(number)

    def wait(self, deadline=30):
        """Wait until it ends by itself and return its exit code."""
        return self._process.wait(deadline)

    def stop(self, number=signal.SIGTERM):
        """Tell it to stop and return its exit code."""
        self._process.send_signal(number)
        return self._process.wait(30)


class Folder:
    """A user's folder: files, and commands run in it."""

    def __init__(self, path, environment):
        self.path, self._environment = path, environment
        self._started = 0

    def write(self, **sources):
        """Write modules by name; `pkg__mod` is `pkg/mod.py`."""
        for name, source in sources.items():
            path = self.path.joinpath(*name.split("__")).with_suffix(".py")
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(textwrap.dedent(source))

    def environment(self, **changes):
        merged = {**os.environ, "PYTHONPATH": str(ROOT), **self._environment, **changes}
        return {name: value for name, value in merged.items() if value is not None}

    def run(self, *arguments, python=("-m", "amqflow"), deadline=60, typed="", **environment):
        """Run `python -m amqflow` with arguments to its end, `typed` as its input."""
        return run(
            *python,
            *arguments,
            cwd=self.path,
            env=self.environment(**environment),
            deadline=deadline,
            typed=typed,
        )

    @contextmanager
    def started(self, *arguments, python=("-m", "amqflow"), **environment):
        """Run a command during a block; it is killed at the end if it still runs."""
        self._started += 1
        log = self.path / f"printed-{self._started}.log"
        with log.open("wb") as output:
            process = Command(
                *python,
                *arguments,
                cwd=self.path,
                env=self.environment(**environment),
                stdout=output,
                stderr=subprocess.STDOUT,
            )
        try:
            yield Started(process, log)
        finally:
            if process.poll() is None:
                process.kill()
            process.wait()


@pytest.fixture
def folder(tmp_path):
    """A folder whose commands know no server but the one their code names."""
    return Folder(
        tmp_path,
        {"AMQFLOW_BROKER": None, "AMQFLOW_BACKEND": None, "AMQFLOW_APP": None, "COLUMNS": "200"},
    )


@pytest.fixture
def served(tmp_path, amqp_url, redis_url):
    """A folder whose commands use the test's servers."""
    return Folder(
        tmp_path,
        {"AMQFLOW_BROKER": amqp_url, "AMQFLOW_BACKEND": redis_url, "AMQFLOW_APP": None},
    )


@pytest.fixture
async def transport(amqp_url):
    """A door to the broker that the `served` folder uses."""
    door = open_transport(amqp_url)
    yield door
    await door.close()
