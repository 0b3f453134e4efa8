"""Translates aio-pika's, aiormq's and the socket's errors into amqflow's, once, at the door."""

from __future__ import annotations

import asyncio
import ssl
import struct
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
    TopologyError,
    TopologyMismatch,
)
from amqflow.transport.seam import CLOSE_TIMEOUT

if TYPE_CHECKING:
    from collections.abc import Iterator

    from aiormq.abc import AbstractChannel


def words(error: BaseException) -> str:
    """Return what an error says: of a close of the broker's the text, without code and quotes."""
    match error:
        case aiormq_errors.AMQPError(args=[int() as code, str() as text]):
            return text or str(code)
        case aiormq_errors.ChannelClosed() if not any(error.args):
            return "the channel closed"
        case _:
            return str(error) or type(error).__name__


def translate(error: BaseException, doing: str) -> AmqflowError:  # noqa: C901, PLR0911 - a table
    """Return amqflow's error for a library's; ``doing`` says what was tried."""
    text = words(error)
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
        case (
            aiormq_errors.ConnectionCommandInvalid()
            | aiormq_errors.ConnectionNotAllowed()
            | aiormq_errors.ConnectionNotImplemented()
            | aiormq_errors.ConnectionSyntaxError()
        ):
            # An exchange type the broker has not, if_empty for a quorum queue …
            return TopologyError(f"{doing}: {text}")
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
        case TypeError() | ValueError() | struct.error():
            return TopologyError(f"{doing}: {text}")
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


async def closed(channel: AbstractChannel) -> None:
    """Close a channel, whatever state it is in; a broker that does not answer is not waited for."""
    try:
        with translated("closing a channel"):
            async with asyncio.timeout(CLOSE_TIMEOUT):
                await channel.close()
    except AmqflowError:
        pass  # it is closed, or goes with its connection
