"""Rate limits: one suite for every place they are counted in."""

import asyncio
import uuid
from contextlib import AsyncExitStack
from itertools import pairwise

import pytest

from amqflow.clock import SYSTEM_CLOCK
from amqflow.errors import StoreConflict, StoreUnavailable
from amqflow.guards.embedded import rate_methods
from amqflow.guards.rates import RedisRates, SharedRates, Want, open_rates
from amqflow.tasks import RateLimit
from tests.stores.serving import served

PER_SECOND = RateLimit(1, 1)
PER_MINUTE = RateLimit(10, 60)
#: Seconds that pass between two questions of a test, on a slow machine.
SLOW = 5.0


@pytest.fixture(params=["memory", "redis", "embedded"])
async def join(request, tmp_path, monkeypatch):
    """Return what opens the place; all that are opened share what it counts."""
    async with AsyncExitStack() as around:
        if request.param == "embedded":
            methods = rate_methods(SharedRates(), SYSTEM_CLOCK)
            url = (await around.enter_async_context(served(methods, tmp_path, monkeypatch))).url
        elif request.param == "redis":
            url = request.getfixturevalue("redis_url")
        else:
            url = f"memory://{uuid.uuid4()}"

        def opened(app_name="shop"):
            made = open_rates(url, app_name=app_name, clock=SYSTEM_CLOCK)
            around.push_async_callback(made.close)
            return made

        yield opened


def near(found, *expected):
    """Whether these are seconds counted a moment ago: less by the time that passed, never more."""
    return len(found) == len(expected) and all(
        one == other if one is None or other is None else other - SLOW <= one <= other + 0.001
        for one, other in zip(found, expected, strict=True)
    )


def gaps(starts):
    return [later - one for one, later in pairwise(starts)]


async def test_the_first_start_is_now_and_each_later_one_an_interval_after(join):
    rates = join()
    starts = await rates.reserve([Want("send", PER_MINUTE)] * 4)
    assert starts[0] == 0
    assert gaps(starts) == pytest.approx([6, 6, 6])
    assert near(await rates.reserve([Want("send", PER_MINUTE)]), 24)


async def test_two_who_ask_at_once_are_given_different_starts(join):
    one, other = join(), join()
    asked = [
        (one, other)[number % 2].reserve([Want("send", PER_SECOND)] * (1 + number % 3))
        for number in range(60)
    ]
    loop = asyncio.get_running_loop()
    began = loop.time()
    answers = await asyncio.gather(*asked)
    took = loop.time() - began
    starts = sorted(start for answer in answers for start in answer)
    assert len(starts) == 120
    # Each is counted from its own answer; all answers came within what it took.
    assert all(gap > 1 - took - 0.01 for gap in gaps(starts))
    assert starts[-1] == pytest.approx(119, abs=took + 0.01)


async def test_tasks_and_applications_are_counted_apart(join):
    shop, bank = join("shop"), join("bank")
    assert await shop.reserve([Want("a", PER_MINUTE), Want("b", PER_MINUTE)]) == [0, 0]
    assert await bank.reserve([Want("a", PER_MINUTE)]) == [0]
    assert near(await shop.reserve([Want("b", PER_MINUTE), Want("a", PER_MINUTE)]), 6, 6)


async def test_a_start_that_would_come_too_late_is_not_reserved(join):
    rates = join()
    wants = [Want("a", PER_MINUTE), Want("a", PER_MINUTE, 1.0), Want("a", PER_MINUTE, 100.0)]
    assert near(await rates.reserve(wants), 0, None, 6)
    assert await rates.reserve([Want("a", PER_MINUTE, 0.0)] * 3) == [None, None, None]
    assert near(await rates.reserve([Want("a", PER_MINUTE)]), 12)


async def test_another_rate_counts_from_the_next_start(join):
    rates = join()
    await rates.reserve([Want("a", PER_MINUTE)])
    assert near(await rates.reserve([Want("a", PER_SECOND)] * 2), 6, 7)


async def test_what_was_not_used_is_not_saved_up(join):
    """A task that rested for long starts once and then at its pace, not in a burst."""
    rates, quick = join(), RateLimit(100, 1)
    await rates.reserve([Want("a", quick)])
    await asyncio.sleep(0.1)
    assert gaps(await rates.reserve([Want("a", quick)] * 5)) == pytest.approx([0.01] * 4, abs=1e-4)


async def test_the_slowest_and_the_quickest_rate(join):
    rates = join()
    yearly = RateLimit(1, 366 * 86400)
    starts = await rates.reserve([Want("slow", yearly)] * 500)
    assert starts[-1] == pytest.approx(499 * 366 * 86400)
    starts = await rates.reserve([Want("quick", RateLimit(1e6, 1))] * 500)
    assert starts[-1] == pytest.approx(499e-6, abs=1e-5)


# -- memory alone ----------------------------------------------------------------------------


def test_memory_forgets_what_has_passed():
    shared = SharedRates()
    for number in range(5000):
        shared.reserve([Want(str(number), PER_SECOND)], now=float(number))
    assert len(shared) <= 1025


@pytest.mark.parametrize("url", [None, "rpc://"])
def test_without_a_shared_store_nothing_counts_for_all(url):
    assert open_rates(url, app_name="shop", clock=SYSTEM_CLOCK) is None


# -- Redis alone -----------------------------------------------------------------------------


@pytest.fixture
async def redis_rates(redis_url):
    rates = RedisRates(redis_url, app_name="shop")
    yield rates
    await rates.close()


async def test_redis_forgets_all_once_the_last_start_has_passed(redis_rates):
    async def ttl():
        return await redis_rates._client.command("PTTL", "amqflow-rates-shop")

    await redis_rates.reserve([Want("a", PER_MINUTE)] * 10)
    assert 50_000 < await ttl() <= 60_000
    await redis_rates.reserve([Want("b", RateLimit(1, 1))])
    assert 50_000 - SLOW * 1000 < await ttl() <= 60_000
    await redis_rates.reserve([Want("b", PER_MINUTE)] * 100)
    assert 550_000 < await ttl() <= 601_000


async def test_a_redis_that_forgot_the_script_is_told_it_again(redis_rates):
    await redis_rates.reserve([Want("a", PER_MINUTE)])
    await redis_rates._client.command("SCRIPT", "FLUSH")
    assert near(await redis_rates.reserve([Want("a", PER_MINUTE)]), 6)


async def test_somebody_elses_value_under_the_key_is_named(redis_rates):
    await redis_rates._client.command("SET", "amqflow-rates-shop", "mine")
    with pytest.raises(StoreConflict, match="something else"):
        await redis_rates.reserve([Want("a", PER_MINUTE)])


async def test_a_redis_that_is_away_is_unavailable():
    rates = RedisRates("redis://127.0.0.1:1/0", app_name="shop")
    with pytest.raises(StoreUnavailable):
        await rates.reserve([Want("a", PER_MINUTE)])
    await rates.close()
