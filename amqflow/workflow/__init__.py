"""What follows a task's end: the next step, the links, the errbacks."""

from amqflow.workflow.completion import following

__all__ = ["following"]
