"""Ends that are waited for before their calls are sent, and a caller that does without."""

import asyncio
import os
import threading
import time
from itertools import pairwise

import pytest
import redis

from amqflow import AmqFlow, ResultTimeout, SyncInLoop, TaskFailed
from amqflow.abc import SUCCESS, Finish, Outcome
from amqflow.errors import AppClosed, StoreUnavailable
from amqflow.results.expected import Expected
from amqflow.results.redis import RedisStore
from amqflow.results.waiting import _CREDIT, _IDLE, _MOST_EXPECTED
from tests.servers.wait import until, until_sync
from tests.test_app import serving

GET = 30


@pytest.fixture
def gate():
    return threading.Event()


@pytest.fixture
def app(amqp_url, redis_url, gate, tmp_path):
    """An application whose worker runs in a thread beside."""

    def made():
        app = AmqFlow("early", broker=amqp_url, backend=redis_url, blob_threshold=1024)

        @app.task(name="early.echo")
        def echo(value):
            return value

        @app.task(name="early.fail")
        def fail():
            raise KeyError("no such thing")

        @app.task(name="early.held")
        def held(value):
            assert gate.wait(GET)
            return value

        @app.task(name="early.quiet", ignore_result=True)
        def quiet():
            return 1

        return app

    with serving(made()):
        caller = made()
        yield caller
        gate.set()
        caller.close()


def used(app):
    """Call until an end is waited for early; the first calls teach it."""
    for number in range(5):
        handle = app.tasks["early.echo"].delay(number)
        early = handle._expected is not None
        assert handle.get(timeout=GET) == number
    assert early
    return app


def subscribers(url):
    with redis.Redis.from_url(url) as client:
        return [one["id"] for one in client.client_list(_type="pubsub")]


def test_who_waits_for_each_call_is_told_of_its_end_without_asking(app):
    used(app)
    handles = []
    for number in range(40):
        handles.append(app.tasks["early.echo"].delay(number))
        assert handles[-1].get(timeout=GET) == number
    assert all(handle._expected is not None for handle in handles)
    assert len({handle.id for handle in handles}) == 40


def test_who_waits_for_none_is_left_alone(app):
    used(app)
    handles = [app.tasks["early.echo"].delay(number) for number in range(40)]
    early = [handle._expected is not None for handle in handles]
    assert sum(early) <= 2 * _CREDIT
    assert not any(early[-20:])
    assert [handle.get(timeout=GET) for handle in handles] == list(range(40))


def test_what_keeps_no_result_is_not_waited_for(app):
    used(app)
    assert app.tasks["early.quiet"].delay()._expected is None
    quiet = app.tasks["early.echo"].apply_async((1,), ignore_result=True)
    assert quiet._expected is None
    assert app.tasks["early.echo"].apply_async((1,), countdown=0.2)._expected is None


def test_an_id_of_ones_own_is_asked_for_as_ever(app):
    used(app)
    handle = app.tasks["early.echo"].apply_async((7,), task_id="mine")
    assert handle._expected is None
    assert handle.get(timeout=GET) == 7


def test_an_error_and_a_large_result_come_as_ever(app):
    used(app)
    with pytest.raises(KeyError, match="no such thing"):
        app.tasks["early.fail"].delay().get(timeout=GET)
    failed = app.tasks["early.fail"].delay().get(timeout=GET, propagate=False)
    assert isinstance(failed, KeyError | TaskFailed)
    large = "x" * 5000
    assert app.tasks["early.echo"].delay(large).get(timeout=GET) == large


def test_a_wait_in_vain_takes_its_time_once_and_the_next_one_gets_it(app, gate):
    used(app)
    handle = app.tasks["early.held"].delay(3)
    assert handle._expected is not None
    began = time.monotonic()
    with pytest.raises(ResultTimeout, match=r"within 1 s"):
        handle.get(timeout=1)
    took = time.monotonic() - began
    assert took >= 1
    gate.set()
    assert handle.get(timeout=GET) == 3


def test_all_who_wait_for_one_end_get_it(app, gate):
    used(app)
    handle = app.tasks["early.held"].delay(3)
    assert handle._expected is not None
    found = []
    threads = [
        threading.Thread(target=lambda: found.append(handle.get(timeout=GET))) for _ in range(4)
    ]
    for thread in threads:
        thread.start()
    gate.set()
    for thread in threads:
        thread.join(GET)
    assert found == [3] * 4


