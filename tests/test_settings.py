"""Settings: names, values, sources and their precedence, and errors that name the place."""

from __future__ import annotations

import datetime as dt
import logging
import sys
import types

import pytest

from amqflow.errors import ConfigurationError
from amqflow.settings import PRECEDENCE, Configuration, Settings, celery
from amqflow.settings.model import NAMES


@pytest.fixture
def folder(tmp_path):
    (tmp_path / ".git").mkdir()
    return tmp_path


@pytest.fixture
def conf(folder):
    """Return a function that makes a configuration which sees nothing of this machine."""

    def make(constructor=None, *, flags=None, environ=None):
        return Configuration(constructor, flags=flags, environ=environ or {}, folder=folder)

    return make


@pytest.fixture
def module(monkeypatch):
    def make(name="settings_module", **content):
        made = types.ModuleType(name)
        vars(made).update(content)
        monkeypatch.setitem(sys.modules, name, made)
        return name

    return make


# -- precedence ---------------------------------------------------------------------------------


def test_every_layer_wins_over_those_below_it(conf, folder, module):
    (folder / "pyproject.toml").write_text("[tool.amqflow]\nworker_concurrency = 1\n")
    sources = {
        "pyproject.toml": lambda: None,
        "amqflow.toml": lambda: (folder / "amqflow.toml").write_text("worker_concurrency = 2\n"),
        "config_from_object": 3,
        "constructor": 4,
        "app.conf": 5,
        "environment": 6,
        "flags": 7,
    }
    assert tuple(reversed(sources)) == PRECEDENCE[:-1]
    for count in range(1, 8):
        (folder / "amqflow.toml").unlink(missing_ok=True)
        on = list(sources)[:count]
        if "amqflow.toml" in on:
            sources["amqflow.toml"]()
        configuration = conf(
            {"worker_concurrency": 4} if "constructor" in on else None,
            environ={"AMQFLOW_WORKER_CONCURRENCY": "6"} if "environment" in on else None,
            flags={"worker_concurrency": 7} if "flags" in on else None,
        )
        if "config_from_object" in on:
            configuration.from_object(module(worker_concurrency=3))
        if "app.conf" in on:
            configuration.worker_concurrency = 5
        assert configuration.worker_concurrency == count
        assert configuration.source_of("worker_concurrency").layer == on[-1]
    assert configuration.source_of("task_acks_late") == ("default", "the default")


def test_defaults_are_celerys_but_for_two(conf):
    from celery.app.defaults import DEFAULTS

    theirs = {name: DEFAULTS[name] for name in NAMES if name in DEFAULTS}
    ours = conf().settings
    differ = {name for name, value in theirs.items() if getattr(ours, name) != value}
    assert differ - {"accept_content", "result_expires", "timezone"} == {
        "task_acks_late",
        "task_default_queue",
        "task_reject_on_worker_lost",
        "broker_heartbeat",
        "worker_pool",
    }
    assert ours.result_expires == DEFAULTS["result_expires"].total_seconds()


def test_assignments_update_and_items_are_one_layer(conf):
    configuration = conf({"task_time_limit": 1})
    configuration.task_time_limit = 2
    configuration["task_soft_time_limit"] = 1
    configuration.update({"timezone": "Europe/Berlin"}, task_ignore_result=True)
    assert configuration.task_time_limit == configuration["task_time_limit"] == 2
    assert configuration.timezone == "Europe/Berlin"
    assert configuration.task_ignore_result is True
    assert configuration.source_of("timezone").layer == "app.conf"
    assert dict(configuration)["task_soft_time_limit"] == 1
    assert "timezone" in configuration
    assert len(configuration) == len(NAMES)
    assert configuration.get("nonsense", 5) == 5


def test_flags_and_constructor_ignore_what_was_not_given(conf):
    configuration = conf({"broker_url": None, "result_backend": "rpc://"})
    configuration.set_flags(result_backend=None, worker_concurrency=3)
    assert configuration.result_backend == "rpc://"
    assert configuration.source_of("broker_url").layer == "default"
    assert configuration.source_of("worker_concurrency").layer == "flags"


def test_settings_are_kept_until_something_changes(conf):
    configuration = conf()
    first = configuration.settings
    assert configuration.settings is first
    configuration.task_time_limit = 5
    assert configuration.settings is not first


# -- files --------------------------------------------------------------------------------------


