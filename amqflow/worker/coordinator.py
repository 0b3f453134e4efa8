"""Consumes what workers leave for later: settlements of a store that was away, forwarded calls."""

from __future__ import annotations

from typing import TYPE_CHECKING

from amqflow.abc import DeadReason, Finish
from amqflow.errors import AmqflowError, Undecodable
from amqflow.logs import get_logger
from amqflow.producer import Outgoing
from amqflow.protocol import decode, republished
from amqflow.protocol import headers as h
from amqflow.worker.away import read_away
from amqflow.worker.settle import CONTESTED_DELAY
from amqflow.worker.settlement import Settlement
from amqflow.workflow.wire import COMPLETIONS, WATCH

if TYPE_CHECKING:
    from collections.abc import Callable

    from amqflow.abc import Outcome
    from amqflow.transport import Delivery
    from amqflow.worker.chords import ChordCoordinator
    from amqflow.worker.lanes import Lane
    from amqflow.worker.settle import Settler
    from amqflow.worker.settlement import Desk

log = get_logger("amqflow.worker")


class Coordinator:
    """Runs in every worker; which one takes a message does not matter."""

    def __init__(
        self,
        *,
        settler: Settler,
        desk: Desk,
        chords: ChordCoordinator | None,
        lane_of: Callable[[str], Lane],
        own: Lane,
        forward: Lane,
    ) -> None:
        """Settle through ``settler``.

        Args:
            settler: stores, publishes, acks.
            desk: makes settlements.
            chords: counts members; None where this application's store counts none.
            lane_of: the lane of a queue by name, consumed here or not.
            own: the lane of the completions queue.
            forward: the lane of the forward queue.
        """
        self._chords = chords
        self._settler = settler
        self._desk = desk
        self._lane_of = lane_of
        self._own = own
        self._forward = forward

    def complete(self, delivery: Delivery) -> None:
        """Take one message of the completions queue: of members, a watch, or a settlement."""
        kind = delivery.envelope.type
        if kind not in (COMPLETIONS, WATCH):
            self._finish(delivery)
        elif self._chords is None:
            text = "this worker's application has no store that counts chords"
            self._settler.park(delivery, self._own, DeadReason.WORKFLOW, text)
        elif kind == COMPLETIONS:
            self._chords.complete(delivery)
        else:
            self._chords.watch(delivery)

    def _finish(self, delivery: Delivery) -> None:
        """Finish a settlement that was handed over while the store was away."""
        try:
            outcome, fence, received, queue = read_away(delivery.envelope)
            message = decode(received.envelope)
        except Undecodable as error:
            self._settler.park(delivery, self._own, DeadReason.UNDECODABLE, str(error))
            return
        lane = self._lane_of(queue)

        def settlement_of(stored: Outcome) -> Settlement:
            try:
                return self._desk.settlement(stored, message, received, lane)
            except (AmqflowError, TypeError, ValueError) as error:
                # As where the worker settles at once: what follows is no signature.
                text = f"what follows the task cannot be sent: {error}"
                letter = self._desk.parked(DeadReason.WORKFLOW, received, lane, reason=text)
                return Settlement((letter,))

        def again() -> Outgoing:
            return self._desk.delayed(received, lane, CONTESTED_DELAY)

        finish = Finish(outcome, fence, message.reply_to, message.correlation_id)
        self._settler.start(
            self._settler.settle_away(delivery, finish, settlement_of, again, self._own)
        )

    def forward(self, delivery: Delivery) -> None:
        """Republish a delayed call to the exchange and key it was meant for."""
        headers = delivery.envelope.headers
        exchange, key = headers.get(h.EXCHANGE), headers.get(h.ROUTING_KEY)
        if not isinstance(exchange, str) or not isinstance(key, str):
            text = "a message in the forward queue names no exchange"
            self._settler.park(delivery, self._forward, DeadReason.UNDECODABLE, text)
            return
        remaining = _eta(delivery) - self._desk.now()
        if remaining > self._desk.ladder.resolution:
            # Its eta is beyond the ladder's reach: another round.
            self._settler.delay(delivery, self._forward, remaining)
            return
        letter = Outgoing(republished(delivery.envelope), exchange, key)
        self._settler.send_on(delivery, self._forward, letter)


def _eta(delivery: Delivery) -> float:
    """Return when a message is due, in seconds since the epoch; 0 where it does not say."""
    try:
        return decode(delivery.envelope).eta or 0.0
    except Undecodable:
        return 0.0  # Whoever it is meant for judges it.
