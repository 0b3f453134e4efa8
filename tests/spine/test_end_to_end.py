"""A task travels the whole way: sent, run, settled, its result read back."""

import asyncio
import os
import threading
import time
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from uuid import UUID, uuid4

import pytest
import redis

from amqflow import (
    AmqFlow,
    InvalidArguments,
    PublishError,
    ResultTimeout,
    SoftTimeLimitExceeded,
    SyncInLoop,
    TaskRevoked,
    TimeLimitExceeded,
    Unroutable,
)
from amqflow.errors import NoResultStore, PublishTimeout, UnknownTask
from tests.applications import Bench
from tests.servers.toxic import TcpProxy
from tests.servers.wait import until


async def test_def_and_async_def_give_their_results(bench):
    @bench.app.task
    def add(x: int, y: int) -> int:
        return x + y

    @bench.app.task
    async def double(x: int) -> int:
        await asyncio.sleep(0)
        return 2 * x

    async with bench.working():
        assert await (await add.adelay(2, 3)).aget(timeout=30) == 5
        assert await (await double.adelay(4)).aget(timeout=30) == 8


async def test_exact_values_round_trip(bench):
    @bench.app.task
    def echo(value):
        return value

    values = [
        2**80,
        Decimal("1.10"),
        uuid4(),
        datetime(2026, 1, 2, 3, 4, 5, 678901, UTC),
        {"a": [1, None, True, "é"]},
        float("inf"),
    ]
    async with bench.working():
        results = [await (await echo.adelay(value)).aget(timeout=30) for value in values]
    assert results == values
    assert isinstance(results[2], UUID)


async def test_the_request_tells_where_the_task_came_from(bench):
    @bench.app.task(bind=True, queue="mail", priority=3)
    def inspect(self, x):
        request = self.request
        return {
            "id": request.id,
            "root": request.root_id,
            "retries": request.retries,
            "queue": request.delivery_info["queue"],
            "priority": request.delivery_info["priority"],
            "args": list(request.args),
            "host": request.hostname,
        }

    async with bench.working():
        result = await inspect.aapply_async((1,), task_id="chosen-id")
        seen = await result.aget(timeout=30)
    assert seen == {
        "id": "chosen-id",
        "root": "chosen-id",
        "retries": 0,
        "queue": "mail",
        "priority": 3,
        "args": [1],
        "host": "test",
    }


async def test_a_failure_raises_the_tasks_own_error(bench):
    @bench.app.task
    def fail():
        raise KeyError("missing")

    async with bench.working():
        with pytest.raises(KeyError, match="missing"):
            await (await fail.adelay()).aget(timeout=30)


async def test_wrong_arguments_raise_at_the_caller(bench):
    @bench.app.task
    def add(x: int, y: int) -> int:
        return x + y

    with pytest.raises(InvalidArguments, match="'x'"):
        await add.adelay("one", 2)
    with pytest.raises(InvalidArguments, match="missing"):
        await add.adelay(1)


async def test_retry_with_backoff_keeps_id_priority_and_arguments(bench):
    seen = []

    @bench.app.task(
        bind=True,
        autoretry_for=(OSError,),
        retry_backoff=0.1,
        retry_jitter=False,
        max_retries=3,
    )
    def flaky(self, x):
        seen.append((self.request.id, self.request.retries, x, time.monotonic()))
        if self.request.retries < 2:
            raise OSError("again")
        return self.request.delivery_info["priority"]

    async with bench.working():
        result = await flaky.aapply_async((7,), priority=6)
        assert await result.aget(timeout=15) == 6
    assert [entry[:3] for entry in seen] == [(result.id, n, 7) for n in range(3)]
    assert seen[1][3] - seen[0][3] >= 0.1
    assert seen[2][3] - seen[1][3] >= 0.2


async def test_self_retry_may_change_the_arguments(bench):
    @bench.app.task(bind=True)
    def walk(self, step):
        if step < 3:
            raise self.retry(args=(step + 1,), countdown=0)
        return step

    async with bench.working():
        assert await (await walk.adelay(1)).aget(timeout=15) == 3


