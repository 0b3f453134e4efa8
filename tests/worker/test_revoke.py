"""Revoking: before a task is sent, while it waits, in a delay, while it runs, across restarts."""

import asyncio
import time
from contextlib import AsyncExitStack

import pytest

from amqflow import AmqFlow, TaskRevoked, chain, group, signals
from amqflow.dev.hosting import Host
from amqflow.errors import NoResultStore
from amqflow.guards.revocations import Revoked
from amqflow.middleware import Middleware
from amqflow.protocol import TaskMessage
from amqflow.protocol.revocation import Revocation, Target
from tests.applications import Bench
from tests.servers.wait import until


@pytest.fixture(params=["redis", "embedded"])
async def bench(request, tmp_path, monkeypatch):
    """An application on RabbitMQ and Redis, and one on what `amqflow dev` serves."""
    async with AsyncExitStack() as around:
        if request.param == "embedded":
            tmp_path.chmod(0o700)
            monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path))
            await around.enter_async_context(Host("suite"))
            broker = backend = "embedded://suite"
        else:
            broker, backend = map(request.getfixturevalue, ("amqp_url", "redis_url"))
        app = AmqFlow("spine", broker=broker, backend=backend)
        around.push_async_callback(app.aclose)
        yield Bench(app)


def tasks_of(app, runs):
    @app.task(name="count", bind=True)
    def count(self):
        runs[self.request.id] += 1

    @app.task(name="acount", bind=True)
    async def acount(self):
        runs[self.request.id] += 1

    return count, acount


async def declared(bench):
    async with bench.working():
        pass


async def ended(app, task_id):
    """Assert that a task ended as revoked: ready, neither successful nor failed."""
    result = app.AsyncResult(task_id)
    with pytest.raises(TaskRevoked):
        await result.aget(timeout=60)
    assert await result.astate() == "REVOKED"
    assert await result.aready()
    assert not await result.asuccessful()
    assert not await result.afailed()


async def test_a_task_revoked_before_it_is_sent_never_runs(bench, runs):
    count, _ = tasks_of(bench.app, runs)
    await declared(bench)
    await bench.app.arevoke(["early"])
    await ended(bench.app, "early")
    await count.aapply_async(task_id="early")
    async with bench.working():
        await (await count.adelay()).aget(timeout=60)
    assert runs["early"] == 0
    assert await bench.count("default") == 0
    assert await bench.count("default.dead") == 0


async def test_a_waiting_task_is_answered_at_once_and_never_runs(bench, runs):
    count, _ = tasks_of(bench.app, runs)
    await declared(bench)
    sent = await count.adelay()
    await bench.app.arevoke(sent.id)
    await ended(bench.app, sent.id)  # no worker is there
    async with bench.working():
        await (await count.adelay()).aget(timeout=60)
    assert runs[sent.id] == 0


@pytest.mark.parametrize("keeps", [True, False])
async def test_a_task_in_a_delay_is_revoked_whether_its_result_is_kept_or_not(bench, runs, keeps):
    count, _ = tasks_of(bench.app, runs)
    async with bench.working() as worker:
        sent = await count.aapply_async(countdown=0.8, ignore_result=not keeps)
        await bench.app.arevoke(sent.id)
        await until(lambda: worker.counts["REVOKED"] == 1, deadline=60)
    assert runs[sent.id] == 0


async def test_a_task_between_two_attempts_is_revoked(bench, runs):
    @bench.app.task(name="again", bind=True, max_retries=5)
    def again(self):
        runs["again"] += 1
        raise self.retry(countdown=1)

    async with bench.working() as worker:
        sent = await again.adelay()
        await until(lambda: worker.counts["RETRY"] == 1, deadline=60)
        await bench.app.arevoke(sent.id)
        await ended(bench.app, sent.id)
        await until(lambda: worker.counts["REVOKED"] == 1, deadline=60)
    assert runs["again"] == 1


async def test_what_a_worker_holds_but_has_not_started_is_revoked_there(bench, runs):
    count, _ = tasks_of(bench.app, runs)
    go = asyncio.Event()

    @bench.app.task(name="hold")
    async def hold():
        await go.wait()

    async with bench.working(slots=1) as worker:
        holding = await hold.adelay()
        await until(lambda: worker._executor.running == 1)
        waiting = await count.adelay()
        await until(lambda: worker._executor.waiting == 1)
        await bench.app.arevoke(waiting.id)
        await ended(bench.app, waiting.id)
        go.set()
        await holding.aget(timeout=60)
    assert runs[waiting.id] == 0


