"""Whose fault it was that the broker closed the publishing channel.

RabbitMQ answers some messages by closing the channel (403, 406) under all that are in flight. It
names what it refuses, not the message. The one it means must be told and not sent again, or it
would close the channel under the others until its deadline.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import aiormq.exceptions as aiormq_errors

from amqflow.errors import AccessRefused, AmqflowError, EncodeError, MessageTooLarge
from amqflow.transport.aiopika.faults import words

if TYPE_CHECKING:
    from amqflow.protocol import Envelope


def blame(
    error: BaseException, envelope: Envelope, exchange: str, routing_key: str
) -> AmqflowError | None:
    """Return the error of a message that the broker means; None where it means another.

    Args:
        error: why the channel closed.
        envelope: a message that was in flight.
        exchange: where it was sent.
        routing_key: by which key.
    """
    text = words(error)
    match error:
        case aiormq_errors.ChannelPreconditionFailed():
            if f"message size {len(envelope.body)} is larger" in text:
                return MessageTooLarge(f"the broker does not take a message so large: {text}")
            if envelope.expiration is not None and f"'{envelope.expiration}'" in text:
                return EncodeError(f"the broker cannot read the expiration: {text}")
            if envelope.user_id and f"'{envelope.user_id}'" in text:
                return AccessRefused(f"the broker does not take the user_id: {text}")
        case aiormq_errors.ChannelAccessRefused():
            topic = "access to topic" not in text or f"topic '{routing_key}'" in text
            if topic and f"exchange '{exchange or 'amq.default'}' in" in text:
                return AccessRefused(f"publishing to exchange {exchange!r}: {text}")
    return None
