"""What an ended attempt requires, as a value: what to store, and what to publish (design 5.2).

Pure: given the same stored outcome and message it names the same messages with the same ids, so
that a redelivery which finds the outcome does the rest without running the task again.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

from amqflow.abc import FAILURE, RETRY, DeadReason, ExceptionInfo, Outcome
from amqflow.canvas import build_call
from amqflow.producer import Outgoing, to_queue
from amqflow.protocol import dead_headers, fit_headers, frame_room, republished
from amqflow.protocol import headers as h
from amqflow.results.exceptions import describe
from amqflow.worker.returns import deaths
from amqflow.workflow import Launch, following
from amqflow.workflow.replace import REPLACEMENT, replacing

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from amqflow.protocol import Envelope, TaskMessage
    from amqflow.topology import Ladder
    from amqflow.worker.lanes import Lane
    from amqflow.workflow import Unfolder


@dataclass(frozen=True, slots=True)
class Received:
    """A message as it came: enough to send it on, from this process or from another one."""

    envelope: Envelope
    exchange: str
    routing_key: str


@dataclass(frozen=True, slots=True)
class Settlement:
    """What remains to be done once an outcome stands: messages, and what follows the task."""

    messages: tuple[Outgoing, ...] = ()
    launch: Launch = field(default_factory=Launch)

    @property
    def empty(self) -> bool:
        """Whether the ack is all that remains."""
        return not self.messages and not self.launch


NOTHING = Settlement()


@dataclass(frozen=True, slots=True)
class Desk:
    """What settlements need to know of the worker they are made in."""

    ladder: Ladder
    worker: str
    encode: Callable[[TaskMessage], Envelope]
    now: Callable[[], float]
    frame_max: int
    #: Bytes of the largest body that a message may carry itself.
    max_body: int
    unfolder: Unfolder
    #: Results are kept with the call they are of (the setting ``result_extended``).
    extended: bool = False

    def settlement(
        self, outcome: Outcome, message: TaskMessage, received: Received, lane: Lane
    ) -> Settlement:
        """Return what a stored outcome requires."""
        if outcome.state == RETRY and (step := _replacement(outcome)) is not None:
            return Settlement(launch=replacing(message, step, self.unfolder))
        if outcome.state == RETRY:
            return Settlement((self.retried(outcome, message, received, lane),))
        messages: tuple[Outgoing, ...] = ()
        if outcome.park is not None and outcome.park in lane.park:
            messages = (
                self.parked(
                    outcome.park,
                    received,
                    lane,
                    exception=outcome.exception,
                    traceback=outcome.traceback,
                    attempts=message.retries + _runs(outcome.park, received.envelope),
                    reason=outcome.reason,
                ),
            )
        launch = following(message, outcome, self.unfolder, now=self.now())
        if not messages and not launch:
            return NOTHING
        return Settlement(messages, launch)

    def ended(self, outcome: Outcome, message: TaskMessage) -> Launch:
        """Return what ends with a task that failed outside its own run; nobody is called."""
        launch = following(message, outcome, self.unfolder, now=self.now())
        launch.calls.clear()
        return launch

    def refused(self, message: TaskMessage, error: Exception) -> Outcome:
        """Return the outcome of a call that could not be sent."""
        return Outcome(
            message.id,
            FAILURE,
            exception=describe(error),
            epoch=message.epoch,
            attempt=message.attempt,
            parent_id=message.parent_id,
            group_id=message.group,
            reason=f"it could not be sent: {error}",
            date_done=self.now(),
        )

    def retried(
        self, outcome: Outcome, message: TaskMessage, received: Received, lane: Lane
    ) -> Outgoing:
        """Return the next attempt: the same task and id, one retry later, by the ladder."""
        changed: Mapping[str, Any] = outcome.replaced_by or {}
        again = replace(
            message,
            args=list(changed.get("args", message.args)),
            kwargs=dict(changed.get("kwargs", message.kwargs)),
            retries=message.retries + 1,
            eta=outcome.retry_at,
            extra=self._origin(message.extra, received),
        )
        again.extra.pop(h.REDELIVERED, None)
        queue = lane.queue
        if options := changed.get("options"):
            call = build_call(message.task, None, None, options)
            again.priority = message.priority if call.priority is None else call.priority
            again.expires = call.expires or message.expires
            again.time_limit = call.time_limit or message.time_limit
            again.soft_time_limit = call.soft_time_limit or message.soft_time_limit
            queue = call.queue or queue
        delay = (outcome.retry_at or 0.0) - self.now()
        return to_queue(self.encode(again), queue, delay=delay, ladder=self.ladder)

    def delayed(self, received: Received, lane: Lane, delay: float, **headers: object) -> Outgoing:
        """Return a message sent back to its queue by the ladder, unchanged but for ``headers``."""
        envelope = republished(received.envelope, **self._origin({}, received), **headers)
        return to_queue(envelope, lane.queue, delay=delay, ladder=self.ladder)

    def moved(self, received: Received, queue: str, **headers: object) -> Outgoing:
        """Return a message moved to another queue at once."""
        envelope = republished(received.envelope, **self._origin({}, received), **headers)
        return Outgoing(envelope, "", queue, queue)

    def parked(
        self,
        why: DeadReason,
        received: Received,
        lane: Lane,
        *,
        exception: ExceptionInfo | None = None,
        traceback: str | None = None,
        attempts: int = 0,
        reason: str | None = None,
    ) -> Outgoing:
        """Return the message as a dead letter, with all that is known of its end."""
        envelope = received.envelope
        task = envelope.headers.get("task")
        headers = dead_headers(
            why,
            task=task if isinstance(task, str) else "",
            exception=exception or _described(why, reason),
            traceback=traceback,
            worker=self.worker,
            time=self.now(),
            attempts=attempts,
            exchange=str(envelope.headers.get(h.EXCHANGE, received.exchange)),
            routing_key=str(envelope.headers.get(h.ROUTING_KEY, received.routing_key)),
            queue=lane.queue,
        )
        return Outgoing(
            self._fitting(republished(envelope, **headers)),
            "",
            lane.home,
            # Blobs expire, dead letters need not; and what nobody could read goes as it came.
            whole=why is DeadReason.UNDECODABLE or len(envelope.body) <= self.max_body,
        )

    def _fitting(self, envelope: Envelope) -> Envelope:
        """Cut what only people read until the headers fit the connection's frames."""
        texts = (envelope.message_id, envelope.correlation_id, envelope.reply_to)
        room = frame_room(self.frame_max, properties=sum(len(text or "") for text in texts))
        envelope.headers = fit_headers(envelope.headers, room)
        return envelope

    @staticmethod
    def _origin(extra: Mapping[str, Any], received: Received) -> dict[str, Any]:
        """Return ``extra`` with where the caller published to, kept from the first time on."""
        known = received.envelope.headers
        return {
            **extra,
            h.EXCHANGE: known.get(h.EXCHANGE, received.exchange),
            h.ROUTING_KEY: known.get(h.ROUTING_KEY, received.routing_key),
        }


def _replacement(outcome: Outcome) -> Mapping[str, Any] | None:
    """Return the signature that takes the task's place, where one does."""
    found: Mapping[str, Any] | None = (outcome.replaced_by or {}).get(REPLACEMENT)
    return found


def _runs(why: DeadReason, envelope: Envelope) -> int:
    """Return how often the attempt that was parked had been started."""
    match why:
        case DeadReason.FAILED:
            return 1
        case DeadReason.POISON:
            return deaths(envelope.headers)
        case _:
            return 0


def _described(why: DeadReason, reason: str | None) -> ExceptionInfo | None:
    """Return a sentence about a death that no exception caused in the shape of one."""
    return ExceptionInfo(str(why), "", (reason,), reason) if reason else None
