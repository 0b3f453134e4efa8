"""``amqflow control``: tell workers what must not run."""

from __future__ import annotations

import json
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

import click

from amqflow.cli.asynchronous import run
from amqflow.clock import to_datetime
from amqflow.protocol.revocation import Target
from amqflow.settings.model import seconds

if TYPE_CHECKING:
    from amqflow.cli.finding import AppSource


@click.group()
def control() -> None:
    """Revoke tasks, see what is revoked, lift it."""


def _duration(_context: click.Context, _option: click.Parameter, text: str | None) -> float | None:
    if text is None:
        return None
    found = seconds(text)
    if not isinstance(found, float) or found <= 0:
        message = f"{text!r} is no duration above 0; write 90s, 10m, 1h or 2d"
        raise click.BadParameter(message)
    return found


_TARGETS = (
    click.argument("ids", nargs=-1, metavar="[ID]..."),
    click.option("--task", "tasks", multiple=True, help="Tasks of this name, sent until now."),
    click.option("--stamp", "stamps", multiple=True, help="Tasks with this stamp: header=value."),
    click.option("--workflow", "roots", multiple=True, help="A workflow, by its first task's id."),
)


def _targeted(function: Any) -> Any:
    for decorate in reversed(_TARGETS):
        function = decorate(function)
    return function


def _wanted(
    ids: tuple[str, ...], tasks: tuple[str, ...], stamps: tuple[str, ...], roots: tuple[str, ...]
) -> dict[Target, tuple[str, ...]]:
    for stamp in stamps:
        if not all(stamp.partition("=")[::2]):
            message = f"--stamp {stamp!r}: write header=value"
            raise click.UsageError(message)
    named = {Target.ID: ids, Target.TASK: tasks, Target.STAMP: stamps, Target.ROOT: roots}
    wanted = {target: values for target, values in named.items() if values}
    if not wanted:
        message = "name what is meant: an ID, --task, --stamp or --workflow"
        raise click.UsageError(message)
    return wanted


@control.command()
@_targeted
@click.option("--terminate", is_flag=True, help="End what runs, too.")
@click.option("--expires", callback=_duration, help="Remember it so long (default: 30 days).")
@click.pass_obj
def revoke(
    source: AppSource,
    ids: tuple[str, ...],
    tasks: tuple[str, ...],
    stamps: tuple[str, ...],
    roots: tuple[str, ...],
    *,
    terminate: bool,
    expires: float | None,
) -> None:
    """Revoke tasks: those that wait, those in a delay, those not sent yet; durable when done."""
    wanted = _wanted(ids, tasks, stamps, roots)
    app = source.load()
    unknown = [name for name in tasks if app.tasks and name not in app.tasks]
    if unknown:
        click.echo(f"note: {app.main!r} has no task {', '.join(unknown)}; revoked all the same")

    async def work() -> None:
        for target, values in wanted.items():
            await app.arevoke_all(target, values, terminate=terminate, expires=expires)

    run(app, work)
    for target, values in wanted.items():
        for value in values:
            click.echo(f"revoked {target} {value}")


@control.command()
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
@click.pass_obj
def revocations(source: AppSource, *, as_json: bool) -> None:
    """Show what is revoked now."""
    app = source.load()
    found = run(app, app.arevocations)
    if as_json:
        click.echo(json.dumps([asdict(one) for one in found], indent=1))
        return
    for one in found:
        ends = ", ends what runs" if one.terminate else ""
        until = to_datetime(one.expires).isoformat(timespec="seconds")
        click.echo(f"{one.target} {one.value}  until {until}{ends}")
    if not found:
        click.echo("nothing is revoked")


@control.command()
@_targeted
@click.pass_obj
def lift(
    source: AppSource,
    ids: tuple[str, ...],
    tasks: tuple[str, ...],
    stamps: tuple[str, ...],
    roots: tuple[str, ...],
) -> int:
    """Forget revocations; what they have ended stays ended. Exit 1 where there were none."""
    wanted = _wanted(ids, tasks, stamps, roots)
    app = source.load()

    async def work() -> int:
        return sum([await app.alift(target, values) for target, values in wanted.items()])

    count = run(app, work)
    click.echo(f"lifted {count}")
    return 0 if count else 1
