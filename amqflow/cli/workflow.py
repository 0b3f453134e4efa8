"""``amqflow workflow``: the chords that are kept, drawn with their states, cancelled."""

from __future__ import annotations

import json
import time
from typing import TYPE_CHECKING, Any

import click

from amqflow.cli.asynchronous import run
from amqflow.errors import ConfigurationError

if TYPE_CHECKING:
    from amqflow.app import App
    from amqflow.cli.finding import AppSource
    from amqflow.workflow.catalog import Workflow
    from amqflow.workflow.stores import ChordStore


@click.group()
def workflow() -> None:
    """List, draw and cancel workflows: what waits for several tasks."""


@workflow.command("list")
@click.option("--all", "every", is_flag=True, help="Those that have fired, too.")
@click.option("--limit", default=50, show_default=True, help="The most to list.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
@click.pass_obj
def list_(source: AppSource, *, every: bool, limit: int, as_json: bool) -> None:
    """List workflows, the newest first."""
    from amqflow.workflow.catalog import MOST, workflows

    app = source.load()

    async def look() -> list[Workflow]:
        return workflows(await _store(app).kept(MOST, fired=every))[:limit]

    found = run(app, look)
    if as_json:
        click.echo(json.dumps([_described(one) for one in found], ensure_ascii=False))
        return
    if not found:
        nothing = "no workflow waits for anything" if not every else "no workflow is kept"
        click.echo(nothing + _elsewhere(app))
    for one in found:
        known = one.chords[0]
        began = time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(one.created))
        click.echo(f"{known.id}  {one.state:<6}  {began}  {_progress(one)}  {one.title}")


@workflow.command()
@click.argument("task_id", metavar="ID")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
@click.pass_obj
def show(source: AppSource, task_id: str, *, as_json: bool) -> int:
    """Draw the workflow that ID belongs to, as Mermaid, with the states of its tasks.

    ID is that of any task, group or chord in it; exit 1 where none is known.
    """
    from amqflow.workflow.catalog import drawn

    app = source.load()

    async def look() -> tuple[Workflow, str] | None:
        found = await _found(app, task_id)
        if found is None:
            return None
        ids = list(dict.fromkeys(found.ids()))
        outcomes = dict(zip(ids, await app.fetch_outcomes(ids), strict=True))
        return found, drawn(found, outcomes)

    answer = run(app, look)
    if answer is None:
        click.echo(_unknown(task_id) + _elsewhere(app), err=True)
        return 1
    found, picture = answer
    if as_json:
        click.echo(json.dumps({**_described(found), "graph": picture}, ensure_ascii=False))
    else:
        click.echo(picture)
    return 0


@workflow.command()
@click.argument("task_id", metavar="ID")
@click.option("--terminate", is_flag=True, help="End what runs, too.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
@click.pass_obj
def cancel(source: AppSource, task_id: str, *, terminate: bool, as_json: bool) -> int:
    """Cancel the workflow that ID belongs to: what has not run does not run any more.

    What runs goes on unless --terminate says otherwise; delayed retries are reached too.
    """
    app = source.load()

    async def revoke() -> int | None:
        found = await _found(app, task_id)
        return None if found is None else await app.acancel(found, terminate=terminate)

    count = run(app, revoke)
    if count is None:
        click.echo(_unknown(task_id) + _elsewhere(app), err=True)
        return 1
    if as_json:
        click.echo(json.dumps({"id": task_id, "revoked": count}))
    else:
        click.echo(f"cancelled: {count} tasks that had not ended are revoked")
    return 0


async def _found(app: App, task_id: str) -> Workflow | None:
    from amqflow.workflow.catalog import find

    return await find(_store(app), task_id)


def _store(app: App) -> ChordStore:
    store = app.runtime().chords
    if store is None:
        message = (
            "this application's backend keeps no workflows: give AmqFlow(backend=…) a store such "
            "as redis://localhost:6379/0"
        )
        raise ConfigurationError(message)
    return store


def _progress(one: Workflow) -> str:
    known = one.chords[0]
    if known.state == "fired":
        return "all ended"
    size = "?" if known.size is None else str(known.size + len(known.added))
    failed = f", {known.failed} failed" if known.failed else ""
    return f"{known.ended}/{size} ended{failed}"


def _described(one: Workflow) -> dict[str, Any]:
    return {
        "root_id": one.root_id,
        "state": one.state,
        "created": one.created,
        "title": one.title,
        "chords": [
            {
                "id": known.id,
                "state": known.state,
                "size": known.size,
                "added": len(known.added),
                "ended": known.ended,
                "failed": known.failed,
                "result": None if known.spec is None else known.spec.fate.result.id,
            }
            for known in one.chords
        ],
    }


def _unknown(task_id: str) -> str:
    return (
        f"no workflow with {task_id} is kept: it waits for no group, or has expired; "
        "'amqflow why' tells of single tasks"
    )


def _elsewhere(app: App) -> str:
    """Return what explains why this process sees nothing, where its backend does."""
    if not (app.backend_url or "").startswith("memory:"):
        return ""
    return (
        "\nbackend memory:// is each process's own: what other processes have sent or count is not "
        "seen here; redis:// shows it"
    )
