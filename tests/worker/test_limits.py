"""Limits from the command line, and what is said about the broker's own."""

import pytest

from amqflow import AmqFlow, ConfigurationError
from amqflow.worker import Worker, WorkerOptions
from amqflow.worker.limits import check_limits, longer_than, unlimited


@pytest.fixture
def app():
    app = AmqFlow("limits", broker="amqp://127.0.0.1:1/")
    app.task(name="none")(lambda: None)
    app.task(name="short", time_limit=10)(lambda: None)
    app.task(name="long", time_limit=7200)(lambda: None)
    return app


def test_limits_above_the_consumer_timeout_are_found(app):
    tasks = app.tasks.values()
    assert longer_than(tasks, None, 1800.0) == {"long": 7200.0}
    assert longer_than(tasks, 3600.0, 1800.0) == {"long": 7200.0, "none": 3600.0}
    assert longer_than(tasks, 3600.0, 0.0) == {}


def test_tasks_without_a_limit_are_found(app):
    assert unlimited(app.tasks.values(), None) == ["none"]
    assert unlimited(app.tasks.values(), 60.0) == []


@pytest.mark.parametrize(
    ("soft", "hard", "words"),
    [
        (3.0, 2.0, "above the hard one"),
        (None, 0.0, "above 0"),
        (-1.0, None, "above 0"),
        (None, float("inf"), "above 0"),
        (None, 1e300, "a year at most"),
        (float("nan"), None, "above 0"),
    ],
)
def test_limits_that_mean_nothing_are_refused(app, soft, hard, words):
    check_limits(1.0, 2.0)
    with pytest.raises(ConfigurationError, match=words):
        check_limits(soft, hard)
    if soft and hard:
        with pytest.raises(ConfigurationError, match=words):
            Worker(app, WorkerOptions(time_limit=hard, soft_time_limit=soft))


async def test_the_workers_limits_are_for_tasks_without_their_own(bench):
    seen = {}

    @bench.app.task(name="own", bind=True, time_limit=50, soft_time_limit=40)
    def own(self):
        seen["own"] = self.request.timelimit

    @bench.app.task(name="none", bind=True)
    def none(self):
        seen["none"] = self.request.timelimit

    bench.app.conf.update(task_time_limit=30, task_soft_time_limit=20)
    async with bench.working():
        await (await own.adelay()).aget(timeout=60)
        await (await none.adelay()).aget(timeout=60)
        await (await none.aapply_async(time_limit=5)).aget(timeout=60)
    assert seen == {"own": (50, 40), "none": (5, 20)}


async def test_a_worker_that_starts_says_which_limits_are_above_the_consumer_timeout(bench, caplog):
    bench.app.task(name="long", time_limit=7200)(lambda: None)
    bench.app.task(name="short", time_limit=10)(lambda: None)
    bench.app.task(name="none")(lambda: None)

    async def said(**settings):
        bench.app.conf.update(**settings)
        caplog.clear()
        with caplog.at_level("INFO", logger="amqflow"):
            async with bench.working():
                pass
        return [line for line in caplog.messages if "consumer_timeout" in line]

    above, without = await said()
    assert "raise consumer_timeout in rabbitmq.conf and in the settings here" in above
    assert "consumer_timeout=1800.0 tasks={'long': 7200.0}" in above
    assert "tasks without a time limit" in without
    assert await said(consumer_timeout=10_000, task_time_limit=60) == []
    assert await said(consumer_timeout=0) == []


@pytest.mark.parametrize(
    "options",
    [
        ("-P", "gevent"),
        ("-P", "proccesses"),
        ("--time-limit", "0"),
        ("--time-limit", "nan"),
        ("--soft-time-limit", "-3"),
        ("--max-tasks-per-child", "0"),
        ("--health-port", "70000"),
        ("--processes", "0"),
        ("--health-port", "nonsense"),
        ("--time-limit", "1e300"),
        ("--soft-time-limit", "5", "--time-limit", "2"),
        ("--processes", "100000"),
        ("--health-port", "65533", "--processes", "5"),
    ],
)
def test_nonsense_on_the_command_line_is_usage(options):
    from click.testing import CliRunner

    from amqflow.cli import cli

    done = CliRunner().invoke(cli, ["-A", "tests.worker.pool_app", "worker", *options])
    assert done.exit_code == 2
    assert f"'{options[0]}'" in done.output
    assert "Traceback" not in done.output


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (("--max-tasks-per-child", "5"), True),
        (("--max-memory-per-child", "5000", "-P", "threads"), True),
        (("--max-tasks-per-child", "5", "-P", "prefork"), False),
        ((), False),
    ],
)
def test_options_for_children_are_remarked_where_there_are_none(monkeypatch, options, said):
    from click.testing import CliRunner

    from amqflow.cli import cli, worker

    def left(*_given, **_more):
        raise ConfigurationError("far enough")

    monkeypatch.setattr(worker, "_Program", left)
    done = CliRunner().invoke(cli, ["-A", "tests.worker.pool_app", "worker", *options])
    remarks = [line for line in done.output.splitlines() if "change nothing here" in line]
    assert remarks == (
        [f"note: {options[0]} change nothing here: only -P processes has children"] if said else []
    )
