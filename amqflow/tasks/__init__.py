"""Tasks: functions with names and options, their requests, retries and validation."""

from __future__ import annotations

from amqflow.tasks.context import (
    Request,
    current_request,
    current_task,
    parent_request,
    running,
)
from amqflow.tasks.decorator import TaskDecorator, shared_task
from amqflow.tasks.options import RateLimit, TaskOptions, parse_rate
from amqflow.tasks.registry import TaskRegistry, shared, task_name
from amqflow.tasks.retry import RetryDecision, decide
from amqflow.tasks.task import AsyncTask, Task, TaskApp

__all__ = [
    "AsyncTask",
    "RateLimit",
    "Request",
    "RetryDecision",
    "Task",
    "TaskApp",
    "TaskDecorator",
    "TaskOptions",
    "TaskRegistry",
    "current_request",
    "current_task",
    "decide",
    "parent_request",
    "parse_rate",
    "running",
    "shared",
    "shared_task",
    "task_name",
]
