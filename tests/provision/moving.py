"""A queue under load while a process of its own replaces it: producers, a worker, a ledger."""

import asyncio
import os
import signal
import sys
import time
from collections import Counter
from contextlib import asynccontextmanager
from pathlib import Path

from amqflow.protocol import Envelope
from amqflow.topology.names import MovingNames
from amqflow.transport import open_transport
from tests.servers.wait import until

ROOT = Path(__file__).parents[2]

CLASSIC = """
version: 1
exchanges: {tasks: {type: topic}}
queues:
  QUEUE: {type: classic, bindings: [{exchange: tasks, routing_key: "k.*"}]}
"""
QUORUM = CLASSIC.replace("type: classic", "type: quorum")


class Ledger:
    """Counts what was confirmed, and what a worker took: each once, or the balance says so."""

    def __init__(self, queue):
        self.queue = queue
        self.confirmed: set[str] = set()
        self.refused = Counter()
        self.taken = Counter()
        self.names = MovingNames(queue)
        self.migrating = 0.0

    async def publish(self, transport, number, *, named):
        task_id = f"{self.queue}-{number}"
        envelope = Envelope(b"x" * 200, {"id": task_id, "n": number}, message_id=task_id)
        exchange, key = ("tasks", "k.1") if named else ("", self.queue)
        try:
            await transport.publish(envelope, exchange, key, timeout=60)
        except Exception as error:
            self.refused[type(error).__name__] += 1
        else:
            self.confirmed.add(task_id)

    async def fill(self, transport, count, start=0):
        for first in range(start, start + count, 1000):
            numbers = range(first, min(first + 1000, start + count))
            await asyncio.gather(*(self.publish(transport, n, named=n % 2) for n in numbers))

    async def produce(self, transport, start, stopping, rate):
        """Publish, by the queue's name and by an exchange in turns, until told to stop."""
        number = start
        while not stopping.is_set():
            await asyncio.gather(
                *(self.publish(transport, number + n, named=n % 2) for n in range(4))
            )
            number += 4
            await asyncio.sleep(4 / rate)

    def work(self, transport, *, prefetch=20, seconds=0.01):
        """Consume as a worker does: hold a message for a while, then ack it."""
        loop = asyncio.get_running_loop()

        def settle(delivery):
            if delivery.live:
                self.taken[delivery.envelope.headers["id"]] += 1
                delivery.ack()

        return transport.consume(
            self.queue,
            lambda delivery: loop.call_later(seconds, settle, delivery),
            prefetch=prefetch,
        )

    def balance(self):
        """Return what is lost and what is double, and say it."""
        lost = self.confirmed - set(self.taken)
        double = {one: count for one, count in self.taken.items() if count > 1}
        print(
            f"{len(self.confirmed):,} confirmed, {sum(self.taken.values()):,} taken, "
            f"{len(lost)} lost, {len(double)} double, refused {dict(self.refused)}"
        )
        return lost, double


@asynccontextmanager
async def door(url):
    transport = open_transport(url)
    try:
        yield transport
    finally:
        await transport.close()


async def apply(folder, url, management_url, file, *options):
    """Start `amqflow topology apply` as a process."""
    return await asyncio.create_subprocess_exec(
        sys.executable, "-m", "amqflow", "topology", "apply", file, "--name", "shop", *options,
        cwd=folder,
        env={
            **os.environ,
            "PYTHONPATH": str(ROOT),
            "AMQFLOW_BROKER": url,
            "AMQFLOW_MANAGEMENT_URL": management_url,
        },
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
    )  # fmt: skip


async def finished(process, deadline=300):
    """Return what a process printed; it ended well."""
    async with asyncio.timeout(deadline):
        said, _ = await process.communicate()
    assert process.returncode == 0, said.decode()
    return said.decode()


async def killed_when(process, condition, deadline=120):
    """Kill a process with SIGKILL as soon as a condition holds."""

    async def now():
        assert process.returncode is None, (await process.communicate())[0].decode()
        return await condition()

    await until(now, deadline=deadline, every=0.01)
    process.send_signal(signal.SIGKILL)
    await process.communicate()


async def count(transport, queue):
    """Return the ready messages of a queue, None where it is not there."""
    from amqflow.errors import ChannelLost, NotFound

    try:
        return (await transport.declare_queue(queue, passive=True)).messages
    except NotFound:
        return None
    except ChannelLost:
        return await count(transport, queue)


async def replaced_under_load(folder, url, management_url, queue, *, held, rate, kills):
    """Replace a classic queue by a quorum one while all goes on; return the ledger.

    It holds ``held`` messages when that begins, ``rate`` more come each second, and with ``kills``
    the migration is killed while it takes messages out, and again while it puts them back.
    """
    (folder / "old.yaml").write_text(CLASSIC.replace("QUEUE", f'"{queue}"'))
    (folder / "new.yaml").write_text(QUORUM.replace("QUEUE", f'"{queue}"'))
    await finished(await apply(folder, url, management_url, "old.yaml"))
    ledger, stopping = Ledger(queue), asyncio.Event()
    async with door(url) as out, door(url) as at_work, door(url) as asking:
        await ledger.fill(out, held)
        producing = asyncio.create_task(ledger.produce(out, held, stopping, rate))
        consumer = ledger.work(at_work)
        await consumer.wait_active(30)
        hold = ledger.names.hold
        began = time.monotonic()
        if kills:
            process = await apply(folder, url, management_url, "new.yaml", "--migrate")

            async def some_out():
                return (await count(asking, hold) or 0) > held // 4

            await killed_when(process, some_out)
            process = await apply(folder, url, management_url, "new.yaml", "--migrate")
            most = 0

            async def some_back():
                nonlocal most
                there = await count(asking, hold) or 0
                most = max(most, there)
                return (
                    await count(asking, ledger.names.receipts("back")) is not None
                    and there < most - held // 10
                )

            await killed_when(process, some_back)
        process = await apply(folder, url, management_url, "new.yaml", "--migrate")
        said = await finished(process, deadline=600)
        ledger.migrating = time.monotonic() - began
        stopping.set()
        await producing

        async def all_taken():
            return len(ledger.taken) >= len(ledger.confirmed) and await count(asking, queue) == 0

        await until(all_taken, deadline=600, every=0.2)
        await consumer.close()
    return ledger, said
