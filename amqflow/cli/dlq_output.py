"""How dead letters are printed: streaming lines for people or programs, and one in full."""

from __future__ import annotations

import asyncio
import json
import os
import re
import shutil
import sys
from dataclasses import asdict
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, Final

import click

from amqflow.deadletters.filters import age_words
from amqflow.errors import Undecodable
from amqflow.protocol import decode, dumps
from amqflow.protocol import headers as h

if TYPE_CHECKING:
    from amqflow.deadletters import Group, Parked, Refusal, Row
    from amqflow.protocol import Limits

#: Lines written at one time at most; the loop goes on meanwhile.
_BATCH: Final = 256
#: Characters of arguments, body and each header that ``show`` prints without ``--full``.
SHOWN: Final = 4000
#: What a terminal would act on: C0 and C1 control characters but tab and line feed.
_CONTROL: Final = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f]")


def printable(text: str) -> str:
    """Return a text of somebody else's that no terminal acts on."""
    return _CONTROL.sub(lambda found: f"\\x{ord(found[0]):02x}", text)


def one_line(text: str | None) -> str:
    """Return a text of somebody else's on one line."""
    return printable(" ".join((text or "").split()))


class Lines:
    """Writes lines to standard output without stopping the loop.

    A pager that nobody scrolls lets a write wait for minutes; in the loop that would cost the
    broker its heartbeats and us the connection.
    """

    def __init__(self) -> None:
        """Start with nothing to write."""
        self._lines: list[str] = []

    async def add(self, line: str) -> None:
        """Write a line, some time soon."""
        self._lines.append(line)
        if len(self._lines) >= _BATCH:
            await self.flush()

    async def flush(self) -> None:
        """Write what waits."""
        lines, self._lines = self._lines, []
        if lines:
            await asyncio.to_thread(_write, "\n".join(lines) + "\n")


def _write(text: str) -> None:
    click.echo(text, nl=False)
    sys.stdout.flush()


def silence_stdout() -> None:
    """Send what is still buffered nowhere: the reader has gone (``| head``)."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


# -- rows ----------------------------------------------------------------------------------

_COLUMNS: Final = (("ID", 36), ("AGE", 5), ("QUEUE", 14), ("TASK", 24), ("REASON", 17), ("WHY", 0))


def moment(seconds: float | None) -> str | None:
    """Return a Unix time as ISO 8601 in UTC."""
    return None if seconds is None else datetime.fromtimestamp(seconds, UTC).isoformat()


def row_json(row: Row) -> str:
    """Return a row as one line of JSON."""
    shown = asdict(row)
    shown["time"] = moment(row.time)
    return json.dumps(shown, ensure_ascii=False)


def header_line() -> str:
    """Return the columns' names."""
    return click.style(_columns([name for name, _ in _COLUMNS]), bold=True)


def row_line(row: Row, now: float) -> str:
    """Return a row as one line for people."""
    age = "?" if row.time is None else age_words(now - row.time)
    why = one_line(_why(row.exception, row.exception_message))
    return _columns([row.id, age, row.queue or row.home, row.task or "?", row.reason, why])


def _why(exception: str | None, message: str | None) -> str:
    short = (exception or "").removeprefix("builtins.")
    return ": ".join(part for part in (short, message) if part)


def _columns(values: list[str]) -> str:
    cells = [
        one_line(value).ljust(width) for value, (_, width) in zip(values, _COLUMNS, strict=True)
    ]
    line = "  ".join(cells).rstrip()
    width = shutil.get_terminal_size().columns
    return line[: width - 1] + "…" if sys.stdout.isatty() and len(line) > width else line


# -- groups --------------------------------------------------------------------------------


def group_json(group: Group) -> str:
    """Return a group as one line of JSON."""
    shown = asdict(group)
    shown["first"], shown["last"] = moment(group.first), moment(group.last)
    return json.dumps(shown, ensure_ascii=False)


