"""Rate limits at the intake: which jobs have one, and the moment each may start.

A moment that lies ahead travels with the message through the ladder, so that it comes back to run
and need not ask again. It counts for that attempt only, and for a short while: a fleet that was
down for an hour must not run an hour's moments at once. Who comes back later than that (its queue
was long) is counted among the late: those start at the same rate beside the others, at once where
they may. Sent to the end of the line instead they would come late again, and again, and no reserved
moment would ever be used.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any, Final

from amqflow.errors import ConfigurationError, Undecodable
from amqflow.guards.rates import MemoryRates, SharedRates, Want
from amqflow.protocol import headers as h
from amqflow.protocol.fields import read_moment, write_moment
from amqflow.tasks import parse_rate

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from amqflow.clock import Clock
    from amqflow.guards.rates import Rates
    from amqflow.protocol import TaskMessage
    from amqflow.tasks import RateLimit, Task
    from amqflow.transport import Delivery
    from amqflow.worker.job import Job

#: Seconds after its moment in which a start still counts as reserved, or an interval if longer.
GRACE: Final = 1.0
#: Added to a task's name: what counts the starts of those that came back late.
LATE: Final = " (late)"
#: Seconds of the furthest moment that is written down; who comes back then waits on.
FURTHEST: Final = 100 * 366 * 86400.0


def default_rate(text: str | None) -> RateLimit | None:
    """Return the limit of tasks that have none of their own.

    Raises:
        ConfigurationError: It is no rate.
    """
    try:
        return parse_rate(text)
    except (TypeError, ValueError) as error:
        raise ConfigurationError(f"task_default_rate_limit: {error}, got {text!r}") from None


def limited(tasks: Iterable[Task[..., Any]], default: RateLimit | None) -> dict[str, str]:
    """Return the tasks that have a limit, by name, with it."""
    limits = {task.name: limit_of(task, default) for task in tasks}
    return {name: str(limit) for name, limit in limits.items() if limit}


def limit_of(task: Task[..., Any], default: RateLimit | None) -> RateLimit | None:
    """Return what limits a task: a limit of its own, 0 too, else the default."""
    own = task.options.rate_limit
    return (default if own is None else own) or None


class Pace:
    """The limits of a worker's tasks, and who reserves their starts."""

    def __init__(
        self, rates: Rates | None, *, default: RateLimit | None, clock: Clock, tick: float
    ) -> None:
        """Reserve with ``rates``; None: no store is shared, this worker counts alone.

        ``tick``: seconds a late one may be made to wait, since it does so here.
        """
        self._rates = rates or MemoryRates(SharedRates(), clock)
        self._default = default
        self._clock = clock
        self._tick = tick

    def limit(self, job: Job) -> RateLimit | None:
        """Return what limits the start of a job that has no moment yet; looked up each time."""
        if job.outcome is not None or job.start is not None:
            return None
        return limit_of(job.task, self._default)

    def reserved(self, job: Job, limit: RateLimit) -> float | None:
        """Return the moment a message came back for, where it counts still."""
        start = _moment(job)
        if start is None or self._clock.now() > start + max(GRACE, limit.interval):
            return None
        return start

    async def reserve(self, jobs: Sequence[tuple[Job, RateLimit]]) -> list[float | None]:
        """Return the moment each job may start; None: not before it expires.

        Raises:
            StoreUnavailable: the store cannot be used now.
        """
        late = [one for one in jobs if _moment(one[0]) is not None]
        found = await self._reserved(late, LATE, self._tick) if late else {}
        others = [one for one in jobs if found.get(one[0]) is None]
        if others:
            found.update(await self._reserved(others))
        return [found[job] for job, _ in jobs]

    async def _reserved(
        self, jobs: Sequence[tuple[Job, RateLimit]], kind: str = "", most: float = math.inf
    ) -> dict[Job, float | None]:
        now = self._clock.now()
        wants = [
            Want(job.message.task + kind, limit, min(most, _within(job.message, now)))
            for job, limit in jobs
        ]
        starts = await self._rates.reserve(wants)
        # The clock after the answer: a start may be late by its way here, never early.
        now = self._clock.now()
        return {
            job: None if start is None else now + min(start, FURTHEST)
            for (job, _), start in zip(jobs, starts, strict=True)
        }


def _moment(job: Job) -> float | None:
    """Return the moment a message came back for, however long ago; None where it has none."""
    mark = job.message.extra.get(h.RATE)
    if mark is None or job.delivery.redelivered:
        return None
    return _read(mark, job.message)


def _within(message: TaskMessage, now: float) -> float:
    return math.inf if message.expires is None else max(0.0, message.expires - now)


def mark_of(delivery: Delivery) -> dict[str, Any]:
    """Return the headers that keep a message's moment on its way to the suspects' queue.

    It waits on the ladder, which leads to the work queue, and would never run with a new moment
    each time.
    """
    mark = delivery.envelope.headers.get(h.RATE)
    return {} if mark is None or delivery.redelivered else {h.RATE: mark}


def mark(message: TaskMessage, start: float) -> dict[str, Any]:
    """Return the headers of a message that waits for its moment in the ladder."""
    return {
        h.RATE: {
            "start": write_moment(start),
            "epoch": message.epoch,
            "attempt": message.attempt,
        }
    }


def _read(mark: Any, message: TaskMessage) -> float | None:
    """Return the moment of a mark; None where it is another attempt's, or none of ours."""
    try:
        if (mark["epoch"], mark["attempt"]) != (message.epoch, message.attempt):
            return None
        return read_moment(h.RATE, mark["start"])
    except (KeyError, TypeError, Undecodable):
        return None