async def test_a_delayed_call_waits_for_a_broker_that_is_away_as_another_one_does(
    bench, amqp_url, redis_url
):
    async with TcpProxy(amqp_url) as proxy:
        app = AmqFlow("spine", broker=proxy.url, backend=redis_url)
        async with bench.working():
            pass  # declares what is missing
        proxy.refuse()
        sending = asyncio.create_task(app.asend_task("t", countdown=60))
        await asyncio.sleep(0.3)
        assert not sending.done()
        await proxy.listen()
        assert (await sending).id
        proxy.refuse()
        proxy.drop_connections()
        with pytest.raises(PublishTimeout, match=r"within 0\.2 s"):
            await app.asend_task("t", queue="other", countdown=60, timeout=0.2)
        await app.aclose()


async def test_an_autoretry_goes_by_its_retry_kwargs(bench):
    seen = []

    @bench.app.task(
        bind=True,
        name="t",
        autoretry_for=(OSError,),
        retry_kwargs={"max_retries": 1, "countdown": 0, "priority": 7, "time_limit": 9},
    )
    def task(self):
        info = self.request.delivery_info
        seen.append((info["priority"], self.request.timelimit[0]))
        raise OSError

    async with bench.working():
        with pytest.raises(OSError):
            await (await task.adelay()).aget(10)
    assert seen == [(None, None), (7, 9)]


async def test_replies_come_again_after_the_reply_queue_has_expired(amqp_url, monkeypatch):
    """As it does where the caller was away for longer than its five minutes."""
    monkeypatch.setattr("amqflow.app.replies.KEEP_REPLIES", 0.1)
    app = AmqFlow("spine", broker=amqp_url, backend="rpc://")

    @app.task(name="t")
    def task(x: int) -> int:
        return x

    async with Bench(app).working():
        assert await (await task.adelay(1)).aget(10) == 1
        runtime = app.runtime()
        await runtime.transport.delete_queue(runtime.store.reply_to)
        await until(lambda: not runtime._replies._consumer.active)
        await until(lambda: runtime._replies._consumer.active, deadline=60)
        assert await (await task.adelay(2)).aget(10) == 2
    await app.aclose()


async def test_countdown_is_never_early(bench):
    @bench.app.task
    def now():
        return time.time()

    async with bench.working():
        sent = [
            (time.time() + delay, await now.aapply_async(countdown=delay))
            for delay in (0.05, 0.3, 0.75, 1.1)
        ]
        for due, result in sent:
            lateness = await result.aget(timeout=15) - due
            assert -0.005 <= lateness < 2


async def test_a_delayed_call_to_an_exchange_arrives_there(bench):
    transport = bench.app.runtime().transport

    @bench.app.task(queue="inbox")
    def hello():
        return "hi"

    async with bench.working():
        await transport.declare_exchange("events", "topic")
        await transport.bind_queue("inbox", "events", "greet.#")
        result = await hello.aapply_async(
            exchange="events", routing_key="greet.world", countdown=0.2
        )
        assert await result.aget(timeout=15) == "hi"


async def test_an_eta_from_a_client_without_a_ladder_is_kept(bench):
    """Celery's own clients put the message into the queue at once, with its eta."""

    @bench.app.task
    def now():
        return time.time()

    async with bench.working():
        due = datetime.now(UTC) + timedelta(seconds=0.8)
        call = now.signature().to_dict()
        from amqflow.producer import Outgoing
        from amqflow.protocol import TaskMessage, new_id

        message = TaskMessage(new_id(), call["task"], eta=due.timestamp())
        producer = bench.app.runtime().producer
        await producer.publish(Outgoing(producer.encode(message), "", "default"))
        ran = await bench.app.AsyncResult(message.id).aget(timeout=15)
    assert ran >= due.timestamp() - 0.005


async def test_expired_tasks_are_revoked_unrun_and_not_parked(bench, runs):
    @bench.app.task
    def late():
        runs["late"] += 1

    async with bench.working():
        result = await late.aapply_async(countdown=0.5, expires=0.1)
        with pytest.raises(TaskRevoked):
            await result.aget(timeout=15)
        assert await bench.count("default.dead") == 0
    assert not runs


async def test_links_and_errbacks_run_once_with_what_they_need(bench):
    seen = []

    @bench.app.task
    def add(x, y):
        return x + y

    @bench.app.task
    def note(value):
        seen.append(value)

    @bench.app.task
    def fail():
        raise ValueError("no")

    @bench.app.task
    def sorry(request, error, trace):
        seen.append((request.task.rpartition(".")[2], str(error), "ValueError" in trace))

    async with bench.working():
        await add.aapply_async((1, 2), link=[note.s(), add.s(10)])
        await fail.aapply_async(link_error=sorry.s())
        await until(lambda: len(seen) == 2, deadline=30)
    assert set(seen) == {3, ("fail", "no", True)}


