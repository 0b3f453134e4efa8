"""`amqflow beat` and its commands, as users type them."""

import json
import signal
import sys
from types import SimpleNamespace

import pytest

from amqflow.cli import main
from tests.cli.conftest import Folder
from tests.servers.wait import until_sync

SHOP = """
from amqflow import AmqFlow, crontab

app = AmqFlow("shop", timezone="Asia/Shanghai")

@app.task(queue="shop")
def clean(days: int = 30) -> int:
    print("cleaned", days, flush=True)
    return days

app.conf.beat_schedule = {
    "nightly": {"task": "shop.clean", "schedule": crontab(hour=2, minute=0), "args": (16,)},
    "report": {"task": "shop.clean", "crontab": "30 9 * * mon", "timezone": "America/New_York"},
}
"""


@pytest.fixture
def shop(tmp_path, amqp_url, redis_url):
    folder = Folder(
        tmp_path,
        {
            "AMQFLOW_BROKER": amqp_url,
            "AMQFLOW_BACKEND": redis_url,
            "AMQFLOW_APP": "shop",
            "COLUMNS": "200",
        },
    )
    folder.write(shop=SHOP)
    return folder


@pytest.fixture
def here(shop, monkeypatch, capsys):
    """The commands in this process: a new one for each takes a second."""
    monkeypatch.chdir(shop.path)
    monkeypatch.setattr(sys, "path", [str(shop.path), *sys.path])
    for name, value in shop.environment().items():
        monkeypatch.setenv(name, value)

    def run(*arguments, code=0, **environment):
        sys.modules.pop("shop", None)
        with monkeypatch.context() as patch:
            for name, value in environment.items():
                patch.setenv(name, value)
            with pytest.raises(SystemExit) as ended:
                main(["beat", *arguments])
        printed = capsys.readouterr()
        assert ended.value.code == code, printed
        return SimpleNamespace(stdout=printed.out, stderr=printed.err)

    yield run
    sys.modules.pop("shop", None)


def shown(here, *arguments, **environment):
    lines = here(*arguments, "--json", **environment).stdout.splitlines()
    return [json.loads(line) for line in lines]


def test_entries_are_listed_and_looked_ahead_in_their_zones(here):
    listed = {row["name"]: row for row in shown(here, "list")}
    assert listed["nightly"]["schedule"] == "0 2 * * * Asia/Shanghai"
    assert listed["nightly"]["next"].endswith("02:00:00+08:00")
    assert listed["nightly"]["last"] is None
    coming = shown(here, "next", "--count", "5")
    assert len(coming) == 5
    assert [row["slot"] for row in coming] == sorted(row["slot"] for row in coming)
    (report,) = {row["local"][11:19] for row in shown(here, "next", "report", "--count", "3")}
    assert report == "09:30:00"
    table = here("list")  # for people
    assert "no scheduler is alive: run amqflow beat, or a worker with -B" in table.stderr
    assert table.stdout.splitlines()[0].split() == [
        *("name", "task", "schedule", "next", "last", "slots", "source"),
    ]
    lines = here("next", "--count", "2").stdout.splitlines()
    assert "02:00:00+08:00" in lines[0]
    assert "18:00:00Z" in lines[0]


def test_entries_are_added_served_paused_run_now_and_removed(shop, here):
    added = here("add", "often", "shop.clean", "--every", "0.5s", "-a", "[7]")
    assert added.stdout.startswith("often: shop.clean, every 0.5 s; next ")
    with shop.started("worker", "-c", "2") as worker, shop.started("beat", "-n", "one") as running:
        worker.wait_for("ready")
        running.wait_for("scheduling")
        worker.wait_for("cleaned 7")
        assert here("pause", "often").stdout == "often: paused\n"

        def listed():
            (row,) = [row for row in shown(here, "list") if row["name"] == "often"]
            return row

        row = listed()
        assert (row["paused"], row["next"], row["source"]) == (True, None, "the store")
        # What ran is marked a moment after it, many at a time.
        until_sync(lambda: listed()["slots"].get("ran"), deadline=30, every=0.1)
        assert "1 scheduler is alive" in here("list").stderr
        task_id = here("run-now", "nightly").stdout.strip()
        worker.wait_for("cleaned 16")
        (manual,) = shown(here, "history", "nightly")
        assert (manual["what"], manual["id"]) == ("manual", task_id)
        assert here("resume", "often").stdout == "often: resumed\n"
        ran = [row for row in shown(here, "history", "often") if row["what"] == "ran"]
        assert ran[0]["by"] == "one"
        assert "  ran  " in here("history", "often").stdout
        changed = here("add", "often", "shop.clean", "--every", "1h", "--replace")
        assert "every 1 h" in changed.stdout
        assert here("remove", "often").stdout == "often: removed\n"
        assert [row["name"] for row in shown(here, "list")] == ["nightly", "report"]
        assert running.stop() == 0
        assert worker.stop() == 0
    assert "stopped" in running.printed()


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_worker_with_beat_schedules_until_it_stops(shop, here, number):
    here("add", "often", "shop.clean", "--every", "0.4", "-k", '{"days": 3}')
    with shop.started("worker", "-B", "-c", "2") as worker:
        worker.wait_for("cleaned 3")
        assert worker.stop(number) == 0, worker.printed()
    printed = worker.printed()
    assert "Traceback" not in printed
    assert printed.index("scheduling") < printed.index("cleaned 3")
    until_sync(lambda: "published=" in worker.printed(), deadline=30)


