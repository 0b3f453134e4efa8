"""Runs what is enqueued, here and now."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from amqflow.abc import FAILURE, RETRY, REVOKED, SUCCESS
from amqflow.dev.running import Session
from amqflow.testing.binding import broker_of
from amqflow.testing.reading import is_delay

if TYPE_CHECKING:
    from amqflow.app import App
    from amqflow.testing.binding import VhostBroker

#: Seconds between two looks whether everything has run.
_EVERY: Final = 0.005


@dataclass(frozen=True, slots=True)
class Drained:
    """How the runs ended, by state; a task that was retried counts once per attempt."""

    success: int = 0
    failure: int = 0
    retry: int = 0
    revoked: int = 0


def drain(
    app: App,
    *,
    queues: str | None = None,
    delayed: bool = False,
    concurrency: int = 1,
    timeout: float = 30.0,
) -> Drained:
    """Run everything that is enqueued, and what that enqueues, until nothing is left.

    Args:
        app: an application bound to the test's broker.
        queues: only these, as ``amqflow worker -Q`` takes them; None: all its tasks reach.
        delayed: what waits for an eta, a countdown or a retry too: time is moved ahead to it.
        concurrency: tasks that run at once; 1 keeps the order of each queue.
        timeout: seconds it may take.

    Raises:
        TimeoutError: it took longer; the message shows what is left.
        SyncInLoop: this thread runs an event loop: ``await adrain(app)``.
    """
    work = adrain(app, queues=queues, delayed=delayed, concurrency=concurrency, timeout=timeout)
    return app.run(work, twin="adrain")


async def adrain(
    app: App,
    *,
    queues: str | None = None,
    delayed: bool = False,
    concurrency: int = 1,
    timeout: float = 30.0,
) -> Drained:
    """Run everything that is enqueued, in the running loop (see :func:`drain`)."""
    broker = broker_of(app)
    session = Session(app, queues=queues, concurrency=concurrency)
    await session.start()
    worker = session.worker
    limit = asyncio.timeout(timeout)
    try:
        async with limit:
            await _until_empty(broker, set(worker.consumed), delayed=delayed)
    except TimeoutError:
        if not limit.expired():
            raise
        left = "\n  ".join(map(str, broker.enqueued())) or "a task that still runs"
        raise TimeoutError(f"not drained within {timeout:g} s; left:\n  {left}") from None
    finally:
        await session.stop()
    counts = worker.counts
    return Drained(counts[SUCCESS], counts[FAILURE], counts[RETRY], counts[REVOKED])


async def _until_empty(broker: VhostBroker, consumed: set[str], *, delayed: bool) -> None:
    """Wait until the queues hold nothing, not even what is being run.

    That is exact: what a task leads to is in its queue before the task's own message is acked.
    """
    while True:
        seen = broker.server.look(broker.vhost)
        if any(not is_delay(each.queue) and each.queue in consumed for each in seen):
            await asyncio.sleep(_EVERY)
        elif not (delayed and any(is_delay(each.queue) for each in seen)):
            return
        elif not broker.server.skip():
            await asyncio.sleep(_EVERY)
