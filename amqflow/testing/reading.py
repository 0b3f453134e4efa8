"""Messages in a test's queues, as tasks with named arguments."""

from __future__ import annotations

import inspect
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from amqflow.errors import InvalidArguments, Undecodable
from amqflow.protocol import DeadLetter, Envelope, TaskMessage, decode
from amqflow.topology.ladder import PREFIX, unescape
from amqflow.topology.names import DEAD_SUFFIX, OWN_PREFIX, SUSPECT_SUFFIX, UNDELIVERED

if TYPE_CHECKING:
    from collections.abc import Mapping

    from amqflow.broker.looking import Seen
    from amqflow.tasks import Task


@dataclass(frozen=True, slots=True)
class Enqueued:
    """A task that waits to be run.

    ``arguments`` are by parameter name where the task is known, as the body would get them.
    ``delayed`` ones wait for their ``eta`` (Unix seconds) and go to ``queue`` then.
    """

    id: str
    task: str
    arguments: Mapping[str, Any]
    queue: str
    delayed: bool
    priority: int | None
    eta: float | None
    expires: float | None
    headers: Mapping[str, Any]
    message: TaskMessage

    def __str__(self) -> str:
        """Show the call and where it waits."""
        given = ", ".join(f"{name}={value!r}" for name, value in self.arguments.items())
        later = " (delayed)" if self.delayed else ""
        return f"{self.task}({given}) in queue {self.queue}{later}"


@dataclass(frozen=True, slots=True)
class Dead:
    """A task that was parked: what it was, and why it died."""

    id: str
    task: str
    arguments: Mapping[str, Any]
    queue: str
    reason: str
    exception: str | None
    exception_message: str | None
    letter: DeadLetter
    message: TaskMessage

    def __str__(self) -> str:
        """Show the call and its end."""
        given = ", ".join(f"{name}={value!r}" for name, value in self.arguments.items())
        why = f": {self.exception}: {self.exception_message}" if self.exception else ""
        return f"{self.task}({given}) of queue {self.queue}, {self.reason}{why}"


def enqueued_of(seen: Seen, tasks: Mapping[str, Task[..., Any]]) -> Enqueued | None:
    """Return a message that waits to be run; None for every other."""
    queue = _destination(seen)
    if queue is None or seen.unacked:
        return None
    message = _message(seen)
    if message is None:
        return None
    return Enqueued(
        id=message.id,
        task=message.task,
        arguments=_arguments(message, tasks),
        queue=queue,
        delayed=is_delay(seen.queue),
        priority=message.priority,
        eta=message.eta,
        expires=message.expires,
        headers=message.extra,
        message=message,
    )


def dead_of(seen: Seen, tasks: Mapping[str, Task[..., Any]]) -> Dead | None:
    """Return a message that was parked, by a worker or by the broker; None for every other."""
    if not seen.queue.endswith(DEAD_SUFFIX):
        return None
    message, letter = _message(seen), DeadLetter.read(seen.properties.headers or {})
    if message is None or letter is None:
        return None
    return Dead(
        id=message.id,
        task=message.task,
        arguments=_arguments(message, tasks),
        queue=letter.queue or seen.queue.removesuffix(DEAD_SUFFIX),
        reason=letter.reason,
        exception=letter.exception,
        exception_message=letter.exception_message,
        letter=letter,
        message=message,
    )


def is_delay(queue: str) -> bool:
    """Whether a queue belongs to the delay ladder."""
    return queue.startswith(PREFIX)


def is_at_rest(queue: str) -> bool:
    """Whether what is in a queue waits for a person: dead letters, and what nobody could take."""
    return queue.endswith(DEAD_SUFFIX) or queue == UNDELIVERED


def _destination(seen: Seen) -> str | None:
    """Return the queue a worker takes a message from, now or when its delay is over."""
    if is_delay(seen.queue):
        return unescape(seen.routing_key.rpartition(".")[2])
    if is_at_rest(seen.queue) or seen.queue.startswith(OWN_PREFIX):
        return None
    return seen.queue.removesuffix(SUSPECT_SUFFIX)


def _message(seen: Seen) -> TaskMessage | None:
    properties = seen.properties
    envelope = Envelope(
        seen.body,
        dict(properties.headers or {}),
        properties.content_type,
        properties.content_encoding,
        priority=properties.priority,
        correlation_id=properties.correlation_id,
        reply_to=properties.reply_to,
        message_id=properties.message_id,
        timestamp=properties.timestamp,
    )
    try:
        return decode(envelope)
    except Undecodable:
        return None


def _arguments(message: TaskMessage, tasks: Mapping[str, Task[..., Any]]) -> Mapping[str, Any]:
    """Return arguments by name; those of a task that is not known here by position."""
    task = tasks.get(message.task)
    if task is not None:
        try:
            args, kwargs = task.check_arguments(message.args, message.kwargs)
            return bound(task, args, kwargs)
        except (InvalidArguments, TypeError):
            pass
    return {**{str(place): value for place, value in enumerate(message.args)}, **message.kwargs}


def bound(task: Task[..., Any], args: Any, kwargs: Mapping[str, Any]) -> dict[str, Any]:
    """Return the arguments of a call, or of a part of one, by the names the task gives them.

    Raises:
        TypeError: the task takes no such arguments.
    """
    signature = inspect.signature(task.run)
    found = signature.bind_partial(*args, **kwargs).arguments
    for name, parameter in signature.parameters.items():
        if parameter.kind is parameter.VAR_KEYWORD:
            found.update(found.pop(name, {}))
    return found
