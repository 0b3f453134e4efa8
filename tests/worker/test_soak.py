"""A worker's memory stays flat, however many tasks it runs.

`make soak` sends a million; the slow tests send few and look all the same.
"""

import asyncio
import os
from pathlib import Path

import pytest

from tests.servers.wait import until

#: Tasks to send.
COUNT = int(os.environ.get("AMQFLOW_SOAK", "8000"))
#: Sent at once, and kept waiting at most.
BURST, BACKLOG = 500, 4000
#: MiB a process may grow after the first quarter: allocators keep what a busy moment needed.
MAY_GROW = 12


def resident(pid):
    """Return the resident memory of a process in MiB."""
    pages = int(Path(f"/proc/{pid}/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE") / 2**20


@pytest.mark.slow
@pytest.mark.parametrize("pool", ["threads", "processes"])
async def test_memory_stays_flat(stage_of, pool):
    stage = stage_of(pool)
    await asyncio.to_thread(stage.start)
    caller, seen = stage.caller, []
    pids = [stage.process.pid, *(stage.children() if pool == "processes" else ())]

    async def waiting():
        counts = await caller.runtime().transport.declare_queue("default", passive=True)
        return counts.messages

    async def drained(most):
        return await waiting() <= most

    for sent in range(0, COUNT, BURST):
        await asyncio.gather(
            *(
                caller.asend_task(
                    "add",
                    (number, 1),
                    queue="default",
                    ignore_result=number % 2 == 0,
                    timeout=120,  # the machine may be busy with other things for hours
                )
                for number in range(BURST)
            )
        )
        await until(lambda: drained(BACKLOG), deadline=600, every=0.05)
        seen.append([resident(pid) for pid in pids])
        if COUNT > 100_000 and sent % 50_000 == 0:
            print(sent, " ".join(f"{size:.1f}" for size in seen[-1]), "MiB", flush=True)
    await until(lambda: drained(0), deadline=600, every=0.1)
    seen.append([resident(pid) for pid in pids])
    await caller.aclose()
    early = seen[len(seen) // 4]
    grown = [late - first for first, late in zip(early, seen[-1], strict=True)]
    print(f"\n  {COUNT:,} tasks, {pool}: {early} MiB, grown {grown}")
    assert max(grown) < MAY_GROW
