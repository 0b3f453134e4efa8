"""What a task is declared with: Celery's option names, checked at the declaration."""

from __future__ import annotations

import re
from dataclasses import dataclass, field, fields, replace
from datetime import timedelta
from difflib import get_close_matches
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Final, TypedDict

from amqflow.clock import LONGEST_LIMIT
from amqflow.errors import ConfigurationError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping

_RATE: Final = re.compile(r"(\d+(?:\.\d+)?)(?:/([smh]))?")
_PERIODS: Final = {"s": 1.0, "m": 60.0, "h": 3600.0}
_POOLS: Final = frozenset({"asyncio", "threads", "processes", "prefork", "solo"})
_NO_MAPPING: Final[Mapping[str, Any]] = MappingProxyType({})


#: Seconds of the longest interval between two starts: a leap year. Moments further ahead than a
#: few of these cannot be written.
_LONGEST_INTERVAL: Final = 366 * 86400.0


@dataclass(frozen=True, slots=True)
class RateLimit:
    """So many starts in so many seconds; a count of 0 means no limit, whatever the default says.

    Raises:
        ValueError: It is no rate, or one of less than a start a year.
    """

    count: float
    period: float

    def __post_init__(self) -> None:
        """Refuse what is no rate."""
        if not 0 <= self.count < float("inf") or not 0 < self.period < float("inf"):
            raise ValueError("expected 0 or more starts in a time above 0")
        if self.count and self.interval > _LONGEST_INTERVAL:
            raise ValueError("expected a start a year at least, or 0 for no limit")

    def __bool__(self) -> bool:
        """Whether it limits anything."""
        return self.count > 0

    def __str__(self) -> str:
        """Return it as it is written in a declaration, where it can be."""
        unit = {period: unit for unit, period in _PERIODS.items()}.get(self.period)
        return f"{self.count:.15g}/{unit or f'{self.period:g} s'}"

    @property
    def per_second(self) -> float:
        """Starts a second."""
        return self.count / self.period

    @property
    def interval(self) -> float:
        """Seconds from one start to the next."""
        return self.period / self.count


@dataclass(frozen=True, slots=True)
class TaskOptions:
    """A task's own options; None means "not given", the route or the setting decides.

    Names, meanings and defaults are Celery's (docs/userguide/tasks, "List of Options"). Durations
    are seconds; ``timedelta`` is taken too.
    """

    queue: str | None = None
    exchange: str | None = None
    routing_key: str | None = None
    priority: int | None = None
    #: Retries after the first run; None: for ever.
    max_retries: int | None = 3
    default_retry_delay: float = 180.0
    autoretry_for: tuple[type[BaseException], ...] = ()
    dont_autoretry_for: tuple[type[BaseException], ...] = ()
    #: False: ``default_retry_delay``; True: 1; a number: the seconds of the first delay.
    retry_backoff: float | bool = False
    retry_backoff_max: float = 600.0
    retry_jitter: bool = True
    retry_kwargs: Mapping[str, Any] = field(default_factory=lambda: _NO_MAPPING)
    #: Errors that are expected: the task fails, its message is not parked.
    throws: tuple[type[BaseException], ...] = ()
    soft_time_limit: float | None = None
    time_limit: float | None = None
    rate_limit: RateLimit | None = None
    #: Seconds after the call.
    expires: float | None = None
    ignore_result: bool | None = None
    acks_late: bool | None = None
    reject_on_worker_lost: bool | None = None
    track_started: bool | None = None
    compression: str | None = None
    serializer: str = "json"
    #: ``shadow_name(task, args, kwargs, options)``: the name shown in logs and monitors.
    shadow_name: Callable[..., str | None] | None = None
    #: Where it runs; None: ``asyncio`` for ``async def``, else the worker's pool.
    pool: str | None = None
    #: False: arguments are not checked (Celery's ``typing``).
    typing: bool = True

    def changed(self, **values: Any) -> TaskOptions:
        """Return these options with some replaced, checked as at a declaration."""
        return replace(self, **read_options("options", values))