def test_files_are_found_upwards_to_the_root_of_the_repository(folder):
    (folder.parent / "amqflow.toml").write_text("worker_concurrency = 99\n")
    (folder / "amqflow.toml").write_text('task_default_queue = "outer"\n')
    inner = folder / "a" / "b"
    inner.mkdir(parents=True)
    configuration = Configuration(environ={}, folder=inner)
    assert configuration.task_default_queue == "outer"
    assert configuration.worker_concurrency is None
    (folder / "amqflow.toml").unlink()
    assert Configuration(environ={}, folder=inner).worker_concurrency is None


def test_outside_a_repository_only_the_current_folder_counts(tmp_path):
    inner = tmp_path / "inner"
    inner.mkdir()
    (tmp_path / "amqflow.toml").write_text("worker_concurrency = 99\n")
    assert Configuration(environ={}, folder=inner).worker_concurrency is None
    assert Configuration(environ={}, folder=tmp_path).worker_concurrency == 99


def test_a_pyproject_without_our_table_is_passed_over(folder):
    (folder / "pyproject.toml").write_text("[tool.amqflow]\nworker_concurrency = 5\n")
    inner = folder / "inner"
    inner.mkdir()
    (inner / "pyproject.toml").write_text("[tool.other]\nx = 1\n")
    assert Configuration(environ={}, folder=inner).worker_concurrency == 5


def test_files_are_read_when_first_needed_and_no_sooner(conf, folder):
    configuration = conf()
    (folder / "amqflow.toml").write_text("worker_concurrency = 5\n")
    assert configuration.worker_concurrency == 5
    (folder / "amqflow.toml").write_text("worker_concurrency = 6\n")
    assert configuration.worker_concurrency == 5


@pytest.mark.parametrize(
    ("name", "text", "words"),
    [
        ("amqflow.toml", "worker_concurrency = ", "not a readable TOML file"),
        ("amqflow.toml", b"\xff\xfe", "not a readable TOML file"),
        ("amqflow.toml", "worker_concurency = 1", "did you mean 'worker_concurrency'"),
        ("amqflow.toml", 'worker_concurrency = "many"', "expected a valid integer"),
        ("pyproject.toml", "[tool]\namqflow = 5", "must be a table"),
    ],
)
def test_a_bad_file_is_one_error_with_its_path(conf, folder, name, text, words):
    (folder / name).write_bytes(text if isinstance(text, bytes) else text.encode())
    with pytest.raises(ConfigurationError, match=words) as caught:
        _ = conf().settings
    assert str(folder / name) in str(caught.value)


def test_a_file_put_right_is_read_again(conf, folder):
    (folder / "amqflow.toml").write_text("nonsense")
    configuration = conf()
    with pytest.raises(ConfigurationError):
        _ = configuration.worker_concurrency
    (folder / "amqflow.toml").write_text("worker_concurrency = 5\n")
    assert configuration.worker_concurrency == 5


# -- the environment ----------------------------------------------------------------------------


def test_variables_are_read_by_the_settings_type(conf):
    configuration = conf(
        environ={
            "AMQFLOW_BROKER": "amqp://one",
            "AMQFLOW_BACKEND": "rpc://",
            "AMQFLOW_TASK_ALWAYS_EAGER": "true",
            "AMQFLOW_INCLUDE": "a.tasks, b.tasks",
            "AMQFLOW_IMPORTS": '["c"]',
            "AMQFLOW_RESULT_EXPIRES": "1h",
            "AMQFLOW_PUBLISH_TIMEOUT": "500ms",
            "AMQFLOW_TASK_ROUTES": '{"a.*": {"queue": "a"}}',
            "AMQFLOW_TEST_AMQP_URL": "amqp://x",
            "AMQFLOW_ALLOW_SYNC_IN_LOOP": "1",
            "AMQFLOW_SOMEONE_ELSES": "1",
        }
    )
    settings = configuration.settings
    assert (settings.broker_url, settings.result_backend) == ("amqp://one", "rpc://")
    assert settings.task_always_eager is True
    assert settings.include == ("a.tasks", "b.tasks")
    assert settings.imports == ("c",)
    assert (settings.result_expires, settings.publish_timeout) == (3600.0, 0.5)
    assert settings.task_routes == {"a.*": {"queue": "a"}}
    assert str(configuration.source_of("broker_url")) == "environment variable AMQFLOW_BROKER"


