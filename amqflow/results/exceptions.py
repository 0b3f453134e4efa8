"""Exceptions as data: Celery's ``exc_type``, ``exc_message``, ``exc_module``.

The way back, from data to an exception, is :func:`amqflow.errors.rebuild_exception`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from amqflow.abc import ExceptionInfo
from amqflow.errors import EncodeError
from amqflow.protocol.codec import dumps

if TYPE_CHECKING:
    from collections.abc import Mapping

#: Celery's name for a revoke: what it writes, what its callers expect to read.
REVOKED_TYPE: Final = "TaskRevokedError"
REVOKED_MODULE: Final = "celery.exceptions"

_TEXT_LIMIT: Final = 4096


def describe(exc: BaseException) -> ExceptionInfo:
    """Return an exception as data.

    Args:
        exc: Any exception; arguments that JSON cannot carry are kept as their ``repr``, as Celery
            does (``celery/utils/serialization.py: ensure_serializable``).
    """
    kind = type(exc)
    return ExceptionInfo(
        type=kind.__qualname__,
        module=kind.__module__,
        args=tuple(_carried(arg) for arg in exc.args),
        text=_text(exc),
    )


def to_celery(info: ExceptionInfo) -> dict[str, Any]:
    """Return the dict Celery stores as the result of a failed task."""
    return {"exc_type": info.type, "exc_message": info.args, "exc_module": info.module}


def from_celery(found: Any) -> ExceptionInfo | None:
    """Read what Celery stored for an exception; None where it is nothing of the kind.

    ``exc_message`` is a list of arguments; old Celery wrote one text.
    """
    if not isinstance(found, dict) or not isinstance(found.get("exc_type"), str):
        return None
    return ExceptionInfo(
        type=found["exc_type"],
        module=_text_of(found, "exc_module"),
        args=(args := _arguments(found.get("exc_message"))),
        text=text_of(args),
    )


def text_of(args: tuple[Any, ...]) -> str:
    """Return what ``str`` of a plain exception with these arguments gives."""
    if not args:
        return ""
    return str(args[0]) if len(args) == 1 else str(args)


def _text_of(found: Mapping[str, Any], key: str) -> str:
    value = found.get(key)
    return value if isinstance(value, str) else ""


def _arguments(message: Any) -> tuple[Any, ...]:
    if isinstance(message, (list, tuple)):
        return tuple(message)
    return () if message in (None, "") else (message,)


def _carried(arg: Any) -> Any:
    try:
        dumps(arg)
    except EncodeError:
        return _shortened(_safe_repr(arg))
    return arg


def _text(exc: BaseException) -> str:
    try:
        return _shortened(str(exc))
    except Exception:  # noqa: BLE001 - a task's own __str__ may raise anything
        return f"<{type(exc).__qualname__} without a text>"


def _safe_repr(value: Any) -> str:
    try:
        return repr(value)
    except Exception:  # noqa: BLE001 - a task's own __repr__ may raise anything
        return f"<{type(value).__qualname__} without a repr>"


def _shortened(text: str) -> str:
    return text if len(text) <= _TEXT_LIMIT else text[: _TEXT_LIMIT - 1] + "…"