def group_lines(group: Group, now: float) -> str:
    """Return a group as a few lines for people."""
    count = click.style(f"{group.count:>7,}", bold=True)
    seen = ""
    if group.first is not None and group.last is not None:
        seen = f"  first {age_words(now - group.first)} ago, last {age_words(now - group.last)} ago"
    head = f"{count}  {one_line(group.task) or '?'}  {one_line(group.reason)}{seen}"
    why = one_line(_why(group.exception, group.exception_message))
    place = f"{one_line(group.fingerprint)}  e.g. {one_line(group.example)}"
    lines = [head, *([f"         {why[:200]}"] if why else []), f"         {place}"]
    return "\n".join(lines)


# -- one in full ---------------------------------------------------------------------------


def letter_text(parked: Parked, limits: Limits, now: float, *, full: bool) -> str:
    """Return all that is known of a dead letter, for people."""
    letter, envelope = parked.letter, parked.envelope
    died = None
    if letter.time is not None:
        died = f"{moment(letter.time)} ({age_words(now - letter.time)} ago)"
    facts: list[tuple[str, Any]] = [
        ("id", parked.id),
        ("task", letter.task),
        ("reason", letter.reason + (" (by the broker)" if letter.by_broker else "")),
        ("exception", letter.exception),
        ("message", letter.exception_message),
        ("died", died),
        ("worker", letter.worker),
        ("attempts", letter.attempts),
        ("epoch", parked.epoch),
        ("fingerprint", letter.fingerprint),
        ("queue", letter.queue),
        ("exchange", letter.exchange or _default(letter.exchange)),
        ("routing key", letter.routing_key),
        ("lies in", parked.home),
        ("body", f"{len(envelope.body):,} bytes, {envelope.content_type or 'no content type'}"),
    ]
    width = max(len(name) for name, _ in facts)
    lines = [
        f"{click.style(name.rjust(width), bold=True)}  {_indented(str(value), width + 2)}"
        for name, value in facts
        if value is not None
    ]
    lines += _payload(parked, limits, full=full)
    if letter.traceback:
        lines += ["", click.style("traceback", bold=True), printable(letter.traceback.rstrip())]
    lines += ["", click.style("headers", bold=True)]
    hidden = {h.TRACEBACK}
    for name, value in sorted(envelope.headers.items()):
        if name not in hidden:
            lines.append(f"  {one_line(name)}: {_cut(printable(repr(value)), full=full)}")
    return "\n".join(lines)


def _default(exchange: str | None) -> str | None:
    return None if exchange is None else "(the default one)"


def _indented(text: str, by: int) -> str:
    return printable(text).rstrip().replace("\n", "\n" + " " * by)


def _payload(parked: Parked, limits: Limits, *, full: bool) -> list[str]:
    """Return args and kwargs, or the body where it cannot be decoded."""
    try:
        message = decode(parked.envelope, limits=limits)
    except Undecodable as error:
        body = parked.envelope.body[: None if full else SHOWN]
        title = click.style("body", bold=True) + f" (not decoded: {one_line(str(error))})"
        return ["", title, _cut(printable(body.decode(errors="backslashreplace")), full=full)]
    lines = []
    for name, value in (("args", message.args), ("kwargs", message.kwargs)):
        plain = json.loads(dumps(value, root=name))
        text = json.dumps(plain, indent=2, ensure_ascii=False)
        lines += ["", click.style(name, bold=True), _cut(printable(text), full=full)]
    return lines


def _cut(text: str, *, full: bool) -> str:
    if full or len(text) <= SHOWN:
        return text
    return f"{text[:SHOWN]}… ({len(text) - SHOWN:,} more characters; --full shows them)"


# -- refusals ------------------------------------------------------------------------------


def refusal_json(refusal: Refusal) -> str:
    """Return a refusal as one line of JSON."""
    target = refusal.target
    return json.dumps(
        {
            "id": refusal.id,
            "home": refusal.home,
            "exchange": target and target.exchange,
            "routing_key": target and target.routing_key,
            "error": refusal.error,
        },
        ensure_ascii=False,
    )


def refusal_line(refusal: Refusal) -> str:
    """Return a refusal as one line for people."""
    return f"stays in {refusal.home}: {one_line(refusal.id)}: {one_line(refusal.error)}"
