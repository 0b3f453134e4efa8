"""What a claim in the store may do to a message: never lose it, never run a `once` task twice."""

import asyncio
import time

import pytest

from amqflow import AmqFlow, signals
from amqflow.abc import Attempt, Finish, Outcome
from amqflow.middleware import Middleware
from amqflow.protocol import TaskMessage, encode
from amqflow.protocol import headers as h
from amqflow.topology import AppNames
from amqflow.worker.away import away_message
from amqflow.worker.settlement import Received
from tests.applications import Bench
from tests.servers.toxic import TcpProxy
from tests.servers.wait import until


async def test_a_claim_of_a_lost_connection_does_not_lose_the_task_that_runs_again(
    amqp_url, redis_url
):
    """The store away, then the broker's connection: old claims come after the new ones."""
    async with (
        TcpProxy(redis_url) as to_redis,
        TcpProxy(amqp_url) as to_broker,
    ):
        app = AmqFlow("claims", broker=to_broker.url, backend=to_redis.url)
        runs: dict[int, int] = {}

        @app.task(name="slow")
        async def slow(i: int) -> int:
            runs[i] = runs.get(i, 0) + 1
            await asyncio.sleep(1.5)
            return i

        sender = AmqFlow("claims", broker=amqp_url, backend=redis_url)
        async with Bench(app).working(slots=20):
            to_redis.refuse()
            to_redis.drop_connections()
            sent = []
            for i in range(10):
                sent.append(await sender.asend_task("slow", (i,)))
                await asyncio.sleep(0.1)
            to_broker.drop_connections()
            await asyncio.sleep(1)
            await to_redis.listen()
            results = [await (sender.AsyncResult(one.id)).aget(30) for one in sent]
        assert results == list(range(10))
        await app.aclose()
        await sender.aclose()


@pytest.mark.parametrize("ignore_result", [False, True])
async def test_two_copies_of_a_once_task_run_once_in_one_worker(bench, runs, ignore_result):
    @bench.app.task(name="t", ignore_result=ignore_result)
    async def task():
        runs["t"] += 1
        await asyncio.sleep(0.5)

    once = {h.ONCE: True}
    async with bench.working():
        for _ in range(2):
            await task.aapply_async((), task_id="same", headers=once)
        await until(lambda: runs["t"] == 1)
        await asyncio.sleep(0.7)
        await task.aapply_async((), task_id="same", headers=once)
        other = await bench.app.asend_task("t", task_id="other")
        await until(lambda: runs["t"] == 2, message="the other one; the third copy does not run")
        del other
    assert runs["t"] == 2


@pytest.mark.parametrize(
    ("source", "counted", "mark"), [("default", 1, 1), ("default.suspect", 2, 4)]
)
async def test_what_waits_for_a_lease_keeps_its_count_of_returns(bench, source, counted, mark):
    """Else a `once` task that kills its worker each time would never be found out."""

    @bench.app.task(name="t")
    def task():
        """Run nowhere."""

    store = await bench.app.runtime().opened_store()
    await store.begin([Attempt("id", owner="the dead", once=True, lease=60)])
    message = encode(TaskMessage("id", "t", [], {}, extra={h.ONCE: True}))
    message.headers["x-delivery-count"] = counted  # as a quorum queue would have it
    async with bench.working():
        producer = bench.app.runtime().producer
        sent, publish = [], producer.publish

        async def noted(outgoing, **options):
            sent.append(outgoing.envelope.headers)
            await publish(outgoing, **options)

        producer.publish = noted
        await bench.app.runtime().transport.publish(message, "", source, timeout=10)
        await until(lambda: sent)
    assert sent[0][h.REDELIVERED] == mark


