"""What a client may ask of a queue, checked in RabbitMQ's words.

The table of arguments by queue type: ``rabbit_classic_queue``, ``rabbit_quorum_queue`` and
``rabbit_amqqueue`` of RabbitMQ 3.10.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any, Final, TypeAlias

from amqflow.broker.message import LONGEST_TTL
from amqflow.broker.replies import precondition_failed, resource
from amqflow.broker.tables import INTEGERS, octets, typed

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from amqflow.broker.tables import Field, Table

CLASSIC: Final = "classic"
QUORUM: Final = "quorum"
STREAM: Final = "stream"

#: The names of RabbitMQ's modules: its texts name a queue's type by them.
_MODULES: Final = {
    CLASSIC: "rabbit_classic_queue",
    QUORUM: "rabbit_quorum_queue",
    STREAM: "rabbit_stream_queue",
}

_SHARED: Final = frozenset(
    {
        "x-expires",
        "x-message-ttl",
        "x-dead-letter-exchange",
        "x-dead-letter-routing-key",
        "x-max-length",
        "x-max-length-bytes",
        "x-overflow",
        "x-single-active-consumer",
        "x-queue-type",
    }
)
_CLASSIC_ONLY: Final = frozenset(
    {"x-max-priority", "x-queue-mode", "x-queue-version", "x-queue-master-locator"}
)
_QUORUM_ONLY: Final = frozenset(
    {
        "x-dead-letter-strategy",
        "x-max-in-memory-length",
        "x-max-in-memory-bytes",
        "x-quorum-initial-group-size",
        "x-delivery-limit",
        "x-queue-leader-locator",
    }
)
_STREAM_ARGUMENTS: Final = frozenset(
    {
        "x-max-length-bytes",
        "x-queue-type",
        "x-max-age",
        "x-stream-max-segment-size-bytes",
        "x-initial-cluster-size",
        "x-queue-leader-locator",
    }
)
_ARGUMENTS: Final = {
    CLASSIC: _SHARED | _CLASSIC_ONLY,
    QUORUM: _SHARED | _QUORUM_ONLY,
    STREAM: _STREAM_ARGUMENTS,
}
_KNOWN: Final = frozenset().union(*_ARGUMENTS.values())

_CONSUMER: Final = {
    CLASSIC: frozenset({"x-cancel-on-ha-failover", "x-priority", "x-credit"}),
    QUORUM: frozenset({"x-priority", "x-credit"}),
    STREAM: frozenset({"x-stream-offset", "x-credit"}),
}
_KNOWN_CONSUMER: Final = frozenset().union(*_CONSUMER.values())

MAX_PRIORITY: Final = 255

#: Octets of a short string.
_LONGEST_NAME: Final = 255

#: Returns what is wrong with an argument, as RabbitMQ prints it; None: nothing.
_Check: TypeAlias = "Callable[[Field, Table], str | None]"


def _integer(field: Field, _arguments: Table) -> str | None:
    return None if field.type in INTEGERS else f'"expected integer, got {field.type}"'


def _not_negative(field: Field, arguments: Table) -> str | None:
    problem = _integer(field, arguments)
    if problem is None and field.value < 0:
        return f"{{value_negative,{field.value}}}"
    return problem


def _ttl(field: Field, arguments: Table) -> str | None:
    problem = _not_negative(field, arguments)
    if problem is None and field.value > LONGEST_TTL:
        return f"{{value_too_large,{field.value}}}"
    return problem


def _expires(field: Field, arguments: Table) -> str | None:
    if _integer(field, arguments) is None and field.value == 0:
        return "{value_zero,0}"
    return _ttl(field, arguments)


def _not_zero(field: Field, arguments: Table) -> str | None:
    if _integer(field, arguments) is None and field.value == 0:
        return "{value_zero,0}"
    return _not_negative(field, arguments)


def _priority(field: Field, arguments: Table) -> str | None:
    problem = _not_negative(field, arguments)
    if problem is None and field.value > MAX_PRIORITY:
        return f"{{max_value_exceeded,{field.value}}}"
    return problem


def _boolean(field: Field, _arguments: Table) -> str | None:
    return None if field.type == "bool" else f"{{unacceptable_type,{field.type}}}"


def _string(field: Field, _arguments: Table) -> str | None:
    return None if field.type == "longstr" else f"{{unacceptable_type,{field.type}}}"


def _short_string(field: Field, arguments: Table) -> str | None:
    """Refuse what no method could carry: RabbitMQ takes it, and fails when the letter is read."""
    problem = _string(field, arguments)
    if problem is None and len(octets(field.value)) > _LONGEST_NAME:
        return "too_long"
    return problem


def _dead_letter_key(field: Field, arguments: Table) -> str | None:
    problem = _short_string(field, arguments)
    if problem is None and "x-dead-letter-exchange" not in arguments:
        return "routing_key_but_no_dlx_defined"
    return problem


def _one_of(*known: str, otherwise: str) -> _Check:
    def check(field: Field, arguments: Table) -> str | None:
        problem = _string(field, arguments)
        if problem is None and field.value not in known:
            return otherwise.format(field.value)
        return problem

    return check


def _age(field: Field, arguments: Table) -> str | None:
    problem = _string(field, arguments)
    return "invalid_max_age" if problem is None and _AGE.fullmatch(field.value) is None else problem


def _stream_offset(field: Field, _arguments: Table) -> str | None:
    if field.type == "longstr":
        known = field.value in {"first", "last", "next"} or _AGE.fullmatch(field.value)
        return None if known else f'{{invalid_stream_offset_arg,{{longstr,<<"{field.value}">>}}}}'
    number = field.type in INTEGERS or field.type == "timestamp"
    return None if number else f"{{invalid_stream_offset_arg,{{{field.type},{field.value}}}}}"


def _version(field: Field, arguments: Table) -> str | None:
    problem = _not_negative(field, arguments)
    if problem is None and field.value not in {1, 2}:
        return f"\"unsupported queue version '{field.value}'\""
    return problem


_AGE: Final = re.compile(r"0*[1-9]\d*[YMDhms]")
_TYPE: Final = _one_of(CLASSIC, QUORUM, STREAM, otherwise="\"unsupported queue type '{}'\"")
_CHECKS: Final[dict[str, _Check]] = {
    "x-expires": _expires,
    "x-message-ttl": _ttl,
    "x-dead-letter-exchange": _short_string,
    "x-dead-letter-routing-key": _dead_letter_key,
    "x-dead-letter-strategy": _one_of(
        "at-most-once", "at-least-once", otherwise="invalid_dlx_strategy"
    ),
    "x-max-length": _not_negative,
    "x-max-length-bytes": _not_negative,
    "x-max-in-memory-length": _not_negative,
    "x-max-in-memory-bytes": _not_negative,
    "x-max-priority": _priority,
    "x-overflow": _one_of(
        "drop-head", "reject-publish", "reject-publish-dlx", otherwise="invalid_overflow"
    ),
    "x-queue-mode": _one_of("default", "lazy", otherwise="\"unsupported queue mode '{}'\""),
    "x-queue-version": _version,
    "x-single-active-consumer": _boolean,
    "x-quorum-initial-group-size": _not_zero,
    "x-initial-cluster-size": _not_zero,
    "x-max-age": _age,
    "x-stream-max-segment-size-bytes": _not_negative,
    "x-queue-leader-locator": _one_of(
        "client-local",
        "random",
        "least-leaders",
        "balanced",
        otherwise="invalid_queue_locator_arg",
    ),
}
_CONSUMER_CHECKS: Final[dict[str, _Check]] = {
    "x-priority": _integer,
    "x-cancel-on-ha-failover": _boolean,
    "x-stream-offset": _stream_offset,
}
#: What a policy may say, checked as the argument of the same name.
_POLICY_CHECKS: Final[dict[str, _Check]] = {
    **{
        name: _CHECKS[f"x-{name}"]
        for name in (
            "message-ttl",
            "expires",
            "max-length",
            "max-length-bytes",
            "overflow",
            "dead-letter-exchange",
            "dead-letter-strategy",
        )
    },
    "dead-letter-routing-key": _short_string,
    "alternate-exchange": _short_string,
    "delivery-limit": _integer,
}


def policy_problem(definition: Mapping[str, Any]) -> str | None:
    """Return what is wrong with a policy's definition; None: nothing."""
    for name, check in _POLICY_CHECKS.items():
        value = definition.get(name)
        if value is not None and (problem := check(typed(value), {})):
            return f"{name}: {problem}"
    return None


