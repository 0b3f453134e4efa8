"""Push waiting on Redis: one connection, any number of waiters."""

from __future__ import annotations

import asyncio
import uuid

import pytest
import redis

from amqflow.abc import SUCCESS, Finish, Outcome
from amqflow.errors import StoreUnavailable
from amqflow.results.redis import RedisStore
from amqflow.results.waiting import Waiting
from amqflow.stores.redis import RedisClient
from tests.servers.wait import until


@pytest.fixture
async def store(redis_url):
    made = RedisStore(redis_url)
    yield made
    await made.close()


@pytest.fixture
def client(redis_url):
    with redis.Redis.from_url(redis_url, decode_responses=True) as client:
        yield client


def listeners(client, ids):
    prefix = "celery-task-meta-"
    return sum(count for _, count in client.pubsub_numsub(*(prefix + each for each in ids)))


def subscribed(client):
    """Return how many channels each connection to this database has subscribed to."""
    number = str(client.get_connection_kwargs()["db"])
    connections = client.client_list(_type="pubsub")
    return sorted(int(one["sub"]) for one in connections if one["db"] == number)


async def test_ten_thousand_waiters_share_one_connection(store, client):
    ids = [str(uuid.uuid4()) for _ in range(10_000)]
    assert subscribed(client) == []
    waiting = [asyncio.create_task(store.wait(task_id, 60)) for task_id in ids]
    await until(lambda: listeners(client, ids) == len(ids), deadline=30)
    assert subscribed(client) == [len(ids)]
    for start in range(0, len(ids), 100):
        await store.finish(
            [Finish(Outcome(each, SUCCESS, each), 0) for each in ids[start : start + 100]]
        )
    assert [seen.result for seen in await asyncio.gather(*waiting)] == ids
    await until(lambda: listeners(client, ids) == 0, deadline=30)


async def test_ends_stored_before_anybody_waits_are_read(store):
    ids = [str(uuid.uuid4()) for _ in range(1200)]
    await store.finish([Finish(Outcome(each, SUCCESS, each), 0) for each in ids])
    seen = await asyncio.gather(*(store.wait(each, 30) for each in ids))
    assert [each.result for each in seen] == ids


async def test_no_end_is_missed_between_reading_and_subscribing(redis_url, store):
    """Ends race with waiters that come: every one is seen, whichever was first."""
    writer = RedisStore(redis_url)
    ids = [str(uuid.uuid4()) for _ in range(600)]

    async def write():
        for each in ids:
            await writer.finish([Finish(Outcome(each, SUCCESS, each), 0)])

    async def watch():
        found = []
        for start in range(0, len(ids), 20):
            batch = ids[start : start + 20]
            found += await asyncio.gather(*(store.wait(each, 30) for each in batch))
        return [each.result for each in found]

    _, found = await asyncio.gather(write(), watch())
    assert found == ids
    await writer.close()


async def test_what_nobody_waits_for_is_left_in_a_quiet_moment(redis_url, client):
    own = RedisClient(redis_url)
    waiting = Waiting(own, prefix="celery-task-meta-", quiet=0.2)
    task_id = str(uuid.uuid4())
    first, second = [asyncio.create_task(waiting.wait(task_id, 60)) for _ in range(2)]
    await until(lambda: listeners(client, [task_id]) == 1)
    first.cancel()
    await asyncio.wait([first])
    await asyncio.sleep(0.5)
    assert listeners(client, [task_id]) == 1
    second.cancel()
    await until(lambda: listeners(client, [task_id]) == 0)
    await waiting.close()
    await own.close()


async def test_many_that_nobody_waits_for_are_left_at_once(store, client):
    ids = [str(uuid.uuid4()) for _ in range(300)]
    waiting = [asyncio.create_task(store.wait(each, 60)) for each in ids]
    await until(lambda: listeners(client, ids) == 300)
    for one in waiting:
        one.cancel()
    await until(lambda: listeners(client, ids) < 200)