async def test_a_once_task_whose_end_could_go_nowhere_is_not_leased_for_ever(
    amqp_url, redis_url, runs, monkeypatch
):
    """Store and broker away at its end: it comes again, and its old lease is not renewed."""
    monkeypatch.setattr("amqflow.worker.intake.BUSY_DELAY", 0.3)
    async with TcpProxy(redis_url) as to_redis, TcpProxy(amqp_url) as to_broker:
        app = AmqFlow("claims", broker=to_broker.url, backend=to_redis.url, once_lease=1.5)
        ending = asyncio.Event()

        @app.task(name="t")
        async def task() -> int:
            runs["t"] += 1
            await ending.wait()
            return 5

        sender = AmqFlow("claims", broker=amqp_url, backend=redis_url)
        async with Bench(app).working() as worker:
            sent = await sender.asend_task("t", headers={h.ONCE: True})
            await until(lambda: runs["t"] == 1)
            for proxy in (to_redis, to_broker):
                proxy.refuse()
                proxy.drop_connections()
            await until(lambda: not any(job.delivery.live for job in worker._held))
            ending.set()
            await until(lambda: not worker._executor.running and not worker._settler.busy)
            await to_redis.listen()
            await to_broker.listen()
            assert await sent.aget(15) == 5
        await app.aclose()
        await sender.aclose()
    assert runs["t"] == 2


async def test_early_acks_take_no_more_than_the_prefetch_window(bench, runs):
    @bench.app.task(name="t", acks_late=False, ignore_result=True)
    async def task(i: int):
        await asyncio.sleep(0.2)
        runs[i] += 1

    async with bench.working(slots=1):
        pass
    await asyncio.gather(*(task.adelay(i) for i in range(100)))
    async with bench.working(slots=1, multiplier=4) as worker:
        await until(lambda: len(runs) >= 2)
        assert worker._executor.waiting <= 5
    assert await bench.count("default") >= 85, "a graceful stop gives back what has not started"
    async with bench.working(slots=50):
        await until(lambda: len(runs) == 100, deadline=60)
    assert set(runs.values()) == {1}


async def test_what_was_acked_early_and_cut_off_does_not_run_again(bench, runs):
    """At most once, also where it had come back before: nothing is handed back."""

    @bench.app.task(name="t", acks_late=False, ignore_result=True)
    async def task():
        runs["t"] += 1
        await asyncio.sleep(60)

    async with bench.working() as worker:
        await task.aapply_async((), headers={h.REDELIVERED: 1})
        await until(lambda: runs["t"] == 1)
        worker.stop()
        worker.stop()
    assert await bench.count("default") == 0


async def test_stops_make_no_suspects(bench, runs):
    """RabbitMQ before 4.3 counts what is given back as a failed delivery."""

    @bench.app.task(name="t", ignore_result=True)
    async def task(i: int):
        await asyncio.sleep(0.3)
        runs[i] += 1

    async with bench.working():
        pass
    await asyncio.gather(*(task.adelay(i) for i in range(30)))
    for stops in range(1, 7):
        async with bench.working(slots=1, multiplier=40):
            await until(lambda done=stops: len(runs) >= done)
        assert await bench.count("default.suspect") == 0
    assert await bench.count("default.dead") == 0
    async with bench.working(slots=40):
        await until(lambda: len(runs) == 30, deadline=60)
    assert set(runs.values()) == {1}


async def test_a_late_word_of_an_attempt_does_not_hide_its_retry(bench):
    store = await bench.app.runtime().opened_store()
    (claim,) = await store.begin([Attempt("id", owner="a")])
    due = time.time() + 5
    await store.finish([Finish(Outcome("id", "RETRY", retry_at=due), claim.fence)])
    await store.set_state(Outcome("id", "PROGRESS", result={"done": 1}))
    (again,) = await store.begin([Attempt("id", owner="b")])
    assert (again.outcome.state, again.outcome.retry_at) == ("RETRY", due)


class Forgets(Middleware):
    def before_settle(self, message, outcome):
        return None


