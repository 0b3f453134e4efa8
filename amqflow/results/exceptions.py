"""Exceptions as data and back: Celery's ``exc_type``, ``exc_message``, ``exc_module``.

Nothing on the wire is executed or imported. A class is looked up only in modules this process
has imported already, only in their own dictionaries (no ``__getattr__`` runs), and only
subclasses of Exception are made; anything else becomes :class:`~amqflow.errors.TaskFailed`.
"""

from __future__ import annotations

import sys
from functools import partial
from typing import TYPE_CHECKING, Any, Final

from amqflow.abc import ExceptionInfo
from amqflow.errors import EncodeError, TaskFailed, TaskRevoked
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


def rebuild(info: ExceptionInfo) -> Exception:
    """Return the exception that ``info`` describes, or TaskFailed where its class is not here."""
    if info.module == REVOKED_MODULE and info.type == REVOKED_TYPE:
        return TaskRevoked(*info.args)
    kind = _find(info.module, info.type)
    made = None if kind is None else _made(kind, info.args)
    if made is not None:
        return made
    name = info.type if info.module in ("", "builtins") else f"{info.module}.{info.type}"
    return TaskFailed(name, info.text)


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


def _find(module: str, qualname: str) -> type[Exception] | None:
    """Return an Exception class by name from the modules that are imported already."""
    loaded = sys.modules.get(module)
    if loaded is None:
        return None
    found: Any = loaded
    for name in qualname.split("."):
        found = vars(found).get(name) if found is loaded or isinstance(found, type) else None
    return found if isinstance(found, type) and issubclass(found, Exception) else None


def _made(kind: type[Exception], args: tuple[Any, ...]) -> Exception | None:
    """Return an instance of ``kind``; where its ``__init__`` takes other arguments, without it.

    An exception whose ``__init__`` passes only some of its arguments on cannot be called with
    ``args`` again; its type and arguments are still what ``except`` and ``str`` need.
    """
    for make in (kind, partial(_without_init, kind)):
        try:
            made = make(*args)
            str(made)
        except Exception:  # noqa: BLE001, S112 - a task's own methods may raise anything
            continue
        return made
    return None


def _without_init(kind: type[Exception], *args: Any) -> Exception:
    made = kind.__new__(kind, *args)
    made.args = args
    return made
