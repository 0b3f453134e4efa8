"""What happens when a task fails: again later, given up, or never retried."""

from amqflow import AmqFlow, get_task_logger

app = AmqFlow(
    "retries",
    broker="amqp://guest:guest@localhost/",
    backend="redis://localhost:6379/0",
    task_default_queue="retries",
)
log = get_task_logger(__name__)

RETRIES = {
    "autoretry_for": (ConnectionError,),
    "retry_backoff": 0.2,  # seconds before the first retry; doubled for each one after it
    "retry_jitter": False,
    "max_retries": 3,
}


@app.task(bind=True, **RETRIES)
def fetch(self, page: str, failures: int) -> str:
    """Answer after some failures, as a service that is being restarted does."""
    attempt = self.request.retries
    log.info("attempt %d on %s", attempt, page)
    if attempt < failures:
        raise ConnectionError(f"{page} does not answer")
    return f"{page} after {attempt} retries"


@app.task(bind=True, max_retries=2)
def poll(self, job: str) -> str:
    """Decide by hand when to look again."""
    if self.request.retries < 2:
        raise self.retry(countdown=0.3)
    return f"{job} is done"


@app.task(**RETRIES)
def parse(text: str) -> int:
    return int(text)  # a ValueError is not in autoretry_for: no attempt would help


if __name__ == "__main__":
    print("recovers:", fetch.delay("a.html", failures=2).get(timeout=20))
    print("polled:", poll.delay("job 7").get(timeout=20))
    for title, result in (
        ("given up:", fetch.delay("b.html", failures=99)),
        ("never retried:", parse.delay("seven")),
    ):
        error = result.get(timeout=20, propagate=False)
        print(title, result.state, type(error).__name__, error)
