"""``amqflow beat``: publish tasks when they are due, and look after the entries."""

from __future__ import annotations

import asyncio
import gc
import json
import logging
import signal
import sys
from contextlib import aclosing
from itertools import islice
from typing import TYPE_CHECKING, Any, Literal, TypeVar

import click

from amqflow.app.loopthread import new_loop
from amqflow.cli import beat_output as out
from amqflow.cli.asynchronous import run
from amqflow.cli.call import Json
from amqflow.cli.finding import import_tasks
from amqflow.logs import configure
from amqflow.scheduler import Desk, Scheduler, check_entries, declared_entries
from amqflow.settings import redact

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine

    from amqflow.app import App
    from amqflow.cli.finding import AppSource

T = TypeVar("T")

_LEVELS = ["debug", "info", "warning", "error", "critical"]


@click.group(invoke_without_command=True)
@click.option(
    "-l",
    "--loglevel",
    type=click.Choice(_LEVELS, case_sensitive=False),
    help="Least level of log lines (default: info).",
)
@click.option("-n", "--name", help="This scheduler's name, for logs and the history.")
@click.option("--log-format", type=click.Choice(["console", "json"]), help="How lines look.")
@click.pass_context
def beat(
    context: click.Context,
    loglevel: str | None,
    name: str | None,
    log_format: Literal["console", "json"] | None,
) -> None:
    """Publish tasks when they are due, until told to stop.

    Any number of schedulers may run: each slot is claimed once in the result store, and what a
    scheduler that dies has claimed is taken over. Without a command it runs; with one it looks
    after the entries.
    """
    if context.invoked_subcommand is not None:
        return
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
    app: App = context.obj.load()
    settings = app.conf.settings
    configure(
        loglevel.upper() if loglevel else settings.log_level, log_format or settings.log_format
    )
    if loglevel != "debug":
        # Each failed attempt to connect is told once, by us.
        logging.getLogger("aiormq.connection").setLevel(logging.CRITICAL)
    import_tasks(app)
    check_entries(app, declared_entries(app).values())
    click.echo(f"amqflow beat of {app.main!r} on {redact(app.broker_url)}", err=True)
    with asyncio.Runner(loop_factory=new_loop) as runner:
        runner.run(_serve(app, name))


async def _serve(app: App, name: str | None) -> None:
    scheduler = Scheduler(app, name=name)
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, scheduler.stop)
    settling = loop.create_task(_settle_heap(scheduler.ready))
    try:
        await scheduler.run()
    finally:
        settling.cancel()


async def _settle_heap(ready: asyncio.Event) -> None:
    """Keep the collector off what stays for good, and from running many times in each burst.

    With a thousand entries a collection of everything takes 20 ms and more, in which nothing goes
    out; in bursts of a thousand messages it came every three seconds.
    """
    await ready.wait()
    gc.collect()
    gc.freeze()
    gc.set_threshold(10_000, 10, 10)


# -- entries -------------------------------------------------------------------------------


def _at_desk(source: AppSource, work: Callable[[App, Desk], Coroutine[Any, Any, T]]) -> T:
    app = source.load()
    import_tasks(app)
    logging.getLogger("aiormq.connection").setLevel(logging.CRITICAL)

    async def at_desk() -> T:
        desk = Desk(app)
        async with aclosing(_Closing(desk)):
            return await work(app, desk)

    return run(app, at_desk)


class _Closing:
    """What ``aclosing`` takes of a desk."""

    def __init__(self, desk: Desk) -> None:
        self._desk = desk

    async def aclose(self) -> None:
        await self._desk.close()


_json = click.option("--json", "as_json", is_flag=True, help="Print a JSON object per line.")


@beat.command("list")
@_json
@click.pass_obj
def list_entries(source: AppSource, *, as_json: bool) -> None:
    """List the entries: when each is due next, and what became of its last slots."""

    async def work(app: App, desk: Desk) -> None:
        now = app.clock.now()
        rows = [out.row(known, now) for known in await desk.known()]
        if as_json:
            for one in rows:
                click.echo(json.dumps(one, ensure_ascii=False))
            return
        out.print_rows(rows)
        if desk.shared:
            click.echo(out.alive(await desk.schedulers()), err=True)
        else:
            click.echo(
                "note: single instance: what the scheduler has in memory is not seen", err=True
            )

    _at_desk(source, work)


