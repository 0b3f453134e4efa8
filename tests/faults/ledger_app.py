"""The tasks of the ledger: some succeed, some need retries, some fail; each run leaves a line."""

import os
import time

from amqflow import AmqFlow

app = AmqFlow("ledger")
#: Which numbers need retries, by their last digit; the environment may say that none does.
FLAKY = int(os.environ.get("LEDGER_FLAKY", "3"))


def note(task_id, retries):
    """Append one line in one write, so that workers killed at any instant leave whole lines."""
    line = f"{task_id} {retries} {os.getpid()}\n".encode()
    log = os.open(os.environ["LEDGER_LOG"], os.O_WRONLY | os.O_APPEND | os.O_CREAT)
    try:
        os.write(log, line)
    finally:
        os.close(log)


@app.task(bind=True, autoretry_for=(OSError,), retry_backoff=0.2, retry_jitter=False, max_retries=3)
def work(self, number: int) -> int:
    note(self.request.id, self.request.retries)
    time.sleep(0.002)
    if number % 10 == FLAKY and self.request.retries < 2:
        raise OSError("flaky")
    if number % 10 == 7:
        raise ValueError("bad")
    return number
