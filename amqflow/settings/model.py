"""Every setting with its type and default: the one list of what can be configured."""

from __future__ import annotations

import re
from datetime import timedelta
from os import PathLike  # noqa: TC003 - pydantic reads it
from typing import Annotated, Any, Final, Literal

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field
from pydantic import model_validator as check_model

from amqflow.clock import LONGEST_LIMIT
from amqflow.errors import ScheduleError
from amqflow.schedules import zone_named

_UNITS: Final = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0}
_DURATION: Final = re.compile(r"(\d+(?:\.\d+)?)\s*(ms|s|m|h|d)?")
_RATE: Final = re.compile(r"\d+(\.\d+)?(/[smh])?")
_JSON_CONTENT: Final = frozenset({"json", "application/json"})


def seconds(value: Any) -> Any:
    """Return a duration in seconds: a number, a timedelta, or a text such as ``1h`` or ``500ms``.

    What is none of these is returned as it came, for pydantic to name.
    """
    if isinstance(value, timedelta):
        return value.total_seconds()
    if isinstance(value, str) and (match := _DURATION.fullmatch(value.strip())):
        return float(match[1]) * _UNITS[match[2] or "s"]
    if isinstance(value, bool):
        raise ValueError(  # noqa: TRY004 - pydantic reads ValueError
            "a duration in seconds, or a text such as '1h', '30s', '500ms'"
        )
    return value


def _rate(value: Any) -> Any:
    if isinstance(value, int | float) and not isinstance(value, bool):
        # Celery takes a number a second, too; without an exponent it is a rate as it is written.
        value = f"{value:.9f}".rstrip("0").rstrip(".") if isinstance(value, float) else str(value)
    if value is not None and not (isinstance(value, str) and _RATE.fullmatch(value)):
        raise ValueError("a rate such as '10/s', '10/m', '10/h' or '10' (a second)")
    return value


def _zone(value: str) -> str:
    try:
        zone_named(value)
    except ScheduleError as error:
        raise ValueError(f"the name of a time zone, such as 'Europe/Berlin' ({error})") from error
    return value


def _only_json(value: Any) -> Any:
    names = [value] if isinstance(value, str) else value
    foreign = [name for name in names if name not in _JSON_CONTENT]
    if foreign:
        raise ValueError(
            f"'json' only: {foreign[0]!r} is not read here (pickle would run code from the wire)"
        )
    return value


def _names(value: Any) -> Any:
    """Celery takes one module name where a list is meant."""
    return (value,) if isinstance(value, str) else value


def _pool(value: Any) -> Any:
    if value in {"gevent", "eventlet"}:
        raise ValueError("a pool that is here: asyncio with async def tasks, or threads")
    return value


Seconds = Annotated[float, BeforeValidator(seconds), Field(ge=0, allow_inf_nan=False)]
PositiveSeconds = Annotated[float, BeforeValidator(seconds), Field(gt=0, allow_inf_nan=False)]
Rate = Annotated[str, BeforeValidator(_rate)]
Zone = Annotated[str, AfterValidator(_zone)]
JsonOnly = Annotated[str, AfterValidator(_only_json)]
Names = Annotated[tuple[str, ...], BeforeValidator(_names)]
Limit = Annotated[
    float, BeforeValidator(seconds), Field(gt=0, le=LONGEST_LIMIT, allow_inf_nan=False)
]
Priority = Annotated[int, Field(ge=0, le=255)]
Compression = Literal[
    "gzip", "zlib", "deflate", "bzip2", "bzip", "lzma", "xz", "zstd", "zstandard",
    "application/x-gzip", "application/x-bz2", "application/x-lzma", "application/zstd",
]  # fmt: skip


