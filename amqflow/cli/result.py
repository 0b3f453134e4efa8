"""``amqflow result``: show what the store keeps of a task."""

from __future__ import annotations

import asyncio
import json
from typing import TYPE_CHECKING, Any, Final

import click

from amqflow.abc import PENDING, SUCCESS, TERMINAL_STATES
from amqflow.cli.asynchronous import run
from amqflow.clock import to_datetime
from amqflow.errors import ResultTimeout
from amqflow.protocol import NESTING
from amqflow.protocol.codec import dumps

if TYPE_CHECKING:
    from amqflow.abc import Outcome
    from amqflow.cli.finding import AppSource
    from amqflow.handles import AsyncResult


#: Seconds between two looks at a task that is followed.
LOOK: Final = 0.2


@click.command()
@click.argument("task_id", metavar="ID")
@click.option("--wait", is_flag=True, help="Wait until it has ended.")
@click.option("--follow", is_flag=True, help="Show every state it goes through until it has ended.")
@click.option(
    "--timeout",
    type=click.FloatRange(min=0),
    default=60.0,
    show_default=True,
    help="Seconds to wait; with --follow, since the last change.",
)
@click.option("--traceback", is_flag=True, help="Show the traceback of a failed task.")
@click.option("--forget", is_flag=True, help="Drop it from the store after showing it.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
@click.pass_obj
def result(
    source: AppSource,
    task_id: str,
    *,
    wait: bool,
    follow: bool,
    timeout: float,
    traceback: bool,
    forget: bool,
    as_json: bool,
) -> int:
    """Show the state and result of the task ID; exit 1 where it failed or has not ended."""
    app = source.load()

    async def look() -> int:
        handle = app.AsyncResult(task_id)
        if follow:
            await _follow(handle, timeout, as_json=as_json)
        elif wait:
            await handle.aget(timeout, propagate=False)
        known = describe(task_id, await handle.aoutcome())
        code = report(known, as_json=as_json, traceback=traceback)
        if forget:
            await handle.aforget()
        return code

    return run(app, look)


async def _follow(handle: AsyncResult[Any], timeout: float, *, as_json: bool) -> None:
    """Print each state but the last, which the caller reports, as it comes.

    The end is pushed; states in between are looked for, because a store keeps only the latest.

    Raises:
        ResultTimeout: Nothing changed for ``timeout`` seconds.
    """
    ending = asyncio.ensure_future(handle.await_end())
    seen: tuple[str, Any] | None = None
    loop = asyncio.get_running_loop()
    changed = loop.time()
    try:
        while not ending.done():
            known = await handle.aoutcome()
            state = (PENDING, None) if known is None else (known.state, known.result)
            if state != seen and state[0] not in TERMINAL_STATES:
                seen, changed = state, loop.time()
                _show_state(handle.id, *state, as_json=as_json)
            if loop.time() - changed > timeout:
                raise ResultTimeout(f"no change within {timeout:g} s: {await handle.aexplain()}")
            await asyncio.wait([ending], timeout=LOOK)
        ending.result()
    finally:
        ending.cancel()


def _show_state(task_id: str, state: str, meta: Any, *, as_json: bool) -> None:
    if as_json:
        known = {"id": task_id, "state": state, "result": meta}
        click.echo(json.dumps(json.loads(dumps(known)), ensure_ascii=False))
    else:
        click.echo(state if meta is None else f"{state:<10} {meta}")


def describe(task_id: str, outcome: Outcome | None) -> dict[str, Any]:
    """Return what is known of a task as plain data; what is not known is left out."""
    if outcome is None:
        return {"id": task_id, "state": PENDING}
    error = outcome.exception
    known = {
        "id": task_id,
        "state": outcome.state,
        "result": outcome.result,
        "exception": error and {"type": error.type, "module": error.module, "message": error.text},
        "reason": outcome.reason,
        "date_done": outcome.date_done and to_datetime(outcome.date_done).isoformat(),
        "attempt": outcome.attempt % NESTING + 1,
        "children": list(outcome.children) or None,
        "traceback": outcome.traceback,
    }
    kept = {"result"} if outcome.state == SUCCESS else set()
    return {name: value for name, value in known.items() if value is not None or name in kept}


def report(known: dict[str, Any], *, as_json: bool, traceback: bool) -> int:
    """Print what is known of a task; return the exit code, 0 for a success."""
    if as_json:
        # The codec of the wire: results hold what plain JSON cannot, such as dates.
        click.echo(json.dumps(json.loads(dumps(known)), ensure_ascii=False))
    else:
        text = known.pop("traceback", None)
        if error := known.pop("exception", None):
            known["exception"] = f"{error['type']}: {error['message']}"
        for name, value in known.items():
            click.echo(f"{name:<10} {value}")
        if traceback and text:
            click.echo(text)
        if known["state"] not in TERMINAL_STATES:
            click.echo("it has not ended, or its result was never kept or has expired", err=True)
    return 0 if known["state"] == SUCCESS else 1
