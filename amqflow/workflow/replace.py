"""``self.replace``: another signature takes a task's place, id, links and position included. Pure.

The attempt that was replaced ends like one that is retried: its outcome is stored first, so that
a redelivery sends the same signature with the same ids again and does not run the task.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Final

from amqflow.canvas.stamps import STAMPS, merged
from amqflow.workflow.completion import place_after, steps_after
from amqflow.workflow.freeze import DerivedIds, freeze

if TYPE_CHECKING:
    from amqflow.protocol import TaskMessage
    from amqflow.workflow.freeze import Step
    from amqflow.workflow.unfold import Launch, Unfolder

#: The key of the signature in ``Outcome.replaced_by``.
REPLACEMENT: Final = "signature"


def replacing(message: TaskMessage, step: Step, unfolder: Unfolder) -> Launch:
    """Return what starts the signature that takes a task's place.

    What gives its result gets the task's id; the task's links and errbacks are added to its own,
    its stamps to all in it; the rest of the chain follows it, and it counts in the chord where
    the task did.

    Args:
        message: The task's.
        step: The signature.
        unfolder: Unfolds compositions for the application of this worker.

    Raises:
        ConfigurationError, TypeError, ValueError: It is no signature.
    """
    frozen = freeze(
        _stamped(step, message),
        DerivedIds(message.id, f"replace.{message.attempt}"),
        result={
            "task_id": message.id,
            "group_id": message.group,
            "group_index": message.group_index,
            "replaced_task_nesting": message.replaced_task_nesting + 1,
        },
        links=message.callbacks or (),
        errbacks=message.errbacks or (),
    )
    place = place_after(message, unfolder, steps_after(message))
    return unfolder.unfold(frozen, replace(place, parent_id=message.parent_id))


def _stamped(step: Step, message: TaskMessage) -> Step:
    """Return the signature with the task's stamps: what is revoked by one means its work."""
    if not message.stamps:
        return step
    options = merged(step.get("options") or {}, {STAMPS: message.stamps})
    return {**step, "options": options}
