"""When things are due: pure arithmetic of crontabs, intervals and single moments.

Instants are Unix seconds; nothing here reads a clock. The names ``crontab`` and ``schedule`` are
Celery's, and so are their arguments.
"""

from __future__ import annotations

from amqflow.schedules.base import Schedule, slots_after, slots_until, to_instant, to_ms
from amqflow.schedules.clocked import clocked
from amqflow.schedules.crontab import crontab
from amqflow.schedules.form import from_form, to_form
from amqflow.schedules.interval import schedule
from amqflow.schedules.zones import zone_named

__all__ = [
    "Schedule",
    "clocked",
    "crontab",
    "from_form",
    "schedule",
    "slots_after",
    "slots_until",
    "to_form",
    "to_instant",
    "to_ms",
    "zone_named",
]
