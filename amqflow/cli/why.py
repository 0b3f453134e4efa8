"""``amqflow why``: where a task is, and what it waits for."""

from __future__ import annotations

import json
import time
from typing import TYPE_CHECKING, Any

import click

from amqflow.abc import SUCCESS
from amqflow.cli.asynchronous import run
from amqflow.cli.finding import import_tasks
from amqflow.cli.queues import counted
from amqflow.deadletters import DeadLetterDesk
from amqflow.errors import NoResultStore, StoreError
from amqflow.protocol import NESTING

if TYPE_CHECKING:
    from amqflow.abc import Outcome
    from amqflow.app import App
    from amqflow.cli.finding import AppSource
    from amqflow.deadletters import Parked


@click.command()
@click.argument("task_id", metavar="ID")
@click.option("-t", "--task", help="The task's name, where you know it: says how often it retries.")
@click.option("-q", "--queue", help="The queue it was sent to, where you know it.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
@click.pass_obj
def why(
    source: AppSource, task_id: str, *, task: str | None, queue: str | None, as_json: bool
) -> int:
    """Say where the task ID is and what it waits for; exit 1 where nothing is known of it.

    Work queues are counted, never looked into: RabbitMQ counts a look as a failed delivery.
    """
    app = source.load()
    import_tasks(app)
    known = run(app, lambda: _known(app, task_id, task, queue))
    sentences = known["says"]
    click.echo(json.dumps(known, ensure_ascii=False) if as_json else "\n".join(sentences))
    return 0 if known["found"] else 1


async def _known(app: App, task_id: str, task: str | None, queue: str | None) -> dict[str, Any]:
    outcome, trouble = await _outcome(app, task_id)
    desk = await DeadLetterDesk.of(app)
    ended = outcome is not None and outcome.state == SUCCESS
    letter = None if ended else await desk.find(task_id)
    if letter is not None:
        task = task or letter.row.task
    says = [trouble] if trouble else []
    if outcome is not None:
        says.append(_state(app, outcome, task))
    if letter is not None:
        says += _dead(letter)
    place = await _workflow(app, task_id)
    says += place
    over = letter is not None or (outcome is not None and outcome.terminal)
    if not over:
        if outcome is None and not place:
            says.append(
                "no worker has taken it yet, or its result is not kept, or has expired, or it was "
                "never sent"
            )
        says += _paced(app, task)
        says += await _places(app, _queue_of(app, task, queue))
    return {
        "id": task_id,
        "found": outcome is not None or letter is not None or bool(place),
        "state": None if outcome is None else outcome.state,
        "dead_letter": None if letter is None else letter.home,
        "says": says,
    }


async def _outcome(app: App, task_id: str) -> tuple[Outcome | None, str | None]:
    try:
        return await app.fetch_outcome(task_id), None
    except NoResultStore:
        return None, "the application keeps no results: only dead letters can be found by id"
    except StoreError as error:
        return None, f"the result store does not answer: {error}"


async def _workflow(app: App, task_id: str) -> list[str]:
    """Say which chord a task is in, or waits for."""
    from amqflow.workflow.catalog import find, ids_of

    store = app.runtime().chords
    try:
        found = None if store is None else await find(store, task_id)
    except StoreError:
        return []  # said already
    says = []
    for known in () if found is None else found.chords:
        if known.spec is None or task_id not in (known.id, *ids_of(known)):
            continue
        waits = task_id == known.id or task_id in {end.id for end in known.spec.fate.ends}
        size = "an unknown number of" if known.size is None else known.size + len(known.added)
        what = "it waits for" if waits else "it is a member of"
        failed = f", {known.failed} of them failed" if known.failed else ""
        if known.state == "fired":
            says.append(f"{what} chord {known.id}, whose members have all ended")
        else:
            says.append(f"{what} chord {known.id}: {known.ended} of {size} ended{failed}")
    if says:
        says.append(f"to draw it: amqflow workflow show {task_id}")
    return says


def _state(app: App, outcome: Outcome, task: str | None) -> str:
    done = f" at {_clock(outcome.date_done)}" if outcome.date_done else ""
    error = outcome.exception
    because = f": {error.type}: {error.text}" if error else ""
    attempt = f"attempt {outcome.attempt % NESTING + 1}{_most(app, task)}"
    match outcome.state:
        case "SUCCESS":
            return f"succeeded{done}"
        case "FAILURE":
            return f"failed{done}, {attempt}{because}"
        case "REVOKED":
            return f"revoked{done}: {outcome.reason or 'by request'}"
        case "RETRY":
            return f"{attempt} failed{because}; the next one is {_due(outcome.retry_at)}"
        case "STARTED":
            return f"running, {attempt}"
        case other:
            return f"in state {other}, {attempt}"


def _due(moment: float | None) -> str:
    if moment is None or moment <= time.time():
        return "due"
    return f"delayed until {_clock(moment)}"


def _most(app: App, task: str | None) -> str:
    """Return ``" of 5"`` where the task and so its number of attempts is known."""
    known = app.tasks.get(task) if task else None
    most = None if known is None else known.options.max_retries
    return "" if most is None else f" of {most + 1}"


def _paced(app: App, task: str | None) -> list[str]:
    """Say that a task, where it is known, has a rate limit to wait for."""
    from amqflow.guards.rates import open_rates
    from amqflow.worker.pace import default_rate, limit_of

    known, settings = app.tasks.get(task) if task else None, app.conf.settings
    if known is None or settings.worker_disable_rate_limits:
        return []
    limit = limit_of(known, default_rate(settings.task_default_rate_limit))
    if limit is None:
        return []
    shared = open_rates(app.backend_url, app_name=app.main, clock=app.clock) is not None
    together = "all workers together" if shared else "each worker for itself"
    who = f"{known.name} starts at most {limit}, {together}"
    return [f"{who}: calls beyond that wait in the delays for their turn"]


def _dead(letter: Parked) -> list[str]:
    row = letter.row
    because = f": {row.exception}: {row.exception_message}" if row.exception else ""
    return [
        f"a dead letter in {row.home}, {row.reason}{because}",
        f"to look at it: amqflow dlq show {row.id}",
        f"to run it again: amqflow dlq replay --id {row.id}",
    ]


def _queue_of(app: App, task: str | None, queue: str | None) -> list[str]:
    if queue is not None:
        return [queue]
    known = app.tasks.get(task) if task else None
    if known is not None and known.options.queue is not None:
        return [known.options.queue]
    return list(app.work_queues())


async def _places(app: App, work: list[str]) -> list[str]:
    """Count where it can be waiting."""
    says = []
    for row in await counted(app, work):
        if row.part == "work":
            if row.ready is None:
                says.append(f"queue {row.name}: not on the broker yet")
            else:
                says.append(f"queue {row.name}: {row.ready} ready, {row.consumers} consumers")
        elif row.ready:
            says.append(f"{row.part} in {row.name}: {row.ready}")
    return says


def _clock(seconds: float) -> str:
    return time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(seconds))
