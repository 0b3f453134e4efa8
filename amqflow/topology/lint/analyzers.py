"""Every analyzer there is, in the order of their codes."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from amqflow.topology.lint import (
    classic_at_most_once,
    dead_letter_cycle,
    dead_letters_reach_nothing,
    exchange_leads_nowhere,
    expiring_queue,
    low_delivery_limit,
    many_priorities,
    overlapping_bindings,
    owns_too_much,
    policy_against_argument,
    policy_over_own_queues,
    priority_without_effect,
    quorum_at_most_once,
    quorum_priorities,
    refusing_delay_target,
    shadowed_route,
    shared_dead_letters,
    transient_queue,
    ttl_leads_nowhere,
    unbounded_dead_letters,
    undeclared_dead_exchange,
    unrouted_queue,
)

if TYPE_CHECKING:
    from amqflow.topology.lint.finding import Analyzer

ANALYZERS: Final[tuple[Analyzer, ...]] = (
    dead_letter_cycle.ANALYZER,
    ttl_leads_nowhere.ANALYZER,
    classic_at_most_once.ANALYZER,
    refusing_delay_target.ANALYZER,
    overlapping_bindings.ANALYZER,
    low_delivery_limit.ANALYZER,
    undeclared_dead_exchange.ANALYZER,
    dead_letters_reach_nothing.ANALYZER,
    many_priorities.ANALYZER,
    quorum_priorities.ANALYZER,
    priority_without_effect.ANALYZER,
    unbounded_dead_letters.ANALYZER,
    transient_queue.ANALYZER,
    unrouted_queue.ANALYZER,
    shadowed_route.ANALYZER,
    policy_against_argument.ANALYZER,
    policy_over_own_queues.ANALYZER,
    expiring_queue.ANALYZER,
    shared_dead_letters.ANALYZER,
    quorum_at_most_once.ANALYZER,
    exchange_leads_nowhere.ANALYZER,
    owns_too_much.ANALYZER,
)
