"""The dead-letter example by hand: the commands its README names, on what its tasks leave."""

import asyncio
import json
import os
import subprocess
from pathlib import Path

import pytest

from amqflow import AmqFlow
from tests.servers.command import Command, run
from tests.servers.wait import until, until_sync

ROOT = Path(__file__).parents[2]
FOLDER = ROOT / "examples" / "dead_letters"


@pytest.fixture
def environment(amqp_url, redis_url):
    return {
        **os.environ,
        "PYTHONPATH": str(ROOT),
        "PYTHONDONTWRITEBYTECODE": "1",
        "AMQFLOW_BROKER": amqp_url,
        "AMQFLOW_BACKEND": redis_url,
    }


@pytest.fixture
def worker(environment, tmp_path):
    log = tmp_path / "worker.log"
    with log.open("wb") as output:
        process = Command(
            *("-m", "amqflow", "-A", "dead_letters", "worker", "-c", "1"),
            cwd=FOLDER,
            env=environment,
            stdout=output,
            stderr=subprocess.STDOUT,
        )
    try:
        until_sync(lambda: " ready " in log.read_text(), deadline=30, message=log.read_text())
        yield process
    finally:
        process.kill()
        process.wait()


def test_what_failed_is_grouped_edited_and_replayed_by_hand(worker, environment, amqp_url):
    def dlq(*arguments):
        command = ("-m", "amqflow", "-A", "dead_letters", "dlq", *arguments)
        done = run(*command, cwd=FOLDER, env=environment)
        assert done.returncode == 0, done.stderr
        return done.stdout

    async def fail_and_wait():
        app = AmqFlow("dead_letters", broker=amqp_url)
        for currency in ("SFR", "EURO", "EURO"):
            await app.asend_task("dead_letters.to_euro", (90, currency), queue="dead_letters")

        async def parked():
            transport = app.runtime().transport
            counts = await transport.declare_queue("dead_letters.dead", passive=True)
            return counts.messages == 3

        await until(parked)
        await app.aclose()

    asyncio.run(fail_and_wait())
    (group,) = [json.loads(line) for line in dlq("groups", "--json").splitlines()]
    assert group["count"] == 3
    example = group["example"]
    assert "KeyError" in dlq("show", example)
    environment["EDITOR"] = "sed -i -E s/SFR|EURO/EUR/"
    assert dlq("edit", example).strip() == "replayed 1"
    assert dlq("replay").strip() == "replayed 2"

    def succeeded():
        command = ("-m", "amqflow", "-A", "dead_letters", "result", example, "--json")
        found = run(*command, cwd=FOLDER, env=environment)
        return "SUCCESS" in found.stdout and "90" in found.stdout

    until_sync(succeeded, deadline=30)