class GivenOptions(TypedDict, total=False):
    """The keywords of ``@app.task``, for type checkers."""

    name: str | None
    base: type[Any] | None
    queue: str | None
    exchange: str | None
    routing_key: str | None
    priority: int | None
    max_retries: int | None
    default_retry_delay: float | timedelta
    autoretry_for: Iterable[type[BaseException]]
    dont_autoretry_for: Iterable[type[BaseException]]
    retry_backoff: float | bool
    retry_backoff_max: float | timedelta
    retry_jitter: bool
    retry_kwargs: Mapping[str, Any]
    throws: Iterable[type[BaseException]]
    soft_time_limit: float | timedelta | None
    time_limit: float | timedelta | None
    rate_limit: str | float | RateLimit | None
    expires: float | timedelta | None
    ignore_result: bool | None
    acks_late: bool | None
    reject_on_worker_lost: bool | None
    track_started: bool | None
    compression: str | None
    serializer: str
    shadow_name: Callable[..., str | None] | None
    pool: str | None
    typing: bool
    # Celery's, without meaning here:
    trail: bool
    lazy: bool
    shared: bool
    send_events: bool
    store_errors_even_if_ignored: bool
    acks_on_failure_or_timeout: bool
    resultrepr_maxsize: int
    pydantic: bool


#: Options of Celery that change nothing here, so that declarations need no edit.
WITHOUT_MEANING: Final = frozenset(
    {"trail", "lazy", "shared", "send_events", "store_errors_even_if_ignored"}
    | {"acks_on_failure_or_timeout", "resultrepr_maxsize", "pydantic", "pydantic_strict"}
    | {"pydantic_context", "pydantic_dump_kwargs"}
)


def read_options(task: str, given: Mapping[str, Any]) -> dict[str, Any]:
    """Return options checked and converted, ready for :class:`TaskOptions`.

    Args:
        task: The task's name, for errors.
        given: Options by name; those without meaning here are dropped.

    Raises:
        ConfigurationError: A name is no option, or a value has the wrong type.
    """
    read: dict[str, Any] = {}
    for name, value in given.items():
        reader = _READERS.get(name)
        if reader is not None:
            try:
                read[name] = reader(value)
            except (TypeError, ValueError) as error:
                raise ConfigurationError(
                    f"task {task}: option {name}: {error}, got {_show(value)}"
                ) from None
        elif name not in WITHOUT_MEANING:
            near = get_close_matches(name, [*_READERS, "bind", "name", "base"], n=1)
            hint = f" (did you mean {near[0]!r}?)" if near else ""
            raise ConfigurationError(f"task {task}: unknown option {name!r}{hint}")
    _check_together(task, read)
    return read


def _check_together(task: str, read: Mapping[str, Any]) -> None:
    soft, hard = read.get("soft_time_limit"), read.get("time_limit")
    if soft is not None and hard is not None and soft > hard:
        raise ConfigurationError(
            f"task {task}: soft_time_limit ({soft:g} s) must not be above time_limit ({hard:g} s)"
        )
    if read.get("queue") is not None and read.get("exchange") is not None:
        raise ConfigurationError(f"task {task}: give queue, or exchange and routing_key, not both")


