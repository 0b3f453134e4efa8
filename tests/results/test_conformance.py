"""One suite for every result store, held to the capabilities each declares."""

from __future__ import annotations

import asyncio
import time
import uuid
from contextlib import AsyncExitStack
from datetime import UTC, datetime
from decimal import Decimal

import pytest

from amqflow.abc import (
    FAILURE,
    RETRY,
    REVOKED,
    STARTED,
    SUCCESS,
    Attempt,
    Claim,
    DeadReason,
    ExceptionInfo,
    Finish,
    Outcome,
    ResultStore,
    Verdict,
)
from amqflow.errors import EncodeError, StoreUnavailable, Unroutable
from amqflow.results.embedded import EmbeddedStore, methods
from amqflow.results.memory import MemoryStore, Records
from amqflow.results.redis import RedisStore
from amqflow.results.rpc import RpcStore
from tests.servers.wait import until
from tests.stores.serving import served


class Loopback:
    """The application's side of rpc, without a broker: one queue, delivered in the same loop."""

    def __init__(self):
        self.queues = {}

    async def publish(self, exchange, routing_key, body, *, correlation_id, **properties):
        assert exchange == ""
        assert properties["content_type"] == "application/json"
        if routing_key not in self.queues:
            raise Unroutable(routing_key)
        self.queues[routing_key](correlation_id, body)

    async def consume_replies(self, on_reply):
        name = f"replies-{len(self.queues)}"
        self.queues[name] = on_reply
        return name


@pytest.fixture(params=["memory", "redis", "rpc", "embedded"])
async def store(request, tmp_path, monkeypatch):
    async with AsyncExitStack() as around:
        if request.param == "memory":
            made = MemoryStore()
        elif request.param == "redis":
            made = RedisStore(request.getfixturevalue("redis_url"))
        elif request.param == "embedded":
            server = served(methods(Records()), tmp_path, monkeypatch)
            entry = await around.enter_async_context(server)
            made = EmbeddedStore(entry.name)
        else:
            made = RpcStore(Loopback())
        await made.open()
        around.push_async_callback(made.close)
        yield made


@pytest.fixture
def fenced(store):
    """Only for stores that compare and set; the others are asked for the opposite elsewhere."""
    if not store.capabilities.fences:
        pytest.fail("asked of a store without fences")
    return store


FENCED = pytest.mark.parametrize("store", ["memory", "redis", "embedded"], indirect=True)


def new_id():
    return f"{uuid.uuid4()}"


def attempt(task_id, **fields):
    return Attempt(id=task_id, **{"owner": "w1", **fields})


async def begin(store, task_id, **fields):
    (claim,) = await store.begin([attempt(task_id, **fields)])
    return claim


async def finish(store, outcome, fence):
    (done,) = await store.finish([Finish(outcome, fence, store.reply_to, outcome.id)])
    return done


async def run(store, task_id, result=None, **fields):
    claim = await begin(store, task_id)
    await finish(store, Outcome(task_id, SUCCESS, result, **fields), claim.fence)


# -- every store ---------------------------------------------------------------------------


async def test_is_a_result_store(store):
    assert isinstance(store, ResultStore)


async def test_an_unknown_id_is_none(store):
    assert await store.get(new_id()) is None


@pytest.mark.parametrize(
    "value",
    [
        None,
        0,
        True,
        'ü \U0001f600 "quoted" \\ \x00',
        [1, 2.5, None, {"a": [[]]}],
        2**80,
        datetime(2026, 11, 23, 1, 2, 3, 456, tzinfo=UTC),
        Decimal("1.10"),
        uuid.UUID(int=7),
        b"\xff\x00",
        {"status": "SUCCESS", "children": None},
    ],
    ids=[
        "none",
        "int",
        "true",
        "str",
        "list",
        "big",
        "datetime",
        "decimal",
        "uuid",
        "bytes",
        "dict",
    ],
)
async def test_a_result_comes_back_as_it_was(store, value):
    task_id = new_id()
    await run(store, task_id, value)
    seen = await store.wait(task_id, 5)
    assert (seen.state, seen.result) == (SUCCESS, value)
    assert (await store.get(task_id)).result == value


