"""Checks of the result store: reached, durable, never evicting, its clock like ours."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from amqflow.cli.doctor.findings import Finding, error, ok, warning
from amqflow.errors import ConfigurationError, StoreError
from amqflow.rendezvous import is_embedded
from amqflow.settings import redact
from amqflow.stores.durability import REDIS, durability, eviction, read_info

if TYPE_CHECKING:
    from amqflow.app import App
    from amqflow.stores.durability import Weakness
    from amqflow.stores.redis import RedisClient


#: Seconds two clocks may differ before leases and delays feel it.
SKEW_WARNING = 1.0
SKEW_ERROR = 30.0


async def store(app: App) -> list[Finding]:
    """Look at the application's result backend."""
    url = app.backend_url
    if not url:
        return [ok("store", "no result backend: results are not kept, tasks have no fence")]
    if is_embedded(url):
        return [await _embedded(app, url)]
    if not url.startswith(REDIS):
        scheme = url.partition("://")[0]
        return [ok("store", f"backend {scheme}:// has nothing to look at here")]
    return await _redis(url)


async def _embedded(app: App, url: str) -> Finding:
    try:
        await app.runtime().opened_store()
    except StoreError as problem:
        return error("store", f"{url} cannot be used: {problem}", "amqflow dev, or amqflow broker")
    return ok("store", f"{url}: in memory, for development only; gone with who serves it")


async def _redis(url: str) -> list[Finding]:
    try:
        from amqflow.stores.redis import RedisClient  # an extra
    except ImportError:
        text = f"{redact(url)} needs a package that is not installed"
        return [error("store", text, "pip install 'amqflow[redis]'")]
    try:
        client = RedisClient(url)
    except ConfigurationError as problem:
        return [error("store", str(problem), "correct backend= (or AMQFLOW_BACKEND)")]
    try:
        return await _looked_at(client)
    except StoreError as problem:
        text = f"{redact(url)} cannot be used: {problem}"
        return [error("store", text, "start Redis, or correct backend= (or AMQFLOW_BACKEND)")]
    finally:
        await client.close()


async def _looked_at(client: RedisClient) -> list[Finding]:
    before = time.time()
    seconds, microseconds = await client.command("TIME")
    after = time.time()
    about = read_info(await client.command("INFO"))
    server = f"Redis {about.get('redis_version', '?')}"
    findings = [
        _told(durability(about), "redis-durability", "append-only file on"),
        _told(eviction(about), "redis-eviction", "noeviction"),
        _skew(float(seconds) + float(microseconds) / 1e6 - (before + after) / 2),
    ]
    if about.get("role") != "master":
        text = (
            f"{client.shown} is a {about.get('role', 'server of unknown role')}: it takes no writes"
        )
        findings.insert(0, error("store", text, "point backend= at the primary"))
    else:
        findings.insert(0, ok("store", f"{server} at {client.shown}"))
    return findings


def _told(weakness: Weakness | None, check: str, otherwise: str) -> Finding:
    if weakness is None:
        return ok(check, otherwise)
    return (error if weakness.loses_now else warning)(check, weakness.text, weakness.mend)


def _skew(skew: float) -> Finding:
    text = (
        f"Redis' clock is {abs(skew):.2f} s {'ahead of' if skew > 0 else 'behind'} this machine's"
    )
    mend = "let a time service set both clocks: timedatectl set-ntp true"
    if abs(skew) >= SKEW_ERROR:
        return error("clock", text, mend)
    if abs(skew) >= SKEW_WARNING:
        return warning("clock", text, mend)
    return ok("clock", f"within {max(abs(skew), 0.01):.2f} s of Redis'")
