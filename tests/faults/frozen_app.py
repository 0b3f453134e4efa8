"""A task whose first run takes until its worker was frozen and thawed again."""

import os
import time
from pathlib import Path

from amqflow import AmqFlow

app = AmqFlow("frozen")


@app.task(name="frozen.who")
def who(folder: str) -> int:
    first = Path(folder, "started")
    if not first.exists():
        first.touch()
        until = time.monotonic() + 1.0
        while time.monotonic() < until:
            time.sleep(0.01)
        Path(folder, "finished-late").touch()
    return os.getpid()
