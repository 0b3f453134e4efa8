"""Logging: structlog and stdlib lines in one shape, each naming the task that wrote it.

What a task is goes into one context variable (one ``set`` per task, nothing rendered until a line
is written); the processors here add it to every event, hide secrets and bound the size.
"""

from __future__ import annotations

import logging
import re
import sys
from contextvars import ContextVar
from typing import IO, TYPE_CHECKING, Any, Final, Literal, cast

import structlog

if TYPE_CHECKING:
    from collections.abc import MutableMapping, Sequence

    from structlog.typing import EventDict, Processor, WrappedLogger

#: The longest text one value of an event may have, in characters; the rest is cut, and says so.
MAX_VALUE: Final = 4096
#: The most values one event may carry.
MAX_VALUES: Final = 64

# scheme://user:secret@ - greedy up to the last "@" of the word, so that a password with "@", ":"
# or "/" in it is hidden whole (hiding too much is the safe mistake).
_USERINFO = re.compile(r"([a-zA-Z][a-zA-Z0-9+.\-]*://[^\s:/@]*):\S*@")
_QUERY = re.compile(r"(?i)([?&;][\w.\-]*(?:password|passwd|secret|token)[\w.\-]*=)[^&\s\"']+")

#: task_id, root_id, task, queue, attempt of the running task, in this order.
_TaskFields = tuple["str | None", "str | None", "str | None", "str | None", int]
_bound: ContextVar[_TaskFields | None] = ContextVar("amqflow_log_task", default=None)


def redact(text: str) -> str:
    """Return ``text`` with the passwords of URLs in it replaced by ``***``."""
    if "://" not in text:
        return text
    return _QUERY.sub(r"\1***", _USERINFO.sub(r"\1:***@", text))


# -- the running task ---------------------------------------------------------------------------


class bind_task:  # noqa: N801 - used as a verb: ``with bind_task(...)``
    """Names the task whose lines are written inside the ``with``, in this thread or coroutine."""

    __slots__ = ("_fields", "_token")

    def __init__(
        self,
        task_id: str | None,
        task: str | None,
        *,
        root_id: str | None = None,
        queue: str | None = None,
        attempt: int = 0,
    ) -> None:
        """Say which task.

        Args:
            task_id: The task's id.
            task: The task's name.
            root_id: The id of the workflow's first task.
            queue: The queue the message came from.
            attempt: Retries so far, 0 on the first run.
        """
        self._fields = (task_id, root_id, task, queue, attempt)

    def __enter__(self) -> None:
        self._token = _bound.set(self._fields)

    def __exit__(self, *_error: object) -> None:
        _bound.reset(self._token)


def bound_fields() -> dict[str, Any]:
    """Return the fields every line of the running task carries; empty outside a task."""
    bound = _bound.get()
    if bound is None:
        return {}
    task_id, root_id, task, queue, attempt = bound
    fields = {
        "task_id": task_id,
        "root_id": root_id,
        "task": task,
        "queue": queue,
        "attempt": attempt,
    }
    return {key: value for key, value in fields.items() if value is not None}


class TaskFilter(logging.Filter):
    """Gives stdlib records ``task_id``, ``task_name``, ``root_id``, ``queue`` and ``attempt``.

    For handlers of your own with a format string, as Celery's ``task_log_format``; handlers set
    up by :func:`configure` need it not.
    """

    def filter(self, record: logging.LogRecord) -> bool:
        """Fill the record's fields, ``???`` outside a task as in Celery; lets every record pass."""
        fields = bound_fields()
        record.task_name = fields.get("task", "???")
        for key in ("task_id", "root_id", "queue", "attempt"):
            setattr(record, key, fields.get(key, "???"))
        return True


# -- processors ---------------------------------------------------------------------------------


def add_task(_logger: WrappedLogger, _method: str, event: EventDict) -> EventDict:
    """Add the running task's fields; what the line itself says under these names stands."""
    bound = _bound.get()
    if bound is not None:
        for key, value in bound_fields().items():
            event.setdefault(key, value)
    return event


def hide_secrets(_logger: WrappedLogger, _method: str, event: EventDict) -> EventDict:
    """Hide the passwords of URLs in every text of the event."""
    for key, value in event.items():
        if isinstance(value, str):
            if "://" in value:
                event[key] = redact(value)
        elif not isinstance(value, int | float | None) and not key.startswith("_"):
            text = repr(value)
            if "://" in text:
                event[key] = redact(text)
    return event


def bound_size(_logger: WrappedLogger, _method: str, event: EventDict) -> EventDict:
    """Cut long values and too many of them, so that no line grows with a task's arguments."""
    for key, value in event.items():
        if isinstance(value, int | float | None) or key.startswith("_"):
            continue
        text = value if isinstance(value, str) else repr(value)
        # A traceback's end says what happened; of anything else the beginning does.
        if key == "exception" and len(text) > 4 * MAX_VALUE:
            event[key] = f"[{len(text) - 4 * MAX_VALUE} characters cut] …" + text[-4 * MAX_VALUE :]
        elif key != "exception" and len(text) > MAX_VALUE:
            event[key] = text[:MAX_VALUE] + f"… [{len(text) - MAX_VALUE} characters cut]"
    for key in list(event)[MAX_VALUES:]:
        if not key.startswith("_"):
            del event[key]
    return event


