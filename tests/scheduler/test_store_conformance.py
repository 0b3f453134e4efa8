"""One suite for every schedule store."""

import asyncio
from contextlib import AsyncExitStack

import pytest

from amqflow.errors import StoreUnavailable
from amqflow.scheduler.memory import MemoryScheduleStore
from amqflow.scheduler.redis import RedisScheduleStore
from amqflow.scheduler.served import ServedScheduleStore, methods
from amqflow.scheduler.store import open_schedule_store
from amqflow.scheduler.words import (
    CORRECTION,
    OVERDUE,
    Adoption,
    Claim,
    Lease,
    Mark,
    Record,
    What,
)
from tests.servers.wait import until
from tests.stores.serving import served

T0 = 1_800_000_000_000
LEASE = 60_000


@pytest.fixture(params=["memory", "redis", "embedded"])
async def store(request, tmp_path, monkeypatch):
    async with AsyncExitStack() as around:
        if request.param == "memory":
            made = MemoryScheduleStore(history=5)
        elif request.param == "redis":
            made = RedisScheduleStore(request.getfixturevalue("redis_url"), "shop", history=5)
        else:
            entry = await around.enter_async_context(served(methods(), tmp_path, monkeypatch))
            made = ServedScheduleStore(entry.name, "shop", history=5)
        await made.open()
        around.push_async_callback(made.close)
        yield made


async def adopted(store, *names, now=T0, form="f1"):
    return await store.adopt([Adoption(name, form) for name in names], now)


def ran(slot, what=What.RAN):
    return Record(what, slot, slot + 3, id=f"id-{slot}", by="me")


async def test_a_new_entry_starts_now_and_stands_there_ever_after(store):
    (first,) = await adopted(store, "a")
    assert (first.cursor, first.start, first.last_id, first.paused_at) == (T0, T0, None, None)
    (again,) = await adopted(store, "a", now=T0 + 5000)
    assert again == first
    assert await store.standings(["a", "nobody"]) == [first, None]


async def test_an_entry_with_another_schedule_starts_anew_but_never_goes_back(store):
    await adopted(store, "a")
    (changed,) = await adopted(store, "a", now=T0 + 5000, form="f2")
    assert (changed.cursor, changed.start) == (T0 + 5000, T0 + 5000)
    (earlier,) = await adopted(store, "a", now=T0 + 4000, form="f3")
    assert (earlier.cursor, earlier.start) == (T0 + 5000, T0 + 4000)


async def test_a_cursor_that_a_wrong_clock_left_in_the_future_is_set_back(store):
    # Beyond the store's own clock as well, which runs on in the tests.
    far = T0 + 100 * 365 * 86_400_000
    await adopted(store, "a", now=far)
    (back,) = await adopted(store, "a", now=T0)
    assert (back.cursor, back.start) == (T0, T0)


async def test_a_cursor_a_little_ahead_stays_so_that_no_slot_runs_twice(store):
    far = T0 + 100 * 365 * 86_400_000
    await adopted(store, "a", now=far)
    (back,) = await adopted(store, "a", now=far - CORRECTION)
    assert back.cursor == far


async def test_of_several_claims_of_one_slot_one_wins(store):
    await adopted(store, "a")
    claim = Claim("a", T0, T0 + 1000, (T0 + 1000,), "id-1")
    answers = await asyncio.gather(*(store.claim([claim], f"s{n}", LEASE) for n in range(8)))
    won = [answer for (answer,) in answers if answer.won]
    lost = [answer for (answer,) in answers if not answer.won]
    assert len(won) == 1
    assert {answer.standing.cursor for answer in lost} == {T0 + 1000}
    assert {answer.standing.last_id for answer in lost} == {"id-1"}


async def test_a_batch_of_claims_is_answered_one_by_one(store):
    names = [f"e{number}" for number in range(600)]
    await adopted(store, *names)
    await store.claim([Claim(names[7], T0, T0 + 500, (T0 + 500,), "x")], "other", LEASE)
    claims = [Claim(name, T0, T0 + 1000, (T0 + 1000,), "y") for name in names]
    answers = await store.claim(claims, "me", LEASE)
    assert [number for number, answer in enumerate(answers) if not answer.won] == [7]


