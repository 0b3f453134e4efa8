"""Runs the analyzers over a file and heeds the comments that silence them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from amqflow.topology.lint.analyzers import ANALYZERS
from amqflow.topology.lint.finding import Finding, Level, Subject
from amqflow.topology.positions import Place

if TYPE_CHECKING:
    from collections.abc import Iterator

    from amqflow.topology.declaration import Declaration
    from amqflow.topology.document import Ignore
    from amqflow.topology.facts import BrokerFacts
    from amqflow.topology.positions import Path

#: What a comment that silences wrongly is called; no comment silences this.
COMMENT: Final = "AT100"
_COMMENT_TITLE: Final = "comment that silences wrongly"

#: Levels of a path that are a part of the file: ``queues.email``.
_PART: Final = 2


def lint(
    declared: Declaration, facts: BrokerFacts | None = None, *, app_name: str = "app"
) -> tuple[Finding, ...]:
    """Return what is dangerous in a file, in the file's order; silenced findings are marked.

    Args:
        declared: The file.
        facts: The broker's version, for findings that depend on it.
        app_name: Whose derived parts are meant.
    """
    subject = Subject(declared, facts, app_name)
    used: set[tuple[int, str]] = set()
    found = [_heed(finding, declared, used) for finding in _all(subject)]
    found += _comments(declared, used)
    return tuple(sorted(found, key=lambda one: (one.place or Place(0, 0), one.code)))


def _all(subject: Subject) -> Iterator[Finding]:
    declared = subject.declared
    for analyzer in ANALYZERS:
        for hit in analyzer.check(subject):
            yield Finding(
                analyzer.code,
                analyzer.title,
                hit.level or analyzer.level,
                hit.text,
                hit.path,
                declared.source,
                declared.positions.of(hit.path),
            )


def _heed(finding: Finding, declared: Declaration, used: set[tuple[int, str]]) -> Finding:
    """Return a finding, marked where a comment at its line or at its part's line silences it."""
    for ignore in declared.ignores:
        if finding.code not in ignore.codes or ignore.covers not in _lines(finding, declared):
            continue
        used.add((ignore.line, finding.code))
        if ignore.reason:
            return Finding(
                finding.code,
                finding.title,
                finding.level,
                finding.text,
                finding.path,
                finding.source,
                finding.place,
                ignore.reason,
            )
    return finding


def _lines(finding: Finding, declared: Declaration) -> set[int]:
    """Return the lines of a finding and of what it is inside of, up to its part."""
    lines: set[int] = set()
    path: Path = finding.path
    while len(path) >= min(_PART, len(finding.path)) and path:
        place = declared.positions.of(path)
        if place is not None:
            lines.add(place.line)
        path = path[:-1]
    return lines


def _comments(declared: Declaration, used: set[tuple[int, str]]) -> Iterator[Finding]:
    """Yield what is wrong with the comments themselves: no code, no reason, nothing to silence."""
    for ignore in declared.ignores:
        for text in _faults(ignore, used):
            yield Finding(
                COMMENT,
                _COMMENT_TITLE,
                Level.WARNING,
                text,
                (),
                declared.source,
                Place(ignore.line, 1),
            )


def _faults(ignore: Ignore, used: set[tuple[int, str]]) -> Iterator[str]:
    if not ignore.codes:
        yield "names no code; write # amqflow: ignore AT104 and why"
    elif not ignore.reason:
        yield f"says no reason; write # amqflow: ignore {' '.join(ignore.codes)} and why"
    for code in ignore.codes:
        if (ignore.line, code) not in used:
            yield f"there is no {code} here; take the comment out"
