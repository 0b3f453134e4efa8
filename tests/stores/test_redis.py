"""The Redis client: packing, scripts, errors, deadlines."""

from __future__ import annotations

import asyncio

import pytest

from amqflow.errors import StoreError, StoreUnavailable
from amqflow.stores.redis import RedisClient, Script, redact


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
