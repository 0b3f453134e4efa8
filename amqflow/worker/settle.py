"""Settles ended attempts: store the outcome, publish what the stored one requires, then ack.

The order is the invariant (design 5.2). Where a step cannot be done now it is tried again with
backoff, or handed over under confirm; the message stays unacked until then.
"""

from __future__ import annotations

import asyncio
from dataclasses import replace
from typing import TYPE_CHECKING

from amqflow.abc import FAILURE, RETRY, REVOKED, SUCCESS, DeadReason, ExceptionInfo, Finish, Outcome
from amqflow.backoff import Backoff
from amqflow.errors import (
    AmqflowError,
    BrokerError,
    EncodeError,
    NotFound,
    StoreError,
    TopologyError,
    Unroutable,
)
from amqflow.logs import get_logger
from amqflow.producer import Outgoing
from amqflow.topology.names import UNDELIVERED
from amqflow.worker.away import away_message
from amqflow.worker.settlement import Received, Settlement

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine, Iterable

    from amqflow.abc import Call, ResultStore
    from amqflow.middleware import Stack
    from amqflow.producer import Producer
    from amqflow.transport import Delivery
    from amqflow.worker.job import Job
    from amqflow.worker.lanes import Lane
    from amqflow.worker.settlement import Desk

log = get_logger("amqflow.worker")


