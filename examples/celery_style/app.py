"""An application as Celery's documentation writes it; only the import is another."""

import sys

from amqflow import AmqFlow as Celery
from amqflow import shared_task
from amqflow.signals import task_retry

celery_app = Celery(
    "celery_style",
    broker="amqp://guest:guest@localhost//",
    backend="redis://localhost:6379/0",
)
celery_app.config_from_object(
    {
        "task_default_queue": "celery_style",
        "task_track_started": True,
        "result_expires": 3600,
        "timezone": "Europe/Berlin",
    }
)


@celery_app.task(bind=True, acks_late=True, autoretry_for=(Exception,), max_retries=5)
def add(self, a: int, b: int):
    return a + b


@celery_app.task(bind=True, default_retry_delay=0.2)
def divide(self, a: int, b: int):
    try:
        return a / b
    except ZeroDivisionError as exc:
        raise self.retry(args=(a, 4), exc=exc) from exc


@shared_task
def shout(words):
    return words.upper()


@task_retry.connect
def on_retry(sender=None, reason=None, **kwargs):
    print(f"{sender.name} is tried again: {reason}")


if __name__ == "__main__":
    if sys.argv[1:]:
        celery_app.worker_main(sys.argv[1:])
        sys.exit()
    res = add.delay(2, 3)
    print("delay:", res.get(timeout=10), res.status)
    res = add.apply_async((2, 3), countdown=0.5, link=add.s(10).set(task_id="linked"))
    linked = celery_app.AsyncResult("linked")
    print("countdown and link:", res.get(timeout=10), linked.get(timeout=10))
    print("retry:", divide.delay(1, 0).get(timeout=10))
    print("send_task:", celery_app.send_task("app.shout", args=["by name"]).get(timeout=10))
    print("here and now:", add.apply((1, 1)).get(), add(2, 2))
