"""``amqflow dlq``: see what failed, mend it, run it again, or throw it away."""

from __future__ import annotations

import json
import logging
import sys
import time
from contextlib import aclosing, contextmanager
from functools import wraps
from typing import TYPE_CHECKING, Any, Final

import click

from amqflow.cli import dlq_output as out
from amqflow.cli.asynchronous import run
from amqflow.cli.dlq_editor import Draftfile
from amqflow.cli.finding import import_tasks
from amqflow.deadletters import (
    DeadLetterDesk,
    Draft,
    Filters,
    InvalidDraft,
    Parked,
    Refusal,
    Report,
    Target,
    write_line,
)
from amqflow.deadletters.filters import parse_age
from amqflow.errors import AmqflowError
from amqflow.protocol import Limits
from amqflow.tasks.options import parse_rate

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine, Iterator

    from amqflow.app import App
    from amqflow.cli.finding import AppSource
    from amqflow.protocol import Envelope

#: Dead letters a dry run names for people.
NAMED: Final = 20


class NoSuchLetter(AmqflowError):
    """No dead letter has the id that was asked for."""


class NotReplayed(AmqflowError):
    """An edited dead letter was taken by no queue; it stays where it was."""


# -- options -------------------------------------------------------------------------------


class _Age(click.ParamType[float]):
    """An age in words, as seconds."""

    name = "age"

    def convert(
        self, value: Any, param: click.Parameter | None, ctx: click.Context | None
    ) -> float:
        try:
            return parse_age(value) if isinstance(value, str) else float(value)
        except ValueError as error:
            return self.fail(str(error), param, ctx)


class _Rate(click.ParamType[float]):
    """A rate such as ``100/s``, as a number a second."""

    name = "rate"

    def convert(
        self, value: Any, param: click.Parameter | None, ctx: click.Context | None
    ) -> float:
        try:
            limit = parse_rate(float(value) if _is_number(value) else value)
        except (TypeError, ValueError) as error:
            return self.fail(f"{value!r}: {error}", param, ctx)
        if not limit:
            return self.fail("a rate of 0 never ends; leave --rate out for full speed", param, ctx)
        return limit.per_second


def _is_number(value: Any) -> bool:
    try:
        float(value)
    except (TypeError, ValueError):
        return False
    return True


_FILTERS: Final = (
    click.option("-q", "--queue", "queues", multiple=True, help="Dead letters of this work queue."),
    click.option(
        "--dead-queue",
        "homes",
        multiple=True,
        help="Look into this dead-letter queue, also one that amqflow did not make.",
    ),
    click.option("--task", "tasks", multiple=True, metavar="GLOB", help="The task's name."),
    click.option(
        "--reason",
        "reasons",
        multiple=True,
        help="failed, expired, revoked, undecodable, unknown-task, invalid-arguments, poison, "
        "workflow, blob-missing, or the broker's word: maxlen, rejected.",
    ),
    click.option(
        "--exception",
        "exceptions",
        multiple=True,
        metavar="GLOB",
        help="The exception's name, with its module or without.",
    ),
    click.option("--fingerprint", "fingerprints", multiple=True, help="Or its beginning."),
    click.option("--id", "ids", multiple=True, help="The task's id."),
    click.option("--older-than", type=_Age(), metavar="AGE", help="As in 2h, 1d12h, '3 days'."),
    click.option("--newer-than", type=_Age(), metavar="AGE", help="As in 15m."),
    click.option(
        "--force",
        is_flag=True,
        help="Look into queues with a delivery limit too, though each look counts against it.",
    ),
)
_PLACE_NAMES: Final = ("queues", "homes")


def _filtering(command: Callable[..., int]) -> Callable[..., int]:
    """Give a command the filters as options; it gets them as one value, ``filters``."""

    @wraps(command)
    def filtered(
        *given: Any, older_than: float | None, newer_than: float | None, **options: Any
    ) -> int:
        now = time.time()
        names = (*_PLACE_NAMES, "tasks", "reasons", "exceptions", "fingerprints", "ids")
        chosen = {name: tuple(options.pop(name)) for name in names}
        if (more := options.pop("letter_ids", None)) is not None:
            chosen["ids"] += tuple(more)
        filters = Filters(
            **chosen,
            before=None if older_than is None else now - older_than,
            after=None if newer_than is None else now - newer_than,
        )
        return command(*given, filters=filters, **options)

    for option in reversed(_FILTERS):
        filtered = option(filtered)
    return filtered


