"""A child of ``amqflow dev``: the command line, which ends when its parent is gone.

``python -m amqflow.dev.child -A app worker …`` with a pipe as its standard input.
"""

from __future__ import annotations

import os
import runpy
import signal
import sys
import threading
from typing import TYPE_CHECKING

from amqflow import signals

if TYPE_CHECKING:
    from amqflow.worker import Worker


def main() -> None:
    """Run the command line until told to stop, or until the parent has ended."""
    threading.Thread(target=_end_with_parent, name="amqflow-dev-parent", daemon=True).start()
    signals.worker_ready.connect(_tell, weak=False)
    runpy.run_module("amqflow", run_name="__main__", alter_sys=True)


def _end_with_parent() -> None:
    """Wait for the end of the pipe: the parent's end, however it came about."""
    os.read(sys.stdin.fileno(), 1)
    os.kill(os.getpid(), signal.SIGTERM)
    # What still runs then is delivered again: nobody is left to wait for it.
    threading.Event().wait(2.0)
    os.kill(os.getpid(), signal.SIGKILL)


def _tell(sender: Worker, **_: object) -> None:
    """Print what this worker takes."""
    app = sender.app
    queues = ", ".join(app.work_queues(sender.options.queues or None))
    tasks = ", ".join(sorted(app.tasks))
    sys.stderr.write(f"amqflow dev: ready, queues {queues}; tasks {tasks}\n")
    sys.stderr.flush()


if __name__ == "__main__":
    main()
