"""Publishes tasks when they are due: any number of schedulers, each slot once (design 11)."""

from __future__ import annotations

from amqflow.scheduler.declared import check_entries, check_entry, declared_entries
from amqflow.scheduler.desk import Desk
from amqflow.scheduler.due import due
from amqflow.scheduler.embedded import Embedded
from amqflow.scheduler.entry import CatchUp, Entry, Overlap, task_id_of
from amqflow.scheduler.scheduler import Scheduler
from amqflow.scheduler.store import ScheduleStore, open_schedule_store

__all__ = [
    "CatchUp",
    "Desk",
    "Embedded",
    "Entry",
    "Overlap",
    "ScheduleStore",
    "Scheduler",
    "check_entries",
    "check_entry",
    "declared_entries",
    "due",
    "open_schedule_store",
    "task_id_of",
]
