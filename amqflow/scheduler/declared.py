"""The entries an application declares: its ``beat_schedule`` and its YAML file."""

from __future__ import annotations

import os
from difflib import get_close_matches
from typing import TYPE_CHECKING

from amqflow.errors import AmqflowError, ScheduleError
from amqflow.logs import get_logger
from amqflow.scheduler.entry import Entry, Overlap
from amqflow.schedules import zone_named

if TYPE_CHECKING:
    from collections.abc import Iterable

    from amqflow.app import App

log = get_logger("amqflow.scheduler")


def declared_entries(app: App) -> dict[str, Entry]:
    """Return the entries of ``beat_schedule`` and of the file ``schedules`` names, by name.

    Raises:
        ScheduleError: An entry is wrong, or two have one name.
    """
    settings = app.conf.settings
    zone = zone_named(settings.timezone)
    found = {
        name: Entry.read(name, given, zone, "beat_schedule")
        for name, given in settings.beat_schedule.items()
    }
    if settings.schedules is not None:
        # YAML is for those who have a file.
        from amqflow.scheduler.file import load  # noqa: PLC0415

        path = os.fspath(settings.schedules)
        for name, entry in load(path, zone).items():
            if name in found:
                raise ScheduleError(
                    f"{entry.source}: entry {name!r} is in beat_schedule too; an entry has one "
                    "place: rename or remove one of them"
                )
            found[name] = entry
    return found


def check_entries(app: App, entries: Iterable[Entry]) -> None:
    """Refuse entries whose task the application does not know, or whose arguments do not fit.

    An application that knows no task at all only schedules: its entries' tasks are others'.

    Raises:
        ScheduleError: An entry cannot work; the message names it.
    """
    for entry in entries:
        check_entry(app, entry)


def check_entry(app: App, entry: Entry) -> None:
    """Check one entry (see :func:`check_entries`)."""
    task = app.tasks.get(entry.task)
    place = f"{entry.source}: entry {entry.name!r}"
    if task is not None:
        try:
            task.check_arguments(entry.args, dict(entry.kwargs))
        except AmqflowError as error:
            raise ScheduleError(f"{place}: {error}") from error
    elif app.tasks and not entry.foreign:
        near = get_close_matches(entry.task, list(app.tasks), n=1)
        hint = f"did you mean {near[0]!r}?" if near else "name its module in include=[…]"
        raise ScheduleError(
            f"{place}: the application {app.main!r} knows no task {entry.task!r}; {hint} "
            "(foreign: true, where another application's workers run it)"
        )
    if entry.overlap is not Overlap.ALLOW and not _sees_ends(app):
        raise ScheduleError(
            f"{place}: overlap: {entry.overlap} needs a result store that knows when a run has "
            "ended; set backend=, such as redis://localhost:6379/0"
        )


def _sees_ends(app: App) -> bool:
    backend = app.backend_url or ""
    return bool(backend) and backend.partition(":")[0] not in {"rpc", "amqp", "disabled"}
