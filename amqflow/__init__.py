"""amqflow: a RabbitMQ-native task queue and workflow engine.

What is declared is what runs; nothing confirmed is ever lost; every failure can be seen and
replayed.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from amqflow.app import App
from amqflow.canvas import Signature
from amqflow.errors import (
    AmqflowError,
    ConfigurationError,
    Ignore,
    InvalidArguments,
    MaxRetriesExceeded,
    PublishError,
    PublishNacked,
    PublishTimeout,
    Reject,
    ResultTimeout,
    Retry,
    SoftTimeLimitExceeded,
    SyncInLoop,
    TaskFailed,
    TaskRevoked,
    TimeLimitExceeded,
    Unroutable,
)
from amqflow.handles import AsyncResult
from amqflow.logs import get_logger, get_task_logger
from amqflow.middleware import Middleware
from amqflow.tasks import Task, current_task, shared_task

if TYPE_CHECKING:
    from collections.abc import Sequence

__all__ = [
    "AmqFlow",
    "AmqflowError",
    "AsyncResult",
    "ConfigurationError",
    "Ignore",
    "InvalidArguments",
    "MaxRetriesExceeded",
    "Middleware",
    "PublishError",
    "PublishNacked",
    "PublishTimeout",
    "Reject",
    "ResultTimeout",
    "Retry",
    "Signature",
    "SoftTimeLimitExceeded",
    "SyncInLoop",
    "Task",
    "TaskFailed",
    "TaskRevoked",
    "TimeLimitExceeded",
    "Unroutable",
    "current_task",
    "get_logger",
    "get_task_logger",
    "shared_task",
]

__version__ = "0.1.0"


class AmqFlow(App):
    """A task application, with the runners (see :class:`amqflow.app.App`)."""

    def worker_main(self, argv: Sequence[str] | None = None) -> None:
        """Run the command line for this application: ``app.worker_main(["worker", "-l", "info"])``.

        Celery's verb; ``argv`` defaults to the process's own arguments.
        """
        from amqflow.cli import run_for  # noqa: PLC0415 - a caller needs no command line

        run_for(self, argv)

    start = worker_main
