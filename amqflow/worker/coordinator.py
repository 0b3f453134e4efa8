"""Consumes what workers leave for later: settlements of a store that was away, forwarded calls."""

from __future__ import annotations

from typing import TYPE_CHECKING

from amqflow.abc import DeadReason
from amqflow.errors import Undecodable
from amqflow.logs import get_logger
from amqflow.producer import Outgoing
from amqflow.protocol import decode, republished
from amqflow.protocol import headers as h
from amqflow.worker.away import read_away

if TYPE_CHECKING:
    from collections.abc import Callable

    from amqflow.abc import Outcome
    from amqflow.transport import Delivery
    from amqflow.worker.lanes import Lane
    from amqflow.worker.settle import Settler
    from amqflow.worker.settlement import Desk, Settlement

log = get_logger("amqflow.worker")


class Coordinator:
    """Runs in every worker; which one takes a message does not matter."""

    def __init__(
        self, settler: Settler, desk: Desk, lane_of: Callable[[str], Lane], own: Lane, forward: Lane
    ) -> None:
        """Settle through ``settler``.

        Args:
            settler: stores, publishes, acks.
            desk: makes settlements.
            lane_of: the lane of a queue by name, consumed here or not.
            own: the lane of the completions queue.
            forward: the lane of the forward queue.
        """
        self._settler = settler
        self._desk = desk
        self._lane_of = lane_of
        self._own = own
        self._forward = forward

    def complete(self, delivery: Delivery) -> None:
        """Take one message of the completions queue."""
        try:
            outcome, fence, received, queue = read_away(delivery.envelope)
            message = decode(received.envelope)
        except Undecodable as error:
            self._settler.park(delivery, self._own, DeadReason.UNDECODABLE, str(error))
            return
        lane = self._lane_of(queue)

        def settlement_of(stored: Outcome) -> Settlement:
            return self._desk.settlement(stored, message, received, lane)

        self._settler.start(
            self._settler.settle_away(delivery, outcome, fence, settlement_of, self._own)
        )

    def forward(self, delivery: Delivery) -> None:
        """Republish a delayed call to the exchange and key it was meant for."""
        headers = delivery.envelope.headers
        exchange, key = headers.get(h.EXCHANGE), headers.get(h.ROUTING_KEY)
        if not isinstance(exchange, str) or not isinstance(key, str):
            text = "a message in the forward queue names no exchange"
            self._settler.park(delivery, self._forward, DeadReason.UNDECODABLE, text)
            return
        letter = Outgoing(republished(delivery.envelope), exchange, key)
        self._settler.send_on(delivery, self._forward, letter)
