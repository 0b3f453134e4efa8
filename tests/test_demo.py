"""`amqflow demo` over a folder of real files: every one indexed or a dead letter that is named."""

import asyncio
import os
import re
import signal
import sys
import sysconfig
from pathlib import Path

import pytest

from amqflow.cli.demo_tasks import is_flaky
from tests.servers.command import run
from tests.servers.process import free_port
from tests.servers.wait import until

ROOT = Path(__file__).parents[1]
STDLIB = Path(sysconfig.get_path("stdlib"))


@pytest.fixture
def files(tmp_path):
    """Copies of a package of the standard library, two files that cannot be parsed, and a test."""
    folder = tmp_path / "files"
    for source in sorted((STDLIB / "json").glob("*.py")):
        target = folder / "json" / source.name
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes(source.read_bytes())
    flaky = next(name for n in range(1000) if is_flaky(name := f"flaky{n}.py"))
    (folder / flaky).write_text("import os\n\n\ndef once():\n    return os.sep\n")
    (folder / "broken.py").write_text("def f(:\n")
    (folder / "foreign.py").write_bytes(b"name = '\xff\xfe'\n")
    (folder / "tests").mkdir()
    (folder / "tests" / "test_it.py").write_text("import unittest\nclass It: ...\n")
    (folder / "notes.txt").write_text("no Python\n")
    return folder


@pytest.fixture
def environment(amqp_url, redis_url):
    return {
        **os.environ,
        "PYTHONPATH": str(ROOT),
        "AMQFLOW_BROKER": amqp_url,
        "AMQFLOW_BACKEND": redis_url,
        "COLUMNS": "100",
    }


def demo(environment, *options):
    return run("-m", "amqflow", "demo", *options, env=environment, deadline=120)


def left_behind(rabbitmq, vhost):
    """Return the queues and exchanges of demos that are still there."""
    found = [
        *rabbitmq.management("GET", f"/api/queues/{vhost}?columns=name"),
        *rabbitmq.management("GET", f"/api/exchanges/{vhost}?columns=name"),
    ]
    return [part["name"] for part in found if "stdlib_index" in part["name"]]


@pytest.mark.parametrize("backend", ["redis", "none"])
def test_every_file_is_indexed_or_a_named_dead_letter(files, environment, backend, rabbitmq, vhost):
    if backend == "none":  # results come as messages
        del environment["AMQFLOW_BACKEND"]
    done = demo(environment, "--path", str(files), "--workers", "2")
    total = len(list(files.rglob("*.py")))
    assert (done.returncode, done.stderr) == (0, ""), done.stderr
    assert f"The Python files of {files}" in done.stdout
    assert f"{total} files: {total - 1} of packages at priority 8, 1 of tests" in done.stdout
    assert f"results by {'rpc' if backend == 'none' else 'redis'}://" in done.stdout
    # The table: json's five files with their lines, counted by nobody else than the task.
    lines = sum(len(file.read_bytes().splitlines()) for file in (files / "json").glob("*.py"))
    count = len(list((files / "json").glob("*.py")))
    assert re.search(rf"^\s*json\s+{count}\s+{lines:,}\s", done.stdout, re.MULTILINE)
    # The dead letters, by name and reason.
    assert re.search(r"SyntaxError \(failed\): 2", done.stdout)
    assert re.search(r"broken\.py\s+invalid syntax", done.stdout)
    assert re.search(r"foreign\.py\s+", done.stdout)
    names = {file.relative_to(files).as_posix() for file in files.rglob("*.py")}
    flaky = sum(map(is_flaky, names - {"broken.py", "foreign.py"}))
    assert flaky
    assert f"{flaky} retries of {flaky} files" in done.stdout
    assert f"Balance: {total} sent, {total - 2} indexed + 2 dead. Nothing is missing." in (
        done.stdout
    )
    assert not left_behind(rabbitmq, vhost)
    # With a store that counts, the files are the headers of chords, and the whole is drawn.
    assert ("flowchart TD" in done.stdout) == (backend == "redis")
    if backend == "redis":
        assert f"stdlib_index.index_member x{count}<br/>{count} SUCCESS" in done.stdout
        assert "stdlib_index.report<br/>SUCCESS" in done.stdout


def test_a_folder_without_python_files_is_one_sentence(tmp_path, environment):
    done = demo(environment, "--path", str(tmp_path))
    assert done.returncode == 1
    assert done.stderr == f"error: there are no Python files in {tmp_path}\n"
    assert demo(environment, "--path", str(tmp_path / "nowhere")).returncode == 2


def test_a_broker_that_is_away_is_one_sentence(files, environment):
    environment["AMQFLOW_BROKER"] = f"amqp://me:hunter2@127.0.0.1:{free_port()}/"
    done = demo(environment, "--path", str(files))
    assert done.returncode == 1
    assert done.stderr.startswith("error: connecting to the broker at 127.0.0.1")
    assert done.stderr.count("\n") == 1
    assert "hunter2" not in done.stdout + done.stderr


async def test_a_demo_that_is_told_to_stop_cleans_up(environment, rabbitmq, vhost):
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "amqflow", "demo", "--workers", "1", "-c", "1",
        env=environment, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE,
    )  # fmt: skip
    try:
        await until(lambda: asyncio.to_thread(left_behind, rabbitmq, vhost), deadline=60)
        assert process.stdout is not None
        async with asyncio.timeout(60):
            while b"are ready" not in await process.stdout.readline():
                pass
        process.send_signal(signal.SIGTERM)
        async with asyncio.timeout(60):
            _, errors = await process.communicate()
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
    assert (process.returncode, errors) == (1, b"stopped\n")
    assert not left_behind(rabbitmq, vhost)


def test_it_runs_where_there_is_no_server_at_all(files, tmp_path):
    """No broker is named, and none could be found: the demo brings its own, and takes it away."""
    runtime = tmp_path / "runtime"
    runtime.mkdir(mode=0o700)
    environment = {
        **{name: value for name, value in os.environ.items() if not name.startswith("AMQFLOW_")},
        "PYTHONPATH": str(ROOT),
        "XDG_RUNTIME_DIR": str(runtime),
        "PATH": str(Path(sys.executable).parent),
        "COLUMNS": "100",
    }
    done = demo(environment, "--path", str(files), "--workers", "2")
    total = len(list(files.rglob("*.py")))
    assert (done.returncode, done.stderr) == (0, ""), done.stderr
    assert "amqflow embedded broker" in done.stdout
    assert re.search(r"at embedded://demo-\w+, results by embedded://demo-\w+", done.stdout)
    assert f"Balance: {total} sent, {total - 2} indexed + 2 dead. Nothing is missing." in (
        done.stdout
    )
    # As a workflow: its chords are counted beside the broker, and it is drawn at the end.
    count = len(list((files / "json").glob("*.py")))
    assert "flowchart TD" in done.stdout
    assert f"stdlib_index.index_member x{count}<br/>{count} SUCCESS" in done.stdout
    assert "stdlib_index.report<br/>SUCCESS" in done.stdout
    assert not list((runtime / "amqflow").iterdir())
