"""How the demo shows what it found: tables of results, and the dead letters by exception."""

from __future__ import annotations

from collections import Counter, defaultdict
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import TYPE_CHECKING, Final

from rich import box
from rich.table import Table
from rich.text import Text

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from rich.console import Console

    from amqflow.cli.demo_tasks import FileIndex

#: Rows of a table.
TOP: Final = 10


@dataclass(slots=True)
class PackageCount:
    """The sums over one package, or one module that stands alone."""

    files: int = 0
    lines: int = 0
    functions: int = 0
    classes: int = 0


@dataclass(frozen=True, slots=True)
class Dead:
    """One dead letter as it was found in its queue."""

    path: str
    reason: str
    exception: str
    message: str


def packages(found: Iterable[FileIndex]) -> dict[str, PackageCount]:
    """Return the sums by top-level package or module, the most lines first."""
    counts: defaultdict[str, PackageCount] = defaultdict(PackageCount)
    for file in found:
        count = counts[PurePosixPath(file.path).parts[0].removesuffix(".py")]
        count.files += 1
        count.lines += file.lines
        count.functions += file.functions
        count.classes += file.classes
    return dict(sorted(counts.items(), key=lambda item: (-item[1].lines, item[0])))


def imported(found: Iterable[FileIndex]) -> list[tuple[str, int]]:
    """Return modules with the number of files that import them, most first."""
    counts = Counter(module for file in found for module in file.imports)
    return sorted(counts.items(), key=lambda item: (-item[1], item[0]))


def show_results(console: Console, found: Sequence[FileIndex]) -> None:
    """Print the largest packages and the modules imported most."""
    sums = packages(found)
    table = _table(f"The largest of {len(sums)} packages and modules", "package")
    for name in ("files", "lines", "functions", "classes"):
        table.add_column(name, justify="right")
    for package, count in list(sums.items())[:TOP]:
        numbers = (count.files, count.lines, count.functions, count.classes)
        table.add_row(package, *(f"{number:,}" for number in numbers))
    table.add_section()
    total = (
        len(found),
        sum(count.lines for count in sums.values()),
        sum(count.functions for count in sums.values()),
        sum(count.classes for count in sums.values()),
    )
    table.add_row("all", *(f"{number:,}" for number in total), style="bold")
    console.print(table)
    most = _table("The modules imported most", "module")
    most.add_column("imported by files", justify="right")
    for module, files in imported(found)[:TOP]:
        most.add_row(module, f"{files:,}")
    console.print(most)


def show_dead(console: Console, dead: Sequence[Dead], queue: str) -> None:
    """Print dead letters grouped by their exception."""
    if not dead:
        console.print(f"No dead letters in {queue}: every file of this library can be parsed.")
        return
    table = _table(f"Dead letters, seen in {queue} and left there", "file")
    table.add_column("message", ratio=1)
    groups: defaultdict[tuple[str, str], list[Dead]] = defaultdict(list)
    for letter in dead:
        groups[letter.exception.removeprefix("builtins."), letter.reason].append(letter)
    for (exception, reason), letters in sorted(groups.items()):
        table.add_section()
        table.add_row(f"{exception} ({reason}): {len(letters)}", style="bold")
        for letter in sorted(letters, key=lambda letter: letter.path):
            # Text: what a file's error says is data, none of it markup.
            table.add_row(f"  {letter.path}", Text(letter.message))
    console.print(table)


def _table(title: str, first: str) -> Table:
    table = Table(title=title, title_justify="left", box=box.SIMPLE_HEAD)
    table.add_column(first, no_wrap=True)
    return table
