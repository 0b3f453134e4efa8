"""amqflow: a RabbitMQ-native task queue and workflow engine.

What is declared is what runs; nothing confirmed is ever lost; every failure can be seen and
replayed.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from amqflow.app import App
from amqflow.canvas import (
    Chain,
    Chord,
    Group,
    Signature,
    chain,
    chord,
    chunks,
    group,
    maybe_signature,
    signature,
    xmap,
    xstarmap,
)
from amqflow.errors import (
    AmqflowError,
    BlobMissing,
    ConfigurationError,
    Ignore,
    InvalidArguments,
    InvalidResult,
    JoinInTask,
    MaxRetriesExceeded,
    NoEmbeddedBroker,
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
from amqflow.handles import AsyncResult, EagerResult, GroupResult, allow_join_result
from amqflow.logs import get_logger, get_task_logger
from amqflow.middleware import Middleware
from amqflow.schedules import crontab
from amqflow.tasks import Task, current_task, shared_task

if TYPE_CHECKING:
    from collections.abc import Sequence
    from contextlib import AbstractAsyncContextManager, AbstractContextManager

__all__ = [
    "AmqFlow",
    "AmqflowError",
    "AsyncResult",
    "BlobMissing",
    "Chain",
    "Chord",
    "ConfigurationError",
    "EagerResult",
    "Group",
    "GroupResult",
    "Ignore",
    "InvalidArguments",
    "InvalidResult",
    "JoinInTask",
    "MaxRetriesExceeded",
    "Middleware",
    "NoEmbeddedBroker",
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
    "allow_join_result",
    "chain",
    "chord",
    "chunks",
    "crontab",
    "current_task",
    "get_logger",
    "get_task_logger",
    "group",
    "maybe_signature",
    "shared_task",
    "signature",
    "xmap",
    "xstarmap",
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

    def running(
        self, *, queues: str | None = None, concurrency: int | None = None
    ) -> AbstractContextManager[None]:
        """Run a worker in this process for the time of a ``with``, for scripts and notebooks.

        With ``embedded://``, or no broker configured, the broker and the results are in this
        process too, and nothing else is needed.

        Args:
            queues: as ``amqflow worker -Q`` takes them; None: every queue the tasks reach.
            concurrency: tasks that run at once; None: the setting.
        """
        from amqflow.dev.running import running  # noqa: PLC0415 - who calls needs no broker

        return running(self, queues=queues, concurrency=concurrency)

    def arunning(
        self, *, queues: str | None = None, concurrency: int | None = None
    ) -> AbstractAsyncContextManager[None]:
        """Async twin of :meth:`running`: the worker runs in the loop of ``async with``."""
        from amqflow.dev.running import arunning  # noqa: PLC0415 - as above

        return arunning(self, queues=queues, concurrency=concurrency)
