"""Every error amqflow raises: one root, one sentence each on when it is raised.

Errors of libraries are translated once, at the door that meets them, with ``from exc``.
"""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from amqflow.abc import ExceptionInfo


class AmqflowError(Exception):
    """The root of every error amqflow raises on purpose."""


# -- configuration -------------------------------------------------------------------------


class ConfigurationError(AmqflowError):
    """A setting, URL, option or file is wrong; the message names the place and the way out."""


class ScheduleError(ConfigurationError, ValueError):
    """A schedule or an entry of the scheduler cannot work as written: a field, a zone, a policy."""


class TopologyError(ConfigurationError):
    """A topology cannot work as written, or a route does not lead to exactly one queue."""


class TopologyMismatch(TopologyError):
    """The broker holds an exchange or queue whose arguments differ from what is declared."""


class StalePlan(TopologyError):
    """The broker or the file changed after the plan was made; nothing was applied."""


class ReplaceRefused(TopologyError):
    """A plan replaces what holds messages or routes them, and nobody asked for that yet."""


class UnknownTask(AmqflowError):
    """A task of this name is not registered in this application."""


class TaskAlreadyRegistered(ConfigurationError):
    """Two different functions were registered under one task name."""


class SyncInLoop(AmqflowError):
    """A blocking call was made inside a running event loop; the message names its async twin."""


class AppClosed(AmqflowError):
    """The application was closed and can send nothing more."""


# -- data ----------------------------------------------------------------------------------


class InvalidArguments(AmqflowError, TypeError):
    """The arguments of a call do not match the task's signature or annotations."""


class InvalidResult(AmqflowError, TypeError):
    """A task returned a value that its return annotation or the codec does not allow."""


class EncodeError(AmqflowError, TypeError):
    """A value cannot be written as JSON; the message says which one and where."""


class Undecodable(AmqflowError, ValueError):
    """A message cannot be read as a task: broken, too large, too deep, or of a foreign kind."""


class MessageTooLarge(EncodeError):
    """An encoded message is larger than the bound in force."""


# -- the broker ----------------------------------------------------------------------------


class BrokerError(AmqflowError):
    """The root of what can go wrong between amqflow and the broker."""


class BrokerUnavailable(BrokerError, ConnectionError):
    """The broker cannot be reached, refused the login, or went away within the deadline."""


class ManagementUnavailable(BrokerUnavailable):
    """RabbitMQ's HTTP management API cannot be reached, or is something else; AMQP may work."""


class NoEmbeddedBroker(BrokerError):
    """Nothing serves the ``embedded://`` name asked for; the message says how to start it."""


class ChannelLost(BrokerError, ConnectionError):
    """The channel or connection an operation ran on closed before the operation ended."""


class AccessRefused(BrokerError):
    """The broker's user may not do this (AMQP 403); the message names the permission."""


class NotFound(BrokerError):
    """An exchange or queue does not exist on the broker (AMQP 404)."""


class PublishError(BrokerError):
    """The root of the three ways a confirmed publish can fail."""


class Unroutable(PublishError):
    """No queue is bound for this exchange and routing key: the broker returned the message."""


class PublishNacked(PublishError):
    """The broker refused the message (basic.nack), for example by ``reject-publish``."""


class PublishTimeout(PublishError, TimeoutError):
    """The broker did not confirm before the deadline; the message may or may not be there."""


# -- results -------------------------------------------------------------------------------


class StoreError(AmqflowError):
    """The root of what can go wrong between amqflow and a result store."""


class StoreUnavailable(StoreError, ConnectionError):
    """The store cannot be used now (away, loading, read-only, out of memory): hold, try again."""


class StoreConflict(StoreError):
    """A key of the store holds what is not ours (WRONGTYPE): no second try writes it."""


class NoResultStore(StoreError):
    """A result was asked for, and the application has no result store (``backend=None``)."""


class ResultTimeout(AmqflowError, TimeoutError):
    """``get()`` waited its time-out; the message says where the task is likely to be."""


class IncompleteStream(AmqflowError):
    """What a task has sent was asked for before it has ended (``collect``)."""


class JoinInTask(AmqflowError, RuntimeError):
    """A result was waited for inside a running task, which can end in a deadlock."""


class BlobMissing(AmqflowError):
    """A large body or result was kept apart, and is there no more: it has expired."""


class TaskFailed(AmqflowError):
    """A task failed with an error type that cannot be imported here."""

    def __init__(self, type_name: str, message: str) -> None:
        """Name the task's own error: ``type_name`` with its module, and its text."""
        super().__init__(f"{type_name}: {message}" if message else type_name)
        self.type_name = type_name
        self.text = message

    def __reduce__(self) -> tuple[type[TaskFailed], tuple[str, str]]:
        """Rebuild from both parts: the default would pass the joined text only."""
        return type(self), (self.type_name, self.text)


class TaskRevoked(AmqflowError):
    """The task was revoked, or expired, before it ran."""


class MessageDropped(AmqflowError):
    """The broker dropped a task's message: over a limit of its queue, or rejected by a client."""


