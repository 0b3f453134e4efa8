"""What is in Redis: Celery's keys for Celery's readers, ours beside them, each with its TTL."""

from __future__ import annotations

import asyncio
import json
import sys
import uuid
from asyncio.subprocess import PIPE

import pytest
import redis
from celery import Celery
from celery.exceptions import TaskRevokedError
from celery.result import AsyncResult

from amqflow.abc import (
    FAILURE,
    RETRY,
    REVOKED,
    SUCCESS,
    Attempt,
    ExceptionInfo,
    Finish,
    Outcome,
    Verdict,
)
from amqflow.errors import StoreError, TaskFailed, TaskRevoked, rebuild_exception
from amqflow.results.exceptions import describe
from amqflow.results.redis import RedisStore, keys_of


class ShopError(Exception):
    """A task's own error, importable on both sides."""


class PickyError(Exception):
    """One whose __init__ does not take its args."""

    def __init__(self, code, *, detail):
        super().__init__(f"{code}: {detail}")
        self.code = code


@pytest.fixture
def client(redis_url):
    with redis.Redis.from_url(redis_url) as client:
        yield client


@pytest.fixture
async def store(redis_url):
    made = RedisStore(redis_url, result_expires=1000)
    await made.open()
    yield made
    await made.close()


@pytest.fixture
def celery(redis_url):
    app = Celery("theirs", backend=redis_url, broker="memory://", set_as_current=False)
    yield app
    app.backend.client.close()
    app.close()


def new_id():
    return str(uuid.uuid4())


async def finish(store, outcome, fence=0):
    (done,) = await store.finish([Finish(outcome, fence)])
    return done


# -- layout --------------------------------------------------------------------------------


async def test_writes_the_very_json_celery_writes(store, celery, client):
    ours, theirs = new_id(), new_id()
    await finish(store, Outcome(ours, SUCCESS, {"a": [1, None, "é"]}))
    celery.backend.store_result(theirs, {"a": [1, None, "é"]}, SUCCESS)
    mine, other = (json.loads(client.get(keys_of(each)[0])) for each in (ours, theirs))
    assert list(mine) == list(other)
    assert mine["date_done"][-6:] == other["date_done"][-6:] == "+00:00"
    assert mine["children"] == []
    for volatile in ("task_id", "date_done", "children"):
        mine.pop(volatile)
        other.pop(volatile)
    assert mine == other


async def test_a_failure_is_the_very_json_celery_writes(store, celery, client):
    ours, theirs = new_id(), new_id()
    error = KeyError("k", object())
    await finish(store, Outcome(ours, FAILURE, exception=describe(error), traceback="tb"))
    celery.backend.store_result(theirs, error, FAILURE, traceback="tb")
    mine, other = (json.loads(client.get(keys_of(each)[0])) for each in (ours, theirs))
    assert mine["result"] == other["result"]
    assert mine["traceback"] == other["traceback"]


async def test_every_key_expires_and_the_record_last(store, client):
    task_id = new_id()
    meta, record = keys_of(task_id)
    await store.begin([Attempt(task_id)])
    assert client.ttl(record) > 6 * 86400
    await finish(store, Outcome(task_id, RETRY), 1)
    assert client.ttl(record) > 6 * 86400
    await store.begin([Attempt(task_id, number=1)])
    await finish(store, Outcome(task_id, SUCCESS, 1, attempt=1), 2)
    assert 900 < client.ttl(meta) <= 1000 < client.ttl(record) < 10_000
    await store.forget(task_id)
    assert client.keys("*") == []


@pytest.mark.parametrize("expires", [0, None])
async def test_without_an_expiry_nothing_expires(redis_url, client, expires):
    store = RedisStore(redis_url, result_expires=expires)
    task_id = new_id()
    await store.begin([Attempt(task_id)])
    await finish(store, Outcome(task_id, SUCCESS, 1), 1)
    assert [client.ttl(key) for key in keys_of(task_id)] == [-1, -1]
    await store.close()


async def test_both_keys_of_a_task_share_a_cluster_slot():
    slots = {redis.crc.key_slot(key.encode()) for key in keys_of(new_id())}
    assert len(slots) == 1


