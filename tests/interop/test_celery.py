"""A real Celery 5.7 worker runs our messages, and we run a real Celery producer's."""

import asyncio
import sys
from pathlib import Path

import pytest

from amqflow import AmqFlow, Unroutable
from tests.applications import Bench
from tests.servers.wait import until

ROOT = Path(__file__).parents[2]

PRODUCER = """
import os, sys
from celery import Celery
from datetime import datetime, timedelta, timezone
from decimal import Decimal
app = Celery("p", broker=os.environ["AMQFLOW_BROKER"], backend=os.environ["AMQFLOW_BACKEND"])
route = dict(exchange="", routing_key="default")
import kombu
producer = app.producer_pool.acquire(block=True)
def send(name, *args, **options):
    return app.send_task(name, args, producer=producer, exchange=kombu.Exchange(""),
                         routing_key="default", declare=[], **options)
results = [
    send("ours.add", 2, 3),
    send("ours.echo", Decimal("1.5"), kwargs={"when": datetime(2026, 1, 1, tzinfo=timezone.utc)}),
    send("ours.add", 1, 1, countdown=0.5),
    send("ours.add", 1, 2, expires=60, priority=3),
]
print([result.get(timeout=60) for result in results])
try:
    send("ours.fail").get(timeout=60)
except ValueError as error:
    print("ValueError", error)
"""


@pytest.fixture
def environment(amqp_url, redis_url, monkeypatch):
    monkeypatch.setenv("AMQFLOW_BROKER", amqp_url)
    monkeypatch.setenv("AMQFLOW_BACKEND", redis_url)
    monkeypatch.setenv("PYTHONPATH", str(ROOT))


async def test_celery_runs_our_messages(environment, amqp_url, redis_url):
    app = AmqFlow("interop", broker=amqp_url, backend=redis_url)
    options = ["-P", "solo", "-l", "warning", "--without-gossip", "--without-mingle"]
    celery = await asyncio.create_subprocess_exec(
        *[sys.executable, "-m", "celery", "-A", "tests.interop.celery_app", "worker", *options],
        cwd=ROOT,
    )
    try:
        sent = []

        async def routed():
            try:
                sent.append(await app.asend_task("celery.add", (2, 3), queue="celery-side"))
            except Unroutable:
                return False
            return True

        await until(routed, deadline=30, every=0.2)
        assert await sent[0].aget(timeout=60) == 5
        echo = await app.asend_task("celery.echo", ([1, "é"],), {"k": None}, queue="celery-side")
        assert await echo.aget(timeout=60) == [[1, "é"], {"k": None}, True]
        with pytest.raises(TypeError):
            await (await app.asend_task("celery.add", (1,), queue="celery-side")).aget(timeout=60)
        linked = await app.asend_task(
            "celery.add",
            (1, 1),
            queue="celery-side",
            link=app.signature("celery.add", (10,), queue="celery-side", task_id="linked-id"),
        )
        assert await linked.aget(timeout=60) == 2
        assert await app.AsyncResult("linked-id").aget(timeout=60) == 12
    finally:
        celery.terminate()
        async with asyncio.timeout(30):
            await celery.wait()
        await app.aclose()


async def test_we_run_celerys_messages(environment, amqp_url, redis_url):
    app = AmqFlow("interop", broker=amqp_url, backend=redis_url)

    @app.task(name="ours.add")
    def add(x: int, y: int) -> int:
        return x + y

    @app.task(name="ours.echo")
    def echo(value, when):
        return [value, when]

    @app.task(name="ours.fail")
    def fail():
        raise ValueError("ours")

    async with Bench(app).working():
        producer = await asyncio.create_subprocess_exec(
            sys.executable, "-c", PRODUCER, stdout=asyncio.subprocess.PIPE, cwd=ROOT
        )
        async with asyncio.timeout(60):
            output, _ = await producer.communicate()
    lines = output.decode().splitlines()
    assert lines[0].startswith("[5, [Decimal('1.5'), datetime.datetime(2026, 1, 1")
    assert lines[0].endswith("2, 3]")
    assert lines[1] == "ValueError ours"