class Settings(BaseModel):
    """The settings in force, checked; durations are seconds.

    Names and meanings are Celery's where Celery has one (docs/userguide/configuration); two
    defaults differ: ``task_acks_late`` is on, and ``task_default_queue`` is ``default``.
    """

    model_config = ConfigDict(
        extra="forbid",
        frozen=True,
        arbitrary_types_allowed=True,
        hide_input_in_errors=True,
        # Built at the first look at a setting: an import should not pay for it.
        defer_build=True,
    )

    # -- where ------------------------------------------------------------------------------
    broker_url: str | None = None
    #: Seconds one attempt to connect may take; attempts go on for ever.
    broker_connection_timeout: PositiveSeconds = 4.0
    #: Seconds between AMQP heartbeats; 0 leaves it to the broker.
    broker_heartbeat: Seconds = 60.0
    #: RabbitMQ's HTTP API, with its path; None: the broker's host, port 15672 (TLS: 15671).
    management_url: str | None = None
    result_backend: str | None = None
    #: A path, or a Topology; None: derived from the tasks' queues.
    topology: Any = None
    include: Names = ()
    imports: Names = ()
    accept_content: Annotated[Names, AfterValidator(_only_json)] = ("json",)
    timezone: Zone = "UTC"
    enable_utc: bool = True

    # -- tasks ------------------------------------------------------------------------------
    task_default_queue: Annotated[str, Field(min_length=1, max_length=199)] = "default"
    task_default_exchange: str | None = None
    task_default_routing_key: str | None = None
    task_default_priority: Priority | None = None
    task_default_rate_limit: Rate | None = None
    task_inherit_parent_priority: bool = False
    #: A task sent from a task that expires expires no later.
    task_inherit_parent_expires: bool = False
    #: Headers that a task sent from a task takes over, beside ``traceparent`` and ``tracestate``.
    task_inherit_headers: Names = ()
    #: Celery's forms: a dict of pattern to route, or a list of such.
    task_routes: dict[Any, Any] | list[Any] | tuple[Any, ...] | None = None
    task_create_missing_queues: bool = True
    task_queue_max_priority: Priority | None = None
    task_acks_late: bool = True
    task_reject_on_worker_lost: bool = True
    task_ignore_result: bool = False
    task_track_started: bool = False
    task_time_limit: Limit | None = None
    task_soft_time_limit: Limit | None = None
    task_compression: Compression | None = None
    task_serializer: JsonOnly = "json"
    task_protocol: Literal[2] = 2
    task_publish_retry: bool = True
    task_send_sent_event: bool = False
    task_always_eager: bool = False
    task_eager_propagates: bool = False
    task_store_eager_result: bool = False

    # -- results ----------------------------------------------------------------------------
    #: Seconds a result is kept; None: for ever.
    result_expires: Seconds | None = 86400.0
    result_compression: Compression | None = None
    result_serializer: JsonOnly = "json"
    result_extended: bool = False

    # -- workflows --------------------------------------------------------------------------
    #: Seconds after which a chord that has not ended is looked at: what ended without being
    #: counted is added, and one whose record or sender was lost fails.
    workflow_deadline: PositiveSeconds = 86400.0
    #: Seconds for which a worker that runs a body, errback or link is believed to live after its
    #: last sign of life; only then does another one run it.
    once_lease: PositiveSeconds = 60.0

    # -- the worker -------------------------------------------------------------------------
    #: Slots for tasks that run at once; None: one per core.
    worker_concurrency: Annotated[int, Field(ge=1)] | None = None
    worker_prefetch_multiplier: Annotated[int, Field(ge=1)] = 4
    worker_pool: Annotated[
        Literal["auto", "asyncio", "threads", "processes", "prefork", "solo"],
        BeforeValidator(_pool),
    ] = "auto"
    worker_max_tasks_per_child: Annotated[int, Field(ge=1)] | None = None
    #: KiB of resident memory, as in Celery.
    worker_max_memory_per_child: Annotated[int, Field(ge=1)] | None = None
    worker_lost_wait: Seconds = 10.0
    worker_disable_rate_limits: bool = False
    worker_enable_remote_control: bool = True
    worker_send_task_events: bool = False
    worker_hijack_root_logger: bool = True
    #: Seconds a graceful stop waits for running tasks; None: as long as they take.
    shutdown_timeout: Seconds | None = None
    log_level: Literal["DEBUG", "INFO", "WARNING", "ERROR", "CRITICAL"] = "INFO"
    log_format: Literal["console", "json"] = "console"

    # -- the scheduler ----------------------------------------------------------------------
    beat_schedule: dict[str, Any] = Field(default_factory=dict)
    #: The path of a YAML file of schedules, beside ``beat_schedule``.
    schedules: str | PathLike[str] | None = None
    #: Lines of history kept of each entry.
    beat_history: Annotated[int, Field(ge=1, le=100_000)] = 50
    beat_max_loop_interval: Seconds = 0.0

    # -- messages ---------------------------------------------------------------------------
    #: Seconds a publish may take until the broker's confirm.
    publish_timeout: PositiveSeconds = 10.0
    #: Bytes of an encoded message's body; RabbitMQ 4.0's own bound is the default.
    max_message_size: Annotated[int, Field(ge=1024)] = 16 * 1024 * 1024
    #: Bytes above which a body or a result is kept in the blob store and travels by reference;
    #: None: never.
    blob_threshold: Annotated[int, Field(ge=1024)] | None = 1024 * 1024
    #: Where: ``redis://…``, ``memory://``, ``embedded://`` or ``file:///folder``; None: in the
    #: result store, where that is one of the first three.
    blob_store: str | None = None
    #: Seconds a blob is kept beyond the time its message or result needs it.
    blob_expires: PositiveSeconds = 7 * 86400.0
    #: Bytes of the largest body or result that may be kept.
    blob_max_size: Annotated[int, Field(ge=1024)] = 64 * 1024 * 1024
    #: Runs of a suspect that may end in a dead worker before it is parked as poison.
    poison_limit: Annotated[int, Field(ge=1)] = 3
    #: Seconds of the ladder's lowest level.
    delay_resolution: Annotated[float, BeforeValidator(seconds), Field(ge=0.01, le=60)] = 0.1
    #: Levels of the ladder: it reaches ``delay_resolution * 2**delay_levels`` seconds.
    delay_levels: Annotated[int, Field(ge=1, le=28)] = 28
    #: The broker's consumer_timeout in seconds, which it does not tell; 0: none is set.
    consumer_timeout: Seconds = 1800.0
    #: Seconds a revocation is remembered where it does not say.
    revoke_expires: PositiveSeconds = 2592000.0
    #: Seconds a dead letter is kept; None: for ever.
    dead_max_age: PositiveSeconds | None = None
    #: Dead letters kept per queue; None: no bound.
    dead_max_length: Annotated[int, Field(ge=1)] | None = None

    @check_model(mode="after")
    def _soft_before_hard(self) -> Settings:
        soft, hard = self.task_soft_time_limit, self.task_time_limit
        if soft is not None and hard is not None and soft > hard:
            raise ValueError(
                f"task_soft_time_limit ({soft:g} s) must not be above task_time_limit ({hard:g} s)"
            )
        return self


#: Names of settings, in the order above.
NAMES: Final = tuple(Settings.model_fields)
#: The same, for asking whether a name is one.
FIELDS: Final = frozenset(NAMES)