def queue_type(arguments: Table) -> str:
    """Return the type a queue's arguments ask for."""
    field = arguments.get("x-queue-type")
    return CLASSIC if field is None else str(field.value)


def check_queue(name: str, vhost: str, arguments: Table) -> None:
    """Refuse arguments that a queue of this type cannot have.

    Raises:
        Refusal: 406, naming the argument.
    """
    place = resource("queue", name, vhost)
    _check(place, arguments, {"x-queue-type": _TYPE})
    kind = queue_type(arguments)
    allowed = _ARGUMENTS[kind]
    _check(place, arguments, {key: check for key, check in _CHECKS.items() if key in allowed})
    _check_keys(place, kind, arguments, _KNOWN - allowed)


def check_consumer(name: str, vhost: str, kind: str, arguments: Table) -> None:
    """Refuse arguments that a consumer of a queue of this type cannot have.

    Raises:
        Refusal: 406, naming the argument.
    """
    place = resource("queue", name, vhost)
    allowed = _CONSUMER[kind]
    checks = {key: check for key, check in _CONSUMER_CHECKS.items() if key in allowed}
    _check(place, arguments, checks)
    _check_keys(place, kind, arguments, _KNOWN_CONSUMER - allowed)


def _check(place: str, arguments: Table, checks: dict[str, _Check]) -> None:
    for key, check in checks.items():
        field = arguments.get(key)
        if field is None:
            continue
        if problem := check(field, arguments):
            raise precondition_failed(f"invalid arg '{key}' for {place}: {problem}")


def _check_keys(place: str, kind: str, arguments: Table, refused: frozenset[str]) -> None:
    for key in arguments:
        if key in refused:
            module = _MODULES[kind]
            raise precondition_failed(f"invalid arg '{key}' for {place} of queue type {module}")


def compared(kind: str) -> frozenset[str]:
    """Return the arguments that must be the same when a queue of a type is declared again."""
    return _ARGUMENTS[kind]
