"""`python -m benchmarks.scheduling`: how late the scheduler is, and what it costs when idle.

Beside a broker and a Redis that `AMQFLOW_BROKER` and `AMQFLOW_BACKEND` name, as
`python -m tests.servers run -- python -m benchmarks.scheduling` sets them. One scheduler, no
worker: lateness is from the instant a slot is due to the broker's confirm, as the scheduler saw it.
"""

from __future__ import annotations

import asyncio
import sys
import time
from uuid import uuid4

from amqflow import AmqFlow, crontab, signals
from amqflow.provision import apply
from amqflow.scheduler import Scheduler
from amqflow.schedules import schedule
from amqflow.topology import BrokerFacts

SECONDS = 15
ENTRIES = 1000
IDLE_ENTRIES = 10_000
#: Limits: 50 ms late at most for 99 of 100, 1 % of a core.
LATE, IDLE = 0.050, 0.01


def application(entries: dict[str, dict[str, object]]) -> AmqFlow:
    app = AmqFlow(f"bench-{uuid4().hex[:8]}", task_default_queue=f"bench-{uuid4().hex[:8]}")

    @app.task(name="tick", ignore_result=True)
    async def tick() -> None:
        pass

    app.conf.beat_schedule = entries
    return app


async def measured(app: AmqFlow, seconds: float) -> tuple[float, float]:
    """Run one scheduler for a while; return its CPU seconds and the wall seconds."""
    transport = app.runtime().transport
    facts = BrokerFacts((await transport.server()).version)
    topology = app.derived_topology(facts)
    await apply(topology, transport)
    scheduler = Scheduler(app, embedded=True)
    running = asyncio.create_task(scheduler.run())
    await scheduler.ready.wait()
    await asyncio.sleep(2)
    cpu, wall = time.process_time(), time.monotonic()
    await asyncio.sleep(seconds)
    spent = time.process_time() - cpu, time.monotonic() - wall
    scheduler.stop()
    await running
    await transport.delete_queue(app.conf.settings.task_default_queue)
    await app.aclose()
    return spent


def lateness(title: str, entries: dict[str, dict[str, object]]) -> bool:
    late: list[tuple[float, float]] = []
    note = signals.beat_published.connect(
        lambda lateness, slot, **_: late.append((slot, lateness)), weak=False
    )
    cpu, wall = asyncio.run(measured(application(entries), SECONDS))
    signals.beat_published.disconnect(note)
    first = min(slot for slot, _ in late) + 2  # connections are made, caches are warm
    found = sorted(seconds for slot, seconds in late if slot >= first)
    p50, p99 = (found[int(len(found) * share)] * 1000 for share in (0.5, 0.99))
    print(
        f"{title}: {len(found):,} slots, p50 {p50:.1f} ms, p99 {p99:.1f} ms, "
        f"max {found[-1] * 1000:.1f} ms late; {cpu / wall:.0%} of a core"
    )
    return p99 <= LATE * 1000


def idle() -> bool:
    daily = {
        f"e{number}": {
            "task": "tick",
            "schedule": crontab(minute=number % 60, hour=(time.gmtime().tm_hour + 12) % 24),
        }
        for number in range(IDLE_ENTRIES)
    }
    cpu, wall = asyncio.run(measured(application(daily), SECONDS))
    print(f"idle with {IDLE_ENTRIES:,} entries: {cpu / wall:.2%} of a core")
    return cpu / wall <= IDLE


def main() -> int:
    tick = {"task": "tick"}
    together = {
        f"e{number}": {**tick, "schedule": 1.0, "relative": True} for number in range(ENTRIES)
    }
    spread = {
        f"e{number}": {**tick, "schedule": schedule(1.0, anchor=number / ENTRIES)}
        for number in range(ENTRIES)
    }
    reached = [
        lateness("1,000 entries at one instant, each second", together),
        lateness("1,000 entries spread over each second", spread),
        idle(),
    ]
    return 0 if all(reached) else 1


if __name__ == "__main__":
    sys.exit(main())
