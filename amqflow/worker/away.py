"""A settlement as a message: how it waits in the completions queue while the store is away."""

from __future__ import annotations

import base64
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from amqflow.abc import DeadReason, ExceptionInfo, Outcome, as_child
from amqflow.errors import Undecodable
from amqflow.protocol import Envelope, dumps, loads, republishable
from amqflow.worker.settlement import Received

if TYPE_CHECKING:
    from amqflow.worker.lanes import Lane

#: The AMQP ``type`` property of such a message.
TYPE = "amqflow.settlement"


def away_message(outcome: Outcome, fence: int, received: Received, lane: Lane) -> Envelope:
    """Return the message that carries an outcome and the message it settles."""
    envelope = received.envelope
    body = {
        "outcome": asdict(outcome),
        "fence": fence,
        "queue": lane.queue,
        "exchange": received.exchange,
        "routing_key": received.routing_key,
        "message": {
            "body": base64.b64encode(envelope.body).decode(),
            "headers": republishable(envelope.headers),
            "content_type": envelope.content_type,
            "content_encoding": envelope.content_encoding,
            "priority": envelope.priority,
            "correlation_id": envelope.correlation_id,
            "reply_to": envelope.reply_to,
            "message_id": envelope.message_id,
        },
    }
    return Envelope(
        dumps(body), {}, type=TYPE, message_id=f"{outcome.id}/{outcome.epoch}/{outcome.attempt}"
    )


def read_away(envelope: Envelope) -> tuple[Outcome, int, Received, str]:
    """Return outcome, fence, the settled message and its queue.

    Raises:
        Undecodable: the message is not one of :func:`away_message`.
    """
    try:
        body: dict[str, Any] = loads(envelope.body)
        found = dict(body["outcome"])
        error = found.pop("exception")
        park = found.pop("park")
        children = found.pop("children")
        outcome = Outcome(
            **found,
            exception=ExceptionInfo(**{**error, "args": tuple(error["args"])}) if error else None,
            park=DeadReason(park) if park else None,
            children=tuple(map(as_child, children)),
        )
        message = dict(body["message"])
        inner = Envelope(
            base64.b64decode(message.pop("body")), dict(message.pop("headers")), **message
        )
        received = Received(inner, body["exchange"], body["routing_key"])
        return outcome, int(body["fence"]), received, str(body["queue"])
    except (KeyError, TypeError, ValueError) as error:
        text = f"not a settlement: {error!r}"
        raise Undecodable(text) from error
