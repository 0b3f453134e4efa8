"""`amqflow queues` and `amqflow why`: what waits where, and where one task is."""

import json

import pytest

from tests.servers.wait import until_sync

SHOP = """
from amqflow import AmqFlow
app = AmqFlow("shop")

@app.task(queue="email")
def send(to: str) -> str:
    if to == "nobody":
        raise LookupError("no such person")
    return to

@app.task(queue="email", autoretry_for=(OSError,), default_retry_delay=600, max_retries=4)
def fetch(url: str):
    raise OSError(url)

@app.task(queue="email", rate_limit="1/h")
def digest():
    return "sent"
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


def run(folder, *arguments, **options):
    done = folder.run("-A", "shop", *arguments, **options)
    assert "Traceback" not in done.stderr, done.stderr
    return done


def sent(folder, *arguments):
    done = run(folder, "call", *arguments)
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


def why(folder, task_id, *arguments):
    done = run(folder, "why", task_id, "--json", *arguments)
    known = json.loads(done.stdout)
    return done.returncode, known, " / ".join(known["says"])


def counts(folder, *arguments):
    done = run(folder, "queues", "--json", *arguments)
    return {row["name"]: row for row in map(json.loads, done.stdout.splitlines())}


def test_queues_of_an_empty_broker_are_named_as_missing(shop):
    assert counts(shop)["email"]["ready"] is None
    assert "not on the broker yet" in run(shop, "queues").stdout


def test_queues_show_what_is_ready_delayed_and_dead(working):
    sent(working, "shop.send", "-a", '["a"]', "--countdown", "600")
    task_id = sent(working, "shop.send", "-a", '["nobody"]')
    run(working, "result", task_id, "--wait")
    until_sync(lambda: counts(working)["email.dead"]["ready"] == 1)
    rows = counts(working)
    assert rows["email"] == {"name": "email", "part": "work", "ready": 0, "consumers": 1}
    assert rows["amqflow.delay.*"]["ready"] == 1
    assert "amqflow.undelivered" not in rows
    assert "amqflow.undelivered" in counts(working, "--all")


def test_watching_looks_again_until_it_is_stopped(working):
    with working.started("-A", "shop", "queues", "--json", "--watch", "--every", "0.2") as watch:
        until_sync(lambda: watch.printed().count('"name": "email"') >= 3)


def test_why_of_a_task_that_ended_well(working):
    task_id = sent(working, "shop.send", "-a", '["a"]')
    run(working, "result", task_id, "--wait")
    code, known, says = why(working, task_id)
    assert (code, known["state"]) == (0, "SUCCESS")
    assert "succeeded at" in says


def test_why_of_a_dead_letter_names_the_commands_to_go_on(working):
    task_id = sent(working, "shop.send", "-a", '["nobody"]')
    run(working, "result", task_id, "--wait")
    until_sync(lambda: counts(working)["email.dead"]["ready"] == 1)
    code, known, says = why(working, task_id)
    assert (code, known["dead_letter"]) == (0, "email.dead")
    assert "no such person" in says
    assert f"amqflow dlq replay --id {task_id}" in says


def test_why_of_a_retry_says_which_attempt_and_until_when(working):
    task_id = sent(working, "shop.fetch", "-a", '["x"]')
    until_sync(lambda: why(working, task_id)[1]["state"] == "RETRY")
    _, _, says = why(working, task_id, "--task", "shop.fetch")
    assert "attempt 1 of 5 failed: OSError: x; the next one is delayed until" in says
    assert "queue email: 0 ready, 1 consumers" in says


def test_why_of_a_task_that_waits_for_its_rate_limit_says_so(working):
    first, second = sent(working, "shop.digest"), sent(working, "shop.digest")
    assert run(working, "result", first, "--wait").returncode == 0
    until_sync(lambda: counts(working).get("amqflow.delay.*", {}).get("ready") == 1, deadline=60)
    _, _, says = why(working, second, "--task", "shop.digest")
    assert "shop.digest starts at most 1/h, all workers together" in says
    assert "delayed in amqflow.delay.*: 1" in says


def test_why_of_a_task_nobody_takes_says_so(shop):
    with shop.started("-A", "shop", "worker") as worker:
        worker.wait_for("ready")
        assert worker.stop() == 0
    task_id = sent(shop, "shop.send", "-a", '["a"]')
    code, known, says = why(shop, task_id)
    assert (code, known["state"]) == (1, None)
    assert "queue email: 1 ready, 0 consumers" in says
