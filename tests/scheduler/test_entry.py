"""Entries: Celery's form unchanged, our keys beside it, YAML, and everything that is wrong."""

import json
import re
from datetime import UTC, datetime, timedelta

import pytest

from amqflow import AmqFlow, crontab
from amqflow.errors import ConfigurationError, ScheduleError
from amqflow.scheduler import (
    CatchUp,
    Entry,
    Overlap,
    check_entries,
    declared_entries,
    task_id_of,
)
from amqflow.schedules import clocked, schedule, zone_named

SHANGHAI = zone_named("Asia/Shanghai")


def read(**given):
    return Entry.read("nightly", given, SHANGHAI, "beat_schedule")


def test_celery_s_documented_sample_works_unchanged():
    app = AmqFlow("proj")

    @app.task(name="tasks.add")
    def add(x: int, y: int):
        return x + y

    app.conf.beat_schedule = {
        "add-every-30-seconds": {
            "task": "tasks.add",
            "schedule": 30.0,
            "args": (16, 16),
        },
        # Executes every Monday morning at 7:30 a.m.
        "add-every-monday-morning": {
            "task": "tasks.add",
            "schedule": crontab(hour=7, minute=30, day_of_week=1),
            "args": (16, 16),
        },
        "nightly": {
            "task": "tasks.add",
            "schedule": crontab(hour=2, minute=0),
            "kwargs": {"x": 1, "y": 2},
            "options": {"queue": "night", "expires": 15.0},
            "relative": True,
        },
    }
    app.conf.timezone = "Asia/Shanghai"
    entries = declared_entries(app)
    check_entries(app, entries.values())
    assert entries["add-every-30-seconds"].schedule == schedule(30)
    monday = entries["add-every-monday-morning"].schedule
    start = datetime(2026, 11, 27, tzinfo=UTC).timestamp()
    assert datetime.fromtimestamp(monday.next_after(start), SHANGHAI).isoformat() == (
        "2026-11-30T07:30:00+08:00"
    )
    nightly = entries["nightly"]
    assert nightly.options == {"queue": "night", "expires": 15.0}
    assert datetime.fromtimestamp(nightly.schedule.next_after(start), UTC).isoformat() == (
        "2026-11-27T18:00:00+00:00"
    )


def test_periodic_tasks_are_added_as_celery_s_documentation_does():
    app = AmqFlow("proj")

    @app.task
    def test(arg: str):
        print(arg)

    @app.on_after_configure.connect
    def setup_periodic_tasks(sender, **kwargs):
        # Calls test('hello') every 10 seconds.
        sender.add_periodic_task(10.0, test.s("hello"), name="add every 10")

        # Calls test('world') every 30 seconds
        sender.add_periodic_task(30.0, test.s("world"), expires=10)

        # Executes every Monday morning at 7:30 a.m.
        sender.add_periodic_task(
            crontab(hour=7, minute=30, day_of_week=1),
            test.s("Happy Mondays!"),
        )

    app.import_modules()
    app.import_modules()
    entries = declared_entries(app)
    check_entries(app, entries.values())
    assert len(entries) == 3
    assert entries["add every 10"].schedule == schedule(10)
    assert [(entry.args, entry.options) for entry in entries.values()] == [
        (("hello",), {}),
        (("world",), {"expires": 10}),
        (("Happy Mondays!",), {}),
    ]


def test_our_keys_stand_beside_celery_s():
    entry = read(
        task="t",
        schedule=timedelta(minutes=5),
        catch_up="all",
        max_lateness="1h",
        jitter=timedelta(seconds=30),
        overlap="skip",
        queue="q",
        priority=7,
        expires="10m",
        headers={"a": 1},
        timezone="Europe/Berlin",
    )
    assert (entry.catch_up, entry.overlap) == (CatchUp.ALL, Overlap.SKIP)
    assert (entry.max_lateness, entry.jitter) == (3600, 30)
    assert entry.options == {"queue": "q", "priority": 7, "expires": 600, "headers": {"a": 1}}


