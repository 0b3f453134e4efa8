"""How plans are printed: coloured lines as Terraform's, JSON, and progress on a terminal."""

from __future__ import annotations

import sys
from collections import Counter
from typing import TYPE_CHECKING, Any, Final

import click

from amqflow.cli.dlq_output import one_line
from amqflow.topology.ladder import PREFIX
from amqflow.topology.model import Exchange, Queue
from amqflow.topology.plan import Action, Create, Delete, Replace, Update, kind_of, name_of

if TYPE_CHECKING:
    from collections.abc import Iterator

    from amqflow.topology.plan import Change, Difference, Plan

_SIGNS: Final = {
    Action.CREATE: ("+", "green"),
    Action.UPDATE: ("~", "yellow"),
    Action.REPLACE: ("-/+", "magenta"),
    Action.DELETE: ("-", "red"),
}
#: Changes a terminal shows as under way at one time.
_WIDTH: Final = 78


def plan_lines(plan: Plan, *, full: bool) -> Iterator[str]:
    """Yield a plan's lines for people; the ladder's parts are one line unless ``full``."""
    ladder: list[Change] = []
    for change in plan.changes:
        if not full and isinstance(change, Create) and name_of(change).startswith(PREFIX):
            ladder.append(change)
        else:
            yield from _change(change)
    if ladder:
        counts = Counter(kind_of(change) for change in ladder)
        words = ", ".join(f"{count} {_plural(kind, count)}" for kind, count in counts.items())
        yield f"{_sign(Action.CREATE)} the delay ladder: {words}   (--full shows each)"
    if plan.changes:
        yield ""
    for kept in plan.kept:
        yield f"  {kind_of(kept)} {one_line(name_of(kept))} {kept.reason}; --prune deletes it"
    if count := len(plan.unverified):
        yield f"  {count} {_plural('binding', count)} cannot be seen; apply binds them again"
    for text in plan.unseen:
        yield f"{click.style('note', fg='cyan')}: {one_line(text)}"
    yield _summary(plan)


def _summary(plan: Plan) -> str:
    if not plan:
        return f"No changes: {plan.unchanged} parts are as declared."
    counts = ", ".join(f"{plan.count(action)} to {action}" for action in Action)
    return f"Plan: {counts}; {plan.unchanged} as declared."


def _change(change: Change) -> Iterator[str]:
    name = click.style(one_line(name_of(change)), bold=True)
    yield f"{_sign(change.action)} {kind_of(change)} {name}   ({one_line(change.source)})"
    yield f"      {one_line(change.reason)}"
    if isinstance(change, Update | Replace):
        for one in change.differences:
            yield f"      {one.argument}: {_value(one.live)} → {_value(one.declared)}"
    elif isinstance(change.part, Queue | Exchange):
        yield f"      type: {change.part.type}"
        arguments = change.part.declare_arguments()
        for key in sorted(arguments.keys() - {"x-queue-type"}):
            yield f"      {key}: {_value(arguments[key])}"


def _sign(action: Action) -> str:
    sign, colour = _SIGNS[action]
    return click.style(f"{sign:>3}", fg=colour, bold=True)


def _value(value: object) -> str:
    return "not set" if value is None else one_line(str(value))


def _plural(kind: str, count: int) -> str:
    if count == 1:
        return kind
    return "policies" if kind == "policy" else f"{kind}s"


# -- for programs --------------------------------------------------------------------------


def plan_json(plan: Plan) -> dict[str, Any]:
    """Return a plan as JSON's values."""
    return {
        "changes": [change_json(change) for change in plan.changes],
        "kept": [change_json(change) for change in plan.kept],
        "unverified": [change_json(change) for change in plan.unverified],
        "unseen": list(plan.unseen),
        "counts": {action.value: plan.count(action) for action in Action},
        "unchanged": plan.unchanged,
        "fingerprint": plan.fingerprint,
    }


def change_json(change: Change) -> dict[str, Any]:
    """Return one change as JSON's values."""
    found: dict[str, Any] = {
        "action": change.action.value,
        "kind": kind_of(change),
        "name": name_of(change),
        "reason": change.reason,
        "source": change.source,
    }
    if isinstance(change, Update | Replace):
        found["differences"] = [_difference(one) for one in change.differences]
    if isinstance(change, Replace):
        found["begun"] = change.begun
    if not isinstance(change, Delete) and isinstance(change.part, Queue | Exchange):
        found["type"] = str(change.part.type)
        found["arguments"] = change.part.declare_arguments()
    return found


def _difference(one: Difference) -> dict[str, Any]:
    return {"argument": one.argument, "live": one.live, "declared": one.declared}


# -- while it is applied -------------------------------------------------------------------

_DONE: Final = {
    Action.CREATE: "created",
    Action.UPDATE: "updated",
    Action.REPLACE: "replaced",
    Action.DELETE: "deleted",
}


class Steps:
    """Tells what is applied: a line that is written over on a terminal, else what matters."""

    def __init__(self, total: int, *, as_json: bool) -> None:
        """Expect ``total`` changes; nothing is told where the output is JSON."""
        self.count = 0
        self._total = total
        self._silent = as_json
        self._terminal = sys.stderr.isatty()
        self._steps: dict[str, str] = {}

    def done(self, change: Change) -> None:
        """Note a change that is applied."""
        self.count += 1
        if isinstance(change, Replace | Delete) and not self._silent:
            self.end()
            click.echo(f"{_DONE[change.action]} {kind_of(change)} {one_line(name_of(change))}")
        self._over(f"{self.count}/{self._total} applied")

    def moving(self, queue: str, step: str, moved: int, left: int) -> None:
        """Note how far a queue's replacement is."""
        counts = f": {moved:,} moved, {left:,} left" if moved or left else ""
        if self._terminal:
            self._over(f"{one_line(queue)}: {step}{counts}")
        elif self._steps.get(queue) != step and not self._silent:
            click.echo(f"{one_line(queue)}: {step}", err=True)
        self._steps[queue] = step

    def end(self) -> None:
        """Clear the line."""
        self._over("")

    def finish(self) -> None:
        """Say that all is done."""
        self.end()
        if not self._silent:
            click.echo(f"Applied {self.count} changes.")

    def _over(self, text: str) -> None:
        if self._terminal:
            click.echo(f"\r\033[K{text[:_WIDTH]}", nl=False, err=True)
