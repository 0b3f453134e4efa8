"""Tasks at fixed times: Celery's beat_schedule, claimed once however many schedulers run."""

import asyncio
from itertools import pairwise

from amqflow import AmqFlow, crontab
from amqflow.scheduler import Desk

app = AmqFlow(
    "beat",
    broker="amqp://guest:guest@localhost/",
    backend="redis://localhost:6379/0",  # where schedulers share their slots
    task_default_queue="beat",
    timezone="Asia/Shanghai",
)


@app.task
def clean(days: int) -> int:
    return days


@app.task
async def heartbeat(source: str) -> str:
    return source


app.conf.beat_schedule = {
    "nightly": {"task": "beat.clean", "schedule": crontab(hour=2, minute=0), "args": (30,)},
    "monday-report": {
        "task": "beat.clean",
        "schedule": crontab(hour=9, minute=30, day_of_week="mon"),
        "args": (7,),
        "timezone": "America/New_York",
        "catch_up": "last",  # after an outage: once, however many Mondays have passed
        "max_lateness": "2d",  # and not at all after two days
    },
    "heartbeat": {
        "task": "beat.heartbeat",
        "schedule": 1.0,
        "relative": True,  # on the full second
        "kwargs": {"source": "beat"},
        "catch_up": "all",
        "max_lateness": "1m",
        "options": {"expires": 60},
    },
}


async def look() -> None:
    """Show what is due, and that each second ran once."""
    desk = Desk(app)
    for name in ("nightly", "monday-report"):
        print(f"{name}: {(await desk.one(name)).entry.schedule}")
    for _ in range(300):
        ran = await desk.history("heartbeat", 3)
        if len(ran) == 3:
            break
        await asyncio.sleep(0.1)
    gaps = {(later.slot - earlier.slot) / 1000 for later, earlier in pairwise(ran)}
    print("heartbeat: seconds between its slots:", *gaps)
    await desk.close()


if __name__ == "__main__":
    asyncio.run(look())