async def test_soft_limit_can_be_caught_in_a_coroutine_and_in_a_thread(bench):
    @bench.app.task(soft_time_limit=0.2)
    async def patient():
        try:
            await asyncio.sleep(30)
        except SoftTimeLimitExceeded:
            return "caught"

    @bench.app.task(soft_time_limit=0.2)
    def busy():
        try:
            while True:
                time.sleep(0.01)
        except SoftTimeLimitExceeded:
            return "caught"

    async with bench.working():
        assert await (await patient.adelay()).aget(timeout=30) == "caught"
        assert await (await busy.adelay()).aget(timeout=30) == "caught"


async def test_hard_limit_frees_the_slot(bench):
    release = threading.Event()

    @bench.app.task(time_limit=0.3)
    def stuck():
        release.wait(30)

    @bench.app.task(time_limit=0.3)
    async def asleep():
        await asyncio.sleep(30)

    @bench.app.task
    def fine():
        return 1

    try:
        async with bench.working(slots=1):
            for task in (stuck, asleep):
                with pytest.raises(TimeLimitExceeded):
                    await (await task.adelay()).aget(timeout=30)
            assert await (await fine.adelay()).aget(timeout=30) == 1
    finally:
        release.set()


async def test_update_state_is_seen_while_the_task_runs(bench):
    go = threading.Event()

    @bench.app.task(bind=True)
    def long(self):
        self.update_state(state="PROGRESS", meta={"done": 5})
        go.wait(10)

    async with bench.working():
        result = await long.adelay()

        async def progressed():
            return await result.astate() == "PROGRESS"

        await until(progressed, deadline=30)
        go.set()
        await result.aget(timeout=30)
        assert await result.astate() == "SUCCESS"


async def test_started_is_shown_when_tracked(bench):
    go = threading.Event()

    @bench.app.task(track_started=True)
    def long():
        go.wait(10)

    async with bench.working():
        result = await long.adelay()

        async def started():
            return await result.astate() == "STARTED"

        await until(started, deadline=30)
        go.set()
        await result.aget(timeout=30)


async def test_priorities_order_what_a_worker_holds(bench):
    order = []
    started, gate = threading.Event(), threading.Event()

    @bench.app.task(queue="prio", priority=0)
    def work(level):
        started.set()
        gate.wait(60)
        order.append(level)

    async with bench.working("prio", slots=1, multiplier=8) as worker:
        await work.aapply_async((2,), priority=2)
        await until(started.is_set, deadline=30)
        for level in [5, 1, 9, 3, 7, 0, 8]:
            await work.aapply_async((level,), priority=level)
        await until(lambda: worker.status()["waiting"] == 7, deadline=60)
        gate.set()
        await until(lambda: len(order) == 8, deadline=30)
    assert order == [2, 9, 8, 7, 5, 3, 1, 0]


async def test_a_get_that_times_out_says_why(bench):
    @bench.app.task(queue="email")
    def send():
        return None

    async with bench.working("email"):
        pass
    result = await send.adelay()
    with pytest.raises(ResultTimeout, match="queue email: 1 ready, 0 consumers"):
        await result.aget(timeout=0.2)


async def test_an_unroutable_call_raises_and_says_what_to_do(bench):
    @bench.app.task(queue="nowhere")
    def lost():
        return None

    with pytest.raises(Unroutable, match="start a worker"):
        await lost.adelay()


async def test_an_unknown_task_fails_at_once(bench):
    async with bench.working():
        with pytest.raises(UnknownTask, match=r"no\.such"):
            await (await bench.app.asend_task("no.such")).aget(timeout=30)


async def test_blocking_verbs_inside_a_loop_name_their_twin(bench):
    @bench.app.task
    def add(x, y):
        return x + y

    with pytest.raises(SyncInLoop, match="adelay"):
        add.delay(1, 2)


def test_blocking_verbs_work_in_plain_code(amqp_url, redis_url):
    from tests.servers.command import Command
    from tests.servers.wait import until_sync

    app = AmqFlow("plain", broker=amqp_url, backend=redis_url)
    ready = Command(
        *("-m", "amqflow", "-A", "tests.spine.plain_app", "worker", "-c", "2"),
        env={**os.environ, "AMQFLOW_BROKER": amqp_url, "AMQFLOW_BACKEND": redis_url},
    )
    try:

        def answered():
            try:
                return app.send_task("plain.add", (2, 3)).get(timeout=60) == 5
            except PublishError:  # the queue is not there yet, or elects its leader
                return False

        until_sync(answered, deadline=60)
    finally:
        ready.terminate()
        assert ready.wait(20) == 0
        app.close()


