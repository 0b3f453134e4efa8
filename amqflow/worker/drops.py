"""What the broker dropped: expired in a queue, over a limit, rejected. It ends its task, too.

Every dead-letter exchange has a copy for the application's ``dropped`` queue. Without it, a chord
whose member's message the broker dropped would wait for ever. The message itself lies in its
queue's home, and may be replayed.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from amqflow.abc import (
    FAILURE,
    REVOKED,
    Attempt,
    DeadReason,
    ExceptionInfo,
    Finish,
    Outcome,
    Verdict,
)
from amqflow.backoff import Backoff
from amqflow.errors import AmqflowError, StoreConflict, StoreError, Undecodable
from amqflow.logs import get_logger
from amqflow.protocol import DeadLetter, decode
from amqflow.worker.settle import STORE_RETRY
from amqflow.worker.settlement import Received, Settlement
from amqflow.workflow import Launch
from amqflow.workflow.completion import lost_member

if TYPE_CHECKING:
    from collections.abc import Callable

    from amqflow.abc import ResultStore
    from amqflow.protocol import TaskMessage
    from amqflow.transport import Delivery
    from amqflow.worker.lanes import Lane
    from amqflow.worker.settle import Settler
    from amqflow.worker.settlement import Desk

log = get_logger("amqflow.worker")


class Drops:
    """Consumes the copies; runs in every worker."""

    def __init__(
        self,
        *,
        settler: Settler,
        desk: Desk,
        store: ResultStore | None,
        lane_of: Callable[[str], Lane],
        lane: Lane,
        owner: str,
    ) -> None:
        """Wire the parts.

        Args:
            settler: publishes, acks.
            desk: makes settlements.
            store: where outcomes stand; None where the application keeps none.
            lane_of: the lane of a queue by name, consumed here or not.
            lane: of the dropped queue.
            owner: names this worker in claims.
        """
        self._settler = settler
        self._desk = desk
        self._store = store
        self._lane_of = lane_of
        self._lane = lane
        self._owner = owner

    def receive(self, delivery: Delivery) -> None:
        """Take one copy; those of messages a worker parked tell nothing new."""
        letter = DeadLetter.read(delivery.envelope.headers)
        if letter is None or not letter.by_broker:
            delivery.ack()
            return
        self._settler.start(self._end(delivery, letter))

    async def _end(self, delivery: Delivery, letter: DeadLetter) -> None:
        settlement = await self._settlement(delivery, letter)
        if settlement is not None and await self._settler.carry_out(
            settlement, delivery, self._lane
        ):
            delivery.ack()

    async def _settlement(self, delivery: Delivery, letter: DeadLetter) -> Settlement | None:
        """Return what the end of a dropped message requires; None: the broker has it back."""
        text = f"the broker dropped its message from queue {letter.queue}: {letter.reason}"
        try:
            message = decode(delivery.envelope)
        except Undecodable:
            lost = lost_member(delivery.envelope, DeadReason.UNDECODABLE, text)
            return Settlement(launch=Launch(completions=[lost] if lost else []))
        log.warning("dropped by the broker", task_id=message.id, task=message.task, reason=text)
        outcome = _outcome(message, letter, text, self._desk.now())
        stored = await self._stored(delivery, message, outcome)
        if stored is None:
            return Settlement() if delivery.live else None
        received = Received(delivery.envelope, delivery.exchange, delivery.routing_key)
        lane = self._lane_of(letter.queue or self._lane.queue)
        try:
            return self._desk.settlement(stored, message, received, lane)
        except (AmqflowError, TypeError, ValueError) as error:
            log.warning("what follows cannot be sent", task_id=message.id, error=str(error))
            lost = lost_member(delivery.envelope, DeadReason.WORKFLOW, text)
            return Settlement(launch=Launch(completions=[lost] if lost else []))

    async def _stored(
        self, delivery: Delivery, message: TaskMessage, outcome: Outcome
    ) -> Outcome | None:
        """Return the outcome that stands; None where a later attempt or epoch carries the task."""
        store = self._store
        if store is None or not store.capabilities.fences:
            return outcome
        attempt = Attempt(message.id, message.epoch, message.attempt, self._owner)
        backoff = Backoff(first=0.2, most=STORE_RETRY)
        while delivery.live:
            try:
                (claim,) = await store.begin([attempt])
                if claim.verdict is Verdict.RUN:
                    (answer,) = await store.finish([Finish(outcome, claim.fence)])
                    return None if answer.refused else answer.stored
            except StoreConflict as error:
                log.error("an outcome cannot be stored", task_id=message.id, error=str(error))  # noqa: TRY400 - it says all
                return outcome
            except StoreError as error:
                log.warning("the result store is away, holding", error=str(error))
                await asyncio.sleep(backoff.next())
            else:
                return claim.outcome if claim.verdict is Verdict.SETTLED else None
        return None


def _outcome(message: TaskMessage, letter: DeadLetter, text: str, now: float) -> Outcome:
    expired = letter.reason == DeadReason.EXPIRED
    return Outcome(
        message.id,
        REVOKED if expired else FAILURE,
        exception=None
        if expired
        else ExceptionInfo("MessageDropped", "amqflow.errors", (text,), text),
        epoch=message.epoch,
        attempt=message.attempt,
        parent_id=message.parent_id,
        group_id=message.group,
        reason="expired" if expired else text,
        date_done=now,
    )