async def test_many_are_read_at_once_in_order(store):
    ids = [new_id() for _ in range(5)]
    for task_id in ids[:4]:
        await run(store, task_id, [2**80, task_id])
    claim = await begin(store, ids[4])
    info = ExceptionInfo("KeyError", "builtins", ("a",), "'a'")
    await finish(store, Outcome(ids[4], FAILURE, exception=info), claim.fence)
    for task_id in ids:
        await store.wait(task_id, 5)
    asked = [ids[3], new_id(), ids[4], ids[0], ids[0]]
    seen = await store.get_many(asked)
    assert seen[1] is None
    assert [one.id for one in seen if one is not None] == [ids[3], ids[4], ids[0], ids[0]]
    assert [one.state for one in seen if one is not None] == [SUCCESS, FAILURE, SUCCESS, SUCCESS]
    assert seen[0].result == [2**80, ids[3]]
    assert (seen[2].exception.type, seen[2].exception.args) == ("KeyError", ("a",))
    assert seen == [await store.get(task_id) for task_id in asked]
    assert await store.get_many([]) == []


async def test_children_place_and_time_come_back(store):
    task_id = new_id()
    fields = {
        "children": ("c1", "c2"),
        "parent_id": "p",
        "group_id": "g",
        "date_done": 1795478352.25,
        "traceback": 'Traceback "…"\n',
    }
    await run(store, task_id, 1, **fields)
    seen = await store.get(task_id)
    assert {name: getattr(seen, name) for name in fields} == fields


async def test_an_exception_comes_back_as_data(store):
    task_id = new_id()
    info = ExceptionInfo("KeyError", "builtins", ("a", 1), "('a', 1)")
    claim = await begin(store, task_id)
    await finish(store, Outcome(task_id, FAILURE, exception=info, traceback="tb"), claim.fence)
    seen = await store.wait(task_id, 5)
    assert (seen.state, seen.exception, seen.traceback) == (FAILURE, info, "tb")


async def test_wait_is_woken_by_the_end(store):
    task_id = new_id()
    waiting = [asyncio.create_task(store.wait(task_id, 10)) for _ in range(3)]
    await asyncio.sleep(0)
    await run(store, task_id, "done")
    assert [seen.result for seen in await asyncio.gather(*waiting)] == ["done"] * 3


async def test_wait_times_out(store):
    begun = time.monotonic()
    with pytest.raises(TimeoutError):
        await store.wait(new_id(), 0.05)
    assert time.monotonic() - begun < 15


async def test_wait_is_not_woken_by_a_retry(store):
    task_id = new_id()
    waiting = asyncio.create_task(store.wait(task_id, 10))
    claim = await begin(store, task_id)
    await finish(store, Outcome(task_id, RETRY, retry_at=time.time() + 1), claim.fence)
    await asyncio.sleep(0.05)
    assert not waiting.done()
    claim = await begin(store, task_id, number=1)
    await finish(store, Outcome(task_id, SUCCESS, 5, attempt=1), claim.fence)
    assert (await waiting).result == 5


async def test_a_waiter_that_left_is_forgotten(store):
    task_id = new_id()
    with pytest.raises(TimeoutError):
        await store.wait(task_id, 0.01)
    await run(store, task_id, 1)
    assert (await store.wait(task_id, 5)).result == 1


async def test_close_wakes_waiters(store):
    waiting = asyncio.create_task(store.wait(new_id(), 10))
    await asyncio.sleep(0.02)
    await store.close()
    with pytest.raises(StoreUnavailable):
        await waiting


async def test_a_result_that_cannot_be_written_writes_nothing(store):
    good, bad = new_id(), new_id()
    with pytest.raises(EncodeError):
        await store.finish(
            [
                Finish(Outcome(good, SUCCESS, 1), 0, store.reply_to, good),
                Finish(Outcome(bad, SUCCESS, object()), 0, store.reply_to, bad),
            ]
        )
    assert await store.get(good) is None
    assert await store.get(bad) is None


async def test_an_end_is_no_state_and_a_state_no_end(store):
    with pytest.raises(ValueError, match="finish"):
        await store.set_state(Outcome("x", SUCCESS))
    with pytest.raises(ValueError, match="set_state"):
        await finish(store, Outcome("x", "PROGRESS"), 1)


async def test_forgotten(store):
    task_id = new_id()
    await run(store, task_id, 1)
    await store.forget(task_id)
    assert await store.get(task_id) is None


