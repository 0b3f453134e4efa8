"""Urgent messages overtake what waits in the queue, and run in the order they were sent."""

import itertools
import time

from amqflow import AmqFlow

app = AmqFlow(
    "priorities",
    broker="amqp://guest:guest@localhost/",
    backend="redis://localhost:6379/0",
    task_default_queue="priorities",
)
places = itertools.count(1)  # in the worker: which run this is


@app.task(priority=10)  # 0 to 10, higher is more urgent
def busy(seconds: float) -> None:
    """Keep the worker's only slot, so that the messages after this one wait."""
    time.sleep(seconds)


@app.task(priority=1)  # a task that names a priority makes its queue a priority queue
def work(name: str) -> tuple[int, str]:
    return next(places), name


if __name__ == "__main__":
    first = busy.delay(1.0)
    sent = [work.delay(f"report {number}") for number in (1, 2, 3)]
    sent += [work.apply_async((f"order {number}",), priority=8) for number in (1, 2)]
    sent += [work.apply_async(("alarm",), priority=10)]

    first.get(timeout=20)
    ran = sorted(tuple(result.get(timeout=20)) for result in sent)
    print("sent:", "report 1, report 2, report 3, order 1, order 2, alarm")
    print("ran: ", ", ".join(name for _, name in ran))