async def test_a_claim_of_an_unknown_entry_is_lost_and_says_nothing(store):
    (answer,) = await store.claim([Claim("nobody", T0, T0 + 1)], "me", LEASE)
    assert not answer.won
    assert answer.standing is None


async def test_what_a_claim_gives_up_is_recorded_with_it_and_only_if_it_is_won(store):
    await adopted(store, "a")
    missed = Record(What.MISSED, T0 + 1, T0 + 9, last=T0 + 5, count=4, why="late", by="me")
    claim = Claim("a", T0, T0 + 5, record=missed)
    assert [answer.won for answer in await store.claim([claim], "me", LEASE)] == [True]
    assert [answer.won for answer in await store.claim([claim], "me", LEASE)] == [False]
    assert await store.history("a", 10) == [missed]
    (standing,) = await store.standings(["a"])
    assert standing.counts == (("missed", 4),)
    assert standing.last_slot is None


async def test_a_mark_ends_a_lease_once(store):
    await adopted(store, "a")
    await store.claim([Claim("a", T0, T0 + 1000, (T0 + 1000,), "id")], "me", LEASE)
    for _ in range(2):
        await store.mark([Mark("a", T0 + 1000, ran(T0 + 1000))])
    assert await store.history("a", 10) == [ran(T0 + 1000)]
    (standing,) = await store.standings(["a"])
    assert standing.counts == (("ran", 1),)
    assert (standing.last_id, standing.last_slot) == ("id", T0 + 1000)


async def test_a_slot_that_failed_is_no_run_to_wait_for(store):
    await adopted(store, "a")
    await store.claim([Claim("a", T0, T0 + 1000, (T0 + 1000,), "id")], "me", LEASE)
    await store.mark([Mark("a", T0 + 1000, ran(T0 + 1000, What.FAILED))])
    (standing,) = await store.standings(["a"])
    assert standing.last_id is None


async def overdue(store):
    return (await store.beat("watcher", 5000)).overdue


async def test_a_lease_that_nobody_renews_is_overdue_and_taken_over_once(store):
    await adopted(store, "a b")
    slots = (T0 + 1000, T0 + 2000)
    await store.claim([Claim("a b", T0, T0 + 2000, slots, "id")], "dead", 1)
    found = await until(lambda: overdue(store), message="an overdue lease")
    assert [(lease.name, lease.slot) for lease in found] == [("a b", slot) for slot in slots]
    first, second = await asyncio.gather(store.take(found, LEASE), store.take(found, LEASE))
    assert sorted([first, second]) == [[False, False], [True, True]]
    assert await overdue(store) == ()


async def test_overdue_leases_are_told_in_pages(store):
    await adopted(store, "a")
    slots = tuple(range(T0 + 1, T0 + 601))
    await store.claim([Claim("a", T0, T0 + 600, slots, "id")], "dead", 1)
    first = await until(lambda: overdue(store), message="overdue leases")
    rest = await store.overdue(len(first))
    assert (len(first), len(rest)) == (OVERDUE, 600 - OVERDUE)
    assert sorted(lease.slot for lease in (*first, *rest)) == list(slots)
    assert await store.overdue(600) == ()


async def test_a_renewed_lease_is_not_overdue_and_an_ended_one_does_not_come_back(store):
    await adopted(store, "a", "b")
    await store.claim([Claim("a", T0, T0 + 1000, (T0 + 1000,), "id")], "me", 1)
    await store.claim([Claim("b", T0, T0 + 1000, (T0 + 1000,), "id")], "me", 1)
    await store.mark([Mark("b", T0 + 1000, ran(T0 + 1000))])
    (seen,) = await until(lambda: overdue(store), message="an overdue lease")
    await store.renew([("a", T0 + 1000), ("b", T0 + 1000)], LEASE)
    assert await overdue(store) == ()
    assert await store.take([seen], LEASE) == [False]
    assert await store.take([Lease("b", T0 + 1000, 1)], LEASE) == [False]