async def test_a_batch_is_answered_in_order(store):
    ids = [new_id() for _ in range(300)]
    claims = await store.begin([attempt(task_id) for task_id in ids])
    assert {claim.verdict for claim in claims} == {Verdict.RUN}
    done = await store.finish(
        [
            Finish(Outcome(task_id, SUCCESS, index), claim.fence, store.reply_to, task_id)
            for index, (task_id, claim) in enumerate(zip(ids, claims, strict=True))
        ]
    )
    assert [each.stored.id for each in done] == ids
    assert [(await store.get(task_id)).result for task_id in ids[::37]] == list(range(0, 300, 37))


async def test_an_empty_batch(store):
    assert await store.begin([]) == []
    assert await store.finish([]) == []
    assert await store.renew([]) == []


# -- without fences ------------------------------------------------------------------------


@pytest.mark.parametrize("store", ["rpc"], indirect=True)
async def test_without_fences_every_attempt_runs(store):
    assert not store.capabilities.fences
    task_id = new_id()
    await run(store, task_id, 1)
    claims = await store.begin([attempt(task_id), attempt(task_id, number=3)])
    assert [claim.verdict for claim in claims] == [Verdict.RUN] * 2
    assert await store.renew([(attempt(task_id), 0)]) == [True]


@pytest.mark.parametrize("store", ["rpc"], indirect=True)
async def test_a_caller_that_left_is_a_normal_end(store):
    outcome = Outcome(new_id(), SUCCESS, 1)
    for reply_to in ("gone", None):
        (done,) = await store.finish([Finish(outcome, 0, reply_to, outcome.id)])
        assert (done.stored, done.refused) == (outcome, False)


# -- fences --------------------------------------------------------------------------------


@FENCED
async def test_the_first_begin_runs_under_fence_one(fenced):
    assert await begin(fenced, new_id()) == Claim(Verdict.RUN, 1)


@FENCED
async def test_a_redelivery_without_an_outcome_runs_and_fences_the_earlier_owner_out(fenced):
    task_id = new_id()
    first = await begin(fenced, task_id)
    second = await begin(fenced, task_id, owner="w2")
    assert (second.verdict, second.fence) == (Verdict.RUN, first.fence + 1)
    late = await finish(fenced, Outcome(task_id, SUCCESS, "late"), first.fence)
    assert late.refused
    assert late.contested, "who holds the fence may be dead"
    assert await fenced.get(task_id) is None
    assert await fenced.renew([(attempt(task_id), first.fence)]) == [False]
    assert await fenced.renew([(attempt(task_id), second.fence)]) == [True]
    good = await finish(fenced, Outcome(task_id, SUCCESS, "good"), second.fence)
    assert not good.refused
    assert (await fenced.get(task_id)).result == "good"


@FENCED
async def test_a_redelivery_of_an_ended_attempt_is_settled_with_its_outcome(fenced):
    task_id = new_id()
    claim = await begin(fenced, task_id)
    outcome = Outcome(
        task_id,
        FAILURE,
        exception=ExceptionInfo("Odd", "shop", ("a",), "odd: a"),
        park=DeadReason.FAILED,
        reason="gave up",
        date_done=1795478352.5,
        replaced_by={"task": "other", "args": [1]},
    )
    await finish(fenced, outcome, claim.fence)
    again = await begin(fenced, task_id)
    assert (again.verdict, again.outcome) == (Verdict.SETTLED, outcome)


@FENCED
async def test_a_redelivery_of_a_retried_attempt_is_settled_with_the_retry(fenced):
    task_id = new_id()
    claim = await begin(fenced, task_id)
    info = ExceptionInfo("OSError", "builtins", (5, "io"), "[Errno 5] io")
    outcome = Outcome(task_id, RETRY, exception=info, retry_at=1795478352.125)
    await finish(fenced, outcome, claim.fence)
    assert (await fenced.get(task_id)).state == RETRY
    assert await begin(fenced, task_id) == Claim(Verdict.SETTLED, outcome=outcome)
    following = await begin(fenced, task_id, number=1)
    assert (following.verdict, following.fence) == (Verdict.RUN, claim.fence + 1)
    assert (await begin(fenced, task_id)).verdict is Verdict.STALE


