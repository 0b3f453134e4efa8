"""AT116: a policy and a queue's own argument that say different things."""

from __future__ import annotations

from typing import TYPE_CHECKING

from amqflow.topology.lint.finding import Analyzer, Hit, Level
from amqflow.topology.policy import in_force

if TYPE_CHECKING:
    from collections.abc import Iterator

    from amqflow.topology.lint.finding import Subject


def check(subject: Subject) -> Iterator[Hit]:
    """Compare each queue of the file with the policy that counts for it."""
    declared = subject.declared
    for queue in declared.queues:
        policy = in_force(declared.policies, queue)
        if policy is None:
            continue
        arguments = subject.topology.queue(queue.name).declare_arguments()
        for key, value in policy.definition.items():
            own = arguments.get(f"x-{key}")
            if own is not None and own != value:
                text = (
                    f"says {key}: {value}, and queue {queue.name!r} says {own} as an argument, "
                    "which a policy cannot change (of two numbers the smaller counts); keep one"
                )
                yield Hit(("policies", policy.name, "definition", key), text)


ANALYZER = Analyzer("AT116", "policy against an argument", Level.WARNING, check)