def test_a_worker_with_beat_refuses_wrong_entries_before_it_starts(shop):
    shop.write(shop=SHOP.replace('"shop.clean", "crontab"', '"shop.claen", "crontab"'))
    done = shop.run("worker", "-B")
    assert done.returncode == 1
    assert "entry 'report': the application 'shop' knows no task 'shop.claen'" in done.stderr


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["add", "x", "shop.clean"], "has no schedule"),
        (["add", "x", "shop.clean", "--crontab", "0 0 31 2 *"], "would never be due"),
        (["add", "x", "shop.clean", "--every", "5", "--timezone", "Asia/Shangai"], "did you mean"),
        (["add", "x", "shop.claen", "--every", "5"], "did you mean 'shop.clean'?"),
        (["add", "x", "shop.clean", "--every", "5", "-a", '["many"]'], "argument 'days'"),
        (["add", "x", "shop.clean", "--at", "2001-01-01"], "has passed"),
        (["add", "nightly", "shop.clean", "--every", "5"], "the application declares an entry"),
        (["remove", "nightly"], "amqflow beat pause nightly"),
        (["remove", "nothing"], "there is no entry 'nothing'"),
        (["pause", "nigthly"], "did you mean 'nightly'?"),
        (["run-now", "nothing"], "there is no entry 'nothing'"),
    ],
)
def test_what_cannot_be_is_one_sentence(here, arguments, said):
    done = here(*arguments, code=1)
    assert said in done.stderr
    assert done.stderr.startswith("error: ")
    assert len(done.stderr.splitlines()) == 1


def test_an_entry_of_the_same_name_needs_replace(here):
    here("add", "x", "shop.clean", "--at", "2099-01-01T00:00")
    assert "--replace" in here("add", "x", "shop.clean", "--every", "5", code=1).stderr


def test_a_wrong_schedule_stops_beat_with_one_sentence(shop, here):
    shop.write(shop=SHOP.replace("30 9 * * mon", "30 9 31 2 *"))
    done = here(code=1)
    assert "error: beat_schedule: entry 'report': " in done.stderr
    shop.write(shop=SHOP.replace("Asia/Shanghai", "Asia/Shangai"))
    assert "did you mean 'Asia/Shanghai'" in here(code=1).stderr


def test_entries_of_a_file_are_served_and_a_half_written_one_is_named(shop, here):
    path = shop.path / "schedules.yaml"
    path.write_text("version: 1\nschedules:\n  often: {task: shop.clean, every: 5s}\n")
    listed = {row["name"]: row["source"] for row in map(
        json.loads,
        here("list", "--json", AMQFLOW_SCHEDULES="schedules.yaml").stdout.splitlines(),
    )}  # fmt: skip
    assert listed["often"] == "schedules.yaml:3:3"
    path.write_text("version: 1\nschedules:\n  often: {task: shop.cl")
    done = here(code=1, AMQFLOW_SCHEDULES="schedules.yaml")
    assert "schedules.yaml:4:1: is no YAML" in done.stderr


def test_without_a_shared_store_the_commands_say_what_is_needed(here):
    done = here("add", "x", "shop.clean", "--every", "5", code=1, AMQFLOW_BACKEND="rpc://")
    assert "add needs a store that the schedulers share" in done.stderr
    assert "single instance" in here("list", AMQFLOW_BACKEND="rpc://").stderr
    assert shown(here, "next", "--count", "2")


def test_a_store_that_is_away_is_said_and_a_stop_works_meanwhile(shop, here):
    with shop.started("beat", AMQFLOW_BACKEND="redis://127.0.0.1:1/0") as running:
        running.wait_for("waiting for the store")
        assert running.stop() == 0
    done = here("list", code=1, AMQFLOW_BACKEND="redis://127.0.0.1:1/0")
    assert "error: Redis redis://127.0.0.1:1/0 cannot be used now" in done.stderr
