"""Which queue a call goes to: by the task's name, by the task, by the call."""

from amqflow import AmqFlow, Unroutable

app = AmqFlow(
    "routing",
    broker="amqp://guest:guest@localhost/",
    backend="redis://localhost:6379/0",
    task_default_queue="routing.rest",
    task_routes={  # the first match wins
        "routing.send_*": {"queue": "routing.mail"},
        "routing.report_*": {"queue": "routing.reports"},
    },
)


def queue_of(task) -> str:
    return task.request.delivery_info["queue"]


@app.task(bind=True)
def send_welcome(self, to: str) -> str:
    return queue_of(self)


@app.task(bind=True)
def report_sales(self, month: str) -> str:
    return queue_of(self)


@app.task(bind=True, queue="routing.bulk")  # a task's own option wins over a route
def report_archive(self, year: int) -> str:
    return queue_of(self)


@app.task(bind=True)
def tidy(self) -> str:
    return queue_of(self)


if __name__ == "__main__":
    for title, result in (
        ("send_welcome:", send_welcome.delay("a@b.c")),
        ("report_sales:", report_sales.delay("2026-11")),
        ("report_archive:", report_archive.delay(2025)),
        ("tidy:", tidy.delay()),
        # and the call's option over both
        ("tidy, in bulk:", tidy.apply_async(queue="routing.bulk")),
    ):
        print(f"{title:<16}{result.get(timeout=10)}")
    try:
        tidy.apply_async(queue="routing.bluk")
    except Unroutable as error:
        print(f"{'misspelt:':<16}{type(error).__name__}")
