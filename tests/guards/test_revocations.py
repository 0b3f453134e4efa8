"""Revocations: one suite for every place they are kept in."""

import asyncio
import uuid
from contextlib import AsyncExitStack, asynccontextmanager

import pytest

from amqflow.clock import SYSTEM_CLOCK
from amqflow.guards.embedded import NEWS, EmbeddedRevocations, revocation_methods
from amqflow.guards.revocations import Revoked, SharedRevocations, open_revocations
from amqflow.protocol.revocation import Revocation, Target
from tests.servers.wait import until
from tests.stores.serving import served


def server_methods():
    return revocation_methods(SharedRevocations(), SYSTEM_CLOCK)


@pytest.fixture(params=["memory", "redis", "embedded"])
async def join(request, tmp_path, monkeypatch):
    """Return what opens the place; all that are opened share what it keeps."""
    async with AsyncExitStack() as around:
        if request.param == "embedded":
            entry = await around.enter_async_context(
                served(server_methods(), tmp_path, monkeypatch)
            )
            url = entry.url
        elif request.param == "redis":
            url = request.getfixturevalue("redis_url")
        else:
            url = f"memory://{uuid.uuid4()}"

        def opened():
            made = open_revocations(url, app_name="shop", clock=SYSTEM_CLOCK)
            around.push_async_callback(made.close)
            return made

        yield opened


@pytest.mark.parametrize("kind", ["memory", "redis"])
async def test_two_applications_that_share_a_store_heed_their_own(request, kind):
    url = request.getfixturevalue("redis_url") if kind == "redis" else f"memory://{uuid.uuid4()}"
    async with AsyncExitStack() as around:
        shop, bank = (
            open_revocations(url, app_name=name, clock=SYSTEM_CLOCK) for name in ("shop", "bank")
        )
        around.push_async_callback(shop.close)
        around.push_async_callback(bank.close)
        now = SYSTEM_CLOCK.now()
        await shop.add([Revocation(Target.TASK, "send", now, now + 60)])
        assert [one.value for one in await shop.all()] == ["send"]
        assert await bank.all() == []


@asynccontextmanager
async def following(revocations):
    """Follow as a worker does, and count what was told: wholes, and lines altogether."""
    revoked, counts = Revoked(SYSTEM_CLOCK), {"wholes": 0, "lines": 0}

    def told(found, whole):
        counts["lines"] += len(found)
        if whole:
            counts["wholes"] += 1
            revoked.replace(found)
        else:
            revoked.add(found)

    task = asyncio.create_task(revocations.follow(told))
    try:
        await until(lambda: counts["wholes"])
        yield revoked, counts
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


def revocation(value, at=0.0, *, target=Target.ID, expires=60.0):
    now = SYSTEM_CLOCK.now()
    return Revocation(target, value, now + at, now + expires, terminate=True, epoch=2)


async def test_they_are_read_by_others_as_they_were_written_oldest_first(join):
    one, other = join(), join()
    assert await other.all() == []
    first = revocation("a")
    second = revocation("header=ü", 1.0, target=Target.STAMP)
    await one.add([second, first, revocation("past", expires=-1.0)])
    assert await other.all() == [first, second]


async def test_a_lift_forgets_what_it_names_of_that_target_only(join):
    one, other = join(), join()
    task, same_name = revocation("a"), revocation("a", 1.0, target=Target.TASK)
    await one.add([task, same_name])
    assert await other.lift(Target.ID, ["a", "unknown"]) == 1
    assert await one.all() == [same_name]
    assert await other.lift(Target.ID, ["a"]) == 0


async def test_followers_know_what_was_there_hear_what_comes_and_what_is_lifted(join):
    one = join()
    await one.add([revocation("before")])
    async with following(join()) as (first, _), following(join()) as (second, _):
        assert len(first) == len(second) == 1
        for number in range(20):
            await one.add([revocation(f"r{number}")])
        for revoked in (first, second):
            await until(lambda seen=revoked: len(seen) == 21)
        await one.lift(Target.ID, ["r7"])
        for revoked in (first, second):
            await until(lambda seen=revoked: len(seen) == 20)
        await one.add([revocation("after")])
        await until(lambda: len(first) == len(second) == 21)


# -- embedded alone --------------------------------------------------------------------------


@pytest.fixture
async def name(tmp_path, monkeypatch):
    async with served(server_methods(), tmp_path, monkeypatch) as entry:
        yield entry.name


async def test_a_served_revocation_is_told_once_and_all_again_after_a_lift(name):
    one, other = EmbeddedRevocations(name), EmbeddedRevocations(name)
    async with following(other) as (revoked, counts):
        for number in range(100):
            await one.add([revocation(f"r{number}")])
        await until(lambda: len(revoked) == 100)
        assert counts == {"wholes": 1, "lines": 100}
        await one.lift(Target.ID, ["nobody"])
        await one.lift(Target.ID, ["r7"])
        await until(lambda: len(revoked) == 99)
        assert counts == {"wholes": 2, "lines": 199}
        await one.add([revocation("after")])
        await until(lambda: len(revoked) == 100)
        assert counts == {"wholes": 2, "lines": 200}
    await one.close()
    await other.close()


async def test_who_has_missed_too_much_is_told_everything(name):
    one = EmbeddedRevocations(name)
    known, whole, found = await one._client.call("revocations.next", None)
    assert (whole, found) == (True, [])
    for number in range(NEWS):
        await one.add([revocation(f"r{number}")])
    _, whole, found = await one._client.call("revocations.next", known)
    assert (whole, len(found)) == (False, NEWS)
    await one.add([revocation("one too many")])
    _, whole, found = await one._client.call("revocations.next", known)
    assert (whole, len(found)) == (True, NEWS + 1)
    await one.close()


async def test_a_follower_joins_the_server_that_comes_back(tmp_path, monkeypatch):
    one, other = EmbeddedRevocations("suite"), EmbeddedRevocations("suite")
    async with AsyncExitStack() as follows:
        async with served(server_methods(), tmp_path, monkeypatch):
            await one.add([revocation("forgotten")])
            revoked, counts = await follows.enter_async_context(following(other))
            assert len(revoked) == 1
        async with served(server_methods(), tmp_path, monkeypatch):
            await until(lambda: counts["wholes"] == 2, deadline=30)
            assert len(revoked) == 0
            await one.add([revocation("a"), revocation("b")])
            await until(lambda: len(revoked) == 2)
    await one.close()
    await other.close()