@beat.command("next")
@click.argument("name", required=False)
@click.option("--count", type=click.IntRange(1, 10_000), default=10, show_default=True)
@_json
@click.pass_obj
def next_slots(source: AppSource, *, name: str | None, count: int, as_json: bool) -> None:
    """Show the coming slots of all entries, or of NAME, each in its zone and in UTC."""

    async def work(app: App, desk: Desk) -> None:
        known = [await desk.one(name)] if name is not None else await desk.known()
        now = app.clock.now()
        running = [one for one in known if not one.paused]
        slots = sorted(
            (
                (fires, slot, one.entry.name, one.entry)
                for one in running
                for slot, fires in islice(one.slots(now), count)
            ),
            key=lambda known: known[:3],
        )
        out.print_slots([(entry, slot, fires) for fires, slot, _, entry in slots[:count]], as_json)
        for one in known:
            if one.paused:
                click.echo(f"note: {one.entry.name} is paused", err=True)

    _at_desk(source, work)


@beat.command("history")
@click.argument("name")
@click.option("--limit", type=click.IntRange(min=1), default=20, show_default=True)
@_json
@click.pass_obj
def history(source: AppSource, *, name: str, limit: int, as_json: bool) -> None:
    """Show what became of the last slots of NAME, newest first."""

    async def work(_app: App, desk: Desk) -> None:
        out.print_history(await desk.history(name, limit), as_json)

    _at_desk(source, work)


@beat.command("add")
@click.argument("name")
@click.argument("task")
@click.option("--crontab", metavar="'M H D M W'", help="Cron's five fields: '0 2 * * *'.")
@click.option("--every", metavar="DURATION", help="An interval: 30s, 5m, 2h, 1d.")
@click.option("--anchor", metavar="MOMENT", help="Count --every from there, not from now.")
@click.option("--at", metavar="MOMENT", help="Once: 2027-03-01T09:30:00, in the zone.")
@click.option("--timezone", metavar="ZONE", help="Instead of the application's.")
@click.option("-a", "--args", type=Json(list), default="[]", help="Arguments as a JSON list.")
@click.option("-k", "--kwargs", type=Json(dict), default="{}", help="Keywords as a JSON object.")
@click.option("-q", "--queue", help="The queue, instead of the task's own.")
@click.option("--priority", type=click.IntRange(0, 255), help="Higher runs first.")
@click.option("--expires", metavar="DURATION", help="Not run when it has waited so long.")
@click.option("--headers", type=Json(dict), help="Headers as a JSON object.")
@click.option("--catch-up", type=click.Choice(["none", "last", "all"]), help="(default: last)")
@click.option("--max-lateness", metavar="DURATION", help="Later slots are recorded as missed.")
@click.option("--jitter", metavar="DURATION", help="Spread slots over so long.")
@click.option("--overlap", type=click.Choice(["allow", "skip", "queue"]), help="(default: allow)")
@click.option("--foreign", is_flag=True, help="The task is another application's.")
@click.option("--replace", is_flag=True, help="Change an entry of this name.")
@click.pass_obj
def add(source: AppSource, /, *, name: str, replace: bool, **given: Any) -> None:
    """Add an entry NAME that runs TASK; schedulers that run serve it within a second."""

    async def work(app: App, desk: Desk) -> None:
        kept = {key: value for key, value in given.items() if value not in (None, [], {}, False)}
        entry = await desk.add(name, kept, replace=replace)
        now = app.clock.now()
        slot = entry.schedule.next_after(now, start=now)
        assert slot is not None
        click.echo(f"{name}: {entry.task}, {entry.schedule}; next {out.shown(entry, slot)}")

    _at_desk(source, work)


@beat.command("remove")
@click.argument("name")
@click.pass_obj
def remove(source: AppSource, name: str) -> None:
    """Remove the run-time entry NAME and its history."""

    async def work(_app: App, desk: Desk) -> None:
        await desk.remove(name)
        click.echo(f"{name}: removed")

    _at_desk(source, work)


@beat.command("pause")
@click.argument("name")
@click.pass_obj
def pause(source: AppSource, name: str) -> None:
    """Let no slot of NAME run until it is resumed."""

    async def work(_app: App, desk: Desk) -> None:
        done = await desk.pause(name)
        click.echo(f"{name}: paused" if done else f"{name}: was paused already")

    _at_desk(source, work)


@beat.command("resume")
@click.argument("name")
@click.pass_obj
def resume(source: AppSource, name: str) -> None:
    """End a pause of NAME; slots that passed meanwhile are not made up for."""

    async def work(_app: App, desk: Desk) -> None:
        done = await desk.resume(name)
        click.echo(f"{name}: resumed" if done else f"{name}: was not paused")

    _at_desk(source, work)


@beat.command("run-now")
@click.argument("name")
@click.pass_obj
def run_now(source: AppSource, name: str) -> None:
    """Publish the task of NAME once, besides its slots, and print its id."""

    async def work(_app: App, desk: Desk) -> None:
        click.echo(await desk.run_now(name))

    _at_desk(source, work)
