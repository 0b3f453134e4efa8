"""``amqflow doctor``: look at broker, topology, delays and store; name what mends each finding."""

from __future__ import annotations

import json
from collections import Counter
from dataclasses import asdict
from typing import TYPE_CHECKING, Final

import click

from amqflow.cli.asynchronous import run
from amqflow.cli.doctor import broker, delays, store, tasks
from amqflow.cli.doctor.findings import Finding, Level, error
from amqflow.cli.finding import import_tasks
from amqflow.errors import AmqflowError
from amqflow.topology import BrokerFacts

if TYPE_CHECKING:
    from amqflow.app import App
    from amqflow.cli.finding import AppSource

_MARKS: Final = {
    Level.OK: ("✓", "green"),
    Level.WARNING: ("!", "yellow"),
    Level.ERROR: ("✗", "red"),
}


@click.command()
@click.option("--no-probe", is_flag=True, help="Only look: no probe queue, no probe message.")
@click.option("--json", "as_json", is_flag=True, help="Print a JSON object per finding.")
@click.pass_obj
def doctor(source: AppSource, *, no_probe: bool, as_json: bool) -> int:
    """Examine everything the application stands on; exit 1 where something is wrong."""
    app = source.load()
    import_tasks(app)
    findings = run(app, lambda: examine(app, probe=not no_probe))
    for finding in findings:
        if as_json:
            click.echo(json.dumps(asdict(finding), ensure_ascii=False))
        else:
            _show(finding)
    counts = Counter(finding.level for finding in findings)
    if not as_json:
        click.echo(f"{counts[Level.ERROR]} errors, {counts[Level.WARNING]} warnings")
    return 1 if counts[Level.ERROR] else 0


async def examine(app: App, *, probe: bool) -> list[Finding]:
    """Return all findings, in the order of what stands on what.

    Args:
        app: the application, its tasks imported.
        probe: may declare a queue of its own and send a message through the ladder.
    """
    findings = [*tasks.time_limits(app), *await store.store(app)]
    return [*await _broker(app, probe=probe), *findings]


async def _broker(app: App, *, probe: bool) -> list[Finding]:
    runtime = app.runtime()
    door = runtime.transport
    info = await broker.reached(app, door)
    if isinstance(info, Finding):
        return [info]
    findings = [broker.version(info)]
    if findings[0].level is Level.ERROR:
        return findings
    try:
        consumed = list(app.work_queues())
        topology = app.derived_topology(BrokerFacts(info.version))
        if probe:
            findings.append(await broker.permissions(app, door))
            if findings[-1].level is Level.ERROR:
                return findings  # The rest would say the same again.
        findings += await broker.drift(app, topology, door, _mend(app))
        if probe:
            findings.append(await delays.ladder(await runtime.producer.ladder(), door))
        findings += await broker.queues(topology, consumed, door, _alarms(app))
    except AmqflowError as problem:
        text = f"could not be examined to the end: {problem}"
        findings.append(error("broker", text, "mend what is above, then run the doctor again"))
    return findings


def _alarms(app: App) -> dict[str, int]:
    """Return the ``alarm`` of each queue whose topology file names one."""
    kept = {} if app.declaration is None else app.declaration.retention
    return {name: of.alarm for name, of in kept.items() if of.alarm}


def _mend(app: App) -> str:
    if (file := app.topology_file) is not None:
        return f"amqflow topology apply {file}"
    return "start a worker once, it declares what is missing (amqflow worker)"


def _show(finding: Finding) -> None:
    mark, colour = _MARKS[finding.level]
    click.echo(f"{click.style(mark, fg=colour)} {finding.check:<20} {finding.text}")
    if finding.mend:
        click.echo(f"  {'':<20} → {finding.mend}")
