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
        "acked",
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
        "soft_time_limit",
        "tracked",
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
        #: Readers may see STARTED while it runs.
        self.tracked = False
        #: Acked before the run (``acks_late=False``).
        self.acked = False
        self.soft_time_limit: float | None = None
        self.time_limit: float | None = None

    @property
    def abandoned(self) -> bool:
        """Whether the broker has taken the message back: whoever gets it now will run it."""
        return not self.acked and not self.delivery.live
