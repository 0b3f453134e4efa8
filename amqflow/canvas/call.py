"""From Celery's execution options to one checked Call: the only reader of ``apply_async`` words."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from datetime import datetime, timedelta
from difflib import get_close_matches
from typing import TYPE_CHECKING, Any, Final, Protocol, TypedDict

from amqflow.abc import Call
from amqflow.canvas.stamps import is_stamped, names_in, stamps_in
from amqflow.clock import LONGEST_LIMIT, to_seconds
from amqflow.errors import ConfigurationError

if TYPE_CHECKING:
    from collections.abc import Callable


class HasDict(Protocol):
    """A signature or composition: anything with Celery's dict form."""

    def to_dict(self) -> dict[str, Any]:
        """Return Celery's dict form."""
        ...


if TYPE_CHECKING:
    Moment = float | timedelta | datetime | str
    Link = HasDict | Mapping[str, Any] | Sequence[HasDict | Mapping[str, Any]]


class CallOptions(TypedDict, total=False):
    """Celery's execution options (docs/userguide/calling), by their names there.

    ``countdown`` and time limits are seconds; ``eta`` is a datetime (a naive one is UTC);
    ``expires`` is seconds from now, a timedelta or a datetime. ``timeout`` is ours: seconds the
    broker's confirm may take. ``stamps`` is ours too: names and values in one dict.
    """

    countdown: float | timedelta | None
    eta: datetime | str | None
    expires: Moment | None
    priority: int | None
    queue: str | None
    exchange: str | None
    routing_key: str | None
    task_id: str | None
    headers: Mapping[str, Any] | None
    link: Link | None
    link_error: Link | None
    ignore_result: bool | None
    retry: bool | None
    retry_policy: Mapping[str, Any] | None
    time_limit: float | None
    soft_time_limit: float | None
    shadow: str | None
    stamped_headers: Sequence[str] | None
    stamps: Mapping[str, Any] | None
    compression: str | None
    serializer: str | None
    reply_to: str | None
    root_id: str | None
    parent_id: str | None
    group_id: str | None
    group_index: int | None
    retries: int | None
    replaced_task_nesting: int | None
    chain: Sequence[Mapping[str, Any]] | None
    add_to_parent: bool | None
    route_name: str | None
    timeout: float | None


_NUMBER: Final = (int, float)

#: Celery options that cannot mean anything here, each with what to do instead.
_REFUSED: Final = {
    "connection": "amqflow keeps its own supervised connections",
    "producer": "amqflow keeps its own supervised connections",
    "publisher": "amqflow keeps its own supervised connections",
    "delivery_mode": "messages are always persistent",
    "mandatory": "messages are always mandatory",
    "immediate": "RabbitMQ has not had it since 3.0",
    "chord": "build a chord instead",
    "expiration": "use expires",
}


def build_call(
    task: str,
    args: Sequence[Any] | None,
    kwargs: Mapping[str, Any] | None,
    options: Mapping[str, Any],
    now: Callable[[], float] = time.time,
) -> Call:
    """Return the call that Celery's ``apply_async(args, kwargs, **options)`` describes.

    An option that is None counts as not given.

    Raises:
        TypeError: An option has the wrong type, or ``args`` is no sequence.
        ValueError: Options contradict each other, or a value is out of range.
        ConfigurationError: No option has this name, or it cannot be honoured here.
    """
    if args is not None and (isinstance(args, str | bytes) or not isinstance(args, Sequence)):
        raise TypeError(f"{task}: args must be a list or tuple of arguments, got {_show(args)}")
    if kwargs is not None and not isinstance(kwargs, Mapping):
        raise TypeError(f"{task}: kwargs must be a dict of arguments, got {_show(kwargs)}")
    call = Call(task, () if args is None else args, {} if kwargs is None else kwargs)
    for name, value in options.items():
        if value is None:
            continue
        reader = _READERS.get(name)
        if reader is None:
            if name in names_in(options):
                continue
            raise _unknown(task, name)
        try:
            reader(call, value, now)
        except (TypeError, ValueError) as error:
            raise type(error)(f"{task}: option {name}: {error}") from None
    if options:
        _check_together(call, options)
    return call