async def test_a_paused_entry_cannot_be_claimed_and_resumes_from_now(store):
    await adopted(store, "a")
    assert await store.pause("a", T0 + 10)
    assert not await store.pause("a", T0 + 20)
    (answer,) = await store.claim([Claim("a", T0, T0 + 1000, (T0 + 1000,), "id")], "me", LEASE)
    assert not answer.won
    assert answer.standing.paused_at == T0 + 10
    assert await store.resume("a", T0 + 5000)
    assert not await store.resume("a", T0 + 6000)
    (standing,) = await store.standings(["a"])
    assert (standing.cursor, standing.paused_at) == (T0 + 5000, None)


async def test_an_entry_may_be_paused_before_a_scheduler_has_seen_it(store):
    assert await store.pause("a", T0)
    assert [standing.paused_at for standing in await store.standings(["a"])] == [T0]
    (standing,) = await adopted(store, "a", now=T0 + 10)
    assert (standing.cursor, standing.paused_at) == (T0 + 10, T0)


async def test_run_time_entries_are_kept_and_each_change_is_a_new_version(store):
    versions = [(await store.beat("me", 5000)).version]
    data = {"task": "shop.clean", "crontab": "0 2 * * *", "kwargs": {"deep": True}}
    assert await store.add("nightly", data, replace=False)
    versions.append((await store.beat("me", 5000)).version)
    assert not await store.add("nightly", {"task": "other"}, replace=False)
    assert await store.entries() == {"nightly": data}
    assert await store.add("nightly", {"task": "other", "every": 5}, replace=True)
    versions.append((await store.beat("me", 5000)).version)
    assert await store.entries() == {"nightly": {"task": "other", "every": 5}}
    await store.pause("nightly", T0)
    versions.append((await store.beat("me", 5000)).version)
    await adopted(store, "nightly")
    assert await store.remove("nightly")
    assert not await store.remove("nightly")
    versions.append((await store.beat("me", 5000)).version)
    assert await store.entries() == {}
    assert await store.standings(["nightly"]) == [None]
    assert len(set(versions)) == len(versions)


async def test_an_entry_that_is_added_again_starts_anew(store):
    await store.add("a", {"task": "t"}, replace=False)
    await adopted(store, "a")
    await store.add("a", {"task": "t"}, replace=True)
    (answer,) = await store.claim([Claim("a", T0, T0 + 1000, (T0 + 1000,), "id")], "me", LEASE)
    assert (answer.won, answer.standing) == (False, None)
    (standing,) = await adopted(store, "a", now=T0 + 5000)
    assert (standing.cursor, standing.start) == (T0 + 5000, T0 + 5000)


async def test_history_is_newest_first_and_bounded(store):
    await adopted(store, "a")
    for number in range(8):
        await store.note("a", Record(What.MANUAL, T0 + number, T0 + number, id=f"n{number}"))
    assert [record.id for record in await store.history("a", 10)] == ["n7", "n6", "n5", "n4", "n3"]
    assert [record.id for record in await store.history("a", 2)] == ["n7", "n6"]
    assert await store.history("nobody", 10) == []


async def test_living_schedulers_are_counted(store):
    assert (await store.beat("one", 60_000)).schedulers == 1
    assert (await store.beat("two", 1)).schedulers == 2

    async def alone():
        return (await store.beat("one", 60_000)).schedulers == 1

    await until(alone)


async def test_two_redis_stores_of_one_application_share_and_of_two_do_not(redis_url):
    ours, theirs = RedisScheduleStore(redis_url, "shop"), RedisScheduleStore(redis_url, "shop")
    other = RedisScheduleStore(redis_url, "other")
    await adopted(ours, "a")
    assert await theirs.standings(["a"]) == await ours.standings(["a"])
    assert await other.standings(["a"]) == [None]
    for store in (ours, theirs, other):
        await store.close()


@pytest.mark.parametrize(
    ("url", "shared"),
    [("redis://h/0", True), ("rpc://", False), ("memory://", False), (None, False)],
)
def test_the_backend_s_url_names_the_store(url, shared):
    assert open_schedule_store(url, "shop", history=5).capabilities.shared is shared


async def test_a_redis_that_is_away_is_unavailable():
    store = RedisScheduleStore("redis://127.0.0.1:1/0", "shop", deadline=1)
    with pytest.raises(StoreUnavailable):
        await store.open()
    await store.close()
