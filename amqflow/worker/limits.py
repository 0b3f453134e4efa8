"""Compares what tasks may take with what the broker allows: said at the start, not at 3 a.m."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from amqflow.clock import LONGEST_LIMIT
from amqflow.errors import ConfigurationError

if TYPE_CHECKING:
    from collections.abc import Iterable

    from amqflow.tasks import Task


def check_limits(soft: float | None, hard: float | None) -> None:
    """Refuse limits that mean nothing.

    Raises:
        ConfigurationError: one is not above 0, is over a year, or the soft one is above the
            hard one.
    """
    for name, limit in (("soft time limit", soft), ("time limit", hard)):
        if limit is not None and not 0 < limit <= LONGEST_LIMIT:
            message = f"the {name} is {limit:g} s: give a number of seconds above 0, a year at most"
            raise ConfigurationError(message)
    if soft is not None and hard is not None and soft > hard:
        message = (
            f"the soft time limit ({soft:g} s) is above the hard one ({hard:g} s): a task would "
            "never see it"
        )
        raise ConfigurationError(message)


def longer_than(
    tasks: Iterable[Task[Any, Any]], hard: float | None, consumer_timeout: float
) -> dict[str, float]:
    """Return the tasks, by name, whose hard limit allows more than the broker does.

    A delivery that is not acked within ``consumer_timeout`` makes the broker close the channel:
    the task goes on, its message is delivered again, and it runs a second time.

    Args:
        tasks: the worker's.
        hard: the worker's own limit, for tasks without one.
        consumer_timeout: seconds; 0: the broker has none.
    """
    if not consumer_timeout:
        return {}
    allowed = {task.name: task.options.time_limit or hard for task in tasks}
    return {name: limit for name, limit in allowed.items() if limit and limit > consumer_timeout}


def unlimited(tasks: Iterable[Task[Any, Any]], hard: float | None) -> list[str]:
    """Return the names of tasks that have no hard limit at all."""
    if hard is not None:
        return []
    return sorted(
        task.name
        for task in tasks
        if not task.options.time_limit and not task.name.startswith("celery.")
    )
