"""Failures in quantity: see what broke, mend it, run it again, and nothing is lost on the way."""

import asyncio
import time

from amqflow import AmqFlow
from amqflow.deadletters import DeadLetterDesk, Draft, Filters

app = AmqFlow(
    "dead_letters",
    broker="amqp://guest:guest@localhost/",
    backend="redis://localhost:6379/0",
    task_default_queue="dead_letters",
)
RATES = {"EUR": 1.0, "USD": 1.25}


@app.task
def to_euro(amount: float, currency: str) -> float:
    return amount / RATES[currency]


@app.task
def learn(currency: str, rate: float) -> None:
    RATES[currency] = rate


def renamed(letter):
    """Write CHF where a caller wrote SFR; what comes out must fit the task's signature."""
    text = (draft := Draft.of(letter)).text.replace('"SFR"', '"CHF"')
    return draft.read(text, app.tasks, now=time.time())


async def until(reached) -> None:
    while not await reached():  # noqa: ASYNC110 - other processes have no Event to wait for
        await asyncio.sleep(0.05)


async def parked(desk: DeadLetterDesk, count: int) -> bool:
    return sum(tally.meant for tally in await desk.tally()) == count


async def succeeded(task_id: str) -> bool:
    return (await app.fetch_outcome(task_id)).state == "SUCCESS"


async def main() -> None:
    calls = [(10, "EUR"), (30, "CHF"), (60, "CHF"), (90, "SFR")]
    results = [await to_euro.adelay(*call) for call in calls]
    desk = await DeadLetterDesk.of(app)
    await until(lambda: parked(desk, 3))
    for group in (await desk.groups()).ordered():
        print(f"{group.count} x {group.task}: {group.exception}")

    await (await learn.adelay("CHF", 0.75)).aget(timeout=10)  # the fix
    mended = await desk.replay(Filters(ids=(results[3].id,)), rewrite=renamed)
    again = await desk.replay()
    print(f"edited and replayed {mended.done}, replayed {again.done}")
    for call, result in zip(calls, results, strict=True):
        await until(lambda task_id=result.id: succeeded(task_id))
        print(*call, "is", await app.AsyncResult(result.id).aget(timeout=10), "EUR")
    await app.aclose()


if __name__ == "__main__":
    asyncio.run(main())
