"""A small application for tests that run a worker as a process."""

from amqflow import AmqFlow

app = AmqFlow("plain")


@app.task(name="plain.add")
def add(x: int, y: int) -> int:
    return x + y
