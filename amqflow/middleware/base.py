"""The hooks a middleware may implement; one decision per middleware."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from amqflow.abc import Outcome
    from amqflow.protocol import TaskMessage


class Middleware:
    """A base whose hooks do nothing: implement those you need, and no other is ever called.

    Hooks are plain functions on the way of every message: they must be quick and never block.
    ``before_*`` hooks run in the order of the stack, ``after_*`` hooks in reverse, as in Dramatiq.
    A message's ``extra`` are own headers; ``request`` is the task's (``self.request``).

    An error raised by ``before_publish`` reaches the caller and nothing is sent. One raised by
    ``before_execute`` is the attempt's outcome, as if the task had raised it: ``Ignore`` and
    ``Reject`` do here what they do in a task. Errors of ``after_*`` hooks are logged.
    """

    def before_publish(self, message: TaskMessage) -> None:
        """See, and change, a message before it is encoded."""

    def after_publish(self, message: TaskMessage) -> None:
        """See a message the broker has confirmed."""

    def after_receive(self, message: TaskMessage) -> None:
        """See, and change, a decoded message before its arguments are validated.

        An error raised here parks the message as ``failed``, unrun.
        """

    def before_execute(self, request: Any) -> None:
        """See the request just before the task runs, in the thread or loop it runs in."""

    def after_execute(self, request: Any, result: Any, error: BaseException | None) -> None:
        """See how the run ended, in the same place; ``result`` is None where ``error`` is not."""

    def before_settle(self, message: TaskMessage, outcome: Outcome) -> Outcome:
        """Return the outcome to store: the one given, or another made of it."""
        del message
        return outcome

    def after_settle(self, message: TaskMessage, outcome: Outcome) -> None:
        """See the outcome that stands, before anything follows it and before the ack."""