def _show(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 80 else text[:80] + "…"  # noqa: PLR2004 - a line's width


# -- readers: each returns the value as kept, or raises what was expected -----------------------


def _optional(read: Callable[[Any], Any]) -> Callable[[Any], Any]:
    return lambda value: None if value is None else read(value)


def _text(value: Any) -> str:
    if not isinstance(value, str) or not value:
        raise TypeError("expected a string")
    return value


def _bool(value: Any) -> bool:
    if not isinstance(value, bool):
        raise TypeError("expected True or False")
    return value


def _number(value: Any) -> float:
    if isinstance(value, timedelta):
        return value.total_seconds()
    if not isinstance(value, int | float) or isinstance(value, bool):
        raise TypeError("expected a number of seconds or a timedelta")
    try:
        return float(value)
    except OverflowError:
        raise ValueError("expected a number of seconds that a float can hold") from None


def _seconds(value: Any) -> float:
    seconds = _number(value)
    if not 0 <= seconds < float("inf"):
        raise ValueError("expected 0 seconds or more")
    return seconds


def _positive(value: Any) -> float:
    seconds = _seconds(value)
    if seconds == 0:
        raise ValueError("expected more than 0 seconds")
    return seconds


def _limit(value: Any) -> float:
    seconds = _positive(value)
    if seconds > LONGEST_LIMIT:
        raise ValueError("expected a year (366 days) at most")
    return seconds


def _count(value: Any) -> int:
    if not isinstance(value, int) or isinstance(value, bool) or value < 0:
        raise TypeError("expected an integer, 0 or more, or None for ever")
    return value


def _priority(value: Any) -> int:
    if not isinstance(value, int) or isinstance(value, bool) or not 0 <= value <= 255:  # noqa: PLR2004
        raise TypeError("expected an integer between 0 and 255")
    return value


def _errors(value: Any) -> tuple[type[BaseException], ...]:
    kinds = (value,) if isinstance(value, type) else tuple(value)
    if not all(isinstance(kind, type) and issubclass(kind, BaseException) for kind in kinds):
        raise TypeError("expected exception classes")
    return kinds


def _backoff(value: Any) -> float | bool:
    return value if isinstance(value, bool) else _seconds(value)


def _retry_kwargs(value: Any) -> Mapping[str, Any]:
    """Read what Celery passes to ``self.retry`` on an autoretry: ``max_retries``, ``countdown``."""
    if value is None:
        return _NO_MAPPING
    read: dict[str, Any] = {}
    for name, one in dict(value).items():
        if name == "max_retries":
            read[name] = None if one is None else _count(one)
        elif name in {"countdown", "time_limit", "soft_time_limit"}:
            read[name] = _seconds(one)
        elif name in {"priority", "queue"}:
            read[name] = _priority(one) if name == "priority" else _text(one)
        else:
            raise TypeError(f"expected max_retries, countdown, priority…, not {name!r}")
    return MappingProxyType(read)


def parse_rate(value: Any) -> RateLimit | None:
    """Read Celery's rate: ``"10/m"``, ``"10/h"``, ``"10/s"``, ``10`` a second; 0: no limit.

    None stays None: the default decides.

    Raises:
        TypeError, ValueError: It is none of these.
    """
    if value is None or isinstance(value, RateLimit):
        return value
    if isinstance(value, int | float) and not isinstance(value, bool):
        try:
            return RateLimit(float(value), 1.0)
        except OverflowError:
            raise ValueError("expected a rate that a float can hold") from None
    match = _RATE.fullmatch(value.strip()) if isinstance(value, str) else None
    if match is None:
        raise TypeError("expected a rate such as '10/s', '10/m', '10/h', or a number a second")
    return RateLimit(float(match[1]), _PERIODS[match[2] or "s"])


def _serializer(value: Any) -> str:
    if value not in {"json", "application/json", None}:
        raise ValueError("expected 'json', the only one here (pickle would run code)")
    return "json"


def _callable(value: Any) -> Callable[..., Any]:
    if not callable(value):
        raise TypeError("expected a function")
    found: Callable[..., Any] = value
    return found


def _pool(value: Any) -> str:
    if value in {"gevent", "eventlet"}:
        raise ValueError("expected 'threads' or 'asyncio', which do what green threads are for")
    if value not in _POOLS:
        raise ValueError(f"expected one of {', '.join(sorted(_POOLS))}")
    return "processes" if value == "prefork" else str(value)


_READERS: Final[dict[str, Callable[[Any], Any]]] = {
    "queue": _optional(_text),
    "exchange": _optional(lambda value: value if value == "" else _text(value)),
    "routing_key": _optional(_text),
    "priority": _optional(_priority),
    "max_retries": _optional(_count),
    "default_retry_delay": _seconds,
    "autoretry_for": _errors,
    "dont_autoretry_for": _errors,
    "retry_backoff": _backoff,
    "retry_backoff_max": _seconds,
    "retry_jitter": _bool,
    "retry_kwargs": _retry_kwargs,
    "throws": _errors,
    "soft_time_limit": _optional(_limit),
    "time_limit": _optional(_limit),
    "rate_limit": parse_rate,
    "expires": _optional(_positive),
    "ignore_result": _optional(_bool),
    "acks_late": _optional(_bool),
    "reject_on_worker_lost": _optional(_bool),
    "track_started": _optional(_bool),
    "compression": _optional(_text),
    "serializer": _serializer,
    "shadow_name": _optional(_callable),
    "pool": _optional(_pool),
    "typing": _bool,
}

#: Names of the options, for class attributes of custom base classes.
OPTION_NAMES: Final = frozenset(one.name for one in fields(TaskOptions))
