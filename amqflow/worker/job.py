"""One delivery on its way through the worker: what intake learned and execution adds."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final, cast

from amqflow.tasks import Request, Task

if TYPE_CHECKING:
    from amqflow.abc import Attempt, Outcome
    from amqflow.protocol import TaskMessage
    from amqflow.transport import Delivery
    from amqflow.worker.lanes import Lane


#: The request of a job that was judged before it could run.
NOT_PREPARED: Final = Request()


class Job:
    """A decoded, validated task message that this worker holds.

    ``fence`` is the store's fencing number (0 where the task keeps no result); ``outcome`` is
    set when the attempt has ended.
    """

    __slots__ = (
        "acked",
        "acks_early",
        "announced",
        "args",
        "attempt",
        "cut",
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
        "start",
        "task",
        "time_limit",
        "tracked",
    )

    def __init__(
        self,
        delivery: Delivery,
        message: TaskMessage,
        task: Task[..., Any] | None,
        lane: Lane,
        *,
        keeps_result: bool,
    ) -> None:
        """Bind a message to its task (None: unknown here) and the lane it came by."""
        self.delivery = delivery
        self.message = message
        # None only together with an outcome: a job of an unknown task never runs.
        self.task = cast("Task[..., Any]", task)
        self.lane = lane
        self.keeps_result = keeps_result
        self.args: tuple[object, ...] = ()
        self.kwargs: dict[str, object] = {}
        self.priority = message.priority or 0
        self.attempt: Attempt | None = None
        self.fence = 0
        #: The moment its task's rate limit gives it (Unix seconds); None: none, or not asked yet.
        self.start: float | None = None
        #: NOT_PREPARED until the job may run.
        self.request: Request = NOT_PREPARED
        self.outcome: Outcome | None = None
        #: Signals have told of the outcome.
        self.announced = False
        #: Readers may see STARTED while it runs.
        self.tracked = False
        #: To be acked when it starts, before the run (``acks_late=False``).
        self.acks_early = False
        #: Acked so.
        self.acked = False
        #: Why its pool ends it; that is its end, whatever the task makes of it.
        self.cut: BaseException | None = None
        self.soft_time_limit: float | None = None
        self.time_limit: float | None = None

    @property
    def abandoned(self) -> bool:
        """Whether the broker has taken the message back: whoever gets it now will run it."""
        return not self.acked and not self.delivery.live
