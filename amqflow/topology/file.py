"""The YAML of a topology file, field by field: what an editor completes and a loader checks."""

from __future__ import annotations

import re
from typing import Annotated, Any, Final

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    WithJsonSchema,
)
from pydantic_core import PydanticCustomError

from amqflow.abc import DeadReason
from amqflow.topology.ladder import DEFAULT_LEVELS, DEFAULT_RESOLUTION
from amqflow.topology.model import MAX_PRIORITY, QueueType
from amqflow.topology.policy import APPLY_TO
from amqflow.topology.positions import near
from amqflow.topology.units import (
    DURATION_PATTERN,
    SIZE_PATTERN,
    parse_duration,
    parse_size,
)

#: The one version of the format so far.
VERSION: Final = 1

#: Keys of the top level for YAML anchors to stand in; nothing reads them.
EXTENSION_PREFIX: Final = "x-"

EXCHANGE_TYPES: Final = ("direct", "topic", "fanout", "headers")
OVERFLOWS: Final = ("drop-head", "reject-publish", "reject-publish-dlx")


def _problem(text: str) -> PydanticCustomError:
    return PydanticCustomError("topology", "{text}", {"text": text})


def _said(parse: Any) -> Any:
    """Let a parser's ValueError through as the sentence it is."""

    def validate(value: object) -> Any:
        try:
            return parse(value)
        except ValueError as error:
            raise _problem(str(error)) from error

    return validate


def _one_of(words: tuple[str, ...]) -> Any:
    def validate(value: object) -> object:
        if isinstance(value, str) and value in words:
            return value
        hint = near(value, words) if isinstance(value, str) else ""
        raise _problem(f"takes {', '.join(words[:-1])} or {words[-1]}{hint}")

    return BeforeValidator(validate)


def _exchange_type(value: str) -> str:
    if value in EXCHANGE_TYPES or value.startswith("x-"):
        return value
    hint = near(value, EXCHANGE_TYPES)
    raise _problem(f"takes {', '.join(EXCHANGE_TYPES)}, or a plugin's type, x-…{hint}")


def _pattern(value: str) -> str:
    try:
        re.compile(value)
    except re.error as error:
        raise _problem(f"is no regular expression: {error}") from error
    return value


def _empty(value: object) -> object:
    """Read ``queues:`` with nothing behind it as none, ``default:`` as all defaults."""
    return {} if value is None else value


Duration = Annotated[
    float,
    BeforeValidator(_said(parse_duration)),
    WithJsonSchema({"anyOf": [{"type": "string", "pattern": DURATION_PATTERN}, {"const": 0}]}),
]
Size = Annotated[
    int,
    BeforeValidator(_said(parse_size)),
    WithJsonSchema(
        {
            "anyOf": [
                {"type": "string", "pattern": SIZE_PATTERN},
                {"type": "integer", "minimum": 0},
            ]
        }
    ),
]
Count = Annotated[int, Field(ge=0, le=(1 << 63) - 1)]
#: RabbitMQ takes 255, and counts all above a queue's own as that one.
Priority = Annotated[int, Field(ge=0, le=MAX_PRIORITY)]
Reason = Annotated[
    str,
    _one_of(tuple(reason.value for reason in DeadReason)),
    WithJsonSchema({"enum": [reason.value for reason in DeadReason]}),
]


class _Part(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True, frozen=True, protected_namespaces=())


class BindingFile(_Part):
    """A way from an exchange to the queue or exchange it is written under."""

    exchange: str = Field(min_length=1, description="Where messages come from.")
    routing_key: str | None = Field(
        None,
        description="The key (direct) or pattern (topic: * one word, # any number of words).",
    )
    arguments: dict[str, Any] = Field(
        default_factory=dict, description="Of a headers exchange: x-match and the headers."
    )


class ExchangeFile(_Part):
    """An exchange."""

    type: Annotated[
        str,
        AfterValidator(_exchange_type),
        WithJsonSchema({"type": "string", "pattern": f"^({'|'.join(EXCHANGE_TYPES)}|x-.+)$"}),
    ] = Field("direct", description="direct, topic, fanout, headers, or a plugin's x-… type.")
    durable: bool = Field(default=True, description="It outlives a restart of the broker.")
    auto_delete: bool = Field(default=False, description="It goes with its last binding.")
    internal: bool = Field(default=False, description="Only other exchanges publish to it.")
    bindings: list[BindingFile] = Field(
        default_factory=list, description="Exchanges that pass messages on to this one."
    )
    arguments: dict[str, Any] = Field(
        default_factory=dict, description="Passed through, such as alternate-exchange."
    )


class DeadLetterFile(_Part):
    """Where a queue's dead letters go, and how long they are kept in its home `<queue>.dead`."""

    exchange: str | None = Field(
        None,
        description="The dead-letter exchange; left out: the application's own. An exchange that "
        "the file does not declare is made, of type direct.",
    )
    routing_key: str | None = Field(
        None,
        description="The key dead letters get; left out: the queue's name. An explicit null "
        "keeps each message's own.",
    )
    at_least_once: bool | None = Field(
        None,
        description="Keep a dead letter until its home has confirmed it (quorum only; the "
        "default there).",
    )
    max_age: Duration | None = Field(None, description="How long a dead letter is kept.")
    max_length: Count | None = Field(None, description="How many are kept; the oldest go first.")
    alarm: Count | None = Field(None, description="How many are too many: doctor warns.")