async def test_a_running_task_goes_on_unless_it_is_to_be_terminated(bench, runs):
    seen = []

    @signals.task_revoked.connect
    def revoked(terminated=None, **_):
        seen.append(terminated)

    started, go = asyncio.Event(), asyncio.Event()

    @bench.app.task(name="hold")
    async def hold():
        runs["hold"] += 1
        started.set()
        await go.wait()
        return "done"

    async with bench.working() as worker:
        first = await hold.adelay()
        await started.wait()
        await bench.app.arevoke(first.id)
        started.clear()
        second = await hold.adelay()
        await started.wait()
        await bench.app.arevoke(second.id, terminate=True)
        await ended(bench.app, second.id)
        go.set()
        assert await first.aget(timeout=60) == "done"
        await until(lambda: worker.counts["REVOKED"] == 1)
    assert seen == [True]
    signals.task_revoked.disconnect(revoked)


async def test_a_revocation_outlives_every_worker(bench, runs):
    count, _ = tasks_of(bench.app, runs)
    async with bench.working():
        await bench.app.arevoke("later")
    sent = await count.aapply_async(task_id="later", ignore_result=True)
    async with bench.working() as worker:
        await until(lambda: worker.counts["REVOKED"] == 1, deadline=60)
    assert runs[sent.id] == 0


async def test_tasks_of_a_name_sent_until_then_are_revoked_and_later_ones_run(bench, runs):
    count, acount = tasks_of(bench.app, runs)
    await declared(bench)
    before = [await count.adelay() for _ in range(3)]
    other = await acount.adelay()
    await bench.app.control.arevoke_tasks("count")
    # The wire keeps whole seconds: what is sent within the same one counts as sent before.
    await asyncio.sleep(1.1)
    after = await count.adelay()
    async with bench.working():
        await after.aget(timeout=60)
        await other.aget(timeout=60)
        for sent in before:
            await ended(bench.app, sent.id)
    assert runs == {after.id: 1, other.id: 1}


class Stamping(Middleware):
    """Stamps every call with the tenant it is for, as an application's own middleware does."""

    def before_publish(self, message):
        if "tenant" in message.extra:
            message.stamps = {"tenant": [message.extra["tenant"]]}
            message.stamped_headers = ["tenant"]


async def test_a_stamp_revokes_what_is_sent_before_and_after(amqp_url, redis_url, runs):
    app = AmqFlow("stamps", broker=amqp_url, backend=redis_url, middleware=[Stamping()])
    bench = Bench(app)
    count, _ = tasks_of(app, runs)
    await declared(bench)

    async def send(tenant):
        return await count.aapply_async(headers={"tenant": tenant})

    before, other = await send("acme"), await send("other")
    await app.control.arevoke_by_stamped_headers({"tenant": ["acme", "beta"]})
    async with bench.working():
        after = await send("beta")
        for sent in (before, after):
            await ended(app, sent.id)
        await other.aget(timeout=60)
    assert runs == {other.id: 1}
    await app.aclose()


async def test_what_is_stamped_is_revoked_by_its_stamp(bench, runs):
    app = bench.app
    count, acount = tasks_of(app, runs)
    await declared(bench)
    one = await count.s().stamp(tenant="acme").aapply_async()
    by_option = await count.aapply_async(stamps={"tenant": ["beta", "acme"]})
    spared = await count.s().stamp(tenant="other").aapply_async()
    steps = chain(count.si(), group(count.si(), acount.si()), count.si()).stamp(tenant="acme")
    last = await steps.aapply_async()
    await app.control.arevoke_by_stamped_headers({"tenant": "acme"})
    async with bench.working():
        await spared.aget(timeout=60)
        for sent in (one, by_option, last.parent.parent):
            await ended(app, sent.id)
        # What waits for the first step is revoked with it.
        with pytest.raises(TaskRevoked):
            await last.aget(timeout=60)
    assert runs == {spared.id: 1}


