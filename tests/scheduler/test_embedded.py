"""A scheduler inside a worker ends once, however it ends."""

import asyncio
from types import SimpleNamespace

import pytest

from amqflow.scheduler import embedded
from tests.servers.wait import until


class Scheduler:
    """What a worker starts: it runs until it is stopped or broken."""

    def __init__(self, app, *, embedded):
        self.ready, self._told = asyncio.Event(), asyncio.get_running_loop().create_future()
        app.made.append(self)

    async def run(self):
        self.ready.set()
        await self._told
        raise RuntimeError("broken")

    def stop(self):
        if not self._told.done():
            self._told.set_result(None)

    breaks = stop


@pytest.fixture
def app(monkeypatch):
    monkeypatch.setattr(embedded, "Scheduler", Scheduler)
    monkeypatch.setattr(embedded, "declared_entries", lambda _app: {})
    return SimpleNamespace(made=[])


@pytest.fixture
async def beat(app):
    """A scheduler that runs inside a worker, and what the worker was told."""
    told, ready = [], asyncio.Event()
    beat = embedded.Embedded(app)
    ready.set()
    beat.start(ready, on_broken=lambda: told.append("broken"))
    await until(lambda: app.made and app.made[0].ready.is_set())
    return beat, app.made[0], told


async def ended(beat):
    async with asyncio.timeout(5):
        await asyncio.wait([beat._running])
    await asyncio.sleep(0)


async def test_one_that_breaks_while_it_stops_tells_the_worker_once(beat):
    beat, _, told = beat
    assert beat.stop(then=lambda: told.append("stopped"))
    assert not beat.stop(then=lambda: told.append("stopped twice"))
    await ended(beat)
    assert told == ["stopped"]


async def test_one_that_breaks_by_itself_tells_the_worker_once(beat):
    beat, scheduler, told = beat
    scheduler.breaks()
    await ended(beat)
    assert told == ["broken"]
    assert not beat.stop(then=lambda: told.append("stopped"))
    assert told == ["broken"]
