"""`amqflow call` and `amqflow result`: one task by name, and what became of it."""

import json

import pytest

SHOP = """
from datetime import date
from amqflow import AmqFlow
app = AmqFlow("shop")

@app.task
def add(a: int, b: int = 0) -> int:
    return a + b

@app.task
def day() -> date:
    return date(2026, 11, 24)

@app.task(bind=True)
def climb(self, gate: str):
    import pathlib, time
    for step in (1, 2):
        self.update_state(state="PROGRESS", meta={"done": step})
        while not pathlib.Path(f"{gate}-{step}").exists():
            time.sleep(0.02)
    return "top"

@app.task
def fail(text):
    raise ValueError(text)
"""


@pytest.fixture
def shop(served):
    served.write(shop=SHOP)
    return served


@pytest.fixture
def working(shop):
    with shop.started("-A", "shop", "worker", "-c", "1") as worker:
        worker.wait_for("ready")
        yield shop


def call(folder, *arguments, **options):
    return folder.run("-A", "shop", "call", *arguments, **options)


def test_a_call_prints_its_id_and_the_result_is_found_by_it(working):
    sent = call(working, "shop.add", "-a", "[2]", "-k", '{"b": 3}')
    assert sent.returncode == 0, sent.stderr
    found = working.run("-A", "shop", "result", sent.stdout.strip(), "--wait", "--json")
    assert found.returncode == 0, found.stderr
    known = json.loads(found.stdout)
    assert (known["state"], known["result"]) == ("SUCCESS", 5)


def test_waiting_shows_the_result_and_the_exit_code_tells_how_it_ended(working):
    good = call(working, "shop.add", "-a", "[2, 2]", "--wait")
    assert (good.returncode, "SUCCESS" in good.stdout) == (0, True), good
    bad = call(working, "shop.fail", "-a", '["no such thing"]', "--wait", "--json")
    known = json.loads(bad.stdout)
    assert bad.returncode == 1
    assert known["exception"] == {
        "type": "ValueError",
        "module": "builtins",
        "message": "no such thing",
    }
    dated = call(working, "shop.day", "--wait", "--json")
    assert json.loads(dated.stdout)["result"] == {"__type__": "date", "__value__": "2026-11-24"}


def test_a_forgotten_result_is_pending(working):
    task_id = call(working, "shop.add", "-a", "[1]", "--wait", "--json").stdout
    task_id = json.loads(task_id)["id"]
    assert working.run("-A", "shop", "result", task_id, "--forget").returncode == 0
    gone = working.run("-A", "shop", "result", task_id)
    assert (gone.returncode, "PENDING" in gone.stdout) == (1, True)


@pytest.mark.parametrize(
    ("arguments", "code", "said"),
    [
        (("shop.ad",), 1, "did you mean 'shop.add'?"),
        (("shop.add", "-a", "[1"), 2, "is not JSON"),
        (("shop.add", "-a", '{"a": 1}'), 2, "is not what is meant"),
        (("shop.add", "-a", '["x"]'), 1, "shop.add"),
        (("shop.add", "-a", "[1]", "--eta", "soon"), 1, "eta"),
        (("shop.add", "-a", "[1]", "--countdown", "-1"), 2, "countdown"),
        (("shop.add", "-a", "[1]"), 1, "start a worker"),
    ],
)
def test_a_wrong_call_is_refused_in_a_sentence(shop, arguments, code, said):
    done = call(shop, *arguments)
    assert done.returncode == code, done
    assert said in done.stderr
    assert "Traceback" not in done.stderr


def test_no_worker_is_said_when_the_wait_ends(shop):
    with shop.started("-A", "shop", "worker") as worker:
        worker.wait_for("ready")
        assert worker.stop() == 0
    done = call(shop, "shop.add", "-a", "[1]", "--wait", "--timeout", "0.5")
    assert done.returncode == 1
    assert "1 ready, 0 consumers" in done.stderr


def test_following_shows_every_state_until_the_end(working, tmp_path):
    gate = tmp_path / "gate"
    sent = call(working, "shop.climb", "-a", json.dumps([str(gate)])).stdout.strip()
    with working.started("-A", "shop", "result", sent, "--follow") as follower:
        for step in (1, 2):
            follower.wait_for(f"PROGRESS   {{'done': {step}}}")
            (tmp_path / f"gate-{step}").touch()
        follower.wait_for("top")
    again = working.run("-A", "shop", "result", sent, "--follow", "--json")
    assert again.returncode == 0
    assert json.loads(again.stdout)["result"] == "top"


def test_following_what_does_not_change_says_why_after_a_while(shop):
    never = shop.run("-A", "shop", "result", "nobody", "--follow", "--timeout", "0.5")
    assert never.returncode == 1
    assert "no change within 0.5 s" in never.stderr
