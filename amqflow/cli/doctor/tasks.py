"""Checks of the tasks: time limits against the broker's patience."""

from __future__ import annotations

from typing import TYPE_CHECKING

from amqflow.cli.doctor.findings import Finding, ok, warning

if TYPE_CHECKING:
    from amqflow.app import App


def time_limits(app: App) -> list[Finding]:
    """Compare each task's time limit with ``consumer_timeout``.

    RabbitMQ closes the channel of a consumer that has not acked for that long and hands the
    message out again, while the first run still works (RabbitMQ docs, "Consumers", delivery
    acknowledgement timeout).
    """
    settings = app.conf.settings
    timeout = settings.consumer_timeout
    if not timeout:
        return [ok("consumer-timeout", "none, as consumer_timeout=0 says")]
    findings = []
    for task in app.tasks.values():
        limit = task.options.time_limit or settings.task_time_limit
        if limit is not None and limit >= timeout:
            text = (
                f"{task.name} may run {limit:g} s, and the broker hands its message to another "
                f"worker after {timeout:g} s"
            )
            mend = (
                f"consumer_timeout = {int(limit * 2000)} in rabbitmq.conf and consumer_timeout="
                f"{limit * 2:g} here, or a shorter time_limit"
            )
            findings.append(warning("consumer-timeout", text, mend))
    return findings or [ok("consumer-timeout", f"no time limit is {timeout:g} s or more")]
