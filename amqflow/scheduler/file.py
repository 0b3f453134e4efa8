"""Reads a YAML file of schedules; each error says where and what to write.

A file of its own and not a section of the topology: a topology is applied to a broker, by those
who may change it; schedules are read by schedulers, and one topology may serve several of them.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from amqflow.errors import ScheduleError, TopologyError
from amqflow.scheduler.entry import Entry
from amqflow.schedules import zone_named
from amqflow.topology.document import read

if TYPE_CHECKING:
    from datetime import tzinfo

    from amqflow.topology.positions import Positions

_KEYS: Final = ("version", "timezone", "schedules")
_MAX_BYTES: Final = 8 * 1024 * 1024


def load(path: str, zone: tzinfo) -> dict[str, Entry]:
    """Return the entries of a file by name.

    Args:
        path: The file's.
        zone: Where neither the file nor the entry names one.

    Raises:
        ScheduleError: It cannot be read, or an entry is wrong: all that was found, a line each.
    """
    try:
        raw = Path(path).read_bytes()
    except (OSError, ValueError) as error:
        raise ScheduleError(f"{path}: the file of schedules cannot be read: {error}") from error
    if len(raw) > _MAX_BYTES:
        raise ScheduleError(f"{path}: is larger than {_MAX_BYTES >> 20} MiB; schedules take less")
    try:
        document = read(raw, path)
    except TopologyError as error:  # its reader of YAML, which knows lines and columns
        raise ScheduleError(str(error)) from error
    if document.problems:
        raise ScheduleError("\n".join(map(str, document.problems)))
    return _entries(document.data, document.positions, zone)


def _entries(data: Any, positions: Positions, zone: tzinfo) -> dict[str, Entry]:
    entries = _checked(data, positions)
    if (own := data.get("timezone")) is not None:
        try:
            zone = zone_named(str(own))
        except ScheduleError as error:
            raise ScheduleError(f"{positions.show(('timezone',))}: {error}") from error
    found, problems = {}, []
    for name, given in entries.items():
        place = positions.show(("schedules", name))
        try:
            found[name] = Entry.read(name, given, zone, place)
        except ScheduleError as error:
            problems.append(str(error))
    if problems:
        raise ScheduleError("\n".join(problems))
    return found


def _checked(data: Any, positions: Positions) -> dict[str, Any]:
    """Return the mapping under ``schedules`` of a document that is one of ours."""
    if not isinstance(data, dict) or "schedules" not in data:
        raise ScheduleError(
            f"{positions.source}: holds no `schedules:`; write `version: 1`, and under "
            "`schedules:` a name for each entry, with its task and one of crontab, every, at"
        )
    for key in data:
        if key not in _KEYS and not str(key).startswith("x-"):
            raise ScheduleError(
                f"{positions.show((key,))}: has no key {key!r}; it may have {', '.join(_KEYS)}"
            )
    if data.get("version") != 1:
        raise ScheduleError(f"{positions.show(('version',))}: write `version: 1`")
    entries = data["schedules"]
    if not isinstance(entries, dict):
        raise ScheduleError(f"{positions.show(('schedules',))}: schedules is a mapping by name")
    return entries
