"""Celery's signals: named moments that observers watch; they change nothing (middleware does).

Storage, weak references and sender matching are blinker's. Names, arguments and the way to
connect are Celery's (docs/userguide/signals). Signals are the one process-wide table of
observers, as in Celery: a module may connect before any application exists.
"""

from __future__ import annotations

import inspect
import logging
from typing import TYPE_CHECKING, Any, TypeVar, overload

from blinker import ANY
from blinker import Signal as Channel

from amqflow.errors import ConfigurationError

if TYPE_CHECKING:
    from collections.abc import Callable, Hashable

Receiver = TypeVar("Receiver", bound="Callable[..., Any]")

_log = logging.getLogger(__name__)


class Signal:
    """One named moment; receivers get ``sender=``, ``signal=`` and the moment's own arguments."""

    __slots__ = ("_channel", "_uids", "name", "providing_args")

    def __init__(self, name: str, *providing_args: str) -> None:
        self.name = name
        #: The keyword arguments receivers get besides ``sender`` and ``signal``.
        self.providing_args = frozenset(providing_args)
        self._channel = Channel(name)
        self._uids: dict[tuple[Hashable, Any], Callable[..., Any]] = {}

    @overload
    def connect(
        self,
        receiver: Receiver,
        sender: Any = None,
        weak: bool = False,
        dispatch_uid: Hashable = None,
    ) -> Receiver: ...

    @overload
    def connect(
        self,
        receiver: None = None,
        sender: Any = None,
        weak: bool = False,
        dispatch_uid: Hashable = None,
    ) -> Callable[[Receiver], Receiver]: ...

    def connect(
        self,
        receiver: Receiver | None = None,
        sender: Any = None,
        weak: bool = False,
        dispatch_uid: Hashable = None,
    ) -> Receiver | Callable[[Receiver], Receiver]:
        """Call ``receiver`` at this moment; a decorator with or without arguments, as in Celery.

        Args:
            receiver: A plain function that takes ``**kwargs``.
            sender: Only moments of this sender: a task, or its name; None means all.
            weak: Hold the receiver by a weak reference. Off by default, as in Celery: most
                receivers are closures or lambdas nobody else holds, and a collected receiver is
                one that silently never runs.
            dispatch_uid: A second connect with the same id and sender does nothing.

        Raises:
            ConfigurationError: The receiver is a coroutine function or takes no ``**kwargs``.
        """
        if receiver is None:

            def decorate(function: Receiver) -> Receiver:
                return self.connect(function, sender, weak, dispatch_uid)

            return decorate
        _check_receiver(self.name, receiver)
        key = _key(sender)
        if dispatch_uid is not None:
            if (dispatch_uid, key) in self._uids:
                return receiver
            self._uids[dispatch_uid, key] = receiver
        self._channel.connect(receiver, sender=key, weak=weak)
        return receiver

    def disconnect(
        self,
        receiver: Callable[..., Any] | None = None,
        sender: Any = None,
        weak: bool | None = None,  # noqa: ARG002 - Celery's, ignored there too
        dispatch_uid: Hashable = None,
    ) -> bool:
        """Stop calling a receiver, named by itself or by its ``dispatch_uid``.

        Returns:
            Whether it was connected.
        """
        key = _key(sender)
        if dispatch_uid is not None:
            receiver = self._uids.pop((dispatch_uid, key), receiver)
        if receiver is None:
            return False
        connected = any(known == receiver for known in self._channel.receivers_for(key))
        self._channel.disconnect(receiver, sender=key)
        return connected

    def has_receivers(self, sender: Any = None) -> bool:
        """Return whether anyone listens (to ``sender``); hot paths ask before building arguments.

        May say True for a weak receiver that is being collected; never False for a live one.
        """
        if not self._channel.receivers:
            return False
        return sender is None or self._channel.has_receivers_for(_key(sender))

    def send(self, sender: Any = None, **named: Any) -> list[tuple[Callable[..., Any], Any]]:
        """Call every receiver of ``sender``; one that fails is logged and breaks nothing.

        Returns:
            Pairs of receiver and its answer, or the exception it raised (as in Celery).
        """
        if not self._channel.receivers:
            return []
        responses: list[tuple[Callable[..., Any], Any]] = []
        for receiver in list(self._channel.receivers_for(_key(sender))):
            try:
                response = receiver(signal=self, sender=sender, **named)
            except Exception as error:  # noqa: BLE001 - whatever a receiver raises is logged
                _log.exception("receiver %r of signal %s failed", receiver, self.name)
                response = error
            responses.append((receiver, response))
        return responses

    def __repr__(self) -> str:
        return f"<Signal: {self.name}>"