@FENCED
async def test_an_earlier_attempt_is_stale_and_its_outcome_refused(fenced):
    task_id = new_id()
    old = await begin(fenced, task_id)
    new = await begin(fenced, task_id, number=1)
    assert new.verdict is Verdict.RUN
    assert (await begin(fenced, task_id)).verdict is Verdict.STALE
    assert (await finish(fenced, Outcome(task_id, SUCCESS, 0), old.fence)).refused
    assert (await finish(fenced, Outcome(task_id, RETRY), old.fence)).refused
    done = await finish(fenced, Outcome(task_id, SUCCESS, 1, attempt=1), new.fence)
    assert not done.refused
    assert (await finish(fenced, Outcome(task_id, SUCCESS, 0), old.fence)).refused
    assert (await fenced.get(task_id)).result == 1


@FENCED
async def test_a_finish_sent_twice_says_what_stands(fenced):
    task_id = new_id()
    claim = await begin(fenced, task_id)
    for state in (RETRY, SUCCESS):
        outcome = Outcome(task_id, state, attempt=claim.fence - 1, date_done=None)
        first = await finish(fenced, outcome, claim.fence)
        second = await finish(fenced, outcome, claim.fence)
        assert (first.refused, second.refused) == (False, False)
        assert second.stored.state == state
        claim = await begin(fenced, task_id, number=1)


@FENCED
async def test_the_first_end_wins(fenced):
    task_id = new_id()
    claim = await begin(fenced, task_id)
    await finish(fenced, Outcome(task_id, SUCCESS, "first"), claim.fence)
    done = await finish(fenced, Outcome(task_id, FAILURE, reason="second"), claim.fence)
    assert (done.refused, done.stored.state, done.stored.result) == (False, SUCCESS, "first")
    assert (await fenced.get(task_id)).result == "first"


@FENCED
async def test_a_higher_epoch_reopens_and_a_lower_one_is_refused(fenced):
    task_id = new_id()
    old = await begin(fenced, task_id, number=2)
    await finish(fenced, Outcome(task_id, FAILURE, attempt=2, reason="no"), old.fence)
    new = await begin(fenced, task_id, epoch=1)
    assert (new.verdict, new.fence) == (Verdict.RUN, old.fence + 1)
    assert await fenced.get(task_id) is None
    assert (await begin(fenced, task_id, number=2)).verdict is Verdict.STALE
    assert (await finish(fenced, Outcome(task_id, SUCCESS, 0, attempt=2), 9)).refused
    await finish(fenced, Outcome(task_id, SUCCESS, 1, epoch=1), new.fence)
    seen = await fenced.get(task_id)
    assert (seen.result, seen.epoch, seen.attempt) == (1, 1, 0)
    assert (await begin(fenced, task_id, epoch=1)).outcome.result == 1
    assert (await begin(fenced, task_id, number=2)).verdict is Verdict.STALE


@FENCED
async def test_a_saved_group_is_loaded_until_it_is_dropped(fenced):
    group, other = new_id(), new_id()
    members = [[group, None], [[["a", None], None], [["b", [["p", None], None]], None]]]
    assert await fenced.load_group(group) is None
    await fenced.save_group(group, members)
    await fenced.save_group(other, [[other, None], []])
    assert await fenced.load_group(group) == members
    await fenced.save_group(group, [[group, None], []])
    assert await fenced.load_group(group) == [[group, None], []], "the last word stands"
    await fenced.save_group(group, None)
    assert await fenced.load_group(group) is None
    assert await fenced.load_group(other) == [[other, None], []]
    await fenced.save_group(group, None)


@FENCED
async def test_once_is_busy_while_another_owner_lives(fenced):
    task_id = new_id()
    first = await begin(fenced, task_id, once=True, lease=30)
    assert (await begin(fenced, task_id, once=True, owner="w2")).verdict is Verdict.BUSY
    again = await begin(fenced, task_id, once=True)
    assert (again.verdict, again.fence) == (Verdict.RUN, first.fence + 1)


@FENCED
async def test_once_runs_after_the_lease_and_is_kept_by_renewing(fenced):
    task_id = new_id()
    mine = attempt(task_id, once=True, lease=1.0)
    (claim,) = await fenced.begin([mine])
    end = time.monotonic() + 1.5
    while time.monotonic() < end:
        assert await fenced.renew([(mine, claim.fence)]) == [True]
        assert (await begin(fenced, task_id, once=True, owner="w2")).verdict is Verdict.BUSY
        await asyncio.sleep(0.05)

    async def taken():
        other = await begin(fenced, task_id, once=True, owner="w2")
        return other if other.verdict is Verdict.RUN else None

    other = await until(taken, deadline=30)
    assert other.fence == claim.fence + 1
    assert await fenced.renew([(mine, claim.fence)]) == [False]
    assert (await finish(fenced, Outcome(task_id, SUCCESS), claim.fence)).refused


