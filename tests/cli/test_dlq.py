"""`amqflow dlq` as a process: what operators type, read and pipe."""

import asyncio
import json
import os
import pty
import select
import sys
import time
from pathlib import Path

import pytest

from amqflow import AmqFlow
from amqflow.deadletters import read_line
from tests.applications import Bench
from tests.deadletters.conftest import Corner, parked
from tests.servers.command import Command

SHOP = """
from amqflow import AmqFlow
app = AmqFlow("spine")

@app.task(name="shop.pay")
def pay(amount: int, currency: str = "EUR") -> str:
    return f"{amount} {currency}"

@app.task(name="t.fail")
def fail(number: int, pad: str):
    raise ValueError(f"no {number}")
"""


class Shop:
    """A folder with an application, and its broker's queues."""

    def __init__(self, folder, url) -> None:
        self.folder, self.url = folder, url
        folder.write(shop=SHOP)

    def dlq(self, *arguments, typed="", **environment):
        """Run a command of the desk to its end, with `typed` as its standard input."""
        # Drafts that are kept are kept in the test's own folder.
        environment = {"TMPDIR": str(self.folder.path), **environment}
        return self.folder.run("-A", "shop", "dlq", *arguments, typed=typed, **environment)

    def ok(self, *arguments, code=0, **options):
        """Run a command that must end so; return what it printed."""
        done = self.dlq(*arguments, **options)
        assert done.returncode == code, (done.stdout, done.stderr)
        return done.stdout

    def lines(self, *arguments, **options):
        return [json.loads(line) for line in self.ok(*arguments, **options).splitlines()]

    def at(self, work):
        """Run `await work(corner)` against the broker."""

        async def run():
            app = AmqFlow("spine", broker=self.url)
            try:
                corner = Corner(Bench(app))
                await corner.declare("default")
                return await work(corner)
            finally:
                await app.aclose()

        return asyncio.run(run())

    def park(self, count, **options):
        return self.at(lambda corner: corner.park(count, **options))

    def ids(self, queue="default.dead"):
        return self.at(lambda corner: corner.ids(queue))

    def publish(self, *envelopes, queue="default.dead"):
        self.at(lambda corner: corner.publish(queue, *envelopes))

    def editor(self, code, name="editor.py"):
        """Return the environment of an editor that runs `code` with `text` and `path`."""
        path = self.folder.path / name
        path.write_text(
            "import sys, pathlib, os, signal, json\n"
            "path = pathlib.Path(sys.argv[1]); text = path.read_text()\n" + code
        )
        return {"EDITOR": f"{sys.executable} {path}", "VISUAL": None}


@pytest.fixture
def shop(served, amqp_url):
    return Shop(served, amqp_url)


# -- looking -----------------------------------------------------------------------------------


def test_list_shows_a_line_each_oldest_first(shop):
    first, second = shop.park(2, text="it broke")
    header, *lines = shop.ok("list").splitlines()
    assert header.split() == ["ID", "AGE", "QUEUE", "TASK", "REASON", "WHY"]
    assert [line.split()[0] for line in lines] == [first, second]
    assert "ValueError: it broke" in lines[0]
    assert shop.ids() == [first, second]


def test_list_as_json_lines(shop):
    (letter_id,) = shop.park(1)
    (row,) = shop.lines("list", "--json")
    assert row["id"] == letter_id
    assert row["task"] == "t.fail"
    assert row["exception"] == "builtins.ValueError"
    assert row["time"].endswith("+00:00")
    assert shop.lines("list", "--json", "--task", "nobody.*") == []


def test_filters_by_age_reason_and_id(shop):
    now = time.time()
    shop.publish(parked(time=now - 90_000), parked(time=now - 60))
    old, new = shop.ids()
    assert [row["id"] for row in shop.lines("list", "--json", "--older-than", "1d")] == [old]
    assert [row["id"] for row in shop.lines("list", "--json", "--newer-than", "2 hours")] == [new]
    assert [row["id"] for row in shop.lines("list", "--json", "--id", new)] == [new]
    assert shop.lines("list", "--json", "--reason", "poison") == []
    assert len(shop.lines("list", "--json", "--limit", "1")) == 1


def test_a_terminal_is_not_driven_by_what_failed(shop):
    shop.publish(parked(task="\x1b[2Jt", text="\x1b]0;title\x07 and\r\nmore"))
    printed = shop.ok("list") + shop.ok("groups") + shop.ok("show", shop.ids()[0])
    assert "\x1b" not in printed
    assert "\x07" not in printed
    assert "\\x1b]0;title" in printed


