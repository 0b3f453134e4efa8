"""Translates aio-pika's, aiormq's and the socket's errors into amqflow's, once, at the door."""

from __future__ import annotations

import asyncio
import ssl
from contextlib import contextmanager
from typing import TYPE_CHECKING

import aiormq.exceptions as aiormq_errors

from amqflow.errors import (
    AccessRefused,
    AmqflowError,
    BrokerError,
    BrokerUnavailable,
    ChannelLost,
    NotFound,
    TopologyMismatch,
)

if TYPE_CHECKING:
    from collections.abc import Iterator


def translate(error: BaseException, doing: str) -> AmqflowError:  # noqa: PLR0911 - a table
    """Return amqflow's error for a library's; ``doing`` says what was tried."""
    text = str(error) or type(error).__name__
    match error:
        case AmqflowError():
            return error
        case aiormq_errors.ChannelNotFoundEntity():
            return NotFound(f"{doing}: {text}")
        case aiormq_errors.ChannelPreconditionFailed():
            return TopologyMismatch(f"{doing}: {text}")
        case aiormq_errors.ChannelAccessRefused() | aiormq_errors.ChannelLockedResource():
            return AccessRefused(f"{doing}: {text}")
        case aiormq_errors.AuthenticationError() | aiormq_errors.ProbableAuthenticationError():
            return AccessRefused(
                f"{doing}: the broker refused the login; check user, password and the user's "
                f"permissions on the virtual host ({text})"
            )
        case TimeoutError():
            return BrokerUnavailable(f"{doing}: the broker did not answer in time")
        case (
            aiormq_errors.ChannelClosed()
            | aiormq_errors.ChannelInvalidStateError()
            | aiormq_errors.ConnectionClosed()
            | aiormq_errors.AMQPChannelError()
        ):
            return ChannelLost(f"{doing}: {text}")
        case aiormq_errors.AMQPError() | OSError() | ssl.SSLError() | EOFError() | RuntimeError():
            return BrokerUnavailable(f"{doing}: {text}")
        case asyncio.CancelledError():
            return ChannelLost(f"{doing}: the connection closed")
        case _:
            return BrokerError(f"{doing}: {text}")


@contextmanager
def translated(doing: str) -> Iterator[None]:
    """Raise library errors inside the block as amqflow's.

    aiormq ends calls of a closing channel with CancelledError; one that nobody asked for
    (``task.cancelling() == 0``) is such an end and becomes ChannelLost.
    """
    try:
        yield
    except asyncio.CancelledError as error:
        task = asyncio.current_task()
        if task is not None and task.cancelling():
            raise
        raise translate(error, doing) from error
    except AmqflowError:
        raise
    except Exception as error:
        raise translate(error, doing) from error
