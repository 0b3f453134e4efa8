"""The middleware of an application in order; knows which hooks exist, so an empty one is free."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Any

from amqflow.abc import Outcome
from amqflow.errors import ConfigurationError
from amqflow.middleware.base import Middleware

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

    from amqflow.protocol import TaskMessage

_log = logging.getLogger(__name__)


class Stack:
    """Calls the hooks of several middleware; ask the flags first and spare the call.

    Attributes:
        publishes: Whether any middleware has a publish hook.
        receives: Whether any has ``after_receive``.
        executes: Whether any has an execute hook.
        settles: Whether any has a settle hook.
    """

    __slots__ = (
        "_after_execute",
        "_after_publish",
        "_after_receive",
        "_after_settle",
        "_before_execute",
        "_before_publish",
        "_before_settle",
        "_members",
        "executes",
        "publishes",
        "receives",
        "settles",
    )

    def __init__(self, members: Iterable[Middleware] = ()) -> None:
        """Take the middleware in the order their ``before_*`` hooks run.

        Raises:
            ConfigurationError: One is a class, or no Middleware at all.
        """
        self._members = tuple(_checked(member) for member in members)
        self._before_publish = self._hooks("before_publish")
        self._after_publish = self._hooks("after_publish")[::-1]
        self._after_receive = self._hooks("after_receive")
        self._before_execute = self._hooks("before_execute")
        self._after_execute = self._hooks("after_execute")[::-1]
        self._before_settle = self._hooks("before_settle")
        self._after_settle = self._hooks("after_settle")[::-1]
        self.publishes = bool(self._before_publish or self._after_publish)
        self.receives = bool(self._after_receive)
        self.executes = bool(self._before_execute or self._after_execute)
        self.settles = bool(self._before_settle or self._after_settle)

    def _hooks(self, name: str) -> tuple[Callable[..., Any], ...]:
        """Return the hooks that override the base's empty one."""
        empty = getattr(Middleware, name)
        return tuple(
            getattr(member, name)
            for member in self._members
            if getattr(type(member), name) is not empty
        )

    def __iter__(self) -> Iterator[Middleware]:
        return iter(self._members)

    def __len__(self) -> int:
        return len(self._members)

    def __bool__(self) -> bool:
        return bool(self._members)

    def with_member(self, member: Middleware) -> Stack:
        """Return a stack with one more middleware at its end."""
        return Stack((*self._members, member))

    def before_publish(self, message: TaskMessage) -> None:
        """Run the hooks on a message that will be sent; an error stops it."""
        for hook in self._before_publish:
            hook(message)

    def after_publish(self, message: TaskMessage) -> None:
        """Run the hooks on a confirmed message."""
        _quietly(self._after_publish, message)

    def after_receive(self, message: TaskMessage) -> None:
        """Run the hooks on a decoded message; an error parks it."""
        for hook in self._after_receive:
            hook(message)

    def before_execute(self, request: Any) -> None:
        """Run the hooks before a task; an error is its outcome."""
        for hook in self._before_execute:
            hook(request)

    def after_execute(self, request: Any, result: Any, error: BaseException | None) -> None:
        """Run the hooks after a task."""
        _quietly(self._after_execute, request, result, error)

    def before_settle(self, message: TaskMessage, outcome: Outcome) -> Outcome:
        """Let each hook replace the outcome in turn; one that fails is logged and replaces none."""
        for hook in self._before_settle:
            try:
                changed = hook(message, outcome)
            except Exception:  # noqa: BLE001 - whatever a hook raises is logged
                _log.exception("middleware hook %r failed", hook)
                continue
            if isinstance(changed, Outcome):
                outcome = changed
            else:
                _log.error("middleware hook %r returned %r, no outcome: ignored", hook, changed)
        return outcome

    def after_settle(self, message: TaskMessage, outcome: Outcome) -> None:
        """Run the hooks on the outcome that stands."""
        _quietly(self._after_settle, message, outcome)


def _quietly(hooks: tuple[Callable[..., Any], ...], *values: Any) -> None:
    """Call every hook; what it watches is done already, so an error is logged and no more."""
    for hook in hooks:
        try:
            hook(*values)
        except Exception:  # noqa: BLE001 - whatever a hook raises is logged
            _log.exception("middleware hook %r failed", hook)


def _checked(member: Any) -> Middleware:
    if isinstance(member, Middleware):
        return member
    hint = f"; write {member.__name__}()" if isinstance(member, type) else ""
    raise ConfigurationError(f"not a middleware: {member!r}{hint}")