def _check_together(call: Call, options: Mapping[str, Any]) -> None:
    if is_stamped(options):
        call.stamps = _stamps(call.task, options) or None
    if options.get("countdown") is not None and options.get("eta") is not None:
        raise ValueError(f"{call.task}: give countdown or eta, not both")
    soft, hard = call.soft_time_limit, call.time_limit
    if soft is not None and hard is not None and soft > hard:
        raise ValueError(
            f"{call.task}: soft_time_limit ({soft:g} s) must not be above time_limit ({hard:g} s)"
        )
    if call.queue is not None and call.exchange is not None:
        raise ValueError(
            f"{call.task}: give queue, or exchange and routing_key: a queue names its own way in"
        )


def _stamps(task: str, options: Mapping[str, Any]) -> dict[str, Any]:
    try:
        return stamps_in(options)
    except (TypeError, ConfigurationError) as error:
        raise type(error)(f"{task}: {error}") from None


def _unknown(task: str, name: str) -> ConfigurationError:
    if name in _REFUSED:
        return ConfigurationError(f"{task}: option {name!r} has no place here: {_REFUSED[name]}")
    near = get_close_matches(name, _READERS, n=1)
    hint = f" (did you mean {near[0]!r}?)" if near else ""
    return ConfigurationError(f"{task}: unknown option {name!r}{hint}")


def _show(value: Any) -> str:
    text = repr(value)
    return f"{type(value).__name__} {text if len(text) <= 80 else text[:80] + '…'}"  # noqa: PLR2004


# -- readers: check one option and put it into the call -----------------------------------------


def _as_is(field: str, *types: type, what: str) -> Callable[[Call, Any, Any], None]:
    def read(call: Call, value: Any, _now: Any) -> None:
        if not isinstance(value, types) or (isinstance(value, bool) and bool not in types):
            raise TypeError(f"must be {what}, got {_show(value)}")
        setattr(call, field, value)

    return read


def _text(field: str) -> Callable[[Call, Any, Any], None]:
    return _as_is(field, str, what="a string")


def _seconds(
    field: str, most: float = float("inf"), most_said: str = ""
) -> Callable[[Call, Any, Any], None]:
    def read(call: Call, value: Any, _now: Any) -> None:
        seconds = positive_seconds(value)
        if seconds > most:
            raise ValueError(f"must be {most_said} at most, got {_show(value)}")
        setattr(call, field, seconds)

    return read


def _limit(field: str) -> Callable[[Call, Any, Any], None]:
    return _seconds(field, LONGEST_LIMIT, "a year (366 days)")


def positive_seconds(value: Any) -> float:
    """Return a number of seconds or a timedelta as seconds above 0; raise TypeError, ValueError."""
    seconds = _delta(value)
    if not 0 < seconds < float("inf"):
        raise ValueError(f"must be above 0 seconds, got {_show(value)}")
    return seconds


def _delta(value: Any) -> float:
    if isinstance(value, timedelta):
        return value.total_seconds()
    if not isinstance(value, _NUMBER) or isinstance(value, bool):
        raise TypeError(f"must be seconds or a timedelta, got {_show(value)}")
    try:
        return float(value)
    except OverflowError:
        raise ValueError(f"must be seconds that a float can hold, got {_show(value)}") from None


def parse_moment(value: datetime | str) -> float:
    """Return the Unix time of a datetime or ISO 8601 text; naive means UTC, as in Celery."""
    if isinstance(value, str):
        value = datetime.fromisoformat(value)
    return to_seconds(value)


def expires_at(value: Any, now: Callable[[], float]) -> float:
    """Return the Unix time of ``expires``: seconds from now, a timedelta, or a moment."""
    if isinstance(value, datetime | str):
        return parse_moment(value)
    return now() + _delta(value)


def _countdown(call: Call, value: Any, now: Callable[[], float]) -> None:
    seconds = _delta(value)
    if seconds != seconds or seconds == float("inf"):  # noqa: PLR0124 - NaN is not itself
        raise ValueError(f"must be a finite number of seconds, got {value}")
    if seconds > 0:
        call.eta = now() + seconds