async def test_the_end_is_published_on_celerys_channel(store, client):
    task_id = new_id()
    meta = keys_of(task_id)[0]
    with client.pubsub(ignore_subscribe_messages=True) as pubsub:
        pubsub.subscribe(meta)
        pubsub.get_message(timeout=5)
        await finish(store, Outcome(task_id, SUCCESS, 1))
        message = pubsub.get_message(timeout=5)
    assert message["data"] == client.get(meta)


# -- Celery reads ours ---------------------------------------------------------------------


async def test_celery_waits_for_and_reads_our_success(store, celery):
    task_id = new_id()
    waiting = asyncio.create_task(
        asyncio.to_thread(AsyncResult(task_id, app=celery).get, timeout=10)
    )
    (claim,) = await store.begin([Attempt(task_id)])
    await asyncio.sleep(0.1)
    await finish(
        store, Outcome(task_id, SUCCESS, [1, {"b": b"\xff"}], children=("kid",)), claim.fence
    )
    assert await waiting == [1, {"b": b"\xff"}]
    result = AsyncResult(task_id, app=celery)
    assert result.successful()
    assert [child.id for child in result.children] == ["kid"]


@pytest.mark.parametrize("error", [ValueError("no", 3), ShopError("sold out")], ids=repr)
async def test_celery_raises_our_failure(store, celery, error):
    task_id = new_id()
    await finish(store, Outcome(task_id, FAILURE, exception=describe(error), traceback="the trace"))
    result = AsyncResult(task_id, app=celery)
    with pytest.raises(type(error)) as raised:
        result.get(timeout=30)
    assert raised.value.args == error.args
    assert result.traceback == "the trace"


async def test_celery_sees_our_revoke_and_retry(store, celery):
    revoked, retried = new_id(), new_id()
    await finish(store, Outcome(revoked, REVOKED, reason="terminated"))
    with pytest.raises(TaskRevokedError, match="terminated"):
        AsyncResult(revoked, app=celery).get(timeout=30)
    await finish(store, Outcome(retried, RETRY, exception=describe(OSError(5, "io"))))
    result = AsyncResult(retried, app=celery)
    assert (result.state, result.ready()) == (RETRY, False)
    assert isinstance(result.result, OSError)


async def test_celery_sees_our_own_states(store, celery):
    task_id = new_id()
    await store.set_state(Outcome(task_id, "PROGRESS", {"done": 3}))
    assert AsyncResult(task_id, app=celery).info == {"done": 3}


# -- we read Celery's ----------------------------------------------------------------------


async def test_reads_what_a_celery_worker_stored(store, celery):
    task_id = new_id()
    waiting = asyncio.create_task(store.wait(task_id, 10))
    await asyncio.sleep(0.1)
    await asyncio.to_thread(celery.backend.store_result, task_id, {"a": 1}, SUCCESS)
    assert (await waiting).result == {"a": 1}
    seen = await store.get(task_id)
    assert (seen.state, seen.epoch) == (SUCCESS, 0)
    assert seen.date_done > 1.7e9


async def test_reads_celerys_failures_and_revokes(store, celery):
    failed, revoked = new_id(), new_id()
    celery.backend.store_result(failed, ShopError("x", 2), FAILURE, traceback="tb")
    celery.backend.mark_as_revoked(revoked, "stop")
    seen = await store.get(failed)
    error = rebuild_exception(seen.exception)
    assert (type(error), error.args, seen.traceback) == (ShopError, ("x", 2), "tb")
    seen = await store.get(revoked)
    assert (seen.state, seen.reason) == (REVOKED, "stop")
    assert isinstance(rebuild_exception(seen.exception), TaskRevoked)


async def test_a_celery_workers_success_is_not_replaced_by_a_failure(store, celery):
    for with_record in (False, True):
        task_id = new_id()
        if with_record:
            await store.begin([Attempt(task_id)])
        celery.backend.store_result(task_id, "theirs", SUCCESS)
        done = await finish(store, Outcome(task_id, FAILURE, reason="ours"), 1)
        assert (done.stored.result, done.refused) == ("theirs", False)
        await store.set_state(Outcome(task_id, "PROGRESS"))
        assert (await store.get(task_id)).result == "theirs"