def test_a_lost_connection_is_made_up_for(app, gate, redis_url):
    """The end comes after the connection that was to tell of it has gone."""
    used(app)
    handle = app.tasks["early.held"].delay(3)
    assert handle._expected is not None
    found = []
    waiting = threading.Thread(target=lambda: found.append(handle.get(timeout=GET)))
    waiting.start()
    until_sync(lambda: handle._expected.waited)
    before = subscribers(redis_url)
    with redis.Redis.from_url(redis_url) as client:
        client.client_kill_filter(_type="pubsub", skipme=False)
    until_sync(lambda: not set(before) & set(subscribers(redis_url)))
    gate.set()
    waiting.join(GET)
    assert found == [3]


def test_who_waits_while_the_application_is_closed_is_told(app, gate):
    used(app)
    handle = app.tasks["early.held"].delay(3)
    caught = []

    def wait():
        try:
            handle.get(timeout=GET)
        except BaseException as error:
            caught.append(error)

    waiting = threading.Thread(target=wait)
    waiting.start()
    until_sync(lambda: handle._expected.waited)
    app.close()
    waiting.join(GET)
    gate.set()
    # Or it begins anew with an application that a thread still uses.
    assert [type(error) for error in caught] in ([], [AppClosed], [StoreUnavailable])


async def test_in_a_loop_waiting_blocks_nothing(app):
    for number in range(5):
        assert await (await app.tasks["early.echo"].adelay(number)).aget(timeout=GET) == number
    handle = await app.tasks["early.echo"].adelay(9)
    assert handle._expected is not None
    with pytest.raises(SyncInLoop):
        handle.get()
    assert await handle == 9
    with pytest.raises(SyncInLoop):
        handle.get()
    await app.aclose()


def test_a_copy_of_the_process_asks_for_itself():
    expected = Expected()
    expected._pid = os.getpid() + 1
    assert expected.wait(None) is None
    assert expected.waited


def test_nothing_comes_where_it_is_given_up():
    expected = Expected()
    expected.give(None)
    assert expected.wait(None) is None
    assert expected.wait(0) is None
    assert expected.look() is None


@pytest.fixture
async def store(redis_url):
    made = RedisStore(redis_url)
    yield made
    await made.close()


async def taught(store):
    """Wait for ends until there is a subscription and the habit of waiting is known."""
    with pytest.raises(TimeoutError):
        await store.wait("nobody", 0.5)
    await until(lambda: store._waiting._live is not None)


async def test_ends_that_nobody_asks_for_have_a_bound(store):
    await taught(store)
    waiting = store._waiting
    kept = []
    for number in range(3 * _MOST_EXPECTED):
        waiting._credit = 1
        kept.append(store.expect(f"task-{number}"))
    assert len(waiting._expected) == _MOST_EXPECTED
    assert kept[0].wait(0) is None
    assert all(a is not b for a, b in pairwise(kept))


async def test_channels_of_ends_that_came_are_left_as_they_pile_up(store):
    await taught(store)
    waiting = store._waiting
    for number in range(3 * _IDLE):
        waiting._credit = 1
        expected = store.expect(f"task-{number}")
        await store.finish([Finish(Outcome(f"task-{number}", SUCCESS, number), 0)])
        await until(lambda expected=expected: expected.outcome is not None)
        expected.look()
    assert len(waiting._subscribed) < 2 * _IDLE
    assert not waiting._expected


async def test_one_that_is_expected_is_waited_for_on_the_same_channel(store, redis_url):
    await taught(store)
    expected = store.expect("task")
    assert expected is not None
    waits = [asyncio.create_task(store.wait("task", GET)) for _ in range(2)]
    await asyncio.sleep(0)
    outcome = Outcome("task", SUCCESS, 5)
    await store.finish([Finish(outcome, 0)])
    assert [(await one).result for one in waits] == [5, 5]
    assert expected.wait(0).result == 5
    # Its channel is left as others are, and what is asked for again is read again.
    assert "task" in store._waiting._idle
    assert (await store.wait("task", GET)).result == 5


async def test_an_end_that_stood_before_the_subscription_is_read(store):
    await taught(store)
    await store.finish([Finish(Outcome("early", SUCCESS, 5), 0)])
    expected = store.expect("early")
    await until(lambda: expected.outcome is not None)
    assert expected.look().result == 5