async def test_a_settle_hook_that_returns_nothing_changes_nothing(amqp_url, redis_url):
    app = AmqFlow("hooked", broker=amqp_url, backend=redis_url, middleware=[Forgets()])

    @app.task(name="t")
    def task() -> int:
        return 5

    async with Bench(app).working():
        assert await (await task.adelay()).aget(10) == 5
    await app.aclose()


async def test_what_cannot_follow_a_task_parks_it_with_the_reason(bench):
    @bench.app.task(name="big")
    def big() -> str:
        return "x"

    async with bench.working():
        impossible = {"task": "next", "args": [], "kwargs": {}, "options": {"priority": 900}}
        result = await big.aapply_async((), link=impossible)
        await result.aget(20)
        ((_, letter),) = await bench.dead()
    assert letter.reason == "workflow"
    assert "cannot be sent: next: option priority" in str(letter.exception_message)


class Refuses(Middleware):
    def before_publish(self, message):
        if message.task == "next" and message.parent_id:
            raise RuntimeError("not today")


async def test_a_link_that_a_middleware_refuses_strands_nothing(amqp_url, redis_url):
    app = AmqFlow("spine", broker=amqp_url, backend=redis_url, middleware=[Refuses()])
    bench = Bench(app)

    @app.task(name="first")
    def first(): ...

    @app.task(name="next")
    def follow(result): ...

    async with bench.working() as worker:
        await first.aapply_async((), link=follow.s())
        (kept,) = await bench.look("amqflow.undelivered", 1)
        assert kept.headers["task"] == "next"
        await until(lambda: not worker._settler.busy)
    assert await bench.count("default") == 0
    await app.aclose()


@pytest.mark.parametrize(
    ("chain", "state", "kept"),
    [
        ([{"task": "next", "args": 5}], "SUCCESS", "default.dead"),
        ([], "ODD", "amqflow.undelivered"),
    ],
)
async def test_a_settlement_nobody_can_finish_does_not_block_the_completions(
    bench, chain, state, kept
):
    """What was handed over while the store was away: a next step that is none, a state that is
    no end.
    """  # noqa: D205 - one sentence

    @bench.app.task(name="t")
    def task(): ...

    names = AppNames(bench.app.main)
    async with bench.working() as worker:
        message = encode(TaskMessage("id", "t", [], {}, chain=chain))
        away = away_message(
            Outcome("id", state), 1, Received(message, "", "default"), worker._lanes["default"]
        )
        transport = bench.app.runtime().transport
        await transport.publish(away, names.results, names.completions_key, timeout=10)
        await bench.look(kept, 1)
        await until(lambda: not worker._settler.busy)
    assert await bench.count(names.completions) == 0


async def test_signals_are_sent_in_the_tasks_thread_with_its_request(bench):
    seen = []

    @bench.app.task(name="other")
    def other(x):
        return x

    @bench.app.task(name="t")
    def task(x):
        if x < 0:
            raise ValueError("negative")
        return x

    def succeeded(sender, result, **_):
        seen.append(
            (
                "success",
                sender.request.id,
                other.delay(result).get(timeout=10, disable_sync_subtasks=False),
            )
        )

    def failed(sender, task_id, exception, traceback, einfo, **_):
        seen.append(("failure", task_id == sender.request.id, exception.__traceback__ is traceback))
        assert einfo.type is ValueError
        assert "negative" in einfo.traceback

    signals.task_success.connect(succeeded, sender=task)
    signals.task_failure.connect(failed, sender=task)
    try:
        async with bench.working():
            good = await task.adelay(1)
            assert await good.aget(20) == 1
            await until(lambda: seen == [("success", good.id, 1)])
            with pytest.raises(ValueError, match="negative"):
                await (await task.adelay(-1)).aget(10)
            assert seen[1:] == [("failure", True, True)]
    finally:
        signals.task_success.disconnect(succeeded, sender=task)
        signals.task_failure.disconnect(failed, sender=task)