@FENCED
async def test_once_and_ended_is_settled(fenced):
    task_id = new_id()
    claim = await begin(fenced, task_id, once=True)
    await finish(fenced, Outcome(task_id, SUCCESS, 1), claim.fence)
    again = await begin(fenced, task_id, once=True, owner="w2")
    assert (again.verdict, again.outcome.result) == (Verdict.SETTLED, 1)


@FENCED
async def test_a_lease_ends_with_its_task(fenced):
    task_id = new_id()
    claim = await begin(fenced, task_id)
    await finish(fenced, Outcome(task_id, SUCCESS, 1), claim.fence)
    assert await fenced.renew([(attempt(task_id), claim.fence)]) == [False]


@FENCED
async def test_revoked_before_it_was_delivered(fenced):
    task_id = new_id()
    done = await finish(fenced, Outcome(task_id, REVOKED, reason="by hand"), 0)
    assert not done.refused
    claim = await begin(fenced, task_id)
    assert (claim.verdict, claim.outcome.state, claim.outcome.reason) == (
        Verdict.SETTLED,
        REVOKED,
        "by hand",
    )


@FENCED
async def test_an_outsider_cannot_end_a_running_task(fenced):
    task_id = new_id()
    claim = await begin(fenced, task_id)
    assert (await finish(fenced, Outcome(task_id, REVOKED), 0)).refused
    assert not (await finish(fenced, Outcome(task_id, SUCCESS, 1), claim.fence)).refused


@FENCED
async def test_a_store_that_forgot_takes_the_first_writer(fenced):
    task_id = new_id()
    claim = await begin(fenced, task_id, number=3)
    await fenced.forget(task_id)
    assert await fenced.renew([(attempt(task_id, number=3), claim.fence)]) == [True]
    await fenced.forget(task_id)
    done = await finish(fenced, Outcome(task_id, SUCCESS, 1, attempt=3), claim.fence)
    assert not done.refused
    late = await finish(fenced, Outcome(task_id, FAILURE, attempt=3), claim.fence)
    assert late.stored.result == 1


@FENCED
async def test_own_states_are_seen_and_never_cover_an_end(fenced):
    task_id = new_id()
    claim = await begin(fenced, task_id)
    await fenced.set_state(Outcome(task_id, "PROGRESS", {"done": 0.5}))
    seen = await fenced.get(task_id)
    assert (seen.state, seen.result) == ("PROGRESS", {"done": 0.5})
    await finish(fenced, Outcome(task_id, FAILURE, reason="no"), claim.fence)
    await fenced.set_state(Outcome(task_id, "PROGRESS", {"done": 0.9}))
    assert (await fenced.get(task_id)).state == FAILURE
    await fenced.set_state(Outcome(task_id, "RECEIVED", epoch=1))
    assert (await fenced.get(task_id)).state == "RECEIVED"
    assert (await begin(fenced, task_id, epoch=1)).verdict is Verdict.RUN


@FENCED
async def test_started_is_shown_where_asked_for(fenced):
    quiet, shown = new_id(), new_id()
    await fenced.begin([attempt(quiet), attempt(shown, track_started=True, owner="me")])
    assert await fenced.get(quiet) is None
    seen = await fenced.get(shown)
    assert (seen.state, seen.result["hostname"]) == (STARTED, "me")


@FENCED
async def test_one_of_many_finishers_wins(fenced):
    task_id = new_id()
    claim = await begin(fenced, task_id)
    done = await asyncio.gather(
        *(finish(fenced, Outcome(task_id, SUCCESS, n), claim.fence) for n in range(20))
    )
    assert len({each.stored.result for each in done}) == 1
    assert not any(each.refused for each in done)


@FENCED
async def test_one_id_twice_in_a_batch(fenced):
    task_id = new_id()
    first, second = await fenced.begin([attempt(task_id), attempt(task_id)])
    assert (first.fence, second.fence) == (1, 2)
