"""A broker in memory that came back has nothing: what the worker consumes is declared again.

A RabbitMQ keeps what is durable; there a queue that is gone was deleted by somebody, and no running
worker takes that back. An embedded broker forgets all with its process.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Final

from amqflow.backoff import Backoff
from amqflow.errors import AmqflowError
from amqflow.logs import get_logger

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

log = get_logger("amqflow.worker")

#: Seconds between two looks at the consumers.
LOOK: Final = 0.5


async def declare_again(lacking: Callable[[], bool], declare: Callable[[], Awaitable[int]]) -> None:
    """Declare what is needed whenever a queue is not consumed that should be; never returns.

    Args:
        lacking: whether that is so now.
        declare: creates what is missing and returns how much that was; what is there stays.
    """
    backoff = Backoff(first=LOOK, most=10.0)
    while True:
        if not lacking():
            backoff.reset()
            await asyncio.sleep(LOOK)
            continue
        try:
            created = await declare()
        except AmqflowError as error:
            log.debug("cannot declare yet", error=str(error))
        else:
            if created:
                log.warning("the embedded broker came back empty; declared again", created=created)
        await asyncio.sleep(backoff.next())