class Settler:
    """One per worker; everything happens in its loop."""

    def __init__(
        self,
        *,
        store: ResultStore | None,
        producer: Producer,
        desk: Desk,
        results_exchange: str,
        completions_key: str,
        on_settled: Callable[[Job, Outcome], None],
        middleware: Stack,
        on_stuck: Callable[[Lane, str], None],
    ) -> None:
        """Wire the parts.

        Args:
            store: where outcomes stand; None where the application keeps none.
            producer: the way out.
            desk: makes settlements.
            results_exchange: takes settlements while the store is away.
            completions_key: its routing key.
            on_settled: told of each outcome that stands, before the ack.
            middleware: its settle hooks see every outcome.
            on_stuck: told of a lane whose message can be sent nowhere, to pause it.
        """
        self._loop = asyncio.get_running_loop()
        self._store = store
        self._producer = producer
        self._desk = desk
        self._results_exchange = results_exchange
        self._completions_key = completions_key
        self._on_settled = on_settled
        self._on_stuck = on_stuck
        self._middleware = middleware
        self._finishing: list[Job] = []
        self._work: set[asyncio.Task[None]] = set()

    @property
    def busy(self) -> int:
        """How many settlements are under way."""
        return len(self._work) + len(self._finishing)

    # -- ways in ---------------------------------------------------------------------------

    def settle(self, job: Job) -> None:
        """Settle an ended job; its ``outcome`` is set."""
        if self._middleware.settles and job.outcome is not None:
            job.outcome = self._middleware.before_settle(job.message, job.outcome)
        if job.keeps_result:
            self._finishing.append(job)
            if len(self._finishing) == 1:
                # Everything that ends in this loop turn shares one round trip to the store.
                self._loop.call_soon(self._finish_turn)
        elif job.outcome is not None:
            self._stands(job, job.outcome)

    def redo(self, job: Job, stored: Outcome) -> None:
        """Do what a stored outcome requires, for a message that came again."""
        self._stands(job, stored)

    def park(self, delivery: Delivery, lane: Lane, why: DeadReason, text: str) -> None:
        """Park a message that is no task, with its reason."""
        log.warning("parked", queue=lane.queue, reason=str(why), detail=text)
        received = _received(delivery)
        letter = self._desk.parked(why, received, lane, reason=text)
        self._start(self._send_on(delivery, lane, [letter]))

    def delay(self, delivery: Delivery, lane: Lane, seconds: float) -> None:
        """Send a message back to its queue by the ladder, then ack."""
        letter = self._desk.delayed(_received(delivery), lane, seconds)
        self._start(self._send_on(delivery, lane, [letter]))

    def move(self, delivery: Delivery, lane: Lane, queue: str, **headers: object) -> None:
        """Move a message to another queue (or the end of its own), then ack."""
        letter = self._desk.moved(_received(delivery), queue, **headers)
        self._start(self._send_on(delivery, lane, [letter]))

    def send_on(self, delivery: Delivery, lane: Lane, letter: Outgoing) -> None:
        """Publish a message in a delivery's place, then ack."""
        self._start(self._send_on(delivery, lane, [letter]))

    # -- (a) store -------------------------------------------------------------------------

    def _finish_turn(self) -> None:
        jobs, self._finishing = self._finishing, []
        self._start(self._finish(jobs))

    async def _finish(self, jobs: list[Job]) -> None:
        store = self._store
        if store is None:
            return
        try:
            finished = await store.finish([_finish_of(job) for job in jobs])
        except EncodeError as error:
            if len(jobs) == 1:
                await self._unencodable(jobs[0], error)
            else:  # one of them cannot be written: each on its own
                for job in jobs:
                    await self._finish([job])
            return
        except Exception as error:  # noqa: BLE001 - whatever it is, the outcomes must not be stranded
            await self._away(jobs, error)
            return
        for job, answer in zip(jobs, finished, strict=True):
            if answer.refused:
                log.warning(
                    "outcome refused: another worker has taken this task over",
                    task_id=job.message.id,
                    task=job.message.task,
                    state=answer.stored.state,
                )
                job.delivery.ack()
            else:
                self._stands(job, answer.stored)

    async def _unencodable(self, job: Job, error: EncodeError) -> None:
        text = f"the result cannot be written: {error}"
        job.outcome = Outcome(
            job.message.id,
            FAILURE,
            exception=ExceptionInfo("InvalidResult", "amqflow.errors", (text,), text),
            epoch=job.message.epoch,
            attempt=job.message.retries,
            park=DeadReason.FAILED,
            reason=text,
            date_done=self._desk.now(),
        )
        await self._finish([job])

    async def _away(self, jobs: list[Job], error: Exception) -> None:
        """Hand settlements to the completions queue under confirm; hold where that fails."""
        log.warning("the result store is away", error=repr(error), settlements=len(jobs))
        await asyncio.gather(*(self._hand_over(job) for job in jobs))

    async def _hand_over(self, job: Job) -> None:
        if job.outcome is None:
            return
        backoff = Backoff(first=0.2, most=5.0)
        letter = away_message(job.outcome, job.fence, _received(job.delivery), job.lane)
        while job.delivery.live:
            try:
                await self._producer.publish(
                    Outgoing(letter, self._results_exchange, self._completions_key)
                )
            except BrokerError as error:
                log.warning("holding a settlement", task_id=job.message.id, error=str(error))
                await asyncio.sleep(backoff.next())
                try:
                    # The store may have come back meanwhile.
                    await self._finish([job])
                except StoreError:
                    continue
                return
            else:
                job.delivery.ack()
                return

    # -- (b) publish, (c) ack --------------------------------------------------------------

    def _stands(self, job: Job, outcome: Outcome) -> None:
        """Do what a standing outcome requires, then ack."""
        self._on_settled(job, outcome)
        if self._middleware.settles:
            self._middleware.after_settle(job.message, outcome)
        message = job.message
        if outcome.state == SUCCESS and not message.chain and not message.callbacks:
            job.delivery.ack()  # nearly every task of a busy system ends here
            return
        received = _received(job.delivery)
        try:
            settlement = self._desk.settlement(outcome, message, received, job.lane)
        except (AmqflowError, TypeError, ValueError) as error:
            # A foreign message whose next step or link is no signature: nothing can follow it.
            text = f"what follows the task cannot be sent: {error}"
            self.park(job.delivery, job.lane, DeadReason.WORKFLOW, text)
            return
        if settlement.empty:
            job.delivery.ack()
            return
        self._start(self._carry_out(job.delivery, job.lane, settlement))

    async def _carry_out(self, delivery: Delivery, lane: Lane, settlement: Settlement) -> None:
        sent = await asyncio.gather(
            *(self._deliver(letter, delivery, lane) for letter in settlement.messages),
            *(self._call(call, delivery, lane) for call in settlement.calls),
        )
        if all(sent):
            delivery.ack()

    async def _send_on(self, delivery: Delivery, lane: Lane, letters: Iterable[Outgoing]) -> None:
        sent = [await self._deliver(letter, delivery, lane) for letter in letters]
        if all(sent):
            delivery.ack()

    async def _call(self, call: Call, delivery: Delivery, lane: Lane) -> bool:
        """Send a following call; what cannot be routed goes to the undelivered queue."""

        async def send() -> None:
            await self._producer.send(call)

        async def give_up() -> None:
            letter = await self._producer.unrouted(call)
            await self._producer.publish(replace(letter, exchange=UNDELIVERED, routing_key=""))

        return await self._insist(send, give_up, delivery, lane, what=call.task)

    async def _deliver(self, letter: Outgoing, delivery: Delivery, lane: Lane) -> bool:
        """Publish one message of a settlement; True when the broker has confirmed it."""

        async def send() -> None:
            await self._producer.publish(letter)

        async def give_up() -> None:
            await self._producer.publish(replace(letter, exchange=UNDELIVERED, routing_key=""))

        return await self._insist(
            send, give_up, delivery, lane, what=letter.queue or letter.exchange
        )

    async def _insist(
        self,
        send: Callable[[], Coroutine[object, object, None]],
        give_up: Callable[[], Coroutine[object, object, None]],
        delivery: Delivery,
        lane: Lane,
        *,
        what: str,
    ) -> bool:
        """Send until confirmed, or until the broker has taken the delivery back.

        Unroutable goes to ``amqflow.undelivered``; failing that the message stays unacked and
        its lane is paused, loudly (design 5.8).
        """
        backoff = Backoff(first=0.1, most=10.0)
        while delivery.live:
            try:
                await send()
            except (Unroutable, NotFound, TopologyError, EncodeError) as error:
                try:
                    await give_up()
                except BrokerError as worse:
                    self._on_stuck(lane, f"{what}: {error}; and the undelivered queue: {worse}")
                    await asyncio.sleep(backoff.next())
                else:
                    log.warning(
                        "undeliverable, kept in the undelivered queue", to=what, error=str(error)
                    )
                    return True
            except BrokerError as error:
                log.warning("publishing again", to=what, error=str(error))
                await asyncio.sleep(backoff.next())
            else:
                return True
        return False

    # -- for the coordinator ---------------------------------------------------------------

    async def settle_away(
        self,
        delivery: Delivery,
        outcome: Outcome,
        fence: int,
        settlement_of: Callable[[Outcome], Settlement],
        lane: Lane,
    ) -> None:
        """Finish a settlement that another worker handed over while the store was away."""
        backoff = Backoff(first=0.2, most=5.0)
        while delivery.live and self._store is not None:
            try:
                (answer,) = await self._store.finish([Finish(outcome, fence)])
            except StoreError as error:
                log.warning("the result store is still away", error=str(error))
                await asyncio.sleep(backoff.next())
                continue
            if answer.refused:
                delivery.ack()
            else:
                settlement = settlement_of(answer.stored)
                if settlement.empty:
                    delivery.ack()
                else:
                    await self._carry_out(delivery, lane, settlement)
            return

    def start(self, work: Coroutine[object, object, None]) -> None:
        """Run settling work that :meth:`drain` waits for."""
        self._start(work)

    def _start(self, work: Coroutine[object, object, None]) -> None:
        task = self._loop.create_task(work)
        self._work.add(task)
        task.add_done_callback(self._ended)

    def _ended(self, task: asyncio.Task[None]) -> None:
        self._work.discard(task)
        if not task.cancelled() and (error := task.exception()) is not None:
            # The message stays unacked and is delivered again when the channel closes.
            log.error("settling failed, the message stays unacked", exc_info=error)

    async def drain(self, timeout: float) -> bool:
        """Wait for the settlements under way; False when ``timeout`` seconds passed first."""
        try:
            async with asyncio.timeout(timeout):
                while self._work or self._finishing:
                    await asyncio.gather(*self._work, return_exceptions=True)
                    await asyncio.sleep(0)
        except TimeoutError:
            return False
        return True


def _received(delivery: Delivery) -> Received:
    return Received(delivery.envelope, delivery.exchange, delivery.routing_key)


def _finish_of(job: Job) -> Finish:
    outcome = job.outcome
    if outcome is None:  # pragma: no cover - settle() is called with an outcome
        message = "a job was settled without an outcome"
        raise RuntimeError(message)
    return Finish(outcome, job.fence, job.message.reply_to, job.message.correlation_id)


TERMINAL_LOGS = {SUCCESS: "succeeded", FAILURE: "failed", REVOKED: "revoked", RETRY: "retrying"}
