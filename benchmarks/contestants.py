"""Who is measured: how each publishes, which command is its worker, what it leaves behind."""

from __future__ import annotations

import signal
import sys
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from benchmarks.process import python

if TYPE_CHECKING:
    from collections.abc import Callable

    from benchmarks.job import Job


@dataclass(frozen=True)
class Contestant:
    """One system in one configuration.

    Args:
        key: Names it in files, queues and JSON.
        title: Names it in tables.
        app: The module of its task.
        worker: The command of its worker process.
        publish: The verb of ``app`` that publishes.
        call: The title of that verb.
        queues: What it declares beside its queue, for the clean-up; None: an application of ours.
        classic: On a classic queue (else on a quorum queue).
        is_async: Runs an ``async def`` task in its event loop; else ``def`` tasks in threads.
        drained: Also measured as a worker.
        slow: Confirms each publish before the next: fewer messages unless they are drained.
        environment: Settings it reads from the environment.
        told: The signal that ends its worker.
    """

    key: str
    title: str
    app: str
    worker: Callable[[Job], list[str]]
    publish: str = "publish"
    call: str = ""
    queues: tuple[str, ...] | None = ()
    exchanges: tuple[str, ...] = ()
    classic: bool = True
    is_async: bool = False
    drained: bool = True
    published: bool = True
    slow: bool = False
    baseline: bool = False
    environment: Callable[[Job], dict[str, str]] = lambda _: {}
    told: signal.Signals = signal.SIGTERM

    @property
    def queue_type(self) -> str:
        """The type of its queue, for tables."""
        return "classic" if self.classic else "quorum"

    def publisher(self) -> list[str]:
        """Return the command that publishes."""
        return python(self.app, self.publish)


def celery_worker(job: Job) -> list[str]:
    """Return Celery's worker, without the chatter a lone worker does not need."""
    return python(
        "celery", "-A", "benchmarks.apps.celery_app", "worker",
        "-P", "threads", "-c", str(job.threads), "-Q", job.queue, "-l", "warning",
        "--without-gossip", "--without-mingle", "--without-heartbeat",
    )  # fmt: skip


def dramatiq_worker(job: Job) -> list[str]:
    """Return Dramatiq's worker: one process."""
    return python(
        "dramatiq", "benchmarks.apps.dramatiq_app",
        "--processes", "1", "--threads", str(job.threads), "--skip-logging",
    )  # fmt: skip


def taskiq_worker(job: Job) -> list[str]:
    """Return Taskiq's worker: one process, the prefetch beyond the running tasks as its own."""
    return python(
        "taskiq", "worker", "benchmarks.apps.taskiq_app:broker", "--workers", "1",
        "--max-async-tasks", str(job.threads), "--max-threadpool-threads", str(job.threads),
        "--max-prefetch", str(job.prefetch - job.threads), "--log-level", "WARNING",
    )  # fmt: skip


def amqflow_worker(job: Job) -> list[str]:
    """Return our worker."""
    return [
        sys.executable, "-c", "from amqflow.cli import main; main()",
        "-A", "benchmarks.apps.amqflow_app", "worker",
        "-Q", job.queue, "-c", str(job.threads), "-l", "warning",
    ]  # fmt: skip


CELERY = Contestant(
    "celery",
    "Celery",
    "benchmarks.apps.celery_app",
    celery_worker,
    call="delay()",
    exchanges=("{queue}",),
    slow=True,
    # SIGTERM and SIGQUIT take it ten seconds with nothing to do; what it ran is acked before.
    told=signal.SIGKILL,
)
#: Celery with what amqflow does by default: a replicated queue, acked after the task.
CELERY_QUORUM = replace(CELERY, key="celery-quorum", classic=False)
DRAMATIQ = Contestant(
    "dramatiq",
    "Dramatiq",
    "benchmarks.apps.dramatiq_app",
    dramatiq_worker,
    call="send()",
    queues=("{queue}.DQ", "{queue}.XQ"),
    slow=True,
    environment=lambda job: {"dramatiq_queue_prefetch": str(job.prefetch)},
)
TASKIQ = Contestant(
    "taskiq",
    "Taskiq",
    "benchmarks.apps.taskiq_app",
    taskiq_worker,
    call="gather(kiq())",
    queues=("{queue}.dead",),
    exchanges=("{queue}.exchange",),
)
TASKIQ_ASYNC = Contestant(
    "taskiq-async",
    "Taskiq",
    "benchmarks.apps.taskiq_app",
    taskiq_worker,
    queues=("{queue}.dead",),
    exchanges=("{queue}.exchange",),
    is_async=True,
    published=False,
)
AMQFLOW = Contestant(
    "amqflow",
    "amqflow",
    "benchmarks.apps.amqflow_app",
    amqflow_worker,
    call="gather(adelay())",
    queues=None,
    classic=False,
)
AMQFLOW_CLASSIC = Contestant(
    "amqflow-classic",
    "amqflow",
    "benchmarks.apps.amqflow_app",
    amqflow_worker,
    call="gather(adelay())",
    queues=None,
)
AMQFLOW_ASYNC = Contestant(
    "amqflow-async",
    "amqflow",
    "benchmarks.apps.amqflow_app",
    amqflow_worker,
    publish="publish-apply-async",
    call="gather(aapply_async())",
    queues=None,
    classic=False,
    is_async=True,
)
AMQFLOW_BLOCKING = Contestant(
    "amqflow-blocking",
    "amqflow",
    "benchmarks.apps.amqflow_app",
    amqflow_worker,
    publish="publish-delay",
    call="delay()",
    queues=None,
    classic=False,
    drained=False,
    slow=True,
)
AMQFLOW_BLOCKING_CLASSIC = Contestant(
    "amqflow-blocking-classic",
    "amqflow",
    "benchmarks.apps.amqflow_app",
    amqflow_worker,
    publish="publish-delay",
    call="delay()",
    queues=None,
    drained=False,
    slow=True,
)
PIKA = Contestant(
    "aio-pika",
    "aio-pika alone",
    "benchmarks.apps.pika_app",
    lambda _: python("benchmarks.apps.pika_app", "consume"),
    call="gather(publish())",
    is_async=True,
    baseline=True,
)
UNDERLAY = Contestant(
    "underlay",
    "aiormq channel alone",
    "benchmarks.apps.pika_app",
    lambda _: python("benchmarks.apps.pika_app", "consume-underlay"),
    publish="publish-underlay",
    call="gather(basic_publish())",
    is_async=True,
    baseline=True,
)

#: In the order of a round; the pairs that are compared run close to each other.
ALL = (
    CELERY,
    AMQFLOW,
    DRAMATIQ,
    AMQFLOW_CLASSIC,
    TASKIQ,
    AMQFLOW_BLOCKING,
    AMQFLOW_BLOCKING_CLASSIC,
    TASKIQ_ASYNC,
    AMQFLOW_ASYNC,
    PIKA,
    UNDERLAY,
)
