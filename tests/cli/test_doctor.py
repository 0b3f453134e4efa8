"""`amqflow doctor` on a good set-up and on bad ones: each finding names what mends it."""

import json

import pytest

SHOP = """
from amqflow import AmqFlow
app = AmqFlow("shop"{options})

@app.task(queue="email", time_limit={limit})
def send(to: str): ...
"""


@pytest.fixture
def write(served):
    def write(options="", limit=60):
        served.write(shop=SHOP.format(options=options and f", {options}", limit=limit))
        return served

    return write


def start_once(folder):
    """Let a worker declare what the application needs."""
    with folder.started("-A", "shop", "worker") as worker:
        worker.wait_for("ready")
        assert worker.stop() == 0


def examined(folder, *arguments, **environment):
    done = folder.run("-A", "shop", "doctor", "--json", *arguments, **environment)
    assert "Traceback" not in done.stderr, done.stderr
    findings = [json.loads(line) for line in done.stdout.splitlines()]
    return done.returncode, findings


def found(findings, check):
    levels = [finding for finding in findings if finding["check"] == check]
    assert levels, f"{check} among {[finding['check'] for finding in findings]}"
    for finding in levels:
        assert (finding["mend"] is None) == (finding["level"] == "ok")
    return levels


def test_a_good_set_up_has_no_errors(write):
    folder = write()
    start_once(folder)
    code, findings = examined(folder)
    assert code == 0, findings
    assert {f["check"] for f in findings if f["level"] == "ok"} >= {
        "broker",
        "permissions",
        "topology",
        "delays",
        "queues",
        "clock",
        "consumer-timeout",
    }
    shown = folder.run("-A", "shop", "doctor")
    assert "0 errors" in shown.stdout


def test_a_broker_that_is_away_is_named_without_its_password(write):
    folder = write()
    url = "amqp://guest:hidden@127.0.0.1:1/"
    code, findings = examined(folder, AMQFLOW_BROKER=url)
    (broker,) = found(findings, "broker")
    assert (code, broker["level"]) == (1, "error")
    assert "127.0.0.1:1" in broker["text"]
    assert "hidden" not in json.dumps(findings)


def test_a_store_that_is_away_is_named(write):
    folder = write()
    start_once(folder)
    code, findings = examined(folder, AMQFLOW_BACKEND="redis://:hidden@127.0.0.1:1/0")
    (store,) = found(findings, "store")
    assert (code, store["level"]) == (1, "error")
    assert "hidden" not in json.dumps(findings)


def test_an_empty_broker_and_no_ladder(write):
    code, findings = examined(write())
    (topology,) = found(findings, "topology")
    (delays,) = found(findings, "delays")
    assert (code, topology["level"], delays["level"]) == (1, "error", "error")
    assert "missing" in topology["text"]
    assert "amqflow worker" in topology["mend"]


async def test_a_queue_with_other_arguments_is_drift(write, transport):
    folder = write()
    await transport.declare_queue("email", arguments={"x-queue-type": "classic"})
    code, findings = examined(folder)
    drift = [
        finding for finding in found(findings, "topology") if "exists with other" in finding["text"]
    ]
    assert (code, len(drift)) == (1, 1)
    assert "x-dead-letter-exchange" in drift[0]["text"]


async def test_waiting_work_and_dead_letters_are_told_with_the_command_to_go_on(write, transport):
    from amqflow.protocol import Envelope

    folder = write()
    start_once(folder)
    await transport.publish(Envelope(b"{}", message_id="1"), "", "email", timeout=10)
    await transport.publish(Envelope(b"{}", message_id="2"), "", "email.dead", timeout=10)
    code, findings = examined(folder)
    (waiting,) = found(findings, "consumers")
    (dead,) = found(findings, "dead-letters")
    assert code == 0, "these are warnings"
    assert waiting["mend"] == "amqflow worker -Q email"
    assert dead["mend"] == "amqflow dlq groups --queue email"


async def test_dead_letters_below_their_alarm_are_not_told_and_the_command_shows_the_undelivered(
    write, transport
):
    from amqflow.protocol import Envelope

    folder = write('topology="shop.yaml"')
    (folder.path / "shop.yaml").write_text(
        "version: 1\nqueues: {default: {}, email: {dead_letter: {alarm: 2}}}\n"
    )
    assert folder.run("-A", "shop", "topology", "apply", "--yes").returncode == 0
    for queue in ("email.dead", "amqflow.undelivered"):
        await transport.publish(Envelope(b"{}", message_id=queue), "", queue, timeout=10)
    _, findings = examined(folder)
    (undelivered,) = found(findings, "dead-letters")
    command = undelivered["mend"].removeprefix("amqflow ").split()
    assert folder.run("-A", "shop", *command).returncode == 0
    await transport.publish(Envelope(b"{}", message_id="2"), "", "email.dead", timeout=10)
    email, _ = found(examined(folder)[1], "dead-letters")
    assert "holds 2 dead letters (its alarm is 2)" in email["text"]


def test_a_time_limit_beyond_the_brokers_patience(write):
    folder = write(limit=4000)
    _, findings = examined(folder)
    (timeout,) = found(findings, "consumer-timeout")
    assert timeout["level"] == "warning"
    assert "shop.send" in timeout["text"]


def test_redis_that_forgets_or_evicts_is_a_warning(write, private_redis):
    redis = private_redis()
    redis.cli("CONFIG", "SET", "appendonly", "no")
    redis.cli("CONFIG", "SET", "maxmemory-policy", "allkeys-lru")
    _, findings = examined(write(), AMQFLOW_BACKEND=redis.url)
    (durability,) = found(findings, "redis-durability")
    (eviction,) = found(findings, "redis-eviction")
    assert durability["level"] == eviction["level"] == "warning"
    redis.cli("CONFIG", "SET", "appendonly", "yes")
    redis.cli("CONFIG", "SET", "maxmemory-policy", "noeviction")
    _, findings = examined(write(), AMQFLOW_BACKEND=redis.url)
    assert found(findings, "redis-durability")[0]["level"] == "ok"
    assert found(findings, "redis-eviction")[0]["level"] == "ok"


def test_looking_only_declares_nothing(write):
    _, findings = examined(write(), "--no-probe")
    assert not {"permissions", "delays"} & {finding["check"] for finding in findings}
