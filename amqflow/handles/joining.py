"""Waiting for a result inside a running task: refused, because it can end in a deadlock."""

from __future__ import annotations

from contextlib import contextmanager
from contextvars import ContextVar
from typing import TYPE_CHECKING, Final

from amqflow.errors import JoinInTask

if TYPE_CHECKING:
    from collections.abc import Iterator

    from amqflow.abc import ResultReader

_allowed: Final[ContextVar[bool]] = ContextVar("amqflow_join_allowed", default=False)


@contextmanager
def allow_join_result() -> Iterator[None]:
    """Allow ``get()`` inside a task within the ``with``, as in Celery (``celery.result``)."""
    token = _allowed.set(True)
    try:
        yield
    finally:
        _allowed.reset(token)


def refuse_in_task(reader: ResultReader, *, disabled: bool) -> None:
    """Refuse to wait while a worker runs a task in this context.

    Args:
        reader: The application, which knows what runs.
        disabled: Celery's ``disable_sync_subtasks``; False allows it.

    Raises:
        JoinInTask: A task is running, and nothing allows it to wait.
    """
    if not disabled or _allowed.get():
        return
    running = reader.running_task()
    if running is not None:
        raise JoinInTask(
            f"{running} waits for a result inside a task, which holds its slot until another task "
            "gets one: let the result be the next step's argument (a chain or chord), or allow it "
            "with get(disable_sync_subtasks=False)"
        )
