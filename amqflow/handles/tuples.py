"""Handles from plain data: Celery's tuples, as saved groups and children are kept."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from amqflow.errors import StoreError
from amqflow.handles.group import GroupResult
from amqflow.handles.result import AsyncResult

if TYPE_CHECKING:
    from amqflow.abc import ResultReader
    from amqflow.handles.base import Handle


def handle_from_tuple(data: Any, reader: ResultReader) -> AsyncResult[Any] | GroupResult:
    """Return the handle of Celery's tuple form, ours or Celery's, as ``as_tuple`` gives it.

    Args:
        data: ``[[id, parent], members]``, nested; ``members`` is None for a single result.
        reader: The application.

    Raises:
        StoreError: It is none.
    """
    try:
        (task_id, parent), members = data
    except (TypeError, ValueError) as error:
        raise StoreError(f"not a result's tuple: {data!r:.200}") from error
    if not isinstance(task_id, str) or not isinstance(members, list | tuple | None):
        raise StoreError(f"not a result's tuple: {data!r:.200}")
    above: Handle | None = None if parent is None else handle_from_tuple(parent, reader)
    if members is None:
        return AsyncResult(task_id, reader, parent=above)
    results = [handle_from_tuple(member, reader) for member in members]
    return GroupResult(task_id, results, reader, parent=above)