async def test_a_task_sees_its_stamps_and_so_does_what_follows_it(bench):
    app, seen = bench.app, []

    @app.task(name="see", bind=True)
    def see(self, *_before):
        seen.append((self.request.stamps, self.request.stamped_headers))

    @app.task(name="again", bind=True, max_retries=1)
    def again(self, *_before):
        if not self.request.retries:
            raise self.retry(countdown=0)
        return self.replace(chain(see.s(), see.s()))

    async with bench.working():
        await (await see.adelay()).aget(timeout=60)
        assert seen == [({}, None)]
        seen.clear()
        steps = chain(see.si(), again.s(), link=see.s())
        await (await steps.stamp(tenant="acme").aapply_async()).aget(timeout=60)
        await until(lambda: len(seen) == 4)
    assert seen == [({"tenant": "acme"}, ["tenant"])] * 4


async def test_a_lifted_revocation_is_forgotten_by_the_workers(bench, runs):
    count, _ = tasks_of(bench.app, runs)
    async with bench.working() as worker:
        await bench.app.arevoke_all(Target.ROOT, ["workflow"])
        await until(lambda: len(worker._revoked) == 1)
        assert await bench.app.alift(Target.ROOT, ["workflow"]) == 1
        await until(lambda: len(worker._revoked) == 0)
        assert await bench.app.alift(Target.ROOT, ["workflow"]) == 0
        await (await count.aapply_async(task_id="workflow")).aget(timeout=60)
    assert runs["workflow"] == 1


async def test_memory_keeps_revocations_for_the_process(amqp_url, runs):
    app = AmqFlow("memory", broker=amqp_url, backend="memory://")
    count, _ = tasks_of(app, runs)
    bench = Bench(app)
    try:
        await app.arevoke("early")
        async with bench.working() as worker:
            await count.aapply_async(task_id="early")
            await until(lambda: worker.counts["REVOKED"] == 1, deadline=60)
            await app.arevoke_all(Target.TASK, ["count"])
            await until(lambda: len(worker._revoked) == 2)
        assert not runs
    finally:
        await app.aclose()


async def test_without_a_shared_store_revoking_says_what_is_missing(amqp_url):
    app = AmqFlow("none", broker=amqp_url, backend=None)
    with pytest.raises(NoResultStore, match="redis://"):
        await app.arevoke("x")
    await app.aclose()


def test_a_blocking_caller_revokes_as_in_celery(amqp_url, redis_url):
    with AmqFlow("blocking", broker=amqp_url, backend=redis_url) as app:
        app.control.revoke("one", terminate=True, signal="SIGKILL")
        app.control.revoke(["two", "three"])
        app.control.terminate("four")
        found = {one.value: one.terminate for one in app.control.revocations()}
        assert found == {"one": True, "two": False, "three": False, "four": True}
        assert app.AsyncResult("one").state == "REVOKED"
        assert app.control.lift("id", ["one", "two"]) == 2


def test_a_replay_runs_what_was_revoked_in_an_earlier_life():
    one = Revocation(Target.ID, "x", at=0.0, expires=1e12)
    assert one.concerns(TaskMessage("x", "t"))
    assert not one.concerns(TaskMessage("x", "t", extra={"amqflow-epoch": 1}))


def test_revocations_that_have_expired_are_dropped():
    class Clock:
        def now(self):
            return time.time()

    revoked = Revoked(Clock())
    revoked.add(
        Revocation(Target.ID, str(n), at=0.0, expires=time.time() + (1000 if n % 100 == 0 else -1))
        for n in range(3000)
    )
    assert len(revoked) == 30


async def test_a_handle_is_revoked_as_its_id_is():
    app = AmqFlow("handles", broker="amqp://nobody@localhost:1/", backend="memory://")
    told = []

    async def noted(target, values, **_how):
        told.append((target, list(values)))

    app.arevoke_all = noted
    group = app.GroupResult("g", [app.AsyncResult("b"), app.AsyncResult("c")])
    await app.control.arevoke(app.AsyncResult("a"))
    await app.control.arevoke(["x", group])
    assert told == [(Target.ID, ["a"]), (Target.ID, ["x", "b", "c"])]
    for nothing in (None, 5, b"id", ["x", None]):
        with pytest.raises(TypeError, match="expected a task's id or its handle, or several, got"):
            await app.control.arevoke(nothing)
    with pytest.raises(TypeError, match="expected a task's name"):
        await app.control.arevoke_tasks(None)
    await app.aclose()
