"""The tasks every application has: what runs ``map``, ``starmap`` and ``chunks``.

They go where the task goes that they call, so they need no queue of their own.
"""

from __future__ import annotations

import inspect
from typing import TYPE_CHECKING, Any

from amqflow.canvas import CHUNKS, MAP, STARMAP, Chunks, Signature
from amqflow.tasks.registry import build_task

if TYPE_CHECKING:
    from collections.abc import Iterable

    from amqflow.tasks.registry import TaskRegistry
    from amqflow.tasks.task import TaskApp


def register_builtin(tasks: TaskRegistry, app: TaskApp) -> None:
    """Register the built-in tasks in an application."""

    def call_each(task: Any, calls: Iterable[tuple[Any, ...]]) -> list[Any]:
        mapped: Signature[Any] = Signature.from_dict(task, app).bind(app.tasks, app)
        return [_ended(mapped(*args), app) for args in calls]

    def run_map(task: dict[str, Any], it: list[Any]) -> list[Any]:
        """Call a task for each item, in order."""
        return call_each(task, ((item,) for item in it))

    def run_starmap(task: dict[str, Any], it: list[Any]) -> list[Any]:
        """Call a task for each argument list, in order."""
        return call_each(task, (tuple(item) for item in it))

    def run_chunks(task: dict[str, Any], it: list[Any], n: int) -> Any:
        """Send argument lists in chunks, and return the group as Celery's tuple."""
        return Chunks(task, it, n, app=app)().as_tuple()

    for name, function in ((MAP, run_map), (STARMAP, run_starmap), (CHUNKS, run_chunks)):
        tasks.builtin[name] = build_task(function, app=app, main=None, options={"name": name})


def _ended(value: Any, app: TaskApp) -> Any:
    """Return what a task returned; an ``async def`` one runs on the worker's loop."""
    return app.run(value, twin="starmap") if inspect.iscoroutine(value) else value