def test_the_reader_may_leave(shop):
    shop.park(600)  # more than a pipe holds
    reading, writing = os.pipe()
    errors = shop.folder.path / "errors"
    with errors.open("wb") as stderr:
        process = Command(
            *("-m", "amqflow", "-A", "shop", "dlq", "list", "--json"),
            cwd=shop.folder.path,
            env=shop.folder.environment(),
            stdout=writing,
            stderr=stderr,
        )
    os.close(writing)
    os.read(reading, 1)
    os.close(reading)
    assert process.wait(30) == 0
    assert errors.read_text() == ""


def test_groups_count_by_cause(shop):
    shop.park(3)
    shop.publish(parked(exception="KeyError", text="gone"))
    first, second = shop.lines("groups", "--json")
    assert (first["count"], second["count"]) == (3, 1)
    assert second["exception_message"] == "gone"
    text = shop.ok("groups")
    assert "3  t.fail  failed" in text
    assert f"e.g. {first['example']}" in text
    assert len(shop.lines("groups", "--json", "--limit", "1")) == 1
    found = shop.lines("list", "--json", "--fingerprint", second["fingerprint"])
    assert [row["id"] for row in found] == [second["example"]]


def test_show_tells_all(shop):
    (letter_id,) = shop.park(1)
    text = shop.ok("show", letter_id)
    for part in (
        letter_id,
        "t.fail",
        "ValueError",
        "no 0",
        "Traceback (most recent",
        "/app/t.py",
        "w1",
        "default.dead",
        "args",
        "fingerprint",
        "amqflow-dead-reason",
    ):
        assert part in text
    again = json.loads(shop.ok("show", letter_id, "--json"))
    assert again["id"] == letter_id
    missing = shop.dlq("show", "nobody")
    assert missing.returncode == 1
    assert "no dead letter has the id nobody" in missing.stderr


def test_show_cuts_what_is_long_unless_asked(shop):
    (letter_id,) = shop.park(1, size=2**20)
    assert len(shop.ok("show", letter_id)) < 10_000
    assert len(shop.ok("show", letter_id, "--full")) > 2**20


def test_export_gives_back_every_byte(shop):
    shop.publish(parked(body=b"\xff\x00odd"), parked(), parked(size=2**20))
    originals = shop.at(lambda corner: corner.bench.look("default.dead", 3))
    read = [read_line(line) for line in shop.ok("export").splitlines()]
    for one in [*originals, *(one.envelope for one in read)]:
        one.headers.pop("x-delivery-count", None)  # a look more than the other
    assert [one.envelope for one in read] == originals
    assert [one.home for one in read] == ["default.dead"] * 3


# -- replay ------------------------------------------------------------------------------------


def test_replay_runs_them_again(shop):
    ids = shop.park(5)
    assert shop.ok("replay", "--dry-run").splitlines()[-1] == "would replay 5"
    assert shop.ids() == ids
    assert shop.ok("replay", "--limit", "2").strip() == "replayed 2"
    assert shop.ok("replay", ids[3]).strip() == "replayed 1"
    assert shop.lines("replay", "--json", "--rate", "100/s")[-1]["replayed"] == 2
    assert sorted(shop.ids("default")) == sorted(ids)


def test_what_stays_is_named_and_the_exit_code_is_1(shop):
    (letter_id,) = shop.park(1)
    done = shop.dlq("replay", "--to-queue", "nowhere")
    assert done.returncode == 1
    assert done.stdout.strip() == "replayed 0, 1 stay"
    assert letter_id in done.stderr
    assert "'nowhere'" in done.stderr
    refusal, counts = shop.lines("replay", "--to-queue", "nowhere", "--json", code=1)
    assert (refusal["id"], refusal["routing_key"]) == (letter_id, "nowhere")
    assert counts["refused"] == 1
    assert shop.ids() == [letter_id]


def test_an_id_that_is_not_there_is_an_error(shop):
    shop.park(1)
    done = shop.dlq("replay", "nobody")
    assert (done.returncode, done.stdout) == (1, "")
    assert "nobody" in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["list", "--older-than", "yesterday"], "is no age"),
        (["list", "--newer-than", "5 parsecs"], "is no age"),
        (["list", "--limit", "0"], "0"),
        (["replay", "--rate", "fast"], "rate"),
        (["replay", "--rate", "0/s"], "rate of 0"),
        (["replay", "--routing-key", "k"], "--exchange"),
        (["replay", "--to-queue", "q", "--exchange", "e"], "not both"),
        (["frobnicate"], "frobnicate"),
    ],
)
def test_a_wrong_command_line_is_refused_with_2(shop, arguments, words):
    done = shop.dlq(*arguments)
    assert done.returncode == 2, (done.stdout, done.stderr)
    assert words in done.stderr


