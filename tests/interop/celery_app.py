"""A real Celery application on queues as amqflow declares them."""

import os

from celery import Celery, group
from kombu import Queue

app = Celery("interop", broker=os.environ["AMQFLOW_BROKER"], backend=os.environ["AMQFLOW_BACKEND"])
app.conf.update(
    task_default_queue="celery-side",
    # Queues belong to whoever declares them: Celery only consumes its own and publishes to ours.
    task_queues=[Queue("celery-side")],
    task_create_missing_queues=True,
    worker_prefetch_multiplier=1,
    broker_connection_retry_on_startup=True,
)


@app.task(name="celery.add")
def add(x, y):
    return x + y


@app.task(name="celery.echo", bind=True)
def echo(self, value, **named):
    return [value, named, self.request.root_id == self.request.id]


@app.task(name="celery.stamps", bind=True)
def stamps(self, *before):
    """Return what it is stamped with, and what the steps before it were."""
    return [*(before[0] if before else ()), self.request.stamps]


@app.task(name="celery.spread")
def spread(numbers):
    """Send a task and a group, which become this one's children."""
    add.apply_async((1, 1), queue="celery-side")
    group(add.s(number, number).set(queue="celery-side") for number in numbers).apply_async()
    return len(numbers)
