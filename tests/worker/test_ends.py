"""Ends that are not the task's own: a stop, a next attempt that cannot go out, a taken key."""

import asyncio
from dataclasses import replace

import pytest
import redis.asyncio

from amqflow import chord
from amqflow.errors import EncodeError, ShutdownInProgress, TimeLimitExceeded
from amqflow.results.redis import keys_of
from amqflow.tasks import Task
from amqflow.topology.names import UNDELIVERED
from amqflow.workflow.stores.redis import PREFIX


@pytest.mark.parametrize(
    ("why", "told"),
    [
        (ShutdownInProgress("told twice"), []),
        (TimeLimitExceeded(1.0), ["TimeLimitExceeded"]),
    ],
)
async def test_a_hook_is_told_what_cut_a_coroutine_off_and_nothing_of_a_stop(bench, why, told):
    heard, began, go = [], asyncio.Event(), asyncio.Event()

    class Told(Task):
        def on_failure(self, exc, *_):
            heard.append(type(exc).__name__)

    @bench.app.task(name="waits", base=Told)
    async def waits():
        began.set()
        await go.wait()

    async with bench.working() as worker:
        sent = await waits.adelay()
        async with asyncio.timeout(20):
            await began.wait()
        for pool in worker._executor._pools.all():
            pool.cut_off(why)
        go.set()  # what a stop gives back comes straight to this worker again, and ends
        await sent.aget(timeout=30, propagate=False)
    assert heard == told


async def test_a_task_whose_next_attempt_cannot_be_sent_has_failed(bench):
    @bench.app.task(name="again", bind=True)
    def again(self):
        raise self.retry(countdown=0, exc=OSError("not yet"))

    async with bench.working() as worker:

        def refuse(_message):
            raise EncodeError("the message is too large")

        worker._settler._desk = replace(worker._settler._desk, encode=refuse)
        sent = await again.adelay()
        with pytest.raises(EncodeError, match="too large"):
            await sent.aget(timeout=20)
        assert sent.state == "FAILURE"
        ((_, letter),) = await bench.dead()
    assert letter.reason == "failed"
    assert "next attempt cannot be sent" in letter.exception_message


async def test_a_key_that_holds_somebody_elses_value_parks_its_task_alone(bench, redis_url):
    client = redis.asyncio.from_url(redis_url)

    @bench.app.task(name="add")
    async def add(a, b):
        return a + b

    @bench.app.task(name="overwritten", bind=True)
    async def overwritten(self):
        _, record = keys_of(self.request.id)
        await client.delete(record)
        await client.set(record, "somebody else's")

    _, record = keys_of("taken")
    await client.set(record, "somebody else's")
    async with bench.working():
        await add.aapply_async((1, 1), task_id="taken")
        await overwritten.adelay()
        assert await (await add.adelay(1, 2)).aget(timeout=20) == 3
        letters = [letter for _, letter in await bench.dead(expected=2)]
    await client.aclose()
    assert {letter.task for letter in letters} == {"add", "overwritten"}
    for letter in letters:
        assert "keeps something else under a key" in letter.exception_message


async def test_a_chord_whose_key_was_overwritten_holds_up_no_other(bench, redis_url):
    client, go = redis.asyncio.from_url(redis_url), asyncio.Event()

    @bench.app.task(name="held")
    async def held(n: int) -> int:
        await go.wait()
        return n

    @bench.app.task(name="total")
    async def total(numbers: list[int]) -> int:
        return sum(numbers)

    async with bench.working():
        header = [held.s(n) for n in range(2)]
        await chord(header, total.s()).aapply_async()
        for key in await client.keys(f"{PREFIX}*"):
            await client.delete(key)
            await client.set(key, "somebody else's")
        go.set()
        letters = await bench.look(UNDELIVERED, 1)
        other = await chord(header, total.s()).aapply_async()
        assert await other.aget(timeout=30) == 1
    await client.aclose()
    assert "keeps something else" in str(letters[0].headers)
