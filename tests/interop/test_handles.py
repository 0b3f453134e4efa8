"""Celery and amqflow read each other's results, children and saved groups, in one Redis."""

from __future__ import annotations

import asyncio
import json
import sys
from contextlib import asynccontextmanager

import pytest
from celery import Celery

from amqflow import AmqFlow, GroupResult, chain, chord, group
from amqflow.errors import Unroutable
from tests.applications import Bench
from tests.interop.test_celery import ROOT
from tests.servers.wait import until

GET = 30

#: A Celery caller that knows our results by their ids.
READER = """
import json, os, sys
from celery import Celery
from celery.result import AsyncResult, GroupResult
app = Celery("reader", broker=os.environ["AMQFLOW_BROKER"], backend=os.environ["AMQFLOW_BACKEND"])
ids = json.loads(sys.argv[1])
body = AsyncResult(ids["body"], app=app)
saved = GroupResult.restore(ids["group"], app=app)
parent = AsyncResult(ids["parent"], app=app)
child, inner = parent.children
try:
    AsyncResult(ids["failed"], app=app).get(timeout=60)
    failed = None
except ValueError as error:
    failed = str(error)
print(json.dumps({
    "body": body.get(timeout=60),
    "saved": saved.join(timeout=20),
    "states": [saved.ready(), saved.successful(), saved.completed_count()],
    "child": child.get(timeout=60),
    "inner": [type(inner).__name__, inner.id, inner.join(timeout=20)],
    "failed": failed,
}))
# A group that Celery saves, for us to restore.
GroupResult("theirs", [AsyncResult(one.id, app=app) for one in saved], parent=body).save()
"""


@pytest.fixture
def environment(amqp_url, redis_url, monkeypatch):
    monkeypatch.setenv("AMQFLOW_BROKER", amqp_url)
    monkeypatch.setenv("AMQFLOW_BACKEND", redis_url)
    monkeypatch.setenv("PYTHONPATH", str(ROOT))


@pytest.fixture
async def app(environment, amqp_url, redis_url):
    made = AmqFlow("interop", broker=amqp_url, backend=redis_url)
    yield made
    await made.aclose()


@asynccontextmanager
async def celery_worker(app):
    options = ["-P", "solo", "-l", "warning", "--without-gossip", "--without-mingle"]
    worker = await asyncio.create_subprocess_exec(
        *[sys.executable, "-m", "celery", "-A", "tests.interop.celery_app", "worker", *options],
        cwd=ROOT,
    )
    try:

        async def routed():
            try:
                sent = await app.asend_task("celery.add", (0, 0), queue="celery-side")
            except Unroutable:
                return False
            return await sent.aget(timeout=GET) == 0

        await until(routed, deadline=60, every=0.2)
        yield
    finally:
        worker.terminate()
        async with asyncio.timeout(30):
            await worker.wait()


async def test_a_celery_caller_reads_our_results_children_and_groups(app):
    @app.task(name="ours.add")
    async def add(x: int, y: int) -> int:
        return x + y

    @app.task(name="ours.total")
    async def total(numbers: list[int]) -> int:
        return sum(numbers)

    @app.task(name="ours.fail")
    async def fail():
        raise ValueError("ours")

    @app.task(name="ours.parent", bind=True)
    async def parent(self) -> int:
        child = await add.aapply_async((5, 5), task_id="child-id")
        members = await group(add.s(n, n) for n in (6, 7)).aapply_async()
        await child.aget(disable_sync_subtasks=False)
        await members.aget(disable_sync_subtasks=False)
        return 0

    async with Bench(app).working():
        body = await chord([add.s(1, 1), add.s(2, 2)], total.s()).aapply_async()
        assert await body.aget(timeout=GET) == 6
        ours = body.parent
        assert isinstance(ours, GroupResult)
        await ours.asave()
        above = await parent.adelay()
        assert await above.aget(timeout=GET) == 0
        failed = await fail.adelay()
        with pytest.raises(ValueError, match="ours"):
            await failed.aget(timeout=GET)
    ids = {"body": body.id, "group": ours.id, "parent": above.id, "failed": failed.id}
    reader = await asyncio.create_subprocess_exec(
        sys.executable, "-c", READER, json.dumps(ids), stdout=asyncio.subprocess.PIPE, cwd=ROOT
    )
    async with asyncio.timeout(60):
        output, _ = await reader.communicate()
    seen = json.loads(output)
    children = await above.achildren()
    assert seen == {
        "body": 6,
        "saved": [2, 4],
        "states": [True, True, 2],
        "child": 10,
        "inner": ["GroupResult", children[1].id, [12, 14]],
        "failed": "ours",
    }
    theirs = await app.arestore_group("theirs")
    assert await theirs.aget(timeout=GET) == [2, 4]
    assert theirs.parent == body


