"""``amqflow queues``: what waits where, and who takes it."""

from __future__ import annotations

import asyncio
import json
import time
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Final

import click

from amqflow.cli.asynchronous import run
from amqflow.cli.finding import import_tasks
from amqflow.errors import NotFound
from amqflow.topology import AppNames, BrokerFacts, dead_queue, suspect_queue
from amqflow.topology.ladder import PREFIX
from amqflow.topology.names import UNDELIVERED

if TYPE_CHECKING:
    from collections.abc import Iterable

    from amqflow.app import App
    from amqflow.cli.finding import AppSource

#: Seconds between two looks of ``--watch``.
EVERY: Final = 2.0


@dataclass(frozen=True, slots=True)
class Row:
    """One queue: its part in the application, and its counts; None where it does not exist."""

    name: str
    part: str
    ready: int | None = None
    consumers: int | None = None


@click.command()
@click.option("--all", "all_parts", is_flag=True, help="Show empty queues of amqflow's own, too.")
@click.option("--watch", is_flag=True, help="Look again every few seconds, until Ctrl-C.")
@click.option(
    "--every",
    type=click.FloatRange(min=0.2),
    default=EVERY,
    show_default=True,
    help="Seconds between looks.",
)
@click.option("--json", "as_json", is_flag=True, help="Print a JSON object per queue.")
@click.pass_obj
def queues(source: AppSource, *, all_parts: bool, watch: bool, every: float, as_json: bool) -> None:
    """Show the application's queues: messages ready, consumers, delayed and dead ones."""
    app = source.load()
    import_tasks(app)

    async def look() -> None:
        while True:
            rows = [row for row in await counted(app) if all_parts or _worth_showing(row)]
            _print(rows, as_json=as_json, clear=watch and not as_json)
            if not watch:
                return
            await asyncio.sleep(every)

    run(app, look)


async def counted(app: App, only: Iterable[str] | None = None) -> list[Row]:
    """Return the counts of an application's queues, work queues first.

    Args:
        app: its tasks are imported.
        only: work queues; None: all that its tasks use or its topology declares.
    """
    transport = app.runtime().transport
    facts = BrokerFacts((await transport.server()).version)

    async def count(name: str, part: str) -> Row:
        try:
            found = await transport.declare_queue(name, passive=True)
        except NotFound:
            return Row(name, part)
        return Row(name, part, found.messages, found.consumers)

    work = list(app.work_queues() if only is None else only)
    names = AppNames(app.main)
    ladder = [
        queue.name
        for queue in app.derived_topology(facts).queues
        if queue.name.startswith(f"{PREFIX}.")
    ]
    asked = [
        *((name, "work") for name in work),
        *((dead_queue(name), "dead") for name in work),
        *((suspect_queue(name), "suspect") for name in work),
        (names.completions, "completions"),
        (names.dropped, "dropped"),
        (names.forward, "forward"),
        (UNDELIVERED, "undelivered"),
        *((name, "delayed") for name in ladder),
    ]
    rows = await asyncio.gather(*(count(*one) for one in asked))
    levels = [row for row in rows if row.part == "delayed"]
    there = [row.ready for row in levels if row.ready is not None]
    # One row for all levels: where in the ladder a message waits tells nobody anything.
    delayed = Row(f"{PREFIX}.*", "delayed", sum(there) if there else None, None)
    return [*(row for row in rows if row.part != "delayed"), delayed]


def _worth_showing(row: Row) -> bool:
    return row.part in {"work", "dead", "delayed"} or bool(row.ready)


def _print(rows: list[Row], *, as_json: bool, clear: bool) -> None:
    if as_json:
        for row in rows:
            click.echo(json.dumps(asdict(row), ensure_ascii=False))
        return
    if clear:
        click.clear()
        click.echo(time.strftime("%H:%M:%S"))
    width = max(len(row.name) for row in rows)
    click.echo(f"{'queue':<{width}}  {'part':<11}  {'ready':>9}  {'consumers':>9}")
    for row in rows:
        if row.ready is None:
            click.echo(f"{row.name:<{width}}  {row.part:<11}  not on the broker yet")
            continue
        consumers = "" if row.consumers is None else f"{row.consumers:,}"
        line = f"{row.name:<{width}}  {row.part:<11}  {row.ready:>9,}  {consumers:>9}"
        idle = row.part == "work" and row.ready and not row.consumers
        dead = row.part in {"dead", "undelivered"} and row.ready
        click.secho(line, fg="red" if idle else "yellow" if dead else None)
