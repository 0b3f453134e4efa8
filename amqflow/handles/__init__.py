"""Handles on results: what a caller holds while tasks run elsewhere, or have run here."""

from __future__ import annotations

from amqflow.handles.base import Handle
from amqflow.handles.eager import EagerGroupResult, EagerResult
from amqflow.handles.failure import describe_error, error_of
from amqflow.handles.group import GroupResult
from amqflow.handles.joining import allow_join_result
from amqflow.handles.result import AsyncResult
from amqflow.handles.tuples import handle_from_tuple

__all__ = [
    "AsyncResult",
    "EagerGroupResult",
    "EagerResult",
    "GroupResult",
    "Handle",
    "allow_join_result",
    "describe_error",
    "error_of",
    "handle_from_tuple",
]