class QueueFile(_Part):
    """A queue; its key is its name."""

    type: Annotated[
        str,
        _one_of(tuple(QueueType)),
        WithJsonSchema({"enum": [kind.value for kind in QueueType]}),
    ] = Field("quorum", description="quorum (default), classic or stream.")
    consumed: bool | None = Field(
        None,
        description="Workers run what is in it; it gets <queue>.dead and <queue>.suspect. "
        "Default: yes, but for streams and for homes (<queue>.dead).",
    )
    bindings: list[BindingFile] = Field(default_factory=list, description="What leads here.")
    durable: bool = Field(default=True, description="It outlives a restart of the broker.")
    exclusive: bool = Field(default=False, description="It dies with the connection that made it.")
    auto_delete: bool = Field(default=False, description="It goes with its last consumer.")
    max_priority: int | None = Field(
        None,
        ge=1,
        le=MAX_PRIORITY,
        description="x-max-priority: classic; quorum only where the broker has priorities (4.3).",
    )
    message_ttl: Duration | None = Field(None, description="How long a message waits at most.")
    expires: Duration | None = Field(None, description="The idle time after which it is deleted.")
    max_length: Count | None = Field(None, description="The most messages it holds.")
    max_length_bytes: Size | None = Field(None, description="The most bytes of bodies it holds.")
    max_age: Duration | None = Field(None, description="Streams: how long the log is kept.")
    overflow: (
        Annotated[str, _one_of(OVERFLOWS), WithJsonSchema({"enum": list(OVERFLOWS)})] | None
    ) = Field(None, description="What happens to messages beyond a limit.")
    dead_letter: DeadLetterFile | None = Field(None, description="Where dead letters go.")
    delivery_limit: int | None = Field(
        None, ge=-1, description="Quorum: returns after which the broker dead-letters; -1: none."
    )
    single_active_consumer: bool = Field(default=False, description="One consumer at a time.")
    prefetch: int | None = Field(
        None, ge=1, le=65535, description="The most messages one worker holds of it."
    )
    park: list[Reason] | None = Field(
        None, description="Why a worker parks a message; left out: all but expired and revoked."
    )
    arguments: dict[str, Any] = Field(
        default_factory=dict, description="Anything not modelled, passed through."
    )


class DelaysFile(_Part):
    """The ladder that delays go through (one per vhost)."""

    resolution: Duration = Field(DEFAULT_RESOLUTION, description="The tick.")
    levels: int = Field(
        DEFAULT_LEVELS, ge=1, le=100, description="The reach is resolution * (2^levels - 1)."
    )


class RouteFile(_Part):
    """Where calls of matching tasks go; the first match wins."""

    task: str = Field("*", min_length=1, description="A task's name or a glob.")
    queue: str | None = Field(None, min_length=1, description="A queue of this file.")
    exchange: str | None = Field(None, min_length=1, description="An exchange, with routing_key.")
    routing_key: str | None = Field(None, description="The key the message gets.")
    priority: Priority | None = Field(None, description="Higher is more urgent.")
    broadcast: bool = Field(default=False, description="Reaching several queues is meant.")


class PolicyFile(_Part):
    """A policy of the broker; setting one needs the management API."""

    pattern: Annotated[str, AfterValidator(_pattern)] = Field(
        description="A regular expression that finds names."
    )
    apply_to: Annotated[str, _one_of(APPLY_TO), WithJsonSchema({"enum": list(APPLY_TO)})] = Field(
        "queues", description="What it may find."
    )
    priority: int = Field(0, description="The highest one that finds a name counts.")
    definition: dict[str, Any] = Field(
        min_length=1, description="The broker's own keys and units: {message-ttl: 60000}."
    )


def _version(value: object) -> object:
    if value == VERSION and not isinstance(value, bool | float):
        return value
    raise _problem(f"takes {VERSION}; another version needs another amqflow")


class TopologyFile(_Part):
    """A topology file: what a broker should hold for an application."""

    version: Annotated[int, BeforeValidator(_version), WithJsonSchema({"const": VERSION})] = Field(
        description="The version of this format: 1."
    )
    owns: list[Annotated[str, Field(min_length=1)]] = Field(
        default_factory=list,
        description="Globs of names that plan may delete, and only with --prune.",
    )
    exchanges: Annotated[
        dict[str, Annotated[ExchangeFile, BeforeValidator(_empty)]], BeforeValidator(_empty)
    ] = Field(default_factory=dict, description="Exchanges by name.")
    queues: Annotated[
        dict[str, Annotated[QueueFile, BeforeValidator(_empty)]], BeforeValidator(_empty)
    ] = Field(default_factory=dict, description="Queues by name.")
    delays: Annotated[DelaysFile, BeforeValidator(_empty)] = Field(
        default_factory=DelaysFile, description="The delay ladder."
    )
    routes: list[RouteFile] = Field(default_factory=list, description="Where calls go.")
    policies: Annotated[dict[str, PolicyFile], BeforeValidator(_empty)] = Field(
        default_factory=dict, description="Policies by name."
    )
