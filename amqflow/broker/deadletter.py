"""Dead letters: why, from where and how often a message died, and where it may not go again.

Rules: ``rabbit_dead_letter`` of RabbitMQ 3.10 and https://www.rabbitmq.com/docs/dlx.
"""

from __future__ import annotations

from enum import Enum
from typing import TYPE_CHECKING, Any, Final, TypeAlias

from amqflow.broker import properties as props
from amqflow.broker.message import Message
from amqflow.broker.properties import string_array
from amqflow.broker.tables import INTEGERS, Field, Table, frozen

if TYPE_CHECKING:
    from collections.abc import Iterable

    from amqflow.broker.queues import Queue

X_DEATH: Final = "x-death"

#: What tells deaths apart: the queue and the reason.
_Kind: TypeAlias = "tuple[Any, ...]"

#: The most a count can say: a client may have written it there.
_MOST: Final = 2**63 - 1


class Reason(Enum):
    """Why a queue gave a message up, in the words of ``x-death``."""

    EXPIRED = "expired"
    REJECTED = "rejected"
    MAXLEN = "maxlen"
    DELIVERY_LIMIT = "delivery_limit"


def letter(
    message: Message, reason: Reason, queue: str, exchange: str, key: str | None, now: float
) -> Message:
    """Return what is published to a dead-letter exchange.

    Args:
        message: as it was in the queue.
        reason: why it died.
        queue: where.
        exchange: the dead-letter exchange.
        key: the dead-letter routing key; None: the message keeps its own, CC and all.
        now: Unix seconds.
    """
    properties = message.properties
    carbon = properties.header("CC") if properties.has_headers else None
    keys = [message.routing_key]
    if carbon is not None and carbon.type == "array":
        keys += (item.value for item in carbon.value if item.type == "longstr")
    death: Table = {
        "reason": Field("longstr", reason.value),
        "queue": Field("longstr", queue),
        "time": Field("timestamp", int(now)),
        "exchange": Field("longstr", message.exchange),
        "routing-keys": string_array(keys),
    }
    expiration = properties.expiration
    if expiration is not None:
        death["original-expiration"] = Field("longstr", expiration)
    drop = frozenset() if key is None else frozenset({"CC"})
    changed = properties.with_headers(_headers(message, death), drop)
    if expiration is not None:
        changed = changed.with_string(props.EXPIRATION, None)
    return Message(exchange, message.keys if key is None else (key,), changed, message.body)


def _headers(message: Message, death: Table) -> Table:
    """Return the headers that tell of a death: the newest event first, each counted."""
    known = message.properties.header(X_DEATH) if message.properties.has_headers else None
    if known is None:
        return {
            "x-first-death-reason": death["reason"],
            "x-first-death-queue": death["queue"],
            "x-first-death-exchange": death["exchange"],
            X_DEATH: Field("array", [_counted(death, 1)]),
        }
    if known.type != "array":  # a client made something else of it; RabbitMQ begins anew
        return {X_DEATH: Field("array", [_counted(death, 1)])}
    events = _grouped([item.value for item in known.value if item.type == "table"])
    kind = _kind(death)
    count = 0
    first = death
    if kind in events:
        first, count = events.pop(kind)
    return {X_DEATH: Field("array", [_counted(first, count + 1), *_listed(events.values())])}


def _grouped(events: list[Table]) -> dict[_Kind, tuple[Table, int]]:
    """Return the events by queue and reason, with how often each happened, the last first.

    RabbitMQ turns them round each time it counts one (``group_by_queue_and_reason``).
    """
    grouped: dict[_Kind, tuple[Table, int]] = {}
    for event in events:
        kind = _kind(event)
        first, times = grouped.get(kind, (event, 0))
        count = first.get("count")
        if count is not None and count.type in INTEGERS:
            times = int(count.value)
        else:
            times += 1
        grouped[kind] = (first, times)
    return dict(reversed(grouped.items()))


def _listed(events: Iterable[tuple[Table, int]]) -> list[Field]:
    return [_counted(event, count) for event, count in events]


def _kind(event: Table) -> _Kind:
    return frozen({name: event[name] for name in ("queue", "reason") if name in event})


def _counted(event: Table, count: int) -> Field:
    return Field("table", {"count": Field("long", min(count, _MOST)), **_without_count(event)})


def _without_count(event: Table) -> Table:
    return {name: field for name, field in event.items() if name != "count"}


def without_cycles(reason: Reason, dead: Message, queues: Iterable[Queue]) -> list[Queue]:
    """Return the queues a dead letter may go to.

    It may not return to a queue it died in when nobody rejected it on the way: such a circle
    would turn for ever by itself.
    """
    if reason is Reason.REJECTED:
        return list(queues)
    deaths = dead.properties.header(X_DEATH)
    if deaths is None or deaths.type != "array":
        return list(queues)
    return [queue for queue in queues if not _cycles(queue.name, deaths.value)]


def _cycles(queue: str, deaths: list[Field]) -> bool:
    for item in deaths:
        if item.type != "table":
            return False  # a client put it there: the circle was not automatic
        reason, place = item.value.get("reason"), item.value.get("queue")
        if reason is not None and reason.value == Reason.REJECTED.value:
            return False
        if place is not None and place.value == queue:
            return True
    return False
