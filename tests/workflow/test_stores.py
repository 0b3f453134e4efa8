"""One conformance suite for every chord store."""

import asyncio
import itertools
from contextlib import AsyncExitStack
from types import SimpleNamespace

import pytest

from amqflow.abc import FAILURE, SUCCESS, ExceptionInfo, Outcome
from amqflow.worker.chords import ChordCoordinator
from amqflow.workflow import Unfolder
from amqflow.workflow.records import (
    ADDED,
    Counting,
    End,
    Ending,
    Failure,
    Fate,
    Membership,
    Record,
    Seal,
    Spec,
    State,
    Verdict,
    member_id,
)
from amqflow.workflow.stores import Lifetimes
from amqflow.workflow.stores.embedded import EmbeddedChords, methods
from amqflow.workflow.stores.memory import Chords, MemoryChords
from amqflow.workflow.stores.redis import RedisChords, keys_of
from tests.stores.serving import served

#: A lease too long to run out in a test.
LONG = Lifetimes(60.0, 60.0, lease=30.0)


@pytest.fixture(params=["redis", "memory", "embedded"])
async def open_store(request, tmp_path, monkeypatch):
    """Open the store under test; several share what they keep."""
    opened = []
    chords = Chords()
    url = request.getfixturevalue("redis_url") if request.param == "redis" else None

    async def opening(lifetimes=LONG):
        if request.param == "embedded":
            store = EmbeddedChords("suite", lifetimes)
        else:
            store = RedisChords(url, lifetimes) if url else MemoryChords(lifetimes, chords)
        await store.open()
        opened.append(store)
        return store

    async with AsyncExitStack() as around:
        if request.param == "embedded":
            server = served(methods(chords), tmp_path, monkeypatch)
            await around.enter_async_context(server)
        yield opening
        for store in opened:
            await store.close()


@pytest.fixture
async def store(open_store):
    return await open_store()


#: What a tombstone remembers.
GONE = Spec(Fate((End("body", task="total"),), root_id="root"), names=(("fetch", 3),))


def record(name="c", size=3, *, epoch=0, **fields):
    fate = Fate((End("body", task="total"),), parent_id="parent", root_id="root")
    return Record(name, size, Spec(fate, {"task": "total"}, epoch=epoch, **fields))


def ended(index, value=b"1", *, epoch=0):
    return Ending(index, succeeded=True, value=value, epoch=epoch)


def failed(index, *, epoch=0):
    outcome = Outcome(
        f"m{index}", FAILURE, exception=ExceptionInfo("KeyError", "builtins", ("x",), "'x'")
    )
    made = Ending.of(index, outcome, "shop.boil")
    return Ending(index, succeeded=False, value=made.value, epoch=epoch)


async def count(store, *endings, chord="c"):
    (answer,) = await store.count([Counting(chord, endings)])
    return answer


async def test_a_record_is_read_back_as_it_was_written(store):
    member = Membership("outer", 4, "shop", "redis")
    fate = Fate(
        (End("r", 3, "total"), End("later")), ({"task": "tell"},), member, "root", "parent", 5
    )
    spec = Spec(fate, None, ({"task": "note"},), {2: "own-id"}, (("fetch", 3),), epoch=2)
    assert await store.create([Record("c", 3, spec)]) == [State.OPEN]
    known = await store.load("c", endings=True)
    assert known.spec == spec
    assert (known.state, known.size, known.ended, known.failed) == (State.OPEN, 3, 0, 0)
    assert known.epoch == 2
    assert dict(known.missing()) == {0: member_id("c", 0), 1: member_id("c", 1), 2: "own-id"}


async def test_what_is_not_there_is_gone(store):
    assert await store.load("nobody", endings=False) is None
    assert (await count(store, ended(0), chord="nobody")).verdict is Verdict.GONE
    assert await store.extend("nobody", "x") is None
    assert await store.end("nobody", 1, State.FIRED, GONE) is False


async def test_members_are_a_set_and_the_last_one_makes_it_ready(store):
    await store.create([record()])
    assert (await count(store, ended(2), ended(0))).verdict is Verdict.WAITING
    for _ in range(5):  # delivered again and again
        assert (await count(store, ended(2), ended(0))).verdict is Verdict.WAITING
    answer = await count(store, ended(1, b'"one"'))
    assert answer.verdict is Verdict.READY
    known = await store.load("c", endings=True)
    assert known.results() == [1, "one", 1]
    assert list(known.missing()) == []