_json = click.option("--json", "as_json", is_flag=True, help="Print a line of JSON for each.")
_limit = click.option("--limit", type=click.IntRange(min=1), help="End after so many.")
_dry_run = click.option("--dry-run", is_flag=True, help="Only say what would be done.")
_ids = click.argument("letter_ids", metavar="[ID]...", nargs=-1)


def _routing(command: Callable[..., int]) -> Callable[..., int]:
    """Give a command the options for a new route; it gets them as one value, ``to``."""

    @wraps(command)
    def routed(
        *given: Any,
        to_queue: str | None,
        exchange: str | None,
        routing_key: str | None,
        **options: Any,
    ) -> int:
        to = None
        if to_queue is not None and (exchange is not None or routing_key is not None):
            message = "give --to-queue, or --exchange with --routing-key, not both"
            raise click.UsageError(message)
        if to_queue is not None:
            to = Target("", to_queue)
        elif exchange is not None:
            to = Target(exchange, routing_key or "")
        elif routing_key is not None:
            raise click.UsageError("--routing-key needs --exchange")
        return command(*given, to=to, **options)

    for option in (
        click.option("--routing-key", help="The key to that exchange."),
        click.option("--exchange", help="Where to, instead of the queue it came from."),
        click.option("--to-queue", metavar="QUEUE", help="Where to, instead of where it was."),
    ):
        routed = option(routed)
    return routed


# -- running -------------------------------------------------------------------------------


@click.group()
def dlq() -> None:
    """See what failed, mend it, run it again, or throw it away.

    Looking loses nothing and keeps the order. Without filters all dead letters of the
    application's queues are meant.
    """
    # A lost connection is told once, by us.
    logging.getLogger("aiormq.connection").setLevel(logging.CRITICAL)


def _at_desk(
    source: AppSource,
    work: Callable[[DeadLetterDesk], Coroutine[Any, Any, int]],
    *,
    force: bool,
) -> int:
    """Run ``work`` at the application's desk and return the exit code."""
    app = source.load()
    import_tasks(app)

    async def at_desk() -> int:
        desk = await DeadLetterDesk.of(app, force=force, on_others=_note_others)
        return await work(desk)

    try:
        return run(app, at_desk)
    except BrokenPipeError:
        out.silence_stdout()
        return 0


def _note_others(queue: str, count: int) -> None:
    who = "another consumer" if count == 1 else f"{count} other consumers"
    click.echo(f"note: {who} of {queue}: what it holds is not seen here", err=True)


def _limits(app: App) -> Limits:
    return Limits(max_body=app.conf.settings.max_message_size)


