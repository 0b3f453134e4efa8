"""Memory: shared by threads and loops, bounded."""

from __future__ import annotations

import asyncio
import threading

from amqflow.abc import RETRY, SUCCESS, Attempt, Finish, Outcome, Verdict
from amqflow.results.memory import MemoryStore, Records


def in_thread(main):
    thread = threading.Thread(target=lambda: asyncio.run(main()))
    thread.start()
    return thread


async def test_a_waiter_is_woken_in_its_own_loop():
    records = Records()
    woken = []

    async def work():
        store = MemoryStore(records)
        claims = await store.begin([Attempt(f"t{n}") for n in range(200)])
        for n, claim in enumerate(claims):
            await store.finish([Finish(Outcome(f"t{n}", SUCCESS, [n]), claim.fence)])

    async def wait(n):
        outcome = await MemoryStore(records).wait(f"t{n}", 10)
        woken.append(threading.get_ident())
        return outcome.result

    waiting = [asyncio.create_task(wait(n)) for n in range(200)]
    await asyncio.sleep(0)
    worker = in_thread(work)
    assert await asyncio.gather(*waiting) == [[n] for n in range(200)]
    assert set(woken) == {threading.get_ident()}
    worker.join()


async def test_of_many_threads_one_runs_each_task():
    records = Records()
    ran = []

    async def work():
        store = MemoryStore(records)
        owner = f"{threading.get_ident()}"
        for n in range(300):
            attempt = Attempt(f"t{n}", once=True, owner=owner)
            (claim,) = await store.begin([attempt])
            if claim.verdict is Verdict.RUN:
                ran.append(n)
                await store.finish([Finish(Outcome(f"t{n}", SUCCESS), claim.fence)])

    threads = [in_thread(work) for _ in range(4)]
    for thread in threads:
        await asyncio.to_thread(thread.join)
    assert sorted(ran) == list(range(300))


async def test_a_waiter_whose_loop_has_ended_harms_nobody():
    records = Records()

    async def leave():
        waiting = MemoryStore(records).wait("t", None)
        waiting.send(None)  # as far as its first await, and never on
        left.append(waiting)

    left = []
    await asyncio.to_thread(asyncio.run, leave())
    store = MemoryStore(records)
    await store.finish([Finish(Outcome("t", SUCCESS), 0)])
    assert (await store.get("t")).state == SUCCESS
    left[0].close()


async def test_what_ended_is_bounded_and_what_runs_stays():
    store = MemoryStore(records := Records(most=10))
    await store.begin([Attempt("running", once=True, owner="a")])
    for n in range(50):
        await store.finish([Finish(Outcome(f"t{n}", SUCCESS, n), 0)])
        await store.set_state(Outcome(f"s{n}", "PROGRESS"))
        await store.finish([Finish(Outcome(f"r{n}", RETRY), 0)])
    assert len(records) == 11
    assert await store.get("t0") is None
    (other,) = await store.begin([Attempt("running", once=True, owner="b")])
    assert other.verdict is Verdict.BUSY


async def test_what_ended_expires():
    store = MemoryStore(records := Records(result_expires=0.05))
    await store.finish([Finish(Outcome("t", SUCCESS, 1), 0)])
    assert (await store.get("t")).result == 1
    await asyncio.sleep(0.06)
    assert await store.get("t") is None
    assert len(records) == 0


async def test_nobodys_change_reaches_what_is_stored():
    store = MemoryStore()
    value = {"a": [1]}
    await store.finish([Finish(Outcome("t", SUCCESS, value), 0)])
    value["a"].append(2)
    seen = await store.get("t")
    assert seen.result == {"a": [1]}
    seen.result["a"].append(3)
    assert (await store.get("t")).result == {"a": [1]}