async def test_the_first_ending_of_an_epoch_stands(store):
    await store.create([record(size=1)])
    await count(store, ended(0, b'"first"'))
    await count(store, ended(0, b'"second"'))
    await count(store, failed(0))
    known = await store.load("c", endings=True)
    assert known.results() == ["first"]


async def test_ready_is_answered_until_fired_and_to_one_at_a_time(open_store):
    store, other = await open_store(), await open_store()
    await store.create([record(size=1)])
    first = await count(store, ended(0))
    assert first.verdict is Verdict.READY
    assert (await count(other, ended(0))).verdict is Verdict.BUSY
    assert (await count(store)).verdict is Verdict.BUSY
    assert await store.end("c", first.fence, State.FIRED, GONE)
    assert (await count(other, ended(0))).verdict is Verdict.DONE
    assert (await count(store)).verdict is Verdict.DONE


async def test_a_lease_that_ran_out_goes_to_the_next_with_a_higher_fence(open_store):
    store = await open_store(Lifetimes(60.0, 60.0, lease=0.05))
    await store.create([record(size=1)])
    first = await count(store, ended(0))
    await asyncio.sleep(0.08)
    second = await count(store)
    assert second.verdict is Verdict.READY
    assert second.fence > first.fence
    assert await store.end("c", first.fence, State.FIRED, GONE) is False
    assert await store.end("c", second.fence, State.FIRED, GONE)
    assert await store.end("c", second.fence, State.FIRED, GONE), "an answer may be lost"


async def test_of_many_askers_at_once_one_gets_the_lease(open_store):
    # A lease that no machine is slow enough to outlast.
    stores = [await open_store(Lifetimes(600.0, 600.0, lease=300.0)) for _ in range(4)]
    await stores[0].create([record(size=20)])
    endings = [ended(index) for index in range(20)]
    turns = itertools.islice(itertools.cycle(stores), 80)
    answers = await asyncio.gather(*(count(store, *endings) for store in turns))
    verdicts = [answer.verdict for answer in answers]
    assert verdicts.count(Verdict.READY) == 1
    assert verdicts.count(Verdict.BUSY) == 79


async def test_a_failed_member_fails_the_chord_at_once_and_once(store):
    await store.create([record(size=50)])
    answer = await count(store, ended(0), failed(7), failed(8))
    assert answer.verdict is Verdict.FAILED
    known = await store.load("c", endings=True)
    assert known.failed == 2
    assert known.why in {7, 8}
    cause = Failure.read(known.endings[known.why].value)
    assert (cause.task, cause.exception.type) == ("shop.boil", "KeyError")
    assert await store.end("c", answer.fence, State.FAILED, GONE)
    assert (await count(store, failed(9))).verdict is Verdict.DONE
    rest = [ended(index) for index in range(50)]
    assert (await count(store, *rest)).verdict is Verdict.DONE


async def test_a_replayed_member_reopens_the_failed_chord(store):
    await store.create([record(size=2)])
    answer = await count(store, ended(0), failed(1))
    await store.end("c", answer.fence, State.FAILED, GONE)
    assert (await count(store, ended(1))).verdict is Verdict.DONE, "the same epoch: nothing new"
    again = await count(store, ended(1, b'"mended"', epoch=1))
    assert again.verdict is Verdict.READY
    known = await store.load("c", endings=True)
    assert known.results() == [1, "mended"]
    assert known.epoch == 1
    assert known.why is None
    await store.end("c", again.fence, State.FIRED, GONE)
    assert (await count(store, failed(1, epoch=2))).verdict is Verdict.DONE


async def test_a_chord_with_two_failures_stays_failed_until_both_are_mended(store):
    await store.create([record(size=2)])
    answer = await count(store, failed(0), failed(1))
    await store.end("c", answer.fence, State.FAILED, GONE)
    assert (await count(store, ended(0, epoch=1))).verdict is Verdict.DONE
    assert (await count(store, failed(1, epoch=1))).verdict is Verdict.DONE
    assert (await count(store, ended(1, epoch=2))).verdict is Verdict.READY


async def test_a_lower_epoch_is_refused(store):
    await store.create([record(size=2)])
    await count(store, ended(0, b'"new"', epoch=3))
    await count(store, ended(0, b'"old"', epoch=2))
    await count(store, ended(1))
    assert (await store.load("c", endings=True)).results() == ["new", 1]