async def test_one_that_is_waited_for_again_while_its_channel_stands_reads_what_came_between(
    redis_url, store
):
    task_id = str(uuid.uuid4())
    with pytest.raises(TimeoutError):
        await store.wait(task_id, 0.2)
    writer = RedisStore(redis_url)
    await writer.finish([Finish(Outcome(task_id, SUCCESS, 7), 0)])
    assert (await store.wait(task_id, 30)).result == 7
    await writer.close()


async def test_an_id_that_is_waited_for_again_at_once(store, client):
    """Leave and come back in one loop turn: the subscription must stand."""
    task_id = str(uuid.uuid4())
    for _ in range(20):
        with pytest.raises(TimeoutError):
            await store.wait(task_id, 0)
    waiting = asyncio.create_task(store.wait(task_id, 30))
    await until(lambda: listeners(client, [task_id]) == 1)
    await store.finish([Finish(Outcome(task_id, SUCCESS, 1), 0)])
    assert (await waiting).result == 1


async def test_who_comes_when_the_end_was_just_pushed_to_another_gets_it_too(store, client):
    """The subscription stands, the key was read, the message is gone: it is read again."""
    task_id = str(uuid.uuid4())
    late = []

    class First(asyncio.Future):
        def set_result(self, outcome):
            super().set_result(outcome)
            late.append(asyncio.ensure_future(store.wait(task_id, 5)))

    first = First()
    waiting = asyncio.create_task(store.wait(task_id, 30))
    await until(lambda: listeners(client, [task_id]) == 1)
    store._waiting._waiters[task_id].add(first)
    await store.finish([Finish(Outcome(task_id, SUCCESS, 1), 0)])
    assert (await waiting).result == (await first).result == 1
    assert (await late[0]).result == 1


async def test_waits_again_after_close(store):
    waiting = asyncio.create_task(store.wait("x", 30))
    await asyncio.sleep(0)
    await store.close()
    with pytest.raises(StoreUnavailable):
        await waiting
    task_id = str(uuid.uuid4())
    waiting = asyncio.create_task(store.wait(task_id, 30))
    await store.finish([Finish(Outcome(task_id, SUCCESS, 1), 0)])
    assert (await waiting).result == 1


@pytest.mark.faults
async def test_a_connection_that_went_silent_is_noticed(private_redis):
    server = private_redis()
    client = RedisClient(server.db_url(0))
    waiting = Waiting(client, prefix="celery-task-meta-", deadline=0.2, quiet=0.1)
    task = asyncio.create_task(waiting.wait("quiet", 30))
    await until(lambda: server.cli("PUBSUB", "CHANNELS"))

    def subscribers():
        return [
            line.split()[0]
            for line in server.cli("CLIENT", "LIST", "TYPE", "pubsub").split("\n")
            if line
        ]

    first = subscribers()
    server.pause(1.0)

    def moved():
        return subscribers() not in ([], first)

    await until(lambda: asyncio.to_thread(moved), deadline=40)
    await until(lambda: server.cli("PUBSUB", "CHANNELS"))
    server.cli("PUBLISH", "celery-task-meta-quiet", '{"status": "SUCCESS", "result": 1}')
    assert (await task).result == 1
    await waiting.close()
    await client.close()


@pytest.mark.faults
async def test_closing_ends_whatever_the_connection_does_at_that_moment(private_redis):
    server = private_redis()
    for _ in range(30):
        store = RedisStore(server.db_url(0), deadline=1)
        waiting = [asyncio.create_task(store.wait(f"t{n}", 30)) for n in range(3)]
        await until(lambda: server.cli("PUBSUB", "CHANNELS"))
        server.cli("CLIENT", "KILL", "TYPE", "pubsub")
        await asyncio.wait_for(store.close(), 5)
        ends = await asyncio.gather(*waiting, return_exceptions=True)
        assert {type(end) for end in ends} == {StoreUnavailable}