def test_a_mistyped_variable_is_an_error(conf):
    with pytest.raises(ConfigurationError, match="AMQFLOW_WORKER_CONCURRENCY"):
        _ = conf(environ={"AMQFLOW_WORKER_CONCURENCY": "1"}).settings


# -- config_from_object -------------------------------------------------------------------------


def test_an_object_a_module_a_class_and_a_mapping(conf, module):
    class Config:
        task_time_limit = 5
        worker_concurrency = 2
        _private = 1

        def method(self): ...

    name = module(
        task_time_limit=5, worker_concurrency=2, os=sys, Path=type, helper=lambda: 1, MY_CONSTANT=3
    )
    nested = module("settings_holder", Config=Config)
    for reference in (
        Config,
        Config(),
        name,
        f"{nested}:Config",
        f"{nested}.Config",
        {"task_time_limit": 5, "worker_concurrency": 2},
    ):
        configuration = conf()
        configuration.from_object(reference)
        assert (configuration.task_time_limit, configuration.worker_concurrency) == (5, 2)


def test_a_module_is_imported_when_a_setting_is_first_read(conf, module):
    configuration = conf()
    configuration.from_object("settings_module_that_comes_later")
    module("settings_module_that_comes_later", worker_concurrency=8)
    assert configuration.worker_concurrency == 8


def test_djangos_namespace(conf, module):
    configuration = conf()
    configuration.from_object(
        module(
            CELERY_BROKER_URL="amqp://django",
            CELERY_TASK_ALWAYS_EAGER=True,
            DEBUG=True,
            BROKER_URL="not this",
        ),
        namespace="CELERY",
    )
    assert configuration.broker_url == "amqp://django"
    assert configuration.task_always_eager is True


def test_a_typo_under_a_namespace_is_an_error(conf, module):
    configuration = conf()
    configuration.from_object(module(CELERY_TASK_ALWAYS_EGER=True), namespace="CELERY")
    with pytest.raises(ConfigurationError, match="did you mean 'task_always_eager'"):
        _ = configuration.settings


def test_a_near_miss_in_a_module_is_an_error_and_other_names_are_not(conf, module):
    configuration = conf()
    configuration.from_object(module(worker_concurency=1))
    with pytest.raises(ConfigurationError, match=r"config_from_object.*did you mean"):
        _ = configuration.settings


@pytest.mark.parametrize("reference", ["no_such_module", "sys:no_such", "sys.no_such.thing"])
def test_what_cannot_be_loaded_is_an_error(conf, reference):
    configuration = conf()
    configuration.from_object(reference)
    with pytest.raises(ConfigurationError, match=f"cannot load '{reference}'"):
        _ = configuration.settings


def test_a_module_that_reads_the_configuration_while_imported(conf, module, monkeypatch, tmp_path):
    configuration = conf({"task_default_queue": "mine"})
    (tmp_path / "circular_settings.py").write_text(
        "import circular_app\nseen = circular_app.conf.task_default_queue\nworker_concurrency = 3\n"
    )
    monkeypatch.syspath_prepend(str(tmp_path))
    module("circular_app", conf=configuration)
    configuration.from_object("circular_settings")
    assert configuration.worker_concurrency == 3


# -- names --------------------------------------------------------------------------------------


def test_every_setting_of_celery_is_known():
    from celery.app.defaults import _OPTIONS

    assert [name for name in _OPTIONS if not celery.known(name)] == []


def test_every_old_name_of_celery_is_refused_with_the_new_one(conf):
    from celery.app.defaults import _TO_NEW_KEY

    for old, new in _TO_NEW_KEY.items():
        assert celery.renamed(old) == new
    with pytest.raises(ConfigurationError, match="'worker_concurrency' instead"):
        conf().update(CELERYD_CONCURRENCY=3)
    configuration = conf()
    configuration.from_object({"CELERY_TASK_RESULT_EXPIRES": 3})
    with pytest.raises(ConfigurationError, match="'result_expires' instead"):
        _ = configuration.settings


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("task_queues", "topology"),
        ("broker_use_ssl", "amqps://"),
        ("redis_password", "result_backend"),
        ("mongodb_backend_settings", "no such result store"),
        ("security_key", "not signed"),
        ("nonsense", "unknown setting"),
    ],
)
def test_what_cannot_be_honoured_is_refused_with_the_way_out(conf, name, words):
    with pytest.raises(ConfigurationError, match=words):
        conf({name: 1})
    with pytest.raises(ConfigurationError, match=words):
        conf()[name] = 1


