"""Which store a URL opens, and what a wrong one is told."""

from __future__ import annotations

import subprocess
import sys

import pytest

from amqflow.abc import SUCCESS, Finish, Outcome
from amqflow.errors import ConfigurationError
from amqflow.results.memory import MemoryStore
from amqflow.results.open import open_store
from amqflow.results.redis import RedisStore
from amqflow.results.rpc import RpcStore


def opened(url, app_name="shop", **options):
    return open_store(url, app_name=app_name, **options)


@pytest.mark.parametrize("url", [None, "", "disabled://"])
def test_none_keeps_results_nowhere(url):
    assert opened(url) is None


@pytest.mark.parametrize(
    "url",
    [
        "redis://localhost",
        "redis://localhost:6379/0",
        "redis://user:p%40ss@localhost/3?socket_timeout=2",
        "rediss://localhost/0",
        "unix:///run/redis.sock?db=1",
        "REDIS://localhost/0",
    ],
)
async def test_redis_urls(url):
    store = opened(url)
    assert isinstance(store, RedisStore)
    await store.close()


async def test_a_query_option_wins_over_the_deadline():
    store = opened("redis://localhost/0?socket_timeout=2")
    assert store._client._deadline == 2


@pytest.mark.parametrize(
    ("url", "told"),
    [
        ("redis://u:s3cret@host:port/0", "redis://"),
        ("redis://u:s3cret@host:99999/0", "redis://"),
        ("redis://u:s3cret@host/zero", "not a number"),
        ("redis://u:s3cret@host/0?socket_timeout=s3cret", "redis://"),
        ("unix://", "unix:///run"),
        ("sqlite+aiosqlite:///s3cret.db", "later release"),
        ("postgresql+asyncpg://u:s3cret@host/db", "redis://host"),
        ("mongodb://u:s3cret@host", "not known"),
        ("u:s3cret@host", "no URL"),
        ("://u:s3cret@host", "no URL"),
        ("redis//u:s3cret@host", "no URL"),
        ("rpc://", "application"),
        ("redis://[u:s3cret", "redis://"),
        ("redis://u:s3cret", "redis://"),
    ],
)
def test_a_wrong_url_is_told_the_way_out_and_its_password_to_nobody(url, told):
    with pytest.raises(ConfigurationError) as raised:
        opened(url)
    chain, error = "", raised.value
    while error is not None:
        chain, error = chain + str(error), error.__cause__
    assert told in str(raised.value)
    assert "s3cret" not in chain


def test_an_unknown_option_is_told():
    with pytest.raises(ConfigurationError, match="soket_timeout"):
        opened("redis://localhost/0?soket_timeout=3")


async def test_memory_is_shared_by_name():
    first, second, other = opened("memory://"), opened("memory://"), opened("memory://", "other")
    named, again = opened("memory://n"), opened("memory://n", "other")
    assert isinstance(first, MemoryStore)
    await first.finish([Finish(Outcome("t", SUCCESS, 1), 0)])
    await named.finish([Finish(Outcome("n", SUCCESS, 1), 0)])
    assert (await second.get("t")).result == 1
    assert (await again.get("n")).result == 1
    assert await other.get("t") is None
    assert await other.get("n") is None


async def test_a_name_nobody_uses_keeps_nothing():
    store = opened("memory://short")
    await store.finish([Finish(Outcome("t", SUCCESS, 1), 0)])
    del store
    assert await opened("memory://short").get("t") is None


def test_rpc_needs_the_application():
    assert isinstance(opened("rpc://", replies=object()), RpcStore)


def test_redis_is_imported_only_when_asked_for():
    code = (
        "import sys; from amqflow.results.open import open_store;"
        "open_store('memory://', app_name='a'); assert 'redis' not in sys.modules;"
        "sys.modules['redis'] = None\n"
        "try: open_store('redis://localhost', app_name='a')\n"
        "except Exception as e: print(e)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60
    )
    assert "pip install 'amqflow[redis]'" in done.stdout
