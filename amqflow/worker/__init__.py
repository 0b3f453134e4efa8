"""The worker: intake, execution, settlement."""

from amqflow.worker.lanes import parse_queues
from amqflow.worker.pools import checked_pool
from amqflow.worker.worker import Worker, WorkerOptions

__all__ = ["Worker", "WorkerOptions", "checked_pool", "parse_queues"]
