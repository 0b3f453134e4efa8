"""``amqflow topology validate`` and ``lint``: what is wrong with files, and what is dangerous."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import click

from amqflow.cli.topology_file import broker_version, found_files

if TYPE_CHECKING:
    from collections.abc import Iterable

    from amqflow.cli.finding import AppSource
    from amqflow.topology import BrokerFacts, Declaration
    from amqflow.topology.lint import Finding
    from amqflow.topology.positions import Problem

COLORS = {"error": "red", "warning": "yellow", "note": "cyan"}


@click.command()
@click.argument("files", nargs=-1, metavar="[FILE]...")
@broker_version
@click.option("--json", "as_json", is_flag=True, help="Print a JSON object per file.")
@click.pass_obj
def validate(
    source: AppSource, files: tuple[str, ...], *, facts: BrokerFacts | None, as_json: bool
) -> int:
    """Check topology files: every error with its line, column and way out; exit 1 on any."""
    valid = True
    for file in found_files(source, files):
        declared, problems = read(file)
        if declared is not None and facts is not None:
            problems = tuple(declared.impossible_on(facts))
        valid = valid and not problems
        if as_json:
            shown: dict[str, Any] = {"file": file, "valid": not problems}
            shown["problems"] = list(map(_problem, problems))
            click.echo(json.dumps(shown, ensure_ascii=False))
        elif problems:
            show_problems(problems)
        else:
            assert declared is not None
            click.echo(f"{file}: {click.style('ok', fg='green')} ({_counts(declared)})")
    return 0 if valid else 1


@click.command()
@click.argument("files", nargs=-1, metavar="[FILE]...")
@broker_version
@click.option("--show-ignored", is_flag=True, help="Show silenced findings, with their reasons.")
@click.option("--json", "as_json", is_flag=True, help="Print a JSON object per finding.")
@click.pass_obj
def lint(
    source: AppSource,
    files: tuple[str, ...],
    *,
    facts: BrokerFacts | None,
    show_ignored: bool,
    as_json: bool,
) -> int:
    """Find what a broker takes without a word and what loses, doubles or delays messages.

    Each finding has a stable code (docs/lint.md). Exit 1 on errors and warnings; notes alone,
    and findings silenced by a comment `# amqflow: ignore AT104 why`, do not fail.
    """
    from amqflow.topology.lint import Level
    from amqflow.topology.lint import lint as findings_in

    failed = False
    for file in found_files(source, files):
        declared, problems = read(file)
        if declared is None:
            failed = True
            _show_unreadable(file, problems, as_json=as_json)
            continue
        found = findings_in(declared, facts)
        standing = [finding for finding in found if finding.ignored is None]
        failed = failed or any(finding.level is not Level.NOTE for finding in standing)
        shown = found if show_ignored else standing
        if as_json:
            for finding in shown:
                click.echo(json.dumps(_finding(finding), ensure_ascii=False))
        else:
            _show_findings(file, shown, len(found) - len(standing))
    return 1 if failed else 0


def read(file: str) -> tuple[Declaration | None, tuple[Problem, ...]]:
    """Return what a file declares, or what is wrong with it."""
    from amqflow.topology import TopologyFileError
    from amqflow.topology.load import load

    try:
        return load(file), ()
    except TopologyFileError as error:
        return None, error.problems


def show_problems(problems: Iterable[Problem]) -> None:
    """Print problems as compilers do, on the error stream."""
    from amqflow.topology.positions import TopologyFileError

    click.echo(str(TopologyFileError(list(problems))), err=True)


def _show_unreadable(file: str, problems: tuple[Problem, ...], *, as_json: bool) -> None:
    if as_json:
        shown = {"file": file, "valid": False, "problems": list(map(_problem, problems))}
        click.echo(json.dumps(shown, ensure_ascii=False))
    else:
        show_problems(problems)


def _show_findings(file: str, findings: Iterable[Finding], silenced: int) -> None:
    count = 0
    for finding in findings:
        count += 1
        where = finding.source if finding.place is None else f"{finding.source}:{finding.place}"
        code = click.style(f"{finding.code} {finding.level}", fg=COLORS[finding.level])
        reason = "" if finding.ignored is None else f" [ignored: {finding.ignored}]"
        click.echo(f"{where}: {code}: {finding.text}{reason}")
    if not count:
        rest = f" ({silenced} silenced)" if silenced else ""
        click.echo(f"{file}: {click.style('nothing found', fg='green')}{rest}")


def _problem(problem: Problem) -> dict[str, Any]:
    place = problem.place
    return {
        "file": problem.source,
        "line": place and place.line,
        "column": place and place.column,
        "path": list(problem.path),
        "text": problem.text,
    }


def _finding(finding: Finding) -> dict[str, Any]:
    place = finding.place
    return {
        "code": finding.code,
        "title": finding.title,
        "level": finding.level.value,
        "file": finding.source,
        "line": place and place.line,
        "column": place and place.column,
        "path": list(finding.path),
        "text": finding.text,
        "ignored": finding.ignored,
    }


def _counts(declared: Declaration) -> str:
    parts = {
        "exchange": declared.exchanges,
        "queue": declared.queues,
        "route": declared.routes,
    }
    return ", ".join(
        f"{len(found)} {word}{'' if len(found) == 1 else 's'}" for word, found in parts.items()
    )