async def test_we_read_what_a_celery_worker_and_its_children_returned(app):
    async with celery_worker(app):
        sent = await app.asend_task("celery.spread", ([2, 3],), queue="celery-side")
        assert await sent.aget(timeout=GET) == 2
        child, members = await app.AsyncResult(sent.id).achildren()
        assert isinstance(members, GroupResult)
        assert await child.aget(timeout=GET) == 2
        assert await members.aget(timeout=GET) == [4, 6]
        found = [value async for _, value in app.AsyncResult(sent.id).acollect()]
        assert found == [2, 2, [4, 6], 4, 6]


async def test_a_celery_worker_runs_the_steps_of_our_chain(app):
    def add(*args):
        return app.signature("celery.add", args, queue="celery-side")

    async with celery_worker(app):
        result = await chain(add(1, 1), add(10), add(100)).aapply_async()
        assert await result.aget(timeout=GET) == 112
        assert await result.parent.aget(timeout=GET) == 12


async def test_stamps_travel_to_celery_workers_and_back(app):
    @app.task(name="ours.stamps", bind=True, queue="default")
    def ours(self, *before):
        return [*(before[0] if before else ()), self.request.stamps]

    def theirs():
        return app.signature("celery.stamps", queue="celery-side")

    async with celery_worker(app), Bench(app).working():
        steps = chain(ours.s(), theirs(), theirs())
        result = await steps.stamp(tenant="acme", job=[1, 2]).aapply_async()
        assert await result.aget(timeout=GET) == [{"tenant": "acme", "job": [1, 2]}] * 3


STAMPED = """
import os
from celery import Celery, chain
from kombu import Exchange, Queue
app = Celery("p", broker=os.environ["AMQFLOW_BROKER"], backend=os.environ["AMQFLOW_BACKEND"])
# The queue is ours: Celery does not declare it.
ours = Queue("default", Exchange(""), routing_key="default", no_declare=True)
app.conf.update(task_queues=[ours], task_default_queue="default")
steps = chain(*(app.signature("ours.stamps") for _ in range(3)))
steps.stamp(tenant="acme")
print(steps.apply_async().get(timeout=60))
"""


async def test_a_celery_callers_stamps_reach_every_step_here(app):
    @app.task(name="ours.stamps", bind=True)
    def ours(self, *before):
        return [*(before[0] if before else ()), [self.request.stamps, self.request.stamped_headers]]

    async with Bench(app).working():
        caller = await asyncio.create_subprocess_exec(
            sys.executable, "-c", STAMPED, stdout=asyncio.subprocess.PIPE, cwd=ROOT
        )
        async with asyncio.timeout(90):
            output, _ = await caller.communicate()
    assert output.decode().strip() == str([[{"tenant": "acme"}, ["tenant"]]] * 3)


async def test_results_kept_with_their_call_are_read_by_celery_and_from_it(amqp_url, redis_url):
    app = AmqFlow("interop", broker=amqp_url, backend=redis_url, result_extended=True)

    @app.task(name="ours.again", bind=True, max_retries=1)
    def again(self, value, *, named):
        if not self.request.retries:
            raise self.retry(countdown=0)
        return value

    try:
        async with Bench(app).working():
            sent = await again.aapply_async((1,), {"named": [2]})
            assert await sent.aget(timeout=GET) == 1
        read = Celery("reader", backend=redis_url, set_as_current=False).AsyncResult(sent.id)
        ours = app.AsyncResult(sent.id)
        await ours.aoutcome()
        for result in (read, ours):
            assert (result.args, result.kwargs, result.retries) == ([1], {"named": [2]}, 1)
            assert result.worker
        assert (read.name, read.queue) == ("ours.again", "default")
    finally:
        await app.aclose()
