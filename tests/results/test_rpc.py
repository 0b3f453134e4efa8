"""The rpc store and Celery's rpc backend, each answering the other over a real broker."""

from __future__ import annotations

import asyncio
import json
import uuid
from concurrent.futures import ThreadPoolExecutor

import aio_pika
import pytest
from aiormq.exceptions import DeliveryError
from celery import Celery
from celery.app.task import Context
from celery.exceptions import TaskRevokedError
from celery.result import AsyncResult

from amqflow.abc import FAILURE, REVOKED, SUCCESS, Finish, Outcome
from amqflow.errors import (
    BrokerUnavailable,
    EncodeError,
    PublishTimeout,
    StoreError,
    StoreUnavailable,
    Unroutable,
    rebuild_exception,
)
from amqflow.results.exceptions import describe
from amqflow.results.rpc import RpcStore


class BrokerReplies:
    """The application's side, over one aio-pika channel."""

    def __init__(self, channel):
        self.channel = channel

    async def publish(self, exchange, routing_key, body, **properties):
        assert exchange == ""
        message = aio_pika.Message(body, **properties)
        try:
            await self.channel.default_exchange.publish(message, routing_key)
        except DeliveryError as exc:
            raise Unroutable(routing_key) from exc

    async def consume_replies(self, on_reply):
        queue = await self.channel.declare_queue(exclusive=True, auto_delete=True)

        async def take(message):
            on_reply(message.correlation_id, message.body)

        await queue.consume(take, no_ack=True)
        return queue.name


class Answers:
    """The application's side for one test: every publish ends as it is told."""

    def __init__(self, *ends):
        self.ends = list(ends)
        self.sent = []
        self.on_reply = None

    async def publish(self, exchange, routing_key, body, **properties):
        end = self.ends.pop(0) if self.ends else None
        if end is not None:
            raise end
        self.sent.append((routing_key, body, properties))

    async def consume_replies(self, on_reply):
        self.on_reply = on_reply
        return "mine"


@pytest.fixture
async def store(amqp_url):
    async with await aio_pika.connect(amqp_url) as connection:
        made = RpcStore(BrokerReplies(await connection.channel()))
        await made.open()
        yield made
        await made.close()


@pytest.fixture
def celery(amqp_url):
    app = Celery("theirs", backend="rpc://", broker=amqp_url, set_as_current=False)
    yield app
    app.close()


def new_id():
    return str(uuid.uuid4())


@pytest.mark.parametrize("persistent", [False, True])
async def test_a_celery_caller_gets_our_answer(store, celery, persistent):
    store = RpcStore(store._replies, persistent=persistent)
    good, bad, revoked = new_id(), new_id(), new_id()

    def call():
        with celery.pool.acquire() as connection, celery.amqp.Producer(connection) as producer:
            celery.backend.on_task_call(producer, good)
        return celery.thread_oid

    def read():
        assert AsyncResult(good, app=celery).get(timeout=30) == {"a": b"\xff"}
        with pytest.raises(KeyError, match="k"):
            AsyncResult(bad, app=celery).get(timeout=30)
        with pytest.raises(TaskRevokedError, match="stop"):
            AsyncResult(revoked, app=celery).get(timeout=30)

    outcomes = (
        Outcome(good, SUCCESS, {"a": b"\xff"}),
        Outcome(bad, FAILURE, exception=describe(KeyError("k"))),
        Outcome(revoked, REVOKED, reason="stop"),
    )
    loop = asyncio.get_running_loop()
    with ThreadPoolExecutor(1) as caller:  # Celery's reply queues are one per thread
        reply_to = await loop.run_in_executor(caller, call)
        await store.finish([Finish(each, 0, reply_to, each.id) for each in outcomes])
        await loop.run_in_executor(caller, read)


async def test_a_celery_worker_answers_us(store, celery):
    good, bad = new_id(), new_id()
    waiting = asyncio.create_task(store.wait(good, 10))
    backend = celery.backend

    def answer():
        for task_id, result, state in ((good, [1], SUCCESS), (bad, ValueError("no"), FAILURE)):
            request = Context(id=task_id, reply_to=store.reply_to, correlation_id=task_id)
            backend.store_result(task_id, result, state, request=request)

    await asyncio.to_thread(answer)
    assert (await waiting).result == [1]
    error = rebuild_exception((await store.wait(bad, 10)).exception)
    assert (type(error), error.args) == (ValueError, ("no",))


async def test_a_caller_that_left_is_a_normal_end(store):
    outcome = Outcome(new_id(), SUCCESS, 1)
    (done,) = await store.finish([Finish(outcome, 0, "gone-queue", outcome.id)])
    assert done.stored is outcome


async def test_persistence_is_celerys_setting():
    for persistent, mode in ((False, 1), (True, 2)):
        answers = Answers()
        store = RpcStore(answers, persistent=persistent)
        await store.finish([Finish(Outcome("t", SUCCESS, 1), 0, "q", "c")])
        ((key, body, properties),) = answers.sent
        assert (key, json.loads(body)["task_id"]) == ("q", "t")
        assert properties == {
            "content_type": "application/json",
            "content_encoding": "utf-8",
            "correlation_id": "c",
            "delivery_mode": mode,
        }


@pytest.mark.parametrize("error", [PublishTimeout("late"), BrokerUnavailable("away")], ids=repr)
async def test_an_answer_that_is_not_confirmed_is_held(error):
    answers = Answers(None, error)
    store = RpcStore(answers)
    finishes = [Finish(Outcome(f"t{n}", SUCCESS, n), 0, "q", None) for n in range(3)]
    with pytest.raises(StoreUnavailable):
        await store.finish(finishes)
    assert len(answers.sent) == 2  # the others were not cut off
    await store.finish(finishes)


async def test_nothing_is_sent_of_a_batch_that_cannot_be_written():
    answers = Answers()
    with pytest.raises(EncodeError):
        await RpcStore(answers).finish(
            [
                Finish(Outcome("a", SUCCESS, 1), 0, "q"),
                Finish(Outcome("b", SUCCESS, {1, 2}), 0, "q"),
            ]
        )
    assert answers.sent == []


async def test_early_replies_are_kept_up_to_a_bound_and_the_first_end_stands():
    answers = Answers()
    store = RpcStore(answers, most=3)
    await store.open()
    assert store.reply_to == "mine"
    for n in range(5):
        answers.on_reply(f"t{n}", json.dumps({"status": SUCCESS, "result": n}).encode())
    answers.on_reply("t4", json.dumps({"status": FAILURE, "result": None}).encode())
    assert [await store.get(f"t{n}") is None for n in range(5)] == [True, True, False, False, False]
    assert (await store.wait("t4", 1)).result == 4


async def test_a_reply_that_is_no_result_is_an_error_at_its_waiter_only():
    answers = Answers()
    store = RpcStore(answers)
    await store.open()
    answers.on_reply("t", b"\x80\x04pickle")
    waiting = asyncio.create_task(store.wait("t", 5))
    await asyncio.sleep(0)
    answers.on_reply("t", b"{")
    with pytest.raises(StoreError, match="result of t"):
        await waiting