def test_a_queue_that_does_not_exist_is_one_sentence(shop):
    done = shop.dlq("list", "--dead-queue", "nowhere")
    assert done.returncode == 1
    assert "nowhere" in done.stderr
    assert "Traceback" not in done.stderr


def test_a_queue_with_a_delivery_limit_needs_force(shop):
    async def declare(corner):
        arguments = {"x-queue-type": "quorum", "x-delivery-limit": 5}
        await corner.transport.declare_queue("theirs", arguments=arguments)
        await corner.publish("theirs", parked())

    shop.at(declare)
    done = shop.dlq("list", "--dead-queue", "theirs")
    assert done.returncode == 1
    assert "--force" in done.stderr
    assert len(shop.lines("list", "--dead-queue", "theirs", "--force", "--json")) == 1


def test_progress_is_shown_on_a_terminal_only(shop):
    shop.park(30)
    plain = shop.dlq("replay", "--limit", "10")
    assert plain.stderr == ""
    printed = in_a_terminal(shop, "replay", "--rate", "20/s")
    assert "replaying" in printed
    assert "replayed 20" in printed


# -- purge -------------------------------------------------------------------------------------


def test_purge_asks_and_says_how_many(shop):
    ids = shop.park(3)
    (other,) = shop.park(1, task="other")
    refused = shop.dlq("purge", "--task", "t.*", typed="n\n")
    assert refused.returncode == 1
    assert "Delete 3 dead letters of default.dead" in refused.stderr
    assert shop.ids() == [*ids, other]
    assert shop.dlq("purge").returncode == 1
    assert "would purge 3" in shop.ok("purge", "--task", "t.*", "--dry-run")
    assert shop.ok("purge", "--task", "t.*", typed="y\n").strip().endswith("purged 3")
    assert shop.ids() == [other]
    assert shop.lines("purge", "--yes", "--json") == [
        {"purged": 1, "refused": 0, "came_back": 0, "uncertain": False}
    ]
    assert shop.ok("purge", "--yes").strip() == "purged 0"


# -- edit --------------------------------------------------------------------------------------


def pay(*args, **headers):
    """Return a dead letter of shop.pay with these arguments."""
    body = json.dumps([list(args), {}, None]).encode()
    return parked(task="shop.pay", body=body, **headers)


def replayed(shop):
    (envelope,) = shop.at(lambda corner: corner.bench.look("default", 1))
    return json.loads(envelope.body)[:2], envelope.headers


def test_edit_mends_the_arguments_and_replays(shop):
    shop.publish(pay("ten"))
    (letter_id,) = shop.ids()
    editor = shop.editor("path.write_text(text.replace('\"ten\"', '10'))")
    assert shop.ok("edit", letter_id, **editor).strip() == "replayed 1"
    payload, headers = replayed(shop)
    assert payload == [[10], {}]
    assert (headers["id"], headers["amqflow-epoch"]) == (letter_id, 1)
    assert "retries" not in headers
    assert shop.ids() == []


def test_edit_takes_yaml(shop):
    shop.publish(pay("ten", "USD"))
    (letter_id,) = shop.ids()
    editor = shop.editor("path.write_text(text.replace('- ten', '- 11'))")
    shop.ok("edit", "--yaml", letter_id, **editor)
    assert replayed(shop)[0] == [[11, "USD"], {}]


@pytest.mark.parametrize(
    ("code", "words"),
    [
        ("path.write_text(text.replace('\"ten\"', '10,,'))", ":4: no JSON"),
        ("path.write_text(text.replace('\"ten\"', '\"eleven\"'))", ":4: shop.pay"),
        ("path.write_text(text.replace('{}', '{\"colour\": 1}'))", "colour"),
        ("path.write_text(text.replace('shop.pay', 'shop.pya'))", "did you mean 'shop.pay'"),
        ("path.write_text('[]')", "must be an object"),
        ("path.write_text('')", "no JSON"),
        ("path.unlink()", "cannot be read"),
        ("path.write_bytes(b'\\xff')", "cannot be read"),
        ("path.write_text('{'); sys.exit(3)", "ended with 3"),
        ("os.kill(os.getpid(), signal.SIGKILL)", "signal 9"),
    ],
)
def test_a_bad_edit_is_refused_with_its_place_and_nothing_is_lost(shop, code, words):
    shop.publish(pay("ten"))
    ids = shop.ids()
    done = shop.dlq("edit", ids[0], **shop.editor(code))
    assert done.returncode == 1, (done.stdout, done.stderr)
    assert words in done.stderr
    assert "Traceback" not in done.stderr
    assert shop.ids() == ids
    assert shop.ids("default") == []