@pytest.mark.parametrize(
    ("given", "meant"),
    [
        ({"schedule": 30}, schedule(30)),
        ({"schedule": timedelta(seconds=30)}, schedule(30)),
        ({"schedule": 30, "relative": True}, schedule(30, relative=True)),
        ({"schedule": {"crontab": "0 2 * * *"}}, crontab(0, 2).in_zone(SHANGHAI)),
        ({"crontab": "0 2 * * *"}, crontab(0, 2).in_zone(SHANGHAI)),
        ({"crontab": "0 2 * * *", "timezone": "Asia/Tokyo"}, crontab(0, 2, timezone="Asia/Tokyo")),
        ({"every": "5m"}, schedule(300)),
        ({"at": "2027-03-01T09:30:00"}, clocked("2027-03-01T09:30:00+08:00")),
    ],
)
def test_a_schedule_may_be_written_in_several_ways(given, meant):
    assert read(task="t", **given).schedule == meant


def test_an_entry_survives_the_store():
    entry = read(
        task="t",
        crontab="0 2 * * mon-fri",
        args=[1],
        kwargs={"b": 2},
        queue="q",
        catch_up="none",
        max_lateness=0,
        jitter=3,
        overlap="skip",
        foreign=True,
    )
    data = json.loads(json.dumps(entry.data()))
    again = Entry.read("nightly", data, zone_named("UTC"), "beat_schedule")
    assert again.data() == entry.data()
    assert again.schedule == entry.schedule
    assert again.print == entry.print
    assert read(task="t", every=5).data() == {"task": "t", "every": 5.0}


def test_another_schedule_has_another_print_and_other_arguments_have_not():
    one, two = read(task="t", every=5), read(task="u", every=5, args=[1])
    assert one.print == two.print
    assert read(task="t", every=6).print != one.print
    assert read(task="t", crontab="0 2 * * *").print != read(
        task="t", crontab="0 2 * * *", timezone="Asia/Tokyo"
    ).print  # fmt: skip


def test_a_slot_s_task_id_is_the_same_for_all_schedulers_and_no_other_s():
    ids = {task_id_of(app, name, slot) for app in "ab" for name in "cd" for slot in (1, 2)}
    assert len(ids) == 8
    # For good: schedulers of two releases run beside each other.
    assert (
        task_id_of("shop", "nightly", 1_800_000_000_000) == "c1e19f31-ec8d-5393-82dd-2ef6e61653f1"
    )


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"schedule": 5}, "task is the name of a task, got None"),
        ({"task": 7, "schedule": 5}, "task is the name of a task, got 7"),
        ({"task": "t"}, "has no schedule"),
        ({"task": "t", "schedule": "often"}, "schedule is seconds, a timedelta or a schedule"),
        ({"task": "t", "schedule": True}, "schedule is seconds"),
        ({"task": "t", "schedule": 0}, "0.1 s at least"),
        ({"task": "t", "schedule": 5, "every": 5}, "give schedule, or one of"),
        ({"task": "t", "every": 5, "at": "2027-01-01"}, "here is every and at"),
        ({"task": "t", "crontab": "0 0 31 2 *"}, "would never be due"),
        ({"task": "t", "crontab": "61 0 * * *"}, "minute='61' cannot be read"),
        ({"task": "t", "every": 5, "timezone": "Asia/Shangai"}, "did you mean 'Asia/Shanghai'?"),
        ({"task": "t", "every": 5, "timezone": 8}, "timezone is the name of a zone"),
        (
            {"task": "t", "every": 5, "catchup": "all"},
            "has no key 'catchup'; did you mean 'catch_up'?",
        ),
        ({"task": "t", "every": 5, "catch_up": "some"}, "catch_up is one of none, last, all"),
        ({"task": "t", "every": 5, "overlap": "never"}, "overlap is one of allow, skip, queue"),
        ({"task": "t", "every": 5, "overlap": "queue", "catch_up": "none"}, "drops those"),
        ({"task": "t", "every": 5, "max_lateness": -1}, "0 seconds or more"),
        ({"task": "t", "every": 5, "jitter": "long"}, "write seconds"),
        ({"task": "t", "every": 5, "args": "abc"}, "args must be a list"),
        ({"task": "t", "every": 5, "kwargs": [1]}, "kwargs must be a dict"),
        ({"task": "t", "every": 5, "options": 3}, "options are a mapping"),
        ({"task": "t", "every": 5, "options": {"que": "x"}}, "did you mean 'queue'?"),
        ({"task": "t", "every": 5, "options": {"task_id": "x"}}, "each slot has an id of its own"),
        ({"task": "t", "every": 5, "options": {"eta": "2027-01-01"}}, "the schedule says when"),
        ({"task": "t", "every": 5, "queue": "a", "options": {"queue": "b"}}, "given twice"),
        ({"task": "t", "every": 5, "priority": 300}, "between 0 and 255"),
    ],
)
def test_what_is_wrong_with_an_entry_is_said_with_its_name(given, said):
    with pytest.raises(ScheduleError) as caught:
        read(**given)
    assert said in str(caught.value)
    assert str(caught.value).startswith("beat_schedule: entry 'nightly': ")


