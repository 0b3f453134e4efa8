"""Which changes of files start a worker again."""

import asyncio

import pytest
from click.testing import CliRunner

from amqflow.cli.finding import AppSource
from amqflow.dev.changes import changes
from amqflow.dev.command import dev
from amqflow.dev.serve import environment_name


async def test_sources_count_and_nothing_else(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for folder in (".venv", "__pycache__", "shop"):
        (tmp_path / folder).mkdir()
    stop = asyncio.Event()
    found = []

    async def watch():
        async for files in changes([tmp_path], stop):
            found.extend(files)
            if "last.py" in files:
                stop.set()

    async def write():
        """Write until it is seen: the watcher needs a moment to begin."""
        while not stop.is_set():
            for name in (
                "notes.txt",
                ".venv/other.py",
                "__pycache__/shop.pyc",
                "shop/.tasks.py.swp",
            ):
                (tmp_path / name).write_text("x")
            for name in ("shop/tasks.py", "shop.yaml", "amqflow.toml", "last.py"):
                (tmp_path / name).write_text("x = 1")
            await asyncio.sleep(0.3)

    async with asyncio.timeout(30):
        await asyncio.gather(watch(), write())
    assert set(found) == {"shop/tasks.py", "shop.yaml", "amqflow.toml", "last.py"}


@pytest.mark.parametrize(
    ("url", "name"),
    [
        (None, "default"),
        ("embedded://", "default"),
        ("embedded://x", "x"),
        ("amqp://h/", "default"),
    ],
)
def test_the_name_is_the_environments_where_none_is_given(monkeypatch, url, name):
    if url is None:
        monkeypatch.delenv("AMQFLOW_BROKER", raising=False)
    else:
        monkeypatch.setenv("AMQFLOW_BROKER", url)
    assert environment_name() == name


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--name", "a/b"], "is no name for an embedded broker"),
        (["--watch", "/nowhere/at/all"], "does not exist"),
        (["--port", "70000"], "--port"),
    ],
)
def test_a_wrong_option_is_a_usage_error(arguments, said):
    done = CliRunner().invoke(dev, arguments, obj=AppSource("shop"))
    assert done.exit_code == 2
    assert said in done.output
