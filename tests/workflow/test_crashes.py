"""The crash table: a worker killed at each named instant of a chord's way (lines 28 to 33).

Exactly one run of the body, or of the errback; no member lost. Twice each here, twenty times in
the slow test. Line 34, where the store is in trouble and no worker, is in test_lost.py.
"""

import asyncio
import itertools
import os
import subprocess
from collections import Counter
from pathlib import Path

import pytest

from amqflow import AmqFlow
from amqflow.canvas import chord
from amqflow.workflow.records import Ending, Membership, State
from tests.servers.command import Command
from tests.servers.wait import until

pytestmark = pytest.mark.faults

ROOT = Path(__file__).parents[2]
GET = 60
INSTANTS = ("28-ran", "29-completed", "30-counted", "31-published", "32-fired")
SIZE = 6


class Range:
    """Where workers die: some work, and the next one takes a dead one's place."""

    def __init__(self, app, folder):
        self.app, self.folder = app, folder
        self.log = (folder / "workers.log").open("ab")
        self.numbers = itertools.count()
        #: Lines of the log of runs that were counted.
        self.seen = 0
        self.working = [self.spawn()]

    def spawn(self):
        return Command(
            *("-m", "tests.workflow.crash_app"),
            env={**os.environ, "PYTHONPATH": str(ROOT), "CRASH_FOLDER": str(self.folder)},
            stdout=self.log,
            stderr=self.log,
        )

    def close(self):
        for worker in self.working:
            worker.terminate()
        for worker in self.working:
            try:
                worker.wait(20)
            except subprocess.TimeoutExpired:
                worker.kill()
                worker.wait(20)
        self.log.close()

    def ran(self):
        """Count the runs since the last look.

        The log stays where it is: a line written between a read and a removal would be lost.
        """
        log = self.folder / "runs.log"
        lines = log.read_text().splitlines() if log.exists() else []
        seen, self.seen = self.seen, len(lines)
        return Counter(lines[seen:])

    async def died(self):
        """Wait until the armed worker is dead, and have the next one work."""

        def dead():
            return [worker for worker in self.working if worker.poll() is not None]

        await until(dead, deadline=GET)
        (one,) = dead()
        assert one.poll() == -9, (self.folder / "workers.log").read_text()
        self.working = [worker for worker in self.working if worker is not one] + [self.spawn()]

    async def repeat(self, chord_id, number, copies):
        """Deliver the completion of a chord's first member so many times."""
        runtime = self.app.runtime()
        member = Membership(chord_id, 0, self.app.main, runtime.chords.kind)
        ending = Ending(0, succeeded=True, value=str(number).encode())
        await asyncio.gather(
            *(
                runtime.producer.publish(runtime.launcher.completions(member, [ending]))
                for _ in range(copies)
            )
        )

    async def round(self, instant, *, failing, copies=0):
        """Kill a worker at an instant of one chord, and look what became of it.

        Args:
            instant: one of INSTANTS.
            failing: whether a member fails, so that the errback runs instead of the body.
            copies: how many times more the completion of the first member is delivered.
        """
        tasks = self.app.signature
        numbers = [next(self.numbers) for _ in range(SIZE)]
        names = [
            "crash.bad" if failing and number == numbers[2] else "crash.member"
            for number in numbers
        ]
        node = chord(
            [tasks(name, (number,)) for name, number in zip(names, numbers, strict=True)],
            tasks("crash.body"),
        )
        node.link_error(tasks("crash.errback"))
        (self.folder / f"armed-{instant}").touch()
        result = await node.aapply_async()
        await self.repeat(result.parent.id, numbers[0], copies)
        await self.died()
        outcome = await self.app.wait_outcome(result.id, GET)
        chords = self.app.runtime().chords
        ran = Counter()

        async def over():
            known = await chords.load(result.parent.id, endings=False)
            if known.state is State.OPEN or not await self.empty():
                return False
            # Empty queues hold nothing that waits; what was sent last may be about to run.
            ran.update(self.ran())
            return any(not what.startswith("member") for what in ran)

        await until(over, deadline=GET)
        ran.update(self.ran())
        members = [ran[f"member {number}"] for number in numbers]
        called = {what: count for what, count in ran.items() if not what.startswith("member")}
        assert min(members) >= 1, f"a member was lost: {members}"
        assert list(called.values()) == [1], called
        if failing:
            assert outcome.state == "FAILURE"
            assert outcome.exception.type == "ValueError"
            assert next(iter(called)).startswith("errback")
        else:
            assert (outcome.state, outcome.result) == ("SUCCESS", sum(numbers))
            assert called == {f"body {result.id}": 1}

    async def empty(self):
        transport = self.app.runtime().transport
        names = ("default", "amqflow.crash.completions")
        counts = [await transport.declare_queue(name, passive=True) for name in names]
        return not any(found.messages for found in counts)


@pytest.fixture
async def shooting(broker_url, redis_url, tmp_path, monkeypatch):
    monkeypatch.setenv("AMQFLOW_BROKER", broker_url)
    monkeypatch.setenv("AMQFLOW_BACKEND", redis_url)
    app = AmqFlow("crash", broker=broker_url, backend=redis_url, workflow_deadline=600)
    shooting = Range(app, tmp_path)
    transport = app.runtime().transport
    try:
        await until(lambda: consumed(transport), deadline=GET)
        yield shooting
    finally:
        await asyncio.to_thread(shooting.close)
        await app.aclose()


async def consumed(transport):
    from amqflow.errors import AmqflowError

    try:
        return (await transport.declare_queue("default", passive=True)).consumers
    except AmqflowError:
        return 0


async def test_28_to_32_a_kill_at_each_instant_runs_body_or_errback_exactly_once(shooting):
    for instant in INSTANTS:
        await shooting.round(instant, failing=False)
        await shooting.round(instant, failing=True)


@pytest.mark.slow
@pytest.mark.parametrize("instant", INSTANTS)
async def test_28_to_32_twenty_kills_at_each_instant(shooting, instant):
    for number in range(20):
        await shooting.round(instant, failing=number % 2 == 1)


#: Where a coordinator dies while others count the same completion.
COUNTING = ("30-counted", "31-published", "32-fired")


async def coordinators(shooting, workers):
    transport = shooting.app.runtime().transport
    shooting.working += [shooting.spawn() for _ in range(workers - len(shooting.working))]

    async def there():
        found = await transport.declare_queue("amqflow.crash.completions", passive=True)
        return found.consumers >= workers

    await until(there, deadline=GET)


async def test_33_a_completion_delivered_a_hundred_times_while_one_of_four_coordinators_dies(
    shooting,
):
    await coordinators(shooting, 4)
    await shooting.round("30-counted", failing=False, copies=100)
    await shooting.round("31-published", failing=True, copies=100)


@pytest.mark.slow
@pytest.mark.parametrize("instant", COUNTING)
async def test_33_twenty_kills_among_four_coordinators(shooting, instant):
    await coordinators(shooting, 4)
    for number in range(20):
        await shooting.round(instant, failing=number % 2 == 1, copies=100)
