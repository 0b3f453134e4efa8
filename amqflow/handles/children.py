"""Handles on the tasks and groups that a task has sent."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from amqflow.handles.group import GroupResult
from amqflow.handles.result import AsyncResult

if TYPE_CHECKING:
    from amqflow.abc import Child, ResultReader


def handle_on(child: Child, reader: ResultReader) -> AsyncResult[Any] | GroupResult:
    """Return the handle on a child as an outcome names it."""
    if isinstance(child, str):
        return AsyncResult(child, reader)
    group_id, members = child
    return GroupResult(group_id, [handle_on(member, reader) for member in members], reader)
