"""Fetches bodies that were kept apart (the claim check) before their messages are looked at."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from amqflow.backoff import Backoff
from amqflow.errors import BlobMissing, StoreError
from amqflow.logs import get_logger
from amqflow.protocol.claimcheck import reference_of

if TYPE_CHECKING:
    from collections.abc import Callable

    from amqflow.guards.blobs import ClaimCheck
    from amqflow.transport import Delivery

log = get_logger("amqflow.worker")

#: Bodies fetched at one time: each may be as large as ``blob_max_size``.
AT_ONCE = 4
#: The most seconds between two questions to a blob store that is away.
RETRY = 5.0


class Fetcher:
    """Hands on deliveries, those with a reference once their body is there.

    What cannot be fetched is handed on with its reference, for the intake to park.
    """

    def __init__(self, claims: ClaimCheck | None) -> None:
        """Fetch by ``claims``; None: this application keeps nothing apart."""
        self._claims = claims
        self._turns = asyncio.Semaphore(AT_ONCE)
        self._work: set[asyncio.Task[None]] = set()

    def before(
        self,
        receive: Callable[[Delivery], None],
        fetched: Callable[[Delivery], None] | None = None,
    ) -> Callable[[Delivery], None]:
        """Return a consumer that fetches first.

        Args:
            receive: takes deliveries as the broker gave them.
            fetched: takes those whose body was kept apart; None: ``receive`` does.
        """

        def on_delivery(delivery: Delivery) -> None:
            if self._claims is None or reference_of(delivery.envelope) is None:
                receive(delivery)
                return
            task = asyncio.get_running_loop().create_task(
                self._fetch(delivery, fetched or receive, self._claims)
            )
            self._work.add(task)
            task.add_done_callback(self._work.discard)

        return on_delivery

    async def _fetch(
        self, delivery: Delivery, receive: Callable[[Delivery], None], claims: ClaimCheck
    ) -> None:
        """Fetch until it is there, is known to be gone, or the broker has taken it back."""
        backoff = Backoff(first=0.1, most=RETRY)
        while delivery.live:
            try:
                async with self._turns:
                    delivery.envelope = await claims.back(delivery.envelope)
            except BlobMissing:
                break
            except StoreError as error:
                log.warning("the blob store is away, holding a message", error=str(error))
                await asyncio.sleep(backoff.next())
            else:
                break
        receive(delivery)

    async def stop(self) -> None:
        """Fetch no more; what is under way goes back to its queue with the channel."""
        work = list(self._work)
        for task in work:
            task.cancel()
        await asyncio.gather(*work, return_exceptions=True)
