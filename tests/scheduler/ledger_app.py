"""The entries of the beat ledger: each is due every second, and each run leaves a line."""

import os

from amqflow import AmqFlow

app = AmqFlow("beatledger", beat_history=400)


@app.task(bind=True, ignore_result=True)
async def tick(self) -> None:
    headers = self.request.headers
    line = f"{headers['amqflow-schedule']} {headers['amqflow-slot']} {os.getpid()}\n".encode()
    log = os.open(os.environ["LEDGER_LOG"], os.O_WRONLY | os.O_APPEND | os.O_CREAT)
    try:
        os.write(log, line)  # one write: workers killed at any instant leave whole lines
    finally:
        os.close(log)


app.conf.beat_schedule = {
    f"e{number}": {
        "task": tick.name,
        "schedule": 1.0,
        "relative": True,
        "catch_up": "all",
        "max_lateness": float(os.environ.get("LEDGER_LATENESS", "15")),
    }
    for number in range(int(os.environ.get("LEDGER_ENTRIES", "100")))
}
