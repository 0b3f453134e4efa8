"""From a stored outcome to the exception a caller sees."""

from __future__ import annotations

from typing import TYPE_CHECKING

from amqflow.abc import REVOKED
from amqflow.errors import TaskFailed, TaskRevoked, rebuild_exception

if TYPE_CHECKING:
    from amqflow.abc import Outcome


def error_of(outcome: Outcome) -> Exception:
    """Return the exception of a failed or revoked outcome, of its own type where that is known."""
    if outcome.state == REVOKED:
        return TaskRevoked(outcome.reason or "revoked")
    if outcome.exception is None:
        return TaskFailed("unknown error", outcome.reason or "")
    return rebuild_exception(outcome.exception)


def describe_error(error: BaseException) -> dict[str, str]:
    """Return an exception as an errback gets it: Celery's words for its parts."""
    return {
        "exc_type": type(error).__qualname__,
        "exc_module": type(error).__module__,
        "exc_message": str(error),
    }
