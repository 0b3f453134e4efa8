"""What became of Celery's settings that are not ours: harmless, refused, or renamed long ago."""

from __future__ import annotations

from typing import Final

from amqflow.settings.model import FIELDS

#: Accepted with a warning: what they tune does not exist here, and nothing depends on them.
HARMLESS: Final[dict[str, str]] = {
    name: why
    for why, names in {
        "one supervised connection publishes, one consumes": (
            "broker_pool_limit broker_pool_acquire_timeout broker_heartbeat_checkrate"
        ),
        "a broker that is away is retried for ever": (
            "broker_connection_retry broker_connection_retry_on_startup "
            "broker_connection_max_retries broker_channel_error_retry"
        ),
        "a publish is retried under publish_timeout": "task_publish_retry_policy",
        "waiting for a delay is the broker's part": (
            "broker_native_delayed_delivery_queue_type worker_eta_task_limit "
            "worker_enable_prefetch_count_reduction worker_detect_quorum_queues"
        ),
        "messages are always persistent": "task_default_delivery_mode result_persistent",
        "queues are declared by the topology": (
            "task_default_queue_type task_default_exchange_type task_create_missing_queue_type "
            "task_create_missing_queue_exchange_type"
        ),
        "settling before the ack decides this": (
            "task_acks_on_failure task_acks_on_timeout task_acks_on_failure_or_timeout "
            "task_retry_on_worker_lost worker_deduplicate_successful_tasks "
            "worker_cancel_long_running_tasks_on_connection_loss"
        ),
        "a failure is always kept, as a result or as a dead letter": (
            "task_store_errors_even_if_ignored task_remote_tracebacks"
        ),
        "the result store does this by itself": (
            "result_cache_max result_chord_retry_interval result_chord_join_timeout "
            "result_chord_expires result_failure_expires result_backend_always_retry "
            "result_backend_max_retries result_backend_base_sleep_between_retries_ms "
            "result_backend_max_sleep_between_retries_ms result_backend_transport_options "
            "result_exchange result_exchange_type redis_max_connections redis_retry_on_timeout "
            "redis_socket_timeout redis_socket_connect_timeout redis_socket_keepalive "
            "task_allow_error_cb_on_chord_header database_short_lived_sessions "
            "database_create_tables_at_setup"
        ),
        "revocations and schedules live in the result store": (
            "worker_state_db beat_schedule_filename beat_sync_every beat_scheduler "
            "beat_cron_starting_deadline beat_enable_remote_control "
            "beat_remote_control_max_tick_age"
        ),
        "the worker has no parts to choose": (
            "worker_agent worker_autoscaler worker_consumer worker_timer worker_timer_precision "
            "worker_pool_putlocks worker_pool_restarts worker_pool_start_method "
            "worker_proc_alive_timeout worker_direct worker_disable_prefetch "
            "worker_soft_shutdown_timeout worker_enable_soft_shutdown_on_idle "
            "control_exchange control_queue_durable control_queue_exclusive control_queue_expires "
            "control_queue_ttl event_exchange event_queue_durable event_queue_exclusive "
            "event_queue_expires event_queue_prefix event_queue_ttl"
        ),
        "see log_format and log_level": (
            "worker_log_color worker_log_datefmt worker_log_format worker_task_log_datefmt "
            "worker_task_log_format worker_redirect_stdouts worker_redirect_stdouts_level "
            "task_repr_maxlevels"
        ),
        "only JSON is read and written": "result_accept_content event_serializer",
    }.items()
    for name in names.split()
}

_OTHER_STORES: Final = (
    *("arangodb_", "azureblockblob_", "cache_backend", "cassandra_", "cosmosdbsql_"),
    *("couchbase_", "elasticsearch_", "gcs_", "mongodb_", "s3_"),
)

#: Refused, each with what to do instead: ignoring them would change what the user meant.
REFUSED: Final[dict[str, str]] = {
    name: instead
    for instead, names in {
        "say it in broker_url, such as amqp://user:password@host:5672/vhost": (
            "broker_host broker_port broker_user broker_password broker_vhost broker_transport "
            "broker_transport_options broker_login_method broker_failover_strategy"
        ),
        "one broker_url serves both; publishing and consuming have their own connections": (
            "broker_read_url broker_write_url"
        ),
        "use an amqps:// broker_url": "broker_use_ssl",
        "use a rediss:// result_backend": "redis_backend_use_ssl",
        "say it in result_backend, such as redis://:password@host:6379/0": (
            "redis_db redis_host redis_port redis_username redis_password"
        ),
        "say it in result_backend, such as postgresql+asyncpg://user:password@host/database": (
            "database_url database_engine_options database_engine_callback database_table_names "
            "database_table_schemas"
        ),
        "declare queues in the topology file, or leave them to be derived": "task_queues",
        "set the options on the tasks themselves, or in a base class": "task_annotations",
        "messages are not signed here; protect the broker with TLS and users": (
            "security_key security_certificate security_cert_store security_digest "
            "security_key_password"
        ),
    }.items()
    for name in names.split()
}

#: Upper-case names of Celery 3 whose new name does not follow from the rules of :func:`renamed`.
_IRREGULAR: Final = {
    "CELERY_TASK_RESULT_EXPIRES": "result_expires",
    "CELERY_MESSAGE_COMPRESSION": "task_compression",
    "CELERY_EAGER_PROPAGATES_EXCEPTIONS": "task_eager_propagates",
    "CELERY_SEND_EVENTS": "worker_send_task_events",
    "CELERY_MAX_CACHED_RESULTS": "result_cache_max",
    "CELERY_RESULT_DBURI": "database_url",
    "CELERY_RESULT_ENGINE_OPTIONS": "database_engine_options",
    "CELERY_RESULT_DB_TABLENAMES": "database_table_names",
    "CELERY_RESULT_DB_SHORT_LIVED_SESSIONS": "database_short_lived_sessions",
    "CELERY_SEND_TASK_SENT_EVENT": "task_send_sent_event",
    "CELERYD_TASK_TIME_LIMIT": "task_time_limit",
    "CELERYD_TASK_SOFT_TIME_LIMIT": "task_soft_time_limit",
    "CELERYD_WORKER_LOST_WAIT": "worker_lost_wait",
}

_OLD_PREFIXES: Final = (
    ("CELERYBEAT_", ("beat_",)),
    ("CELERYD_", ("worker_", "task_")),
    ("CELERY_", ("task_", "", "worker_", "result_", "beat_")),
    ("", ("",)),
)


def known(name: str) -> bool:
    """Return whether ``name`` is a setting of ours or one of Celery's."""
    return name in FIELDS or name in HARMLESS or refusal(name) is not None


def refusal(name: str) -> str | None:
    """Return what to use instead of a refused setting of Celery's, None for other names."""
    if name.startswith(_OTHER_STORES):
        return "there is no such result store; use redis, sql, rpc or memory"
    return REFUSED.get(name)


def renamed(name: str) -> str | None:
    """Return today's name of an upper-case setting of Celery 3 (``CELERYD_CONCURRENCY``), or None.

    The rules are those of ``celery/app/defaults.py`` (``OLD_NS``, ``OLD_NS_BEAT``,
    ``OLD_NS_WORKER``).
    """
    if name in _IRREGULAR:
        return _IRREGULAR[name]
    if not name.isupper():
        return None
    for prefix, namespaces in _OLD_PREFIXES:
        if name.startswith(prefix):
            rest = name.removeprefix(prefix).lower()
            for namespace in namespaces:
                if known(namespace + rest):
                    return namespace + rest
    return None
