"""Logs: every line of a task names it, secrets are hidden, events are bounded."""

from __future__ import annotations

import asyncio
import io
import json
import logging
import threading

import pytest
import structlog

from amqflow import logs
from amqflow.logs import bind_task, configure, get_logger, get_task_logger, redact


@pytest.fixture(autouse=True)
def restored_logging():
    root = logging.getLogger()
    level, handlers = root.level, list(root.handlers)
    config, configured = structlog.get_config(), structlog.is_configured()
    yield
    root.setLevel(level)
    root.handlers[:] = handlers
    structlog.configure(**config) if configured else structlog.reset_defaults()


@pytest.fixture
def lines():
    stream = io.StringIO()
    configure("DEBUG", "json", stream)
    return lambda: [json.loads(line) for line in stream.getvalue().splitlines()]


TASK = {"task_id": "t1", "root_id": "r1", "task": "shop.send", "queue": "email", "attempt": 2}


def in_task():
    return bind_task("t1", "shop.send", root_id="r1", queue="email", attempt=2)


@pytest.mark.parametrize(
    "log",
    [
        lambda: get_logger("mine").info("hello", extra_field=1),
        lambda: get_task_logger("mine").info("hello"),
        lambda: logging.getLogger("someone.else").info("%s", "hello"),
        lambda: structlog.get_logger().info("hello"),
    ],
    ids=["ours", "celerys", "stdlib", "structlog"],
)
def test_every_line_of_a_task_names_it(lines, log):
    with in_task():
        log()
    log()
    inside, outside = lines()
    assert inside["event"] == outside["event"] == "hello"
    assert TASK.items() <= inside.items()
    assert not TASK.keys() & outside.keys()
    assert inside["level"] == "info"
    assert inside["timestamp"].endswith("Z")


def test_fields_of_the_line_itself_are_kept(lines):
    get_logger("mine").bind(bound=1).warning("100% done", answer=42, task="mine")
    with in_task():
        get_logger("mine").info("x", task="mine")
    first, second = lines()
    assert (first["event"], first["answer"], first["bound"]) == ("100% done", 42, 1)
    assert first["logger"] == "mine"
    assert second["task"] == "mine"


def test_threads_and_coroutines_keep_their_own_task(lines):
    async def one(number):
        with bind_task(f"t{number}", "job"):
            await asyncio.sleep(0)
            await asyncio.to_thread(get_logger("x").info, f"{number}")

    async def main():
        await asyncio.gather(*(one(number) for number in range(5)))

    asyncio.run(main())
    thread = threading.Thread(target=lambda: get_logger("x").info("none"))
    with in_task():
        thread.start()
        thread.join()
    found = {line["event"]: line.get("task_id") for line in lines() if line["logger"] == "x"}
    assert found == {**{str(number): f"t{number}" for number in range(5)}, "none": None}


@pytest.mark.parametrize(
    ("text", "hidden"),
    [
        ("amqp://guest:secret@localhost/", "amqp://guest:***@localhost/"),
        ("redis://:secret@h:6379/0", "redis://:***@h:6379/0"),
        ("amqp://u:sec@re/t:x@h/v", "amqp://u:***@h/v"),
        ("to amqp://u:secret@h/ and redis://:secret@h", "to amqp://u:***@h/ and redis://:***@h"),
        (
            "postgresql+asyncpg://u:secret@h/d?sslpassword=secret&x=1",
            "postgresql+asyncpg://u:***@h/d?sslpassword=***&x=1",
        ),
        ("https://h/?api_token=secret", "https://h/?api_token=***"),
        ("nothing: to@see", "nothing: to@see"),
        ("amqp://localhost/", "amqp://localhost/"),
    ],
)
def test_secrets_in_urls_are_hidden(text, hidden):
    assert redact(text) == hidden


@pytest.mark.parametrize("shape", ["json", "console"])
def test_no_secret_reaches_a_line(shape):
    stream = io.StringIO()
    configure("INFO", shape, stream)
    url = "amqp://guest:hunter2@localhost/"
    get_logger("x").info(f"connecting to {url}", url=url, more={"url": [url]})
    logging.getLogger("y").info("connecting to %s", url)
    try:
        raise ValueError(url)  # noqa: TRY301 - its traceback is what is looked at
    except ValueError:
        get_logger("x").exception("failed")
        logging.getLogger("y").exception("failed")
    assert "hunter2" not in stream.getvalue()
    assert stream.getvalue().count("***") == 6


def test_long_values_and_many_are_cut(lines):
    get_logger("x").info("e" * 100_000, args=["a" * 100_000], **{f"k{n}": n for n in range(200)})
    (line,) = lines()
    assert len(json.dumps(line)) < 4 * logs.MAX_VALUE
    assert "characters cut" in line["event"]
    assert "characters cut" in line["args"]


def test_the_end_of_a_long_traceback_survives(lines):
    try:
        raise ValueError("x" * 50_000 + "the end")  # noqa: TRY301 - as above
    except ValueError:
        get_logger("x").exception("failed")
    (line,) = lines()
    assert line["exception"].endswith("the end")
    assert len(line["exception"]) < 5 * logs.MAX_VALUE


def test_levels_are_stdlibs(lines):
    logging.getLogger("quiet").setLevel("ERROR")
    get_logger("quiet").info("unheard")
    get_logger("loud").debug("heard")
    assert [line["event"] for line in lines()] == ["heard"]


def test_without_configure_a_library_logger_writes_to_any_handler(caplog):
    with caplog.at_level("INFO"), in_task():
        get_logger("amqflow.x").info("hello", answer=42)
        get_logger("amqflow.x").info("hello", url="amqp://u:secret@h/")
    assert caplog.messages == ["hello answer=42", "hello url='amqp://u:***@h/'"]


def test_configure_twice_writes_once_and_keeps_foreign_handlers():
    first, second, foreign = io.StringIO(), io.StringIO(), logging.NullHandler()
    logging.getLogger().addHandler(foreign)
    configure("INFO", "json", first)
    configure("INFO", "json", second)
    get_logger("x").info("once")
    assert first.getvalue() == ""
    assert second.getvalue().count("once") == 1
    assert foreign in logging.getLogger().handlers


def test_a_structlog_the_user_configured_is_kept_and_gains_the_task(capsys):
    structlog.configure(
        processors=[structlog.processors.JSONRenderer()],
        logger_factory=structlog.PrintLoggerFactory(),
    )
    configure("INFO", "json", io.StringIO())
    configure("INFO", "json", io.StringIO())
    with in_task():
        structlog.get_logger().info("mine")
    assert TASK.items() <= json.loads(capsys.readouterr().out).items()


def test_a_level_that_is_none_is_refused():
    with pytest.raises(ValueError, match="LOUD"):
        configure("loud")


def test_the_filter_serves_format_strings_as_celerys(capsys):
    handler = logging.StreamHandler(stream := io.StringIO())
    handler.addFilter(logs.TaskFilter())
    handler.setFormatter(logging.Formatter("%(task_name)s[%(task_id)s] %(message)s"))
    logger = logging.getLogger("formatted")
    logger.addHandler(handler)
    logger.setLevel("INFO")
    with in_task():
        logger.info("x")
    logger.info("y")
    logger.removeHandler(handler)
    assert stream.getvalue().splitlines() == ["shop.send[t1] x", "???[???] y"]