def test_what_was_typed_is_kept_and_can_be_handed_in_later(shop):
    shop.publish(pay("ten"))
    (letter_id,) = shop.ids()
    broken = shop.dlq("edit", letter_id, **shop.editor("path.write_text(text + '}')"))
    kept = Path(broken.stderr.partition("kept in ")[2].splitlines()[0])
    text = kept.read_text()
    assert text.endswith("}")
    kept.write_text(text.removesuffix("}").replace('"ten"', "12"))
    arguments = ("edit", letter_id, "--file", str(kept))
    assert shop.ok(*arguments, "--dry-run").strip().endswith("replay it")
    shop.ok(*arguments)
    assert replayed(shop)[0] == [[12], {}]


def test_an_unchanged_edit_replays_nothing(shop):
    shop.publish(pay(10))
    ids = shop.ids()
    assert "nothing" in shop.ok("edit", ids[0], **shop.editor("pass"))
    assert shop.ids() == ids


def test_a_body_that_cannot_be_decoded_is_edited_as_it_is(shop):
    shop.publish(parked(task="shop.pay", body=b"[[7, ], {}, null]"))
    (letter_id,) = shop.ids()
    shop.ok("edit", letter_id, **shop.editor("path.write_text(text.replace('7, ', '7'))"))
    assert replayed(shop)[0] == [[7], {}]


def test_a_body_that_is_no_text_cannot_be_edited(shop):
    shop.publish(parked(task="shop.pay", body=b"\xff\xfe"))
    done = shop.dlq("edit", shop.ids()[0], **shop.editor("pass"))
    assert done.returncode == 1
    assert "dlq export" in done.stderr


def test_a_letter_that_somebody_else_replays_meanwhile_is_not_run_twice(shop):
    shop.publish(pay("ten"))
    (letter_id,) = shop.ids()
    code = (
        "import subprocess\n"
        "subprocess.run([sys.executable, '-m', 'amqflow', '-A', 'shop', 'dlq', 'replay'])\n"
        "path.write_text(text.replace('\"ten\"', '10'))"
    )
    done = shop.dlq("edit", letter_id, **shop.editor(code))
    assert done.returncode == 1
    assert "kept in" in done.stderr
    assert replayed(shop)[0] == [["ten"], {}]


def test_edit_offers_to_try_again_on_a_terminal(shop):
    shop.publish(pay("ten"))
    (letter_id,) = shop.ids()
    editor = shop.editor(
        "n = path.with_suffix('.n'); first = not n.exists(); n.touch()\n"
        "path.write_text(text.replace('\"ten\"', '10 x') if first else text.replace(' x', ''))"
    )
    printed = in_a_terminal(shop, "edit", letter_id, answer="y\n", **editor)
    assert "Edit again?" in printed
    assert "replayed 1" in printed
    assert replayed(shop)[0] == [[10], {}]


def in_a_terminal(shop, *arguments, answer="", **environment):
    """Run a command on a pseudo-terminal; return all it printed."""
    parent, child = pty.openpty()
    process = Command(
        *("-m", "amqflow", "-A", "shop", "dlq", *arguments),
        cwd=shop.folder.path,
        env=shop.folder.environment(TERM="xterm", **environment),
        stdin=child,
        stdout=child,
        stderr=child,
    )
    os.close(child)
    if answer:
        os.write(parent, answer.encode())
    printed = b""
    end = time.monotonic() + 60
    while time.monotonic() < end:
        ready, _, _ = select.select([parent], [], [], 0.2)
        if ready:
            try:
                part = os.read(parent, 65536)
            except OSError:
                break
            if not part:
                break
            printed += part
    os.close(parent)
    assert process.wait(30) == 0, printed.decode()
    return printed.decode()


def test_every_command_has_its_help(shop):
    for command in ("list", "groups", "show", "export", "edit", "replay", "purge"):
        assert "Usage:" in shop.ok(command, "--help")
