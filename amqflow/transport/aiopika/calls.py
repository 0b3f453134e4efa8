"""Asks the broker on a channel, and stops waiting when the channel or connection is lost."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any, Final, TypeVar

from amqflow.errors import ChannelLost
from amqflow.transport.seam import CALL_TIMEOUT

if TYPE_CHECKING:
    from collections.abc import Coroutine

    from aiormq.channel import Channel
    from pamqp.base import Frame

T = TypeVar("T")

#: Seconds in which aiormq itself may end a call whose channel has closed, with the true reason.
_GRACE: Final = 0.2


async def call(channel: Channel, method: Frame) -> Any:
    """Send a method and return the method that answers it.

    Raises aiormq's errors; translate them at the place that knows what was tried.
    """
    return await unless_closed(channel.rpc(method, timeout=CALL_TIMEOUT), channel.closing)


async def unless_closed(question: Coroutine[Any, Any, T], closing: asyncio.Future[Any]) -> T:
    """Await ``question``, but not for longer than what it is asked on is open.

    aiormq cancels the calls of a lost connection. On Python 3.11 ``asyncio.wait_for`` may
    swallow that between two steps of a call, which then waits for its whole time-out; closing
    the connection waits with it (seen with aiormq 7.2).
    """
    asked = asyncio.ensure_future(question)
    asked.add_done_callback(_retrieve)
    try:
        await asyncio.wait([asked, closing], return_when=asyncio.FIRST_COMPLETED)
        if not asked.done():
            await asyncio.wait([asked], timeout=_GRACE)
        if asked.done():
            return asked.result()
    finally:
        asked.cancel()
    error = None if closing.cancelled() else closing.exception()
    if isinstance(error, Exception):
        raise error
    message = "the channel closed"
    raise ChannelLost(message)


def _retrieve(asked: asyncio.Future[Any]) -> None:
    """Keep asyncio from logging an error that nobody waits for any more."""
    if not asked.cancelled():
        asked.exception()
