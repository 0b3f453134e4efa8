"""AT117: a policy that reaches into queues amqflow derives, and changes what they promise."""

from __future__ import annotations

from typing import TYPE_CHECKING

from amqflow.topology.lint.finding import Analyzer, Hit, Level
from amqflow.topology.policy import in_force

if TYPE_CHECKING:
    from collections.abc import Iterator

    from amqflow.topology.lint.finding import Subject


#: Keys that lose, refuse or move messages.
HARMFUL = frozenset(
    {
        "message-ttl",
        "expires",
        "max-length",
        "max-length-bytes",
        "overflow",
        "dead-letter-exchange",
        "dead-letter-routing-key",
        "dead-letter-strategy",
        "delivery-limit",
    }
)


def check(subject: Subject) -> Iterator[Hit]:
    """Look which derived queues a policy finds."""
    declared = subject.declared
    found: dict[str, list[str]] = {}
    for queue in subject.topology.queues:
        if queue.name in declared.own.queues_by_name:
            continue
        policy = in_force(declared.policies, queue)
        if policy is not None and not HARMFUL.isdisjoint(policy.definition):
            found.setdefault(policy.name, []).append(queue.name)
    for name, queues in found.items():
        rest = f" and {len(queues) - 1} more" if len(queues) > 1 else ""
        text = (
            f"also finds {queues[0]!r}{rest}, which amqflow derives: delays and dead letters in "
            "them would expire, be refused or go elsewhere; narrow the pattern"
        )
        yield Hit(("policies", name, "pattern"), text)


ANALYZER = Analyzer("AT117", "policy over amqflow's own queues", Level.ERROR, check)
