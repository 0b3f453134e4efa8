"""An errback's arguments: what travelled as data becomes a request and an exception again."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from amqflow.abc import ExceptionInfo
from amqflow.errors import rebuild_exception
from amqflow.tasks import Request

if TYPE_CHECKING:
    from amqflow.protocol import TaskMessage


def failure_arguments(message: TaskMessage) -> list[Any]:
    """Return the positional arguments of an errback: (request, exc, traceback, its own…).

    What has another shape is passed as it came: a foreign client may have made the message.
    """
    args = list(message.args)
    if args and isinstance(args[0], Mapping):
        args[0] = Request(**{str(key): value for key, value in args[0].items()})
    if len(args) > 1 and isinstance(args[1], Mapping):
        args[1] = _exception(args[1])
    return args


def _exception(found: Mapping[str, Any]) -> Any:
    kind, module = found.get("exc_type"), found.get("exc_module")
    text, args = found.get("exc_message"), found.get("exc_args")
    if not (isinstance(kind, str) and isinstance(module, str) and isinstance(text, str)):
        return found
    given = tuple(args) if isinstance(args, list) else (text,)
    return rebuild_exception(ExceptionInfo(kind, module, given, text))