async def test_a_celery_caller_that_forgot_the_result_makes_it_run_again(store, celery):
    task_id = new_id()
    await store.begin([Attempt(task_id)])
    await finish(store, Outcome(task_id, SUCCESS, 1), 1)
    celery.backend.forget(task_id)
    (again,) = await store.begin([Attempt(task_id, once=True, owner="b")])
    assert again.verdict is Verdict.SETTLED
    (again,) = await store.begin([Attempt(task_id)])
    assert (again.verdict, again.fence) == (Verdict.RUN, 2)


@pytest.mark.parametrize("junk", [b"\x00celery-compressed\x00x", b"{", b"[1]", b"\x80\x04"])
async def test_foreign_bytes_are_an_error_that_names_the_task(store, client, junk):
    client.set(keys_of("odd")[0], junk)
    with pytest.raises(StoreError, match="odd"):
        await store.get("odd")
    with pytest.raises(StoreError, match="odd"):
        await store.wait("odd", 5)


# -- exceptions ----------------------------------------------------------------------------


async def test_an_exception_round_trips_through_redis(store):
    for error in (ShopError("a", b"\x01", 2**70), PickyError(7, detail="odd"), ValueError()):
        task_id = new_id()
        await finish(store, Outcome(task_id, FAILURE, exception=describe(error)))
        again = rebuild_exception((await store.get(task_id)).exception)
        assert (type(again), again.args, str(again)) == (type(error), error.args, str(error))


@pytest.mark.parametrize(
    ("module", "name"),
    [("os", "system"), ("builtins", "SystemExit"), ("antigravity", "Boom"), ("builtins", "eval")],
)
def test_nothing_but_known_exceptions_is_made(module, name):
    error = rebuild_exception(ExceptionInfo(name, module, ("echo hacked",), "echo hacked"))
    assert type(error) is TaskFailed
    assert "antigravity" not in sys.modules


def test_what_json_cannot_carry_is_described():
    class Mute(Exception):
        def __str__(self):
            raise RuntimeError

        __repr__ = __str__

    info = describe(Mute(Mute(), 1))
    assert info.args[1] == 1
    assert "without" in info.args[0]
    assert "without" in info.text


# -- two processes -------------------------------------------------------------------------

RACER = """
import asyncio, sys
from amqflow.abc import Attempt, Finish, Outcome, SUCCESS, Verdict
from amqflow.results.redis import RedisStore

async def main(url, owner):
    store = RedisStore(url)
    print("ready", flush=True)
    sys.stdin.readline()
    ids = [f"race-{n}" for n in range(300)]
    for start in range(0, len(ids), 30):
        attempts = [Attempt(i, owner=owner, once=True) for i in ids[start:start + 30]]
        claims = await store.begin(attempts)
        for attempt, claim in zip(attempts, claims):
            print(attempt.id, claim.verdict.value, claim.fence)
        done = await store.finish([
            Finish(Outcome(a.id, SUCCESS, owner), claim.fence)
            for a, claim in zip(attempts, claims) if claim.verdict is Verdict.RUN
        ])
        for each in done:
            print(each.stored.id, "refused" if each.refused else "stored", each.stored.result)
    await store.close()

asyncio.run(main(*sys.argv[1:]))
"""


async def test_of_two_processes_exactly_one_runs_each_task(redis_url, store):
    racers = [
        await asyncio.create_subprocess_exec(
            *(sys.executable, "-c", RACER, redis_url, owner), stdin=PIPE, stdout=PIPE
        )
        for owner in ("a", "b")
    ]
    for racer in racers:
        assert await racer.stdout.readline() == b"ready\n"
    printed = await asyncio.wait_for(
        asyncio.gather(*(racer.communicate(b"\n") for racer in racers)), 60
    )
    lines = [line.split() for out, _ in printed for line in out.decode().splitlines()]
    ran = [line[0] for line in lines if line[1] == "run"]
    assert sorted(ran) == sorted(f"race-{n}" for n in range(300))
    assert not [line for line in lines if line[1] == "refused"]
    assert {line[1] for line in lines} <= {"run", "settled", "busy", "stored"}
    for task_id in ran:
        assert (await store.get(task_id)).result in {"a", "b"}