def test_what_is_no_mapping_is_no_entry():
    with pytest.raises(ScheduleError, match="is a mapping with task and schedule"):
        Entry.read("x", ["task"], SHANGHAI, "here")
    with pytest.raises(ScheduleError, match="the name of an entry is a text"):
        Entry.read(5, {}, SHANGHAI, "here")


def test_celery_s_own_objects_are_answered_with_ours():
    from celery.schedules import crontab as celerys

    with pytest.raises(ScheduleError, match=r"from amqflow\.schedules import crontab"):
        read(task="t", schedule=celerys(hour=2))


@pytest.fixture
def app():
    app = AmqFlow("shop")

    @app.task(name="shop.clean")
    def clean(days: int):
        pass

    return app


def test_an_unknown_task_is_refused_with_a_suggestion(app):
    app.conf.beat_schedule = {"n": {"task": "shop.claen", "schedule": 5}}
    with pytest.raises(ScheduleError, match=r"knows no task 'shop\.claen'; did you mean 'shop\.c"):
        check_entries(app, declared_entries(app).values())


def test_a_foreign_task_need_not_be_known(app):
    app.conf.beat_schedule = {"n": {"task": "other.task", "schedule": 5, "foreign": True}}
    check_entries(app, declared_entries(app).values())


def test_an_application_without_tasks_only_schedules():
    app = AmqFlow("beat")
    app.conf.beat_schedule = {"n": {"task": "other.task", "schedule": 5}}
    check_entries(app, declared_entries(app).values())


def test_arguments_that_do_not_fit_are_found_when_the_scheduler_starts(app):
    app.conf.beat_schedule = {"n": {"task": "shop.clean", "schedule": 5, "args": ["many"]}}
    with pytest.raises(ScheduleError, match=r"entry 'n': shop\.clean.*argument 'days'"):
        check_entries(app, declared_entries(app).values())


def test_runs_that_must_not_overlap_need_a_store_that_sees_them_end(app):
    app.conf.beat_schedule = {
        "n": {"task": "shop.clean", "schedule": 5, "args": [1], "overlap": "skip"}
    }
    with pytest.raises(ScheduleError, match="needs a result store"):
        check_entries(app, declared_entries(app).values())
    app.conf.result_backend = "redis://localhost/0"
    check_entries(app, declared_entries(app).values())


def test_an_unknown_zone_of_the_application_is_suggested(app):
    app.conf.timezone = "Asia/Shangai"
    with pytest.raises(ConfigurationError, match="did you mean 'Asia/Shanghai'"):
        declared_entries(app)