@contextmanager
def _progress(title: str, total: int | None, *, hidden: bool) -> Iterator[Callable[[], None]]:
    """Yield a function that counts one more, on a terminal with a bar."""
    if hidden or not sys.stderr.isatty():
        yield lambda: None
        return
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn

    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn())
    with Progress(*columns, console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task(title, total=total)
        yield lambda: bar.advance(task)


async def _expected(desk: DeadLetterDesk, filters: Filters, limit: int | None) -> int | None:
    """Return how many are meant where that is known without a look."""
    if not filters.everything:
        return limit
    total = sum(tally.meant for tally in await desk.tally(filters))
    return total if limit is None else min(limit, total)


# -- looking -------------------------------------------------------------------------------


@dlq.command("list")
@_filtering
@_limit
@_json
@click.pass_obj
def list_letters(
    source: AppSource, *, filters: Filters, force: bool, limit: int | None, as_json: bool
) -> int:
    """List dead letters, queue by queue, oldest first."""

    async def work(desk: DeadLetterDesk) -> int:
        lines, count = out.Lines(), 0
        async with aclosing(desk.rows(filters, limit=limit)) as rows:
            async for row in rows:
                if not count and not as_json:
                    await lines.add(out.header_line())
                count += 1
                await lines.add(out.row_json(row) if as_json else out.row_line(row, time.time()))
        await lines.flush()
        if not count and not as_json:
            click.echo("no dead letters", err=True)
        return 0

    return _at_desk(source, work, force=force)


@dlq.command()
@_filtering
@_limit
@_json
@click.pass_obj
def groups(
    source: AppSource, *, filters: Filters, force: bool, limit: int | None, as_json: bool
) -> int:
    """Count dead letters by their cause (fingerprint), most frequent first."""

    async def work(desk: DeadLetterDesk) -> int:
        lines, now = out.Lines(), time.time()
        found = await desk.groups(filters)
        ordered = found.ordered()[:limit]
        for group in ordered:
            await lines.add(out.group_json(group) if as_json else out.group_lines(group, now))
        if found.others:
            words = f"{found.others:,} more, of further causes"
            await lines.add(json.dumps({"others": found.others}) if as_json else words)
        await lines.flush()
        if not found.total and not as_json:
            click.echo("no dead letters", err=True)
        return 0

    return _at_desk(source, work, force=force)


@dlq.command()
@click.argument("letter_id", metavar="ID")
@click.option("-q", "--queue", "queues", multiple=True, help="Look in this work queue's only.")
@click.option("--dead-queue", "homes", multiple=True, help="Look in this dead-letter queue only.")
@click.option("--force", is_flag=True, help="Look into queues with a delivery limit too.")
@click.option("--full", is_flag=True, help="Cut nothing.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON, as export does.")
@click.pass_obj
def show(
    source: AppSource,
    /,
    letter_id: str,
    queues: tuple[str, ...],
    homes: tuple[str, ...],
    *,
    force: bool,
    full: bool,
    as_json: bool,
) -> int:
    """Show all that is known of one dead letter."""

    async def work(desk: DeadLetterDesk) -> int:
        parked = await _found(desk, letter_id, queues, homes)
        if as_json:
            click.echo(write_line(parked))
        else:
            limits = _limits(source.load())
            click.echo(out.letter_text(parked, limits, time.time(), full=full))
        return 0

    return _at_desk(source, work, force=force)


async def _found(
    desk: DeadLetterDesk, letter_id: str, queues: tuple[str, ...], homes: tuple[str, ...]
) -> Parked:
    parked = await desk.find(letter_id, Filters(queues=queues, homes=homes))
    if parked is None:
        message = f"no dead letter has the id {letter_id}; `dlq list` shows those there are"
        raise NoSuchLetter(message)
    return parked


@dlq.command()
@_filtering
@_limit
@click.pass_obj
def export(source: AppSource, *, filters: Filters, force: bool, limit: int | None) -> int:
    """Write dead letters whole, one line of JSON each; they stay where they are.

    The body is `body` where it is text, else `body_base64`;
    amqflow.deadletters.read_line reads a line back.
    """

    async def work(desk: DeadLetterDesk) -> int:
        lines = out.Lines()
        async with aclosing(desk.letters(filters, limit=limit)) as letters:
            async for parked in letters:
                await lines.add(write_line(parked))
                if len(parked.envelope.body) > _LARGE:
                    await lines.flush()
        await lines.flush()
        return 0

    return _at_desk(source, work, force=force)


#: Bytes of a body that is written at once, so that a batch of lines stays small.
_LARGE: Final = 64 * 1024


# -- acting --------------------------------------------------------------------------------


@dlq.command()
@_ids
@_filtering
@_routing
@click.option("--rate", type=_Rate(), metavar="N/s", help="At most so many: 100/s, 30/m.")
@_limit
@_dry_run
@_json
@click.pass_obj
def replay(
    source: AppSource,
    *,
    filters: Filters,
    to: Target | None,
    force: bool,
    rate: float | None,
    limit: int | None,
    dry_run: bool,
    as_json: bool,
) -> int:
    """Run dead letters again, from their first attempt, in the queue they came from.

    Each is published under confirm and only then taken from its dead-letter queue: a kill at any
    instant loses nothing. What no queue takes stays, is named, and makes the exit code 1.
    """

    async def work(desk: DeadLetterDesk) -> int:
        if dry_run:
            return await _would(desk, filters, limit, as_json=as_json, verb="replay")
        expected = await _expected(desk, filters, limit)
        with _progress("replaying", expected, hidden=as_json) as one_more:
            report = await desk.replay(
                filters,
                to=to,
                rate=rate,
                limit=limit,
                on_done=one_more,
                on_refused=_Refusals(as_json=as_json),
            )
        _check_ids(filters, report)
        return _told(report, "replayed", as_json=as_json)

    return _at_desk(source, work, force=force)


class _Refusals:
    """Prints what stays: all of it as JSON, the first few for people."""

    def __init__(self, *, as_json: bool) -> None:
        self._as_json = as_json
        self._count = 0

    def __call__(self, refusal: Refusal) -> None:
        self._count += 1
        if self._as_json:
            click.echo(out.refusal_json(refusal))
        elif self._count <= NAMED:
            click.echo(out.refusal_line(refusal), err=True)


def _check_ids(filters: Filters, report: Report) -> None:
    """Refuse to call it done where what was asked for by name was not there."""
    if filters.ids and not report.done and not report.refused:
        message = f"no dead letter has the id {' or '.join(filters.ids)}, with these filters"
        raise NoSuchLetter(message)


def _told(report: Report, verb: str, *, as_json: bool) -> int:
    """Print what was done and return the exit code."""
    if as_json:
        counts = {"refused": report.refused, "came_back": report.came_back}
        click.echo(json.dumps({verb: report.done, **counts, "uncertain": report.uncertain}))
    else:
        click.echo(f"{verb} {report.done:,}" + (_rest(report) if verb == "replayed" else ""))
    if report.uncertain:
        click.echo(
            "the connection was lost meanwhile: some of them may lie there still, run twice if "
            "you replay them again",
            err=True,
        )
    return 1 if report.refused or report.uncertain else 0


def _rest(report: Report) -> str:
    parts = []
    if report.refused:
        parts.append(f"{report.refused:,} stay")
    if report.came_back:
        parts.append(f"{report.came_back:,} failed again meanwhile")
    return "".join(f", {part}" for part in parts)


async def _would(
    desk: DeadLetterDesk, filters: Filters, limit: int | None, *, as_json: bool, verb: str
) -> int:
    """Print what a command would do."""
    lines, count = out.Lines(), 0
    async with aclosing(desk.rows(filters, limit=limit)) as rows:
        async for row in rows:
            count += 1
            if as_json:
                await lines.add(out.row_json(row))
            elif count <= NAMED:
                await lines.add(out.row_line(row, time.time()))
    await lines.flush()
    if not as_json:
        more = "" if count <= NAMED else f" (the first {NAMED} are shown)"
        click.echo(f"would {verb} {count:,}{more}")
    return 0


@dlq.command()
@_ids
@_filtering
@click.option("-y", "--yes", is_flag=True, help="Do not ask.")
@_dry_run
@_json
@click.pass_obj
def purge(
    source: AppSource, *, filters: Filters, force: bool, yes: bool, dry_run: bool, as_json: bool
) -> int:
    """Delete dead letters for good; asks before it does."""
    if dry_run:
        return _at_desk(
            source,
            lambda desk: _would(desk, filters, None, as_json=as_json, verb="purge"),
            force=force,
        )
    within: dict[str, int] = {}
    meant = 0

    async def count(desk: DeadLetterDesk) -> int:
        nonlocal meant
        for tally in await desk.tally(filters):
            within[tally.home] = tally.total
            meant += tally.meant
        return 0

    async def work(desk: DeadLetterDesk) -> int:
        with _progress("purging", meant, hidden=as_json) as one_more:
            report = await desk.purge(filters, within=within, on_done=one_more)
        return _told(report, "purged", as_json=as_json)

    _at_desk(source, count, force=force)
    if meant == 0:
        _check_ids(filters, Report())
        click.echo(json.dumps({"purged": 0}) if as_json else "purged 0")
        return 0
    if not yes:
        # Asked outside the loop: what was counted lies in its queues meanwhile.
        places = ", ".join(sorted(within))
        click.confirm(f"Delete {meant:,} dead letters of {places} for good?", abort=True, err=True)
    return _at_desk(source, work, force=force)


# -- editing -------------------------------------------------------------------------------


@dlq.command()
@click.argument("letter_id", metavar="ID")
@click.option("-q", "--queue", "queues", multiple=True, help="Look in this work queue's only.")
@click.option("--dead-queue", "homes", multiple=True, help="Look in this dead-letter queue only.")
@click.option("--yaml", "as_yaml", is_flag=True, help="Edit YAML instead of JSON.")
@click.option(
    "--file", type=click.File(), help="Take the edited text from a file (- is standard input)."
)
@_routing
@click.option("--force", is_flag=True, help="Look into queues with a delivery limit too.")
@_dry_run
@click.pass_obj
def edit(
    source: AppSource,
    /,
    letter_id: str,
    queues: tuple[str, ...],
    homes: tuple[str, ...],
    file: Any,
    *,
    to: Target | None,
    as_yaml: bool,
    force: bool,
    dry_run: bool,
) -> int:
    """Edit a dead letter's task and arguments in $EDITOR, check them, and run it.

    They must fit the task's signature in the application of -A. The dead letter stays where it
    is until the edited message is confirmed.
    """
    app = source.load()
    found: list[Parked] = []

    async def find(desk: DeadLetterDesk) -> int:
        found.append(await _found(desk, letter_id, queues, homes))
        return 0

    _at_desk(source, find, force=force)
    parked = found[0]
    draft = Draft.of(parked, syntax="yaml" if as_yaml else "json", limits=_limits(app))
    draftfile = Draftfile(parked.id, draft.suffix, draft.text)
    try:
        if file is not None:
            draftfile.path.write_text(file.read())
        envelope = _edited(app, draft, draftfile, given=file is not None)
        if envelope is None:
            click.echo("nothing was changed, nothing replayed")
        elif dry_run:
            click.echo(f"{parked.id} fits {envelope.headers['task']}; would replay it")
        else:
            _send_edited(source, parked, envelope, to, force=force)
    except (AmqflowError, click.Abort):
        _keep(draftfile)
        raise
    draftfile.remove()
    return 0


def _keep(draftfile: Draftfile) -> None:
    """Keep what was typed; an untouched draft is nobody's."""
    if draftfile.touched:
        click.echo(f"your text is kept in {draftfile.path}", err=True)
    else:
        draftfile.remove()


def _edited(app: App, draft: Draft, draftfile: Draftfile, *, given: bool) -> Envelope | None:
    """Let the user edit until it fits or they give up; None where nothing was changed."""
    while True:
        text = draftfile.text() if given else draftfile.edit()
        if not draftfile.touched:
            return None
        try:
            return draft.read(text, app.tasks, now=time.time())
        except InvalidDraft as error:
            place = f"{draftfile.path}:{error.line}: " if error.line else f"{draftfile.path}: "
            if given or not (sys.stdin.isatty() and sys.stderr.isatty()):
                raise InvalidDraft(f"{place}{error.problem}") from None
            click.echo(f"{place}{error.problem}", err=True)
            if not click.confirm("Edit again?", default=True, err=True):
                raise click.Abort from None


def _send_edited(
    source: AppSource, parked: Parked, envelope: Envelope, to: Target | None, *, force: bool
) -> None:
    """Replay one dead letter as edited, if it is still there as it was."""

    def rewrite(one: Parked) -> Envelope | None:
        same = one.epoch == parked.epoch and one.envelope.body == parked.envelope.body
        return envelope if same else None

    async def work(desk: DeadLetterDesk) -> int:
        report = await desk.replay(
            Filters(homes=(parked.home,), ids=(parked.id,)), to=to, limit=1, rewrite=rewrite
        )
        if report.refused:
            message = f"{parked.id} stays in {parked.home}: {report.refusals[0].error}"
            raise NotReplayed(message)
        if not report.done:
            message = (
                f"{parked.id} is not in {parked.home} any more as it was: somebody replayed or "
                "purged it meanwhile"
            )
            raise NoSuchLetter(message)
        return _told(report, "replayed", as_json=False)

    _at_desk(source, work, force=force)
