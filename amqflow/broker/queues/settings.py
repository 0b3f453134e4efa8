"""What holds for a queue: its arguments and the policy that matches it, resolved."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from amqflow.broker.queues.arguments import CLASSIC, QUORUM

if TYPE_CHECKING:
    from collections.abc import Mapping

    from amqflow.broker.tables import Table

DROP_HEAD: Final = "drop-head"
REJECT: Final = "reject-publish"
REJECT_AND_DEAD_LETTER: Final = "reject-publish-dlx"


@dataclass(frozen=True, slots=True)
class Settings:
    """Limits and ways of a queue; None: none. Times in seconds."""

    ttl: float | None = None
    expires: float | None = None
    max_length: int | None = None
    max_bytes: int | None = None
    overflow: str = DROP_HEAD
    dead_letter_exchange: str | None = None
    dead_letter_key: str | None = None
    at_least_once: bool = False
    delivery_limit: int | None = None
    max_priority: int | None = None
    single_active: bool = False

    @property
    def limited(self) -> bool:
        """Whether its length or size has a bound."""
        return self.max_length is not None or self.max_bytes is not None


def resolve(kind: str, arguments: Table, policy: Mapping[str, Any]) -> Settings:
    """Return what holds: of two numbers the smaller, else the queue's own argument first.

    Only ``expires`` and ``overflow`` of a quorum queue are the policy's before the argument's
    (``rabbit_quorum_queue:ra_machine_config``).
    """

    def own(name: str) -> Any:
        field = arguments.get(f"x-{name}")
        return None if field is None else field.value

    def least(name: str) -> Any:
        # RabbitMQ 3.10 checks no x-delivery-limit: what is no number is no limit.
        return min(
            (value for value in (own(name), policy.get(name)) if type(value) is int), default=None
        )

    def first(name: str) -> Any:
        value = own(name)
        return policy.get(name) if value is None else value

    def policy_first(name: str) -> Any:
        return policy.get(name, own(name))

    quorum = kind == QUORUM
    overflow = (policy_first if quorum else first)("overflow") or DROP_HEAD
    if quorum and overflow == REJECT_AND_DEAD_LETTER:
        overflow = DROP_HEAD  # not known to quorum queues: RabbitMQ warns and takes its default
    exchange = first("dead-letter-exchange")
    strategy = first("dead-letter-strategy")
    return Settings(
        ttl=_seconds(least("message-ttl")),
        expires=_seconds(policy_first("expires") if quorum else least("expires")),
        max_length=least("max-length"),
        max_bytes=least("max-length-bytes"),
        overflow=overflow,
        dead_letter_exchange=exchange,
        dead_letter_key=first("dead-letter-routing-key"),
        at_least_once=quorum
        and exchange is not None
        and strategy == "at-least-once"
        and overflow == REJECT,
        delivery_limit=least("delivery-limit") if quorum else None,
        max_priority=own("max-priority") if kind == CLASSIC else None,
        single_active=bool(own("single-active-consumer")),
    )


def _seconds(milliseconds: int | None) -> float | None:
    return None if milliseconds is None else milliseconds / 1000
