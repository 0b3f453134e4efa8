"""How ``amqflow beat`` shows entries, slots and history."""

from __future__ import annotations

import json
from datetime import datetime
from typing import TYPE_CHECKING, Any, Final

import click

from amqflow.clock import to_datetime
from amqflow.schedules import crontab, to_instant

if TYPE_CHECKING:
    from collections.abc import Sequence

    from amqflow.scheduler import Entry
    from amqflow.scheduler.desk import Known
    from amqflow.scheduler.words import Record

_COLORS: Final = {"ran": None, "manual": None, "failed": "red"}
_COLUMNS: Final = ("name", "task", "schedule", "next", "last", "slots", "source")


def shown(entry: Entry, instant: float) -> str:
    """Return an instant in the entry's zone, with its distance from UTC."""
    zone = entry.schedule.zone if isinstance(entry.schedule, crontab) else None
    moment = to_datetime(instant) if zone is None else datetime.fromtimestamp(instant, zone)
    text = moment.isoformat(sep=" ", timespec="milliseconds" if instant % 1 else "seconds")
    return text.removesuffix("+00:00") + "Z" if text.endswith("+00:00") else text


def row(known: Known, now: float) -> dict[str, Any]:
    """Return an entry and where it stands, as ``list --json`` prints it."""
    entry, standing = known.entry, known.standing
    following = None if known.paused else next(known.slots(now), None)
    last = standing.last_slot if standing is not None else None
    return {
        "name": entry.name,
        "task": entry.task,
        "schedule": str(entry.schedule),
        "next": None if following is None else shown(entry, following[0]),
        "last": None if last is None else shown(entry, to_instant(last)),
        "last_id": standing.last_id if standing is not None else None,
        "paused": known.paused,
        "slots": dict(standing.counts) if standing is not None else {},
        "source": entry.source,
    }


def print_rows(rows: Sequence[dict[str, Any]]) -> None:
    """Print entries as a table."""
    if not rows:
        click.echo("no entries", err=True)
        return
    lines = [_COLUMNS] + [
        (
            *(one["name"], one["task"], one["schedule"]),
            "paused" if one["paused"] else one["next"] or "never again",
            one["last"] or "never",
            ", ".join(f"{count:,} {what}" for what, count in one["slots"].items()) or "none yet",
            one["source"],
        )
        for one in rows
    ]
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    for line in lines:
        cells = (f"{cell:<{width}}" for cell, width in zip(line, widths, strict=True))
        click.secho("  ".join(cells).rstrip(), fg="yellow" if line[3] == "paused" else None)


def alive(count: int) -> str:
    """Say how many schedulers live."""
    if not count:
        return "no scheduler is alive: run amqflow beat, or a worker with -B"
    return "1 scheduler is alive" if count == 1 else f"{count} schedulers are alive"


def print_slots(slots: Sequence[tuple[Entry, float, float]], as_json: bool) -> None:
    """Print coming slots, earliest first."""
    if as_json:
        for entry, slot, fires in slots:
            known = {
                "name": entry.name,
                "task": entry.task,
                "slot": to_datetime(slot).isoformat(),
                "local": shown(entry, slot),
                "published": to_datetime(fires).isoformat(),
            }
            click.echo(json.dumps(known, ensure_ascii=False))
        return
    if not slots:
        click.echo("nothing is due", err=True)
        return
    width = max(len(entry.name) for entry, _, _ in slots)
    for entry, slot, fires in slots:
        late = f"  +{fires - slot:.1f} s jitter" if fires > slot else ""
        click.echo(
            f"{_utc(slot)}  {shown(entry, slot):<25}  {entry.name:<{width}}  {entry.task}{late}"
        )


def print_history(records: Sequence[Record], as_json: bool) -> None:
    """Print what became of slots, newest first."""
    if not records and not as_json:
        click.echo("no history yet", err=True)
    for record in records:
        if as_json:
            click.echo(json.dumps(_dated(record), ensure_ascii=False))
        else:
            click.secho(_line(record), fg=_COLORS.get(record.what, "yellow"))


def _dated(record: Record) -> dict[str, Any]:
    """Return a record with moments people can read."""
    known = record.data()
    for key in ("slot", "at", "last"):
        if key in known:
            known[key] = to_datetime(to_instant(known[key])).isoformat()
    return known


def _line(record: Record) -> str:
    said = [_utc(to_instant(record.slot)), f"{record.what:<7}"]
    if record.count > 1 and record.last is not None:
        said.append(f"{record.count} slots until {_utc(to_instant(record.last))}")
    if record.id is not None:
        said.append(f"{record.id}  {(record.at - record.slot) / 1000:+.3f} s")
    if record.why is not None:
        said.append(record.why)
    if record.by is not None:
        said.append(f"by {record.by}")
    return "  ".join(said)


def _utc(instant: float) -> str:
    return to_datetime(instant).strftime("%Y-%m-%d %H:%M:%SZ")