def _eta(call: Call, value: Any, _now: Any) -> None:
    if not isinstance(value, datetime | str):
        raise TypeError(f"must be a datetime (use countdown for seconds), got {_show(value)}")
    call.eta = parse_moment(value)


def _expires(call: Call, value: Any, now: Callable[[], float]) -> None:
    call.expires = expires_at(value, now)


def _priority(call: Call, value: Any, _now: Any) -> None:
    if not isinstance(value, int) or isinstance(value, bool):
        raise TypeError(f"must be an integer, got {_show(value)}")
    if not 0 <= value <= 255:  # noqa: PLR2004 - an octet in basic.properties
        raise ValueError(f"must be between 0 and 255, got {value}")
    call.priority = value


def _headers(call: Call, value: Any, _now: Any) -> None:
    if not isinstance(value, Mapping) or not all(isinstance(key, str) for key in value):
        raise TypeError(f"must be a dict with string keys, got {_show(value)}")
    call.headers = value


def _serializer(_call: Call, value: Any, _now: Any) -> None:
    if value not in {"json", "application/json"}:
        raise ValueError(f"only 'json' is written here, got {_show(value)}")


def _retry_policy(call: Call, value: Any, _now: Any) -> None:
    """Honour Celery's ``max_retries=0``; the rest is the deadline's (``timeout``)."""
    if not isinstance(value, Mapping):
        raise TypeError(f"must be a dict, got {_show(value)}")
    if value.get("max_retries") == 0:
        call.retry = False


def _links(field: str) -> Callable[[Call, Any, Any], None]:
    def read(call: Call, value: Any, _now: Any) -> None:
        setattr(call, field, link_dicts(value))

    return read


def link_dicts(value: Any) -> list[Mapping[str, Any]]:
    """Return one or several signatures, objects or Celery dicts, as a list of Celery dicts."""
    several = value if isinstance(value, list | tuple) else (value,)
    found = []
    for one in several:
        to_dict = getattr(one, "to_dict", None)
        as_dict = to_dict() if to_dict is not None else one
        if not isinstance(as_dict, Mapping) or not isinstance(as_dict.get("task"), str):
            raise TypeError(
                f"must be a signature (task.s(...)) or a list of them, got {_show(one)}"
            )
        found.append(as_dict)
    return found


def _ignore(_call: Call, _value: Any, _now: Any) -> None:
    """Read by the task (``add_to_parent``), or by :func:`_check_together` (stamps)."""


_READERS: Final[dict[str, Callable[[Call, Any, Callable[[], float]], None]]] = {
    "countdown": _countdown,
    "eta": _eta,
    "expires": _expires,
    "priority": _priority,
    "queue": _text("queue"),
    "exchange": _text("exchange"),
    "routing_key": _text("routing_key"),
    "task_id": _text("task_id"),
    "headers": _headers,
    "link": _links("callbacks"),
    "link_error": _links("errbacks"),
    "ignore_result": _as_is("ignore_result", bool, what="True or False"),
    "retry": _as_is("retry", bool, what="True or False"),
    "retry_policy": _retry_policy,
    "time_limit": _limit("time_limit"),
    "soft_time_limit": _limit("soft_time_limit"),
    "shadow": _text("shadow"),
    "stamped_headers": _ignore,
    "stamps": _ignore,
    "compression": _text("compression"),
    "serializer": _serializer,
    "reply_to": _text("reply_to"),
    "root_id": _text("root_id"),
    "parent_id": _text("parent_id"),
    "group_id": _text("group"),
    "group_index": _as_is("group_index", int, what="an integer"),
    "retries": _as_is("retries", int, what="an integer"),
    "replaced_task_nesting": _as_is("replaced_task_nesting", int, what="an integer"),
    "chain": _links("chain"),
    "add_to_parent": _ignore,
    "route_name": _text("route_name"),
    "timeout": _seconds("timeout"),
}

#: Names of the execution options.
OPTION_NAMES: Final = frozenset(_READERS)