# -- the file -------------------------------------------------------------------------------

FILE = """\
version: 1
timezone: Asia/Shanghai
schedules:
  nightly:
    task: shop.clean
    crontab: "0 2 * * *"
    args: [30]
    catch_up: all
    max_lateness: 6h
  often:
    task: shop.clean
    every: 30s
    kwargs: {days: 1}
    queue: fast
  once:
    task: shop.clean
    at: 2027-03-01T09:30:00
    args: [1]
    timezone: Europe/Berlin
"""


@pytest.fixture
def file(tmp_path, app):
    path = tmp_path / "schedules.yaml"
    app.conf.schedules = path

    def write(text):
        path.write_text(text)
        return declared_entries(app)

    return write


def test_a_file_declares_entries(file, app):
    entries = file(FILE)
    check_entries(app, entries.values())
    assert str(entries["nightly"].schedule) == "0 2 * * * Asia/Shanghai"
    assert entries["nightly"].max_lateness == 6 * 3600
    assert entries["nightly"].source.endswith("schedules.yaml:4:3")
    assert entries["often"].options == {"queue": "fast"}
    assert str(entries["once"].schedule) == "once at 2027-03-01T09:30:00+01:00"


def test_a_name_in_the_code_and_in_the_file_is_refused(file, app):
    app.conf.beat_schedule = {"often": {"task": "shop.clean", "schedule": 5, "args": [1]}}
    with pytest.raises(ScheduleError, match=r"schedules\.yaml:10:3: entry 'often' is in beat_sche"):
        file(FILE)


def test_two_entries_of_one_name_in_the_file_are_refused(file):
    with pytest.raises(ScheduleError, match=r"schedules\.yaml:\d+:\d+: .*often"):
        file(FILE + "  often:\n    task: shop.clean\n    every: 5\n")


@pytest.mark.parametrize("length", [3, 20, 47, 60, 82, 100, 111, 180])
def test_a_half_written_file_is_one_clear_error(file, length):
    with pytest.raises(ScheduleError) as caught:
        file(FILE[:length])
    assert re.search(r"schedules\.yaml(:\d+:\d+)?: ", str(caught.value))


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "holds no `schedules:`"),
        ("version: 1\n", "holds no `schedules:`"),
        ("version: 2\nschedules: {}\n", "schedules.yaml:1:1: write `version: 1`"),
        ("version: 1\nschedules: [a]\n", "schedules.yaml:2:1: schedules is a mapping"),
        ("version: 1\nzone: UTC\nschedules: {}\n", "schedules.yaml:2:1: has no key 'zone'"),
        ("version: 1\ntimezone: Mars\nschedules: {}\n", "schedules.yaml:2:1: there is no time"),
        ("version: 1\nschedules:\n  a: {task: t}\n", "schedules.yaml:3:3: entry 'a': has no sch"),
        ("version: 1\nschedules:\n  a: {task: [}\n", "schedules.yaml:3"),
        ("version: 1\nschedules: !!python/object:os.system {}\n", "schedules.yaml:2"),
    ],
)
def test_what_is_wrong_with_a_file_is_said_with_its_place(file, text, said):
    with pytest.raises(ScheduleError) as caught:
        file(text)
    assert said in str(caught.value)


def test_all_wrong_entries_of_a_file_are_named_at_once(file):
    with pytest.raises(ScheduleError) as caught:
        file("version: 1\nschedules:\n  a: {task: t}\n  b: {every: 5}\n  c: {task: t, every: 5}\n")
    assert len(str(caught.value).splitlines()) == 2


def test_a_file_that_is_not_there_is_named(app):
    app.conf.schedules = "nowhere.yaml"
    with pytest.raises(ScheduleError, match=r"nowhere\.yaml: the file of schedules cannot be read"):
        declared_entries(app)
