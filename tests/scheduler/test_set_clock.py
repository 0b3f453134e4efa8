"""`amqflow beat` as a process whose clock is set under it, by libfaketime."""

import asyncio
import time
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path

import pytest

from amqflow.scheduler.words import What
from tests.applications import Bench
from tests.cli.conftest import Folder
from tests.servers.wait import until

BEATS = """
from amqflow import AmqFlow

app = AmqFlow("beats", beat_history=500)
ten_minutes = {"task": "tick", "schedule": 600, "relative": True}

app.conf.beat_schedule = {
    "all": {**ten_minutes, "catch_up": "all"},
    "last": {**ten_minutes, "catch_up": "last"},
    "none": {**ten_minutes, "catch_up": "none"},
    "fresh": {**ten_minutes, "catch_up": "all", "max_lateness": "20m"},
    "often": {"task": "tick", "schedule": 1, "relative": True, "catch_up": "none"},
}
"""
TEN_MINUTES = ("all", "last", "none", "fresh")


class Clock:
    """The wall clock of a process that runs under libfaketime; its monotonic one stays true."""

    def __init__(self, folder):
        self._file, self.ahead = folder / "clock", 0.0

    def environment(self):
        found = sorted(Path("/usr/lib").glob("*/faketime/libfaketime.so.1"))
        if not found:
            pytest.fail("install libfaketime (as root on Debian: make clock)", pytrace=False)
        return {
            "LD_PRELOAD": str(found[0]),
            "FAKETIME_TIMESTAMP_FILE": str(self._file),
            "FAKETIME_NO_CACHE": "1",
            "FAKETIME_DONT_FAKE_MONOTONIC": "1",
        }

    def now(self):
        return time.time() + self.ahead

    def set_to(self, moment):
        """Let it be this moment (ISO 8601)."""
        self.set(datetime.fromisoformat(moment).timestamp() - time.time())

    def set(self, ahead):
        """Let it be so many seconds ahead of the true time."""
        self.ahead = ahead
        new = self._file.with_suffix(".new")
        new.write_text(f"{ahead:+.3f}\n")
        new.rename(self._file)


CHANGES = """
from amqflow import AmqFlow

app = AmqFlow("beats", beat_history=500)
app.conf.beat_schedule = {
    "ticks": {"task": "tick", "schedule": 1, "relative": True, "catch_up": "none"},
    **{
        name: {"task": "tick", "crontab": text, "timezone": zone, "catch_up": "none"}
        for name, text, zone in ENTRIES
    },
}
"""
#: In the order of the instants: entry, crontab, zone, when it is due, when its reading comes again.
TURNS = (
    ("gap 1", "15 2 4 10 *", "Australia/Lord_Howe", "2026-10-03T15:30:00Z", None),
    ("twice 1", "45 2 25 10 *", "Europe/Berlin", "2026-10-25T00:45:00Z", "2026-10-25T01:45:00Z"),
    ("twice 2", "15 1 1 11 *", "America/New_York", "2026-11-01T05:15:00Z", "2026-11-01T06:15:00Z"),
    ("gap 2", "15 2 14 3 *", "America/New_York", "2027-03-14T07:00:00Z", None),
    ("gap 3", "15 2 28 3 *", "Europe/Berlin", "2027-03-28T01:00:00Z", None),
    (
        "twice 3",
        "45 1 4 4 *",
        "Australia/Lord_Howe",
        "2027-04-03T14:45:00Z",
        "2027-04-03T15:15:00Z",
    ),
)


@pytest.fixture
def clock(tmp_path):
    return Clock(tmp_path)


@pytest.fixture
def beating(tmp_path, amqp_url, redis_url, clock):
    @contextmanager
    def started(source):
        folder = Folder(
            tmp_path,
            {"AMQFLOW_BROKER": amqp_url, "AMQFLOW_BACKEND": redis_url, "AMQFLOW_APP": "beats"},
        )
        folder.write(beats=source)
        with folder.started("beat", **clock.environment()) as beat:
            beat.wait_for("scheduling")
            yield beat
            assert beat.stop() == 0, beat.printed()

    return started


@pytest.mark.slow
async def test_a_clock_set_an_hour_forward_and_back_follows_the_rule(stage, clock, beating):
    # In the middle between two slots of ten minutes, so that none comes by itself.
    clock.set(300 - time.time() % 600)
    true = clock.ahead

    async def ran():
        return [len(await stage.ran(name)) for name in TEN_MINUTES]

    async def missed(name):
        (standing,) = await stage.store.standings([name])
        return dict(standing.counts).get(What.MISSED, 0)

    async def often():
        return await stage.ran("often")

    async with Bench(stage.app).working(slots=10):
        with beating(BEATS) as beat:
            await until(often, deadline=30, message=beat.printed())
            assert await ran() == [0, 0, 0, 0]

            # Forward: six slots have passed, and each entry's catch_up and max_lateness decide.
            clock.set(true + 3600)
            forward = clock.now() * 1000

            async def caught_up():
                return await ran() == [6, 1, 0, 2] and await missed("none") == 6

            await until(caught_up, deadline=30, message=beat.printed())
            assert await missed("last") == 5
            assert await missed("fresh") == 4

            async def goes_on():
                return [slot for slot in await often() if slot > forward]

            await until(goes_on, deadline=30, message=beat.printed())

            # Back: what ran does not run again, and nothing runs until the clock is where it was.
            before = await often()
            clock.set(true)
            await until(lambda: "the clock was set back" in beat.printed(), deadline=30)
            now = await often()
            assert len(now) <= len(before) + 3, "what was claimed already, and no more"
            await asyncio.sleep(2.5)
            assert await often() == now
            assert await ran() == [6, 1, 0, 2]

            # There again, and over the next slot of ten minutes.
            clock.set(true + 3600 + 600)

            async def one_more():
                return await ran() == [7, 2, 0, 3] and await missed("none") == 7

            await until(one_more, deadline=30, message=beat.printed())
        slots = await often()
        assert len(slots) == len(set(slots))
        ids = sum([len(await stage.ran(name)) for name in (*TEN_MINUTES, "often")])
        await until(lambda: len(stage.runs) == ids, deadline=30)
    assert set(stage.runs.values()) == {1}
    assert "the clock was set forward" in beat.printed()


def ms(moment):
    return round(datetime.fromisoformat(moment).timestamp() * 1000)


@pytest.mark.slow
async def test_a_scheduler_runs_through_gaps_and_overlaps_of_three_zones(stage, clock, beating):
    entries = [(name, text, zone) for name, text, zone, *_ in TURNS]
    clock.set_to("2026-10-03T15:00:00Z")
    async with Bench(stage.app).working(slots=10):
        with beating(CHANGES.replace("ENTRIES", repr(entries))) as beat:

            async def passes(moment):
                """Let the clock pass a moment: the ticks after it have run."""
                clock.set(ms(moment) / 1000 - 2 - time.time())

                async def passed():
                    return [slot for slot in await stage.ran("ticks") if slot > ms(moment) + 1000]

                await until(passed, deadline=60, every=0.1)

            for name, _, _, due, again in TURNS:
                assert await stage.ran(name) == []
                await passes(due)
                assert await stage.ran(name) == [ms(due)], beat.printed()
                if again is not None:
                    await passes(again)
        for name, _, _, due, _ in TURNS:
            assert await stage.ran(name) == [ms(due)]
            assert await stage.history(name, What.MISSED) == []
