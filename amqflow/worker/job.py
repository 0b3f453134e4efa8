"""One delivery on its way through the worker: what intake learned and execution adds."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from amqflow.abc import Attempt, Outcome
    from amqflow.protocol import TaskMessage
    from amqflow.tasks import Request, Task
    from amqflow.transport import Delivery
    from amqflow.worker.lanes import Lane


class Job:
    """A decoded, validated task message that this worker holds.

    ``fence`` is the store's fencing number (0 where the task keeps no result); ``outcome`` is
    set when the attempt has ended.
    """

    __slots__ = (
        "args",
        "attempt",
        "delivery",
        "fence",
        "keeps_result",
        "kwargs",
        "lane",
        "message",
        "outcome",
        "priority",
        "request",
        "settled",
        "soft_time_limit",
        "started",
        "task",
        "time_limit",
    )

    def __init__(
        self,
        delivery: Delivery,
        message: TaskMessage,
        task: Task[..., object],
        lane: Lane,
        *,
        keeps_result: bool,
    ) -> None:
        """Bind a message to its task and the lane it came by."""
        self.delivery = delivery
        self.message = message
        self.task = task
        self.lane = lane
        self.keeps_result = keeps_result
        self.args: tuple[object, ...] = ()
        self.kwargs: dict[str, object] = {}
        self.priority = message.priority or 0
        self.attempt: Attempt | None = None
        self.fence = 0
        self.request: Request | None = None
        self.outcome: Outcome | None = None
        self.started = 0.0
        self.settled = False
        self.soft_time_limit: float | None = None
        self.time_limit: float | None = None
