"""The Redis client: packing, scripts, errors, deadlines."""

from __future__ import annotations

import asyncio

import pytest

from amqflow.errors import StoreError, StoreUnavailable
from amqflow.stores.redis import RedisClient, Script, redact
from tests.servers.wait import until


@pytest.fixture
async def client(redis_url):
    made = RedisClient(redis_url)
    yield made
    await made.close()


async def test_bytes_text_and_numbers_travel_as_they_are(client):
    for value, stored in (
        (b"\r\n$3\x00\xff", b"\r\n$3\x00\xff"),
        ("é\n", "é\n".encode()),
        (-5, b"-5"),
    ):
        await client.command("SET", "k", value)
        assert await client.command("GET", "k") == stored


async def test_a_script_is_loaded_where_it_is_not_known(client):
    script = Script("return {KEYS[1], ARGV[1]}")
    await client.command("SCRIPT", "FLUSH")
    assert await client.run(script, ["a"], ["b"]) == [b"a", b"b"]
    assert await client.command("SCRIPT", "EXISTS", script.sha) == [1]
    await client.command("SCRIPT", "FLUSH")
    assert await client.run(script, ["a"], ["b"]) == [b"a", b"b"]


async def test_a_pipeline_answers_in_order_and_stays_usable_after_an_error(client):
    assert await client.pipeline([("SET", "n", 1), ("INCR", "n"), ("GET", "n")]) == [b"OK", 2, b"2"]
    with pytest.raises(StoreError, match="wrong kind"):
        await client.pipeline([("SET", "n", 5), ("LPUSH", "n", 1), ("GET", "n")])
    assert await client.command("GET", "n") == b"5"


@pytest.mark.parametrize("code", ["READONLY", "LOADING", "OOM", "MISCONF", "CLUSTERDOWN", "BUSY"])
async def test_what_passes_by_itself_is_unavailable(client, code):
    script = Script(f"return redis.error_reply('{code} says the server')")
    with pytest.raises(StoreUnavailable, match="says the server"):
        await client.run(script, [], [])


async def test_what_does_not_is_an_error(client):
    with pytest.raises(StoreError) as raised:
        await client.run(Script("return redis.call('NOSUCH')"), [], [])
    assert not isinstance(raised.value, StoreUnavailable)
    with pytest.raises(StoreError):
        await client.command("NOSUCH")
    assert await client.command("PING") == b"PONG"


async def test_many_calls_at_once_get_their_own_answers(client):
    echoes = await asyncio.gather(*(client.command("ECHO", f"{n}") for n in range(60)))
    assert echoes == [b"%d" % n for n in range(60)]


async def test_who_gives_up_waiting_holds_up_nobody(client):
    """The server answers in order: what is behind a slow answer would wait for it."""
    slow = asyncio.create_task(client.command("BLPOP", "never", "0"))
    await asyncio.sleep(0.05)
    behind = asyncio.create_task(client.command("ECHO", "behind"))
    await asyncio.sleep(0.05)
    slow.cancel()
    await asyncio.wait([slow])
    assert await client.command("ECHO", "next") == b"next"
    assert not behind.done()
    await client.close()
    with pytest.raises(StoreUnavailable, match="closed"):
        await behind


async def test_exchanges_under_way_fail_with_their_connection_and_the_next_one_has_another(client):
    waiting = [asyncio.create_task(client.command("BLPOP", "never", "0")) for _ in range(3)]
    await until(lambda: client._connection is not None and len(client._connection._asked) == 3)
    client._connection._transport.abort()
    for one in waiting:
        with pytest.raises(StoreUnavailable, match="closed"):
            await one
    assert await client.command("PING") == b"PONG"


async def test_a_subscriber_that_reads_nothing_is_sent_nothing_more(client, monkeypatch):
    """What it has not read yet has a bound; the rest waits in Redis."""
    monkeypatch.setattr("amqflow.stores.redis.MOST_UNREAD", 3)
    subscription = await client.subscription()
    subscription.subscribe(["news"])
    assert (await subscription.read(30))[0] == b"subscribe"
    transport = subscription._connection._transport
    for number in range(3):
        await client.command("PUBLISH", "news", number)
    await until(lambda: not transport.is_reading(), deadline=30)
    await client.command("PUBLISH", "news", 3)
    assert [(await subscription.read(30))[2] for _ in range(4)] == [b"0", b"1", b"2", b"3"]
    assert transport.is_reading()
    await subscription.close()
    with pytest.raises(StoreUnavailable, match="closed"):
        await subscription.read(30)


async def test_nothing_asked_is_answered_at_once(client):
    assert await client.pipeline([]) == []


async def test_closed_and_used_again(client):
    await client.command("PING")
    await client.close()
    assert await client.command("PING") == b"PONG"


@pytest.mark.parametrize(
    ("url", "shown"),
    [
        ("redis://u:p@h:1/0?password=p", "redis://***@h:1/0"),
        ("redis://h", "redis://h"),
        ("redis://[broken", "redis://…"),
    ],
)
def test_a_url_is_shown_without_its_secrets(url, shown):
    assert redact(url) == shown


@pytest.mark.parametrize("turns", range(25))
async def test_a_call_cancelled_wherever_it_stands_ends(redis_url, turns):
    """From connecting to reading: no turn of the loop loses the cancellation."""
    client = RedisClient(redis_url)
    call = asyncio.create_task(client.command("BLPOP", "never", "30"))
    for _ in range(turns):
        await asyncio.sleep(0)
    assert not call.done()
    call.cancel()
    done, _ = await asyncio.wait([call], timeout=2)
    assert done == {call}
    assert call.cancelled()
    await client.close()


async def test_a_callers_own_time_out_is_its_own(client):
    with pytest.raises(TimeoutError) as raised:
        async with asyncio.timeout(0.05):
            await client.command("BLPOP", "never", "30")
    assert not isinstance(raised.value, StoreError)


async def test_an_exchange_has_a_deadline(redis_url):
    client = RedisClient(redis_url, deadline=0.1)
    with pytest.raises(StoreUnavailable, match=r"no answer within 0\.1 s"):
        await client.command("BLPOP", "never", "30")
    assert await client.command("PING") == b"PONG"
    await client.close()