def test_a_refused_update_changes_nothing(conf):
    configuration = conf()
    with pytest.raises(ConfigurationError):
        configuration.update(task_time_limit=5, nonsense=1)
    assert configuration.task_time_limit is None


def test_harmless_settings_of_celery_are_accepted_with_one_warning(conf, caplog):
    configuration = conf({"broker_pool_limit": 10, "worker_log_format": "%(message)s"})
    with caplog.at_level(logging.WARNING):
        _ = configuration.settings
        configuration.task_time_limit = 1
        _ = configuration.settings
    assert [message.split()[1] for message in sorted(caplog.messages)] == [
        "broker_pool_limit",
        "worker_log_format",
    ]
    assert configuration.broker_pool_limit == 10


def test_reading_an_unknown_setting_is_an_attribute_error_with_a_hint(conf):
    with pytest.raises(AttributeError, match="did you mean 'task_time_limit'"):
        _ = conf().task_timelimit
    with pytest.raises(KeyError):
        _ = conf()["nonsense"]
    with pytest.raises(KeyError):
        conf().source_of("nonsense")


# -- values -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "value", "words"),
    [
        ("worker_concurrency", 0, "greater than or equal to 1, got 0"),
        ("worker_concurrency", "four", "a valid integer"),
        ("timezone", "Mars/Olympus", "a time zone"),
        ("timezone", "../../etc/passwd", "a time zone"),
        ("task_serializer", "pickle", "'json' only"),
        ("accept_content", ["json", "pickle"], "'json' only"),
        ("accept_content", "pickle", "'json' only"),
        ("task_protocol", 1, "2, got 1"),
        ("task_default_rate_limit", "often", "'10/m'"),
        ("task_default_rate_limit", -1, "'10/m'"),
        ("result_expires", "soon", "a valid number"),
        ("result_expires", True, "a duration"),
        ("result_expires", -1, "greater than or equal to 0"),
        ("publish_timeout", 0, "greater than 0"),
        ("publish_timeout", float("inf"), "finite"),
        ("delay_levels", 29, "less than or equal to 28"),
        ("task_default_priority", 256, "255"),
        ("log_format", "xml", "'console' or 'json'"),
        ("worker_pool", "gevent", "asyncio with async def tasks, or threads"),
        ("worker_pool", "magic", "'asyncio'"),
        ("task_compression", "rar", "'gzip'"),
        ("broker_url", 5, "string"),
        ("broker_url", ["amqp://u:secret@h/"], "string"),
    ],
)
def test_a_bad_value_is_one_error_with_name_source_and_expectation(conf, name, value, words):
    configuration = conf({name: value})
    with pytest.raises(ConfigurationError, match=words) as caught:
        _ = configuration.settings
    text = str(caught.value)
    assert f"'{name}' (the constructor)" in text
    assert "\n" not in text
    assert "secret" not in text


def test_limits_that_contradict_each_other(conf):
    configuration = conf({"task_soft_time_limit": 10, "task_time_limit": 5})
    with pytest.raises(ConfigurationError, match=r"task_soft_time_limit \(10 s\)"):
        _ = configuration.settings


def test_durations(conf):
    for given, expected in [
        (dt.timedelta(minutes=1), 60.0),
        (5, 5.0),
        ("2d", 172800.0),
        ("1.5m", 90.0),
        ("7", 7.0),
        (None, None),
    ]:
        configuration = conf()
        configuration.result_expires = given
        assert configuration.result_expires == expected


def test_no_secret_is_shown(conf):
    configuration = conf({"broker_url": "amqp://u:secret@h/"})
    configuration.result_backend = 5
    with pytest.raises(ConfigurationError) as caught:
        _ = configuration.settings
    configuration.result_backend = "redis://:secret@h"
    shown = [repr(configuration), configuration.humanize(), str(caught.value)]
    assert "broker_url = 'amqp://u:***@h/'  # the constructor" in shown[1]
    assert not any("secret" in text for text in shown)


def test_settings_are_frozen():
    with pytest.raises(Exception, match="frozen"):
        Settings().task_time_limit = 5


@pytest.mark.parametrize(
    ("given", "kept"), [("10/m", "10/m"), (7, "7"), (0.5, "0.5"), (1e-7, "0.0000001"), (0, "0")]
)
def test_a_default_rate_is_written_as_for_a_task(given, kept):
    assert Settings(task_default_rate_limit=given).task_default_rate_limit == kept
