"""What follows a task's end: next steps, links, errbacks, and chords from record to body."""

from amqflow.workflow.completion import following
from amqflow.workflow.unfold import Completion, Launch, Place, Unfolder

__all__ = ["Completion", "Launch", "Place", "Unfolder", "following"]
