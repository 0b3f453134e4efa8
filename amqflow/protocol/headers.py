"""The names of amqflow's own headers, and what must not survive when a message is sent again."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from amqflow.protocol.envelope import Envelope

if TYPE_CHECKING:
    from collections.abc import Mapping

#: Every header of ours starts so.
PREFIX: Final = "amqflow-"

#: Which life of the task this is: an int, raised by each replay (design 5.2).
EPOCH: Final = "amqflow-epoch"
#: A bool: claim ``run:<id>`` in the store before running (design 5.4).
ONCE: Final = "amqflow-once"
#: An int: deliveries before this one that a classic queue cannot count (design 5.6).
REDELIVERED: Final = "amqflow-redelivered"
#: The exchange and the key the caller published to; a republish goes to a queue (design 5.7).
EXCHANGE: Final = "amqflow-exchange"
ROUTING_KEY: Final = "amqflow-routing-key"
#: The queue the message is for, or was parked from.
QUEUE: Final = "amqflow-queue"
#: The priority of the call where the queue itself cannot hold it.
PRIORITY: Final = "amqflow-priority"
#: Where the body is kept that this message's stands for (design 8, the claim check).
BLOB: Final = "amqflow-blob"
#: A table: the chord a member belongs to (design 9); passed on along its chain.
CHORD: Final = "amqflow-chord"
#: A bool: the arguments begin with a failed task's request, exception and traceback, as data.
ERRBACK: Final = "amqflow-errback"

#: A table: the moment a rate limit has reserved for an attempt, which waits for it in the ladder.
RATE: Final = "amqflow-rate"

#: The scheduler's entry a task was published for, and its slot: ISO 8601, UTC (design 11).
SCHEDULE: Final = "amqflow-schedule"
SLOT: Final = "amqflow-slot"

#: What a worker writes on a message it parks (design 7).
DEAD_REASON: Final = "amqflow-dead-reason"
EXCEPTION: Final = "amqflow-exception"
EXCEPTION_MESSAGE: Final = "amqflow-exception-message"
TRACEBACK: Final = "amqflow-traceback"
WORKER: Final = "amqflow-worker"
#: When it was parked: ISO 8601, UTC.
TIME: Final = "amqflow-time"
#: How often the task was run before it was parked.
ATTEMPTS: Final = "amqflow-attempts"
FINGERPRINT: Final = "amqflow-fingerprint"

#: kombu's header that names how the body is compressed.
COMPRESSION: Final = "compression"

#: What parking writes and a replay takes off again. Exchange, key and queue stay: the replay
#: needs them.
DEAD_HEADERS: Final = frozenset(
    {
        DEAD_REASON,
        EXCEPTION,
        EXCEPTION_MESSAGE,
        TRACEBACK,
        WORKER,
        TIME,
        ATTEMPTS,
        FINGERPRINT,
    }
)

#: What the broker writes or acts on, and what a copy must not carry. Kept ``x-death`` makes the
#: broker see a cycle and drop the message; kept CC and BCC route the copy a second time.
BROKER_HEADERS: Final = frozenset(
    {
        "x-death",
        "x-first-death-exchange",
        "x-first-death-queue",
        "x-first-death-reason",
        "x-last-death-exchange",
        "x-last-death-queue",
        "x-last-death-reason",
        "x-delivery-count",
        "x-acquired-count",
        "CC",
        "BCC",
    }
)

#: What no copy carries on: the broker's, and a reservation, which is for one delivery. Who sends
#: a message to wait for its moment writes it anew.
NOT_COPIED: Final = BROKER_HEADERS | {RATE}

_NOT_REPLAYED: Final = NOT_COPIED | DEAD_HEADERS | {REDELIVERED}


def republishable(headers: Mapping[str, Any] | None) -> dict[str, Any]:
    """Return a copy of ``headers`` that may be published again (design 5.7)."""
    if not headers:
        return {}
    return {name: value for name, value in headers.items() if name not in NOT_COPIED}


def replayable(headers: Mapping[str, Any] | None) -> dict[str, Any]:
    """Return a copy of a parked message's ``headers`` without what its death wrote."""
    if not headers:
        return {}
    return {name: value for name, value in headers.items() if name not in _NOT_REPLAYED}


def republished(envelope: Envelope, **headers: Any) -> Envelope:
    """Return a copy of ``envelope`` that may be published again.

    ``user_id`` goes: the broker refuses a name that is not the publisher's own. ``expiration``
    goes: it would end the copy in a queue that is to keep it.

    Args:
        envelope: What was delivered; left as it is.
        headers: Headers to set on the copy; ours have dashes, so ``**{EPOCH: 2}``.
    """
    kept = republishable(envelope.headers)
    kept.update(headers)
    # Spelled out: dataclasses.replace costs three times as much, for every retry and hop.
    return Envelope(
        body=envelope.body,
        headers=kept,
        content_type=envelope.content_type,
        content_encoding=envelope.content_encoding,
        delivery_mode=envelope.delivery_mode,
        priority=envelope.priority,
        correlation_id=envelope.correlation_id,
        reply_to=envelope.reply_to,
        message_id=envelope.message_id,
        timestamp=envelope.timestamp,
        type=envelope.type,
        app_id=envelope.app_id,
    )