def _to_record(
    _logger: WrappedLogger, _method: str, event: MutableMapping[str, Any]
) -> tuple[tuple[str], dict[str, Any]]:
    """Hand a structlog event to stdlib logging: text for any handler, fields for ours."""
    options = {name: event.pop(name) for name in ("exc_info", "stack_info") if name in event}
    text = str(event.pop("event", ""))
    fields = dict(event)
    words = " ".join(f"{key}={value!r}" for key, value in fields.items())
    line = f"{text} {words}" if words else text
    # "%" in the text is no format: stdlib formats only when there are arguments. Hidden here too,
    # because a handler that is not ours may write the text.
    return (redact(line),), {**options, "extra": {"amqflow_event": text, "amqflow_fields": fields}}


def _from_record(_logger: WrappedLogger, _method: str, event: EventDict) -> EventDict:
    """Take back what :func:`_to_record` packed; a plain stdlib record stays as it is."""
    record = event["_record"]
    fields = getattr(record, "amqflow_fields", None)
    if fields is not None:
        event["event"] = record.amqflow_event
        for key, value in fields.items():
            event.setdefault(key, value)
    return event


_SHARED: Final[Sequence[Processor]] = (
    structlog.stdlib.add_log_level,
    structlog.stdlib.add_logger_name,
    _from_record,
    add_task,
    structlog.processors.TimeStamper(fmt="iso", utc=True),
)


def get_logger(name: str) -> structlog.stdlib.BoundLogger:
    """Return a structlog logger that writes through stdlib logging under ``name``.

    It works, and stays silent below WARNING, before and without :func:`configure`: a library does
    not decide where an application's lines go.
    """
    logger = structlog.wrap_logger(
        logging.getLogger(name),
        processors=[structlog.stdlib.filter_by_level, _to_record],
        wrapper_class=structlog.stdlib.BoundLogger,
        context_class=dict,
        cache_logger_on_first_use=True,
    )
    return cast("structlog.stdlib.BoundLogger", logger)


def get_task_logger(name: str) -> logging.Logger:
    """Return the stdlib logger for a task module, as ``celery.utils.log`` does.

    Every line logged inside a task carries the task's fields whatever the logger; this exists so
    that Celery code runs.
    """
    return logging.getLogger(name)


# -- setting up ---------------------------------------------------------------------------------


class _Handler(logging.StreamHandler[Any]):
    """The handler :func:`configure` owns, so that a second call replaces it and no other."""

    #: How its lines look.
    shape: Literal["console", "json"] = "console"


def configure(
    level: int | str = "INFO",
    format: Literal["console", "json"] = "console",  # noqa: A002 - the setting's word
    stream: IO[str] | None = None,
) -> logging.Handler:
    """Send stdlib and structlog lines to one stream; for programs that own the process.

    Plain stream handlers of the root logger are replaced (Celery's ``worker_hijack_root_logger``);
    handlers of other kinds stay. A structlog that was configured by the user keeps its
    configuration and gains the running task's fields.

    Args:
        level: A stdlib level or its name.
        format: ``console`` for people, ``json`` for one object a line.
        stream: Where to, stderr if None.

    Raises:
        ValueError: ``level`` is no level.
    """
    level = level.upper() if isinstance(level, str) else level
    stream = stream if stream is not None else sys.stderr
    handler = _Handler(stream)
    handler.setFormatter(_formatter(format, colors=_is_terminal(stream)))
    handler.shape = format
    root = logging.getLogger()
    root.setLevel(level)
    for known in list(root.handlers):
        if type(known) in {_Handler, logging.StreamHandler}:
            root.removeHandler(known)
    root.addHandler(handler)
    _configure_structlog()
    return handler


def configured() -> tuple[int, Literal["console", "json"]] | None:
    """Return level and format of what :func:`configure` set up; None where it did not."""
    root = logging.getLogger()
    for handler in root.handlers:
        if isinstance(handler, _Handler):
            return root.level, handler.shape
    return None


def _formatter(
    format: Literal["console", "json"],  # noqa: A002 - as above
    *,
    colors: bool,
) -> structlog.stdlib.ProcessorFormatter:
    last: list[Processor]
    if format == "json":
        last = [structlog.processors.format_exc_info, hide_secrets, bound_size]
        last.append(structlog.processors.JSONRenderer(default=str, ensure_ascii=False))
    else:
        # The traceback is rendered first, so that secrets in it are hidden like any text.
        last = [structlog.processors.format_exc_info, hide_secrets, bound_size]
        last.append(structlog.dev.ConsoleRenderer(colors=colors, sort_keys=False))
    return structlog.stdlib.ProcessorFormatter(
        foreign_pre_chain=_SHARED,
        processors=[structlog.stdlib.ProcessorFormatter.remove_processors_meta, *last],
    )


def _is_terminal(stream: IO[str]) -> bool:
    return bool(getattr(stream, "isatty", lambda: False)())


def _configure_structlog() -> None:
    if structlog.is_configured():
        processors = structlog.get_config()["processors"]
        if add_task not in processors and _to_record not in processors:
            structlog.configure(processors=[add_task, *processors])
        return
    structlog.configure(
        processors=[
            structlog.contextvars.merge_contextvars,
            structlog.stdlib.filter_by_level,
            _to_record,
        ],
        wrapper_class=structlog.stdlib.BoundLogger,
        logger_factory=structlog.stdlib.LoggerFactory(),
    )