async def test_an_index_outside_the_header_is_no_member(store):
    await store.create([record(size=2)])
    answer = await count(store, ended(0), ended(2), ended(ADDED), ended(77))
    assert answer.verdict is Verdict.WAITING
    assert (await store.load("c", endings=False)).ended == 1


async def test_an_unsealed_chord_waits_until_its_size_is_told(store):
    await store.create([record(size=None)])
    assert (await count(store, ended(0), ended(1))).verdict is Verdict.WAITING
    sealed = record(members={1: "own"}).spec
    assert await store.seal([Seal("c", 2, sealed), Seal("nobody", 1)]) == [True, False]
    assert await store.seal([Seal("c", 9)]) == [True], "the first word stands"
    known = await store.load("c", endings=False)
    assert known.size == 2
    assert known.spec == sealed
    assert (await count(store)).verdict is Verdict.READY


async def test_a_seal_says_nothing_of_a_chord_whose_members_run(store):
    await store.create([record(size=None)])
    await count(store, ended(0))
    assert await store.seal([Seal("c", 2)]) == [False]
    assert (await count(store, ended(1))).verdict is Verdict.READY


async def test_an_unsealed_chord_fails_with_its_first_failure(store):
    await store.create([record(size=None)])
    assert (await count(store, failed(0))).verdict is Verdict.FAILED


async def test_an_empty_chord_is_ready_when_asked(store):
    await store.create([record(size=0)])
    assert (await count(store)).verdict is Verdict.READY
    assert (await store.load("c", endings=True)).results() == []


async def test_an_added_member_is_waited_for_and_comes_last(store):
    await store.create([record(size=2)])
    index = await store.extend("c", "extra")
    assert index == ADDED
    assert await store.extend("c", "extra") == index, "the same one again"
    assert await store.extend("c", "another") == ADDED + 1
    assert (await count(store, ended(0), ended(1))).verdict is Verdict.WAITING
    await count(store, ended(ADDED + 1, b'"another"'))
    known = await store.load("c", endings=True)
    assert list(known.missing()) == [(ADDED, "extra")]
    answer = await count(store, ended(ADDED, b'"extra"'))
    assert answer.verdict is Verdict.READY
    assert (await store.load("c", endings=True)).results() == [1, 1, "extra", "another"]
    await store.end("c", answer.fence, State.FIRED, GONE)
    assert await store.extend("c", "late") is None


async def test_a_record_that_is_there_stays(store):
    await store.create([record()])
    await count(store, ended(0))
    assert await store.create([record(size=9)]) == [State.OPEN]
    known = await store.load("c", endings=False)
    assert (known.size, known.ended) == (3, 1)


async def test_a_later_life_of_its_sender_makes_it_anew(store):
    await store.create([record(size=1)])
    answer = await count(store, failed(0))
    await store.end("c", answer.fence, State.FAILED, GONE)
    assert await store.create([record(size=1)]) == [State.FAILED]
    assert await store.create([record(size=1, epoch=1)]) == [State.OPEN]
    assert (await store.load("c", endings=False)).ended == 0


async def test_fired_leaves_a_tombstone_without_results(store):
    await store.create([record(size=1)])
    answer = await count(store, ended(0))
    await store.end("c", answer.fence, State.FIRED, GONE)
    known = await store.load("c", endings=True)
    assert known.state is State.FIRED
    assert known.endings == {}
    assert known.spec == GONE
    assert await store.create([record(size=1)]) == [State.FIRED]


async def test_records_and_tombstones_expire(open_store):
    store = await open_store(Lifetimes(record=0.1, tombstone=0.05))
    await store.create([record(size=1), record("other", size=1)])
    answer = await count(store, ended(0))
    await store.end("c", answer.fence, State.FIRED, GONE)
    await asyncio.sleep(0.15)
    assert await store.load("c", endings=False) is None
    assert await store.load("other", endings=False) is None
    assert (await count(store, ended(0), chord="other")).verdict is Verdict.GONE


async def test_a_prolonged_record_stays(open_store):
    store = await open_store(Lifetimes(record=0.15, tombstone=0.15))
    await store.create([record(size=2)])
    await count(store, ended(0))
    for _ in range(4):
        await asyncio.sleep(0.06)
        await store.prolong(["c", "nobody"])
    known = await store.load("c", endings=True)
    assert known.ended == 1


async def test_several_chords_are_counted_in_one_call(store):
    await store.create([record("a", 1), record("b", 2)])
    answers = await store.count(
        [
            Counting("a", [ended(0)]),
            Counting("b", [ended(0)]),
            Counting("b", [failed(1)]),
            Counting("nobody", [ended(0)]),
        ]
    )
    assert [answer.verdict for answer in answers] == [
        Verdict.READY,
        Verdict.WAITING,
        Verdict.FAILED,
        Verdict.GONE,
    ]