def _key(sender: Any) -> Any:
    """Return what blinker matches senders by: a task and its name are one sender.

    Celery matches ``task_*`` by the task object and ``*_task_publish`` by the name; receivers
    here may use either for both.
    """
    if sender is None:
        return ANY
    name = getattr(sender, "name", None)
    return name if isinstance(name, str) else sender


def _check_receiver(signal: str, receiver: Any) -> None:
    if not callable(receiver):
        raise ConfigurationError(f"signal {signal}: a receiver must be callable, got {receiver!r}")
    if inspect.iscoroutinefunction(receiver):
        raise ConfigurationError(
            f"signal {signal}: {receiver!r} is a coroutine function, which nobody would await; "
            "use a plain function (it may hand work to a loop)"
        )
    try:
        parameters = inspect.signature(receiver).parameters.values()
    except (TypeError, ValueError):
        return  # some builtins show no signature; they fail, and are logged, when called
    if not any(parameter.kind is parameter.VAR_KEYWORD for parameter in parameters):
        raise ConfigurationError(
            f"signal {signal}: {receiver!r} must take **kwargs, so that a new argument of the "
            "signal does not break it"
        )


# -- publishing: sender is the task's name ------------------------------------------------------
before_task_publish = Signal(
    "before_task_publish",
    *("body", "exchange", "routing_key", "headers", "properties", "declare", "retry_policy"),
)
after_task_publish = Signal("after_task_publish", "body", "exchange", "routing_key", "headers")

# -- tasks: sender is the task, or the worker where the task is unknown or has not begun -------
task_received = Signal("task_received", "request")
task_prerun = Signal("task_prerun", "task_id", "task", "args", "kwargs")
task_postrun = Signal("task_postrun", "task_id", "task", "args", "kwargs", "retval", "state")
task_success = Signal("task_success", "result", "runtime")
task_retry = Signal("task_retry", "request", "reason", "einfo")
task_failure = Signal(
    "task_failure", "task_id", "exception", "args", "kwargs", "traceback", "einfo"
)
task_internal_error = Signal(
    "task_internal_error",
    *("task_id", "args", "kwargs", "request", "exception", "traceback", "einfo"),
)
task_revoked = Signal("task_revoked", "request", "terminated", "signum", "expired")
task_rejected = Signal("task_rejected", "message", "exc")
task_unknown = Signal("task_unknown", "message", "exc", "name", "id")

# -- the worker ---------------------------------------------------------------------------------
worker_init = Signal("worker_init")
worker_ready = Signal("worker_ready")
worker_shutting_down = Signal("worker_shutting_down", "sig", "how", "exitcode")
worker_shutdown = Signal("worker_shutdown")
worker_before_create_process = Signal("worker_before_create_process")
worker_process_init = Signal("worker_process_init")
worker_process_shutdown = Signal("worker_process_shutdown", "pid", "exitcode")
heartbeat_sent = Signal("heartbeat_sent")

# -- logging ------------------------------------------------------------------------------------
#: With a receiver here the worker leaves logging alone, as in Celery.
setup_logging = Signal("setup_logging", "loglevel", "logfile", "format", "colorize")
after_setup_logger = Signal(
    "after_setup_logger", "logger", "loglevel", "logfile", "format", "colorize"
)

# -- the scheduler ------------------------------------------------------------------------------
beat_init = Signal("beat_init")
beat_embedded_init = Signal("beat_embedded_init")
#: A slot's task is confirmed by the broker; the sender is the entry's name. ``slot`` is Unix
#: seconds, ``lateness`` seconds after it was due. Ours, as the next two.
beat_published = Signal("beat_published", "task", "task_id", "slot", "lateness")
#: Slots that are not run, from ``slot`` to ``last``; ``what`` is ``missed`` or ``skipped``.
beat_missed = Signal("beat_missed", "what", "slot", "last", "count", "why")
#: A slot whose task cannot be published.
beat_failed = Signal("beat_failed", "task", "task_id", "slot", "exception")
