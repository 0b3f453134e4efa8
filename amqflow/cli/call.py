"""``amqflow call``: send one task by name, and wait for its result where asked."""

from __future__ import annotations

import json
from difflib import get_close_matches
from typing import TYPE_CHECKING, Any

import click

from amqflow.cli.asynchronous import run
from amqflow.cli.finding import import_tasks
from amqflow.cli.result import describe, report
from amqflow.errors import ConfigurationError

if TYPE_CHECKING:
    from amqflow.app import App
    from amqflow.cli.finding import AppSource
    from amqflow.handles import AsyncResult


class Json(click.ParamType[Any]):
    """JSON of one type, as an option's value."""

    name = "json"

    def __init__(self, kind: type[list[Any] | dict[str, Any]]) -> None:
        """Take a list or an object."""
        self._kind = kind

    def convert(
        self, value: Any, param: click.Parameter | None, ctx: click.Context | None
    ) -> list[Any] | dict[str, Any]:
        """Read the text, or say what it should look like."""
        example = "'[1, \"two\"]'" if self._kind is list else '\'{"to": "a@b.c"}\''
        try:
            found = json.loads(value) if isinstance(value, str) else value
        except ValueError as error:
            self.fail(f"{value!r} is not JSON ({error}); write {example}", param, ctx)
        if not isinstance(found, self._kind):
            self.fail(f"{value!r} is not what is meant here; write {example}", param, ctx)
        return found


@click.command()
@click.argument("task")
@click.option("-a", "--args", type=Json(list), default="[]", help="Arguments as a JSON list.")
@click.option("-k", "--kwargs", type=Json(dict), default="{}", help="Keywords as a JSON object.")
@click.option("--countdown", type=click.FloatRange(min=0), help="Seconds from now.")
@click.option("--eta", help="When to run, ISO 8601; without a zone it is UTC.")
@click.option("--expires", type=click.FloatRange(min=0), help="Seconds until it is not run.")
@click.option("--priority", type=click.IntRange(0, 255), help="Higher runs first.")
@click.option("-q", "--queue", help="The queue, instead of the task's own.")
@click.option("--exchange", help="The exchange, instead of the route's.")
@click.option("--routing-key", help="The routing key, instead of the route's.")
@click.option("--task-id", help="The id, instead of a new one.")
@click.option("--wait", is_flag=True, help="Wait for the result and show it.")
@click.option(
    "--timeout",
    type=click.FloatRange(min=0),
    default=60.0,
    show_default=True,
    help="Seconds to wait.",
)
@click.option("--force", is_flag=True, help="Send a task that the application does not know.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
@click.pass_obj
def call(
    source: AppSource,
    /,
    task: str,
    *,
    args: list[Any],
    kwargs: dict[str, Any],
    wait: bool,
    timeout: float,
    force: bool,
    as_json: bool,
    **options: Any,
) -> int:
    """Send TASK and print its id, once the broker has confirmed it."""
    app = source.load()
    import_tasks(app)
    if not force:
        _check_known(app, task)
    given = {name: value for name, value in options.items() if value is not None}

    async def send() -> int:
        try:
            sent = await _send(app, task, args, kwargs, given)
        except (TypeError, ValueError) as error:  # an option of impossible value; it says which
            raise ConfigurationError(str(error)) from error
        if not wait:
            shown = {"id": sent.id, "task": task, "queue": sent.queue}
            click.echo(json.dumps(shown) if as_json else sent.id)
            return 0
        await sent.aget(timeout, propagate=False)
        known_of = describe(sent.id, await sent.aoutcome())
        return report(known_of, as_json=as_json, traceback=False)

    return run(app, send)


async def _send(
    app: App, task: str, args: list[Any], kwargs: dict[str, Any], options: dict[str, Any]
) -> AsyncResult[Any]:
    """Send it by the task itself where it is known: that checks arguments by its annotations."""
    known = app.tasks.get(task)
    if known is None:
        return await app.asend_task(task, args, kwargs, **options)
    return await known.aapply_async(tuple(args), kwargs, **options)


def _check_known(app: App, task: str) -> None:
    if app.tasks.get(task) is not None:
        return
    near = get_close_matches(task, list(app.tasks), n=1)
    hint = f"did you mean {near[0]!r}? " if near else ""
    message = (
        f"the application {app.main!r} knows no task {task!r}: {hint}"
        "--force sends it all the same, for workers that know it"
    )
    raise ConfigurationError(message)
