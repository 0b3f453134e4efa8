"""The account of one fault: what was confirmed, how it ended, how often it ran, what was parked."""

import asyncio
import contextlib
import json
from collections import Counter, defaultdict
from dataclasses import dataclass, field
from pathlib import Path

import redis.asyncio

from amqflow.abc import TERMINAL_STATES
from amqflow.errors import AmqflowError
from amqflow.protocol import DeadLetter
from tests.servers.wait import until

META = "celery-task-meta-"


@dataclass
class Balance:
    """How a run ended, by task id; ``str()`` prints the sums."""

    states: dict[str, str] = field(default_factory=dict)
    #: How often an end was written: every one is published too.
    ends: Counter = field(default_factory=Counter)
    runs: Counter = field(default_factory=Counter)
    letters: dict[str, list[DeadLetter]] = field(default_factory=lambda: defaultdict(list))

    @property
    def repeated(self) -> int:
        """How many runs were not the first of their id and attempt."""
        return self.runs.total() - len(self.runs)

    def __str__(self) -> str:
        return (
            f"\n  ended            {dict(Counter(self.states.values()))}"
            f"\n  runs             {self.runs.total()}\n  runs repeated    {self.repeated}"
            f"\n  letters          {sum(map(len, self.letters.values()))}\n"
        )


class Account:
    """Sends tasks and keeps the confirmed ids; :meth:`balance` compares them with their ends.

    Runs are read from ``log``, a line per run: id and attempt first (``ledger_app.note``).
    """

    def __init__(self, app, log: Path, store_url: str | None = None) -> None:
        """Watch the ends written to ``store_url``, where there is one that may be watched."""
        self.app, self._log, self._store_url = app, log, store_url
        self.confirmed: list[str] = []
        self._tasks: defaultdict[str, str] = defaultdict(str)
        self._ends: Counter = Counter()
        self._watching: asyncio.Task | None = None

    async def __aenter__(self):
        self._log.touch()
        if self._store_url is not None:
            client = redis.asyncio.from_url(self._store_url)
            channel = client.pubsub()
            await channel.psubscribe(META + "*")
            self._watching = asyncio.create_task(self._watch(client, channel))
        return self

    async def __aexit__(self, *_):
        if self._watching is not None:
            self._watching.cancel()
            await asyncio.gather(self._watching, return_exceptions=True)
        await self.app.aclose()

    async def _watch(self, client, channel):
        try:
            async for message in channel.listen():
                if message["type"] != "pmessage":
                    continue
                if json.loads(message["data"])["status"] in TERMINAL_STATES:
                    self._ends[message["channel"].decode().removeprefix(META)] += 1
        finally:
            with contextlib.suppress(redis.RedisError):
                await channel.aclose()
                await client.aclose()

    async def send(self, task, *args, count=1, **options):
        """Send ``count`` calls of a task by name; the ids are confirmed when this returns."""
        sent = await asyncio.gather(
            *(self.app.asend_task(task, args, **options) for _ in range(count))
        )
        self.confirmed += [result.id for result in sent]
        self._tasks |= dict.fromkeys((result.id for result in sent), task)
        return [result.id for result in sent]

    def runs(self) -> Counter:
        """Return how often each (id, attempt) ran so far."""
        return Counter(tuple(line.split()[:2]) for line in self._log.read_text().splitlines())

    def runs_of(self, task_id: str) -> int:
        """Return how often an id ran so far, all attempts together."""
        return sum(count for (known, _), count in self.runs().items() if known == task_id)

    async def states(self) -> dict[str, str]:
        """Return the ends that stand now, by id."""
        store = await self.app.runtime().opened_store()
        found = await asyncio.gather(*(store.get(known) for known in self.confirmed))
        return {outcome.id: outcome.state for outcome in found if outcome and outcome.terminal}

    async def balance(self, *, dead=(), deadline=30) -> Balance:
        """Wait until every confirmed id has ended, and count.

        Every id must have ended exactly once; ``dead`` are the queues whose homes are read.
        """

        async def all_ended():
            try:
                return len(await self.states()) == len(set(self.confirmed))
            except AmqflowError:
                return False

        with contextlib.suppress(AssertionError):  # what is missing is named below
            await until(all_ended, deadline=deadline, every=0.1)
        states, runs = await self.states(), self.runs()
        missing = {
            f"{self._tasks[known]} {known}: {self.runs_of(known)} runs"
            for known in self.confirmed
            if known not in states
        }
        assert not missing, f"confirmed, and no end: {missing}"
        balance = Balance(states=states, runs=runs, ends=self._ends)
        if self._watching is not None:
            # Pushed before they could be read, but on another connection.
            await until(lambda: set(self.confirmed) <= self._ends.keys())
            assert {known: self._ends[known] for known in self.confirmed} == dict.fromkeys(
                self.confirmed, 1
            ), "an end was written twice"
        for queue in dead:
            for letter in await self.dead(queue):
                balance.letters[letter.task_id].append(letter)
        print(balance)
        return balance

    async def ready(self, queue="default") -> int:
        """Return how many messages of a queue wait for a worker."""
        counts = await self.app.runtime().transport.declare_queue(queue, passive=True)
        return counts.messages

    async def dead(self, queue="default") -> list[DeadLetter]:
        """Return the dead letters of a queue, left where they are."""
        home = f"{queue}.dead"
        expected, found = await self.ready(home), []
        consumer = self.app.runtime().transport.consume(
            home,
            lambda delivery: found.append(
                DeadLetter.read({"id": delivery.envelope.message_id, **delivery.envelope.headers})
            ),
            prefetch=65_535,
        )
        await until(lambda: len(found) >= expected)
        await consumer.close()
        return found