async def test_chords_are_listed(store):
    await store.create([record(f"c{number}", 1) for number in range(5)])
    assert {known.id for known in await store.kept(100)} == {f"c{number}" for number in range(5)}
    assert len(await store.kept(2)) == 2
    answer = await count(store, ended(0), chord="c3")
    await store.end("c3", answer.fence, State.FIRED, GONE)
    assert {known.id for known in await store.kept(100, fired=False)} == {"c0", "c1", "c2", "c4"}
    assert len(await store.kept(100)) == 5


async def test_values_of_any_bytes_survive(store):
    await store.create([record(size=1)])
    value = Ending.of(0, Outcome("m", SUCCESS, result={"text": "1S\n\x00é", "n": 2**80}))
    await count(store, value)
    assert (await store.load("c", endings=True)).results() == [{"text": "1S\n\x00é", "n": 2**80}]


# -- memory alone ----------------------------------------------------------------------------


async def test_memory_gives_up_what_has_expired():
    chords = Chords()
    store = MemoryChords(Lifetimes(record=0.05, tombstone=0.05), chords)
    await store.create([record(f"c{number}") for number in range(100)])
    await asyncio.sleep(0.08)
    await store.create([record("new")])
    assert list(chords.chords) == ["new"]


# -- Redis alone -----------------------------------------------------------------------------


async def test_both_keys_of_a_chord_share_a_slot():
    record_key, members_key = keys_of("0f")
    assert "{0f}" in record_key
    assert "{0f}" in members_key


async def test_redis_spends_at_most_200_bytes_a_member_beyond_its_result(redis_url):
    store = RedisChords(redis_url, LONG)
    await store.create([record(size=10_000)])
    value = b'"0123456789"'
    for start in range(0, 10_000, 500):
        await count(store, *(ended(index, value) for index in range(start, start + 500)))
    spent = sum([await store._client.command("MEMORY", "USAGE", key) for key in keys_of("c")])
    await store.close()
    assert spent / 10_000 - len(value) <= 200


async def test_redis_learns_its_scripts_again_after_a_flush(redis_url):
    store = RedisChords(redis_url, LONG)
    await store.create([record(size=1)])
    await store._client.command("SCRIPT", "FLUSH")
    assert (await count(store, ended(0))).verdict is Verdict.READY
    await store.close()


@pytest.mark.parametrize("mended", [{1}, {1, 2}])
async def test_a_replay_between_the_count_and_its_end_fires_nothing_that_is_not_complete(mended):
    """The body never gets a failure as a result, nor a list that is too short."""
    store = MemoryChords(LONG)
    await store.create([record()])
    answer = await count(store, failed(2), failed(1))
    assert answer.verdict is Verdict.FAILED
    await count(store, *(ended(index, epoch=1) for index in mended))
    carried = []

    class Settling:
        async def carry_out(self, settlement, *_):
            carried.append(settlement.launch)
            return True

    coordinator = ChordCoordinator(
        settler=Settling(),
        launcher=SimpleNamespace(store=lambda: store),
        unfolder=Unfolder("app", "memory"),
        results=None,
        lane=None,
        now=lambda: 0.0,
    )
    assert await coordinator._ended("c", answer, SimpleNamespace(live=True))
    if mended == {1, 2}:
        assert carried == []
    else:
        (launch,) = carried
        assert not launch.calls
        assert {outcome.state for outcome in launch.outcomes} == {"FAILURE"}


async def test_a_member_takes_less_than_two_hundred_bytes_of_redis_beyond_its_result(redis_url):
    """Of 10,000, each with a result of ten bytes, all but the last one ended."""
    size, result = 10_000, b'"12345678"'
    store = RedisChords(redis_url, LONG)
    await store.open()
    try:
        await store.create([record("wide", size)])
        for start in range(0, size - 1, 500):
            some = range(start, min(start + 500, size - 1))
            answer = await count(store, *(ended(index, result) for index in some), chord="wide")
            assert answer.verdict is Verdict.WAITING
        taken = [
            await store._client.command("MEMORY", "USAGE", key, "SAMPLES", "0")
            for key in keys_of("wide")
        ]
    finally:
        await store.close()
    beyond = sum(taken) / (size - 1) - len(result)
    assert 0 < beyond <= 200
