"""Every example runs as its README says, and prints what its README shows."""

import os
import re
import shlex
import subprocess
from pathlib import Path

import pytest

from tests.servers.command import Command, run
from tests.servers.wait import until_sync

ROOT = Path(__file__).parents[2]
EXAMPLES = ROOT / "examples"
FOLDERS = sorted(path.name for path in EXAMPLES.iterdir() if (path / "README.md").is_file())

BLOCK = re.compile(r"^```(\w+)\n(.*?)^```$", re.MULTILINE | re.DOTALL)


def readme(folder):
    """Return what comes first, the worker's command, the caller's, and what the caller prints."""
    blocks = BLOCK.findall((EXAMPLES / folder / "README.md").read_text())
    *before, worker, caller, shown = blocks
    assert [kind for kind, _ in (worker, caller, shown)] == ["sh", "sh", "text"]
    assert {kind for kind, _ in before} <= {"sh"}
    return [text for _, text in before], worker[1], caller[1], shown[1]


def argv(command):
    """Return a command of a README as arguments of Python."""
    program, *arguments = shlex.split(command)
    own = {"amqflow": ["-m", "amqflow"], "python": []}
    return [*own[program], *arguments]


@pytest.fixture(scope="module")
def one_vhost(rabbitmq):
    """The virtual host all examples share: they must not get into each other's way."""
    yield rabbitmq.add_vhost("examples")
    rabbitmq.delete_vhost("examples")


@pytest.mark.parametrize("folder", FOLDERS)
def test_an_example_prints_what_its_readme_shows(folder, one_vhost, redis_url, tmp_path):
    before, worker_command, caller_command, shown = readme(folder)
    environment = {
        **os.environ,
        "PYTHONPATH": str(ROOT),
        "PYTHONDONTWRITEBYTECODE": "1",
        "AMQFLOW_BROKER": one_vhost,
        "AMQFLOW_DELAY_LEVELS": "28",
        "AMQFLOW_BACKEND": redis_url,
    }
    for command in before:
        done = run(*argv(command), cwd=EXAMPLES / folder, env=environment)
        assert done.returncode == 0, done.stderr
    log = tmp_path / "worker.log"
    with log.open("wb") as output:
        worker = Command(
            *argv(worker_command),
            cwd=EXAMPLES / folder,
            env=environment,
            stdout=output,
            stderr=subprocess.STDOUT,
        )
    try:

        def ready():
            assert worker.poll() is None, log.read_text()
            return " ready " in log.read_text()

        until_sync(ready, deadline=30)
        caller = run(*argv(caller_command), cwd=EXAMPLES / folder, env=environment)
        worker.terminate()
        assert worker.wait(30) == 0
    finally:
        if worker.poll() is None:
            worker.kill()
            worker.wait()
    assert (caller.returncode, caller.stderr) == (0, "")
    assert caller.stdout == shown
    printed = log.read_text()
    assert "Traceback" not in printed
    if folder == "celery_style":  # by its signal, in the worker
        assert "app.divide is tried again: retry: ZeroDivisionError" in printed, printed


def test_the_examples_are_those_of_the_overview_and_short():
    named = re.findall(r"^\| \[(\w+)\]\(\w+\)", (EXAMPLES / "README.md").read_text(), re.MULTILINE)
    assert sorted(named) == FOLDERS
    for folder in FOLDERS:
        (script,) = (EXAMPLES / folder).glob("*.py")
        assert 20 <= len(script.read_text().splitlines()) <= 70, script