async def test_rpc_results_come_back_as_messages(amqp_url):
    app = AmqFlow("rpc", broker=amqp_url, backend="rpc://")

    @app.task
    def add(x: int, y: int) -> int:
        return x + y

    async with Bench(app).working():
        results = await asyncio.gather(*(add.adelay(i, i) for i in range(50)))
        values = await asyncio.gather(*(result.aget(timeout=30) for result in results))
    assert values == [2 * i for i in range(50)]


async def test_without_a_backend_a_result_cannot_be_asked_for(amqp_url):
    app = AmqFlow("none", broker=amqp_url)
    with pytest.raises(NoResultStore, match="backend"):
        await app.AsyncResult("x").aget(timeout=1)
    await app.aclose()


async def test_waiting_for_a_forgotten_id_times_out_and_says_where_things_are(bench):
    @bench.app.task
    async def echo(x):
        return x

    async with bench.working():
        result = await echo.adelay(1)
        assert await result.aget(timeout=30) == 1
        await result.aforget()
        assert await result.astate() == "PENDING"
        with pytest.raises(ResultTimeout, match=r"queue default: 0 ready, \d consumers"):
            await result.aget(timeout=0.5)
        nowhere = "in no queue known here, and the store knows nothing of it"
        with pytest.raises(ResultTimeout, match=f"within 0.5 s: it is {nowhere}"):
            await bench.app.AsyncResult(result.id).aget(timeout=0.5)
        blocking = bench.app.AsyncResult(result.id)
        with pytest.raises(ResultTimeout, match=nowhere):
            await asyncio.to_thread(blocking.get, timeout=0.5)


@pytest.mark.slow
async def test_ten_thousand_results_awaited_at_once_come_through_one_connection(bench, redis_url):
    go = asyncio.Event()

    @bench.app.task
    async def echo(x):
        await go.wait()
        return x

    def subscribed():
        """Return how many channels each connection to this database has subscribed to."""
        number = str(client.get_connection_kwargs()["db"])
        connections = client.client_list(_type="pubsub")
        return sorted(int(one["sub"]) for one in connections if one["db"] == number)

    with redis.Redis.from_url(redis_url, decode_responses=True) as client:
        async with bench.working(slots=8, multiplier=16):
            await until(subscribed, deadline=30)
            before = subscribed()  # the worker hears of revocations
            results = []
            for start in range(0, 10_000, 500):
                sending = (echo.aapply_async((n,), timeout=60) for n in range(start, start + 500))
                results += await asyncio.gather(*sending)
            waiting = [asyncio.create_task(result.aget(timeout=120)) for result in results]
            try:
                await until(lambda: sum(subscribed()) >= 10_000, deadline=60)
                assert subscribed() == [*before, 10_000]
            finally:
                go.set()
            assert await asyncio.gather(*waiting) == list(range(10_000))


async def test_stopping_hands_back_what_has_not_started(bench, runs):
    started, go = threading.Event(), threading.Event()

    @bench.app.task
    def slow(n):
        runs[n] += 1
        started.set()
        go.wait(20)
        return n

    async with bench.working(slots=1) as worker:
        results = [await slow.adelay(n) for n in range(4)]
        await until(started.is_set, deadline=30)
        worker.stop()
        go.set()
    assert sum(runs.values()) == 1
    assert await bench.count("default") == 3
    async with bench.working(slots=1):
        assert [await result.aget(timeout=30) for result in results] == [0, 1, 2, 3]
    assert max(runs.values()) == 1


async def test_a_delayed_call_to_a_queue_that_is_not_there_raises_as_an_undelayed_one(bench):
    @bench.app.task
    def task(): ...

    async with bench.working():
        with pytest.raises(Unroutable, match="queue 'typo'"):
            await task.aapply_async((), queue="typo")
        with pytest.raises(Unroutable, match="queue 'typo'"):
            await task.aapply_async((), queue="typo", countdown=0.5)
        await task.aapply_async((), countdown=600)
        assert await bench.count("amqflow.undelivered") == 0