class ChordLost(AmqflowError):
    """A chord can no longer be counted: its record, or whoever sent it, was lost."""


# -- inside a running task -----------------------------------------------------------------


class Retry(AmqflowError):
    """Raised by ``self.retry()`` to end this attempt; not an error of the task."""

    def __init__(
        self,
        message: str = "",
        *,
        exc: BaseException | None = None,
        when: float | None = None,
        new_args: Sequence[Any] | None = None,
        new_kwargs: Mapping[str, Any] | None = None,
        options: Mapping[str, Any] | None = None,
    ) -> None:
        """Carry the cause, the next attempt's time, and what changes for it.

        Args:
            message: A sentence for people.
            exc: Why.
            when: Unix seconds of the next attempt.
            new_args: Positional arguments of the next attempt; None: the same.
            new_kwargs: Keyword arguments of the next attempt; None: the same.
            options: Celery's execution options for the next attempt (``priority``,
                ``time_limit``…), as given to ``self.retry``.
        """
        super().__init__(message or (f"retry: {exc!r}" if exc else "retry"))
        self.exc = exc
        self.when = when
        self.new_args = new_args
        self.new_kwargs = new_kwargs
        self.options = options or {}


class Ignore(AmqflowError):
    """Raised by a task to end without storing a result: the message is acked, nothing else."""


class Reject(AmqflowError):
    """Raised by a task to park its message (``requeue=False``) or run it again later."""

    def __init__(self, reason: str = "", *, requeue: bool = False) -> None:
        """Say why, and whether the message goes back to its queue."""
        super().__init__(reason)
        self.reason = reason
        self.requeue = requeue


class Replaced(AmqflowError):
    """Raised by ``self.replace()``: another signature takes this task's place, with its id."""

    def __init__(self, signature: Mapping[str, Any]) -> None:
        """Carry the signature, in Celery's dict form."""
        super().__init__(f"replaced by {signature.get('task')}")
        self.signature = signature

    def __reduce__(self) -> tuple[type[Replaced], tuple[Mapping[str, Any]]]:
        """Rebuild from the signature: the default would pass the sentence."""
        return type(self), (self.signature,)


class MaxRetriesExceeded(AmqflowError):
    """``self.retry()`` was called after the last allowed attempt and no exception was given."""


class SoftTimeLimitExceeded(AmqflowError):
    """Raised inside a task whose soft time limit has passed."""


class TimeLimitExceeded(AmqflowError):
    """A task ran over its hard time limit and was ended."""


class WorkerLost(AmqflowError):
    """The process that ran a task died in the middle of it: killed, out of memory, segfault."""


class ShutdownInProgress(AmqflowError):
    """A running task was cut off by the second shutdown signal; its message was handed back."""


# -- several at once -----------------------------------------------------------------------


class PublishGroupError(PublishError):
    """Some publishes of a batch failed; ``errors`` holds them in order, None where it worked."""

    def __init__(self, errors: Sequence[BaseException | None], tasks: Sequence[str] = ()) -> None:
        """Keep every outcome and lead the message with the first failure.

        Args:
            errors: What became of each, None where it worked.
            tasks: Their names, in the same order.
        """
        failed = [number for number, error in enumerate(errors) if error is not None]
        first = failed[0]
        title = f"{tasks[first]} (number {first + 1}): " if tasks else ""
        super().__init__(
            f"{len(failed)} of {len(errors)} publishes failed; first: {title}{errors[first]}"
        )
        self.errors = tuple(errors)


# -- from data back to an exception ----------------------------------------------------------


def rebuild_exception(info: ExceptionInfo) -> Exception:
    """Return the exception ``info`` describes, or TaskFailed where its class is not here.

    Nothing is imported or executed for it: a class is looked up in modules this process has
    imported already, in their own dictionaries only, and only subclasses of Exception are made.
    """
    if info.type in {"TaskRevoked", "TaskRevokedError"}:  # ours, and Celery's
        return TaskRevoked(*info.args)
    kind = _exception_class(info.module, info.type)
    made = None if kind is None else _instance(kind, info.args)
    if made is not None:
        return made
    name = info.type if info.module in {"", "builtins"} else f"{info.module}.{info.type}"
    return TaskFailed(name, info.text)


def _exception_class(module: str, qualname: str) -> type[Exception] | None:
    loaded = sys.modules.get(module or "builtins")
    found: Any = loaded
    for name in qualname.split("."):
        if found is None or not (found is loaded or isinstance(found, type)):
            return None
        found = vars(found).get(name)
    return found if isinstance(found, type) and issubclass(found, Exception) else None


def _instance(kind: type[Exception], args: tuple[Any, ...]) -> Exception | None:
    """Return ``kind(*args)``; where its ``__init__`` takes other arguments, one made without it."""
    try:
        return kind(*args)
    except Exception:  # noqa: BLE001, S110 - a user's __init__ may raise anything
        pass
    try:
        made = kind.__new__(kind, *args)
        made.args = args
        str(made)
    except Exception:  # noqa: BLE001 - as above
        return None
    return made
