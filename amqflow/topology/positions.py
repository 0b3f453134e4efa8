"""Where each part of a topology file stands, and what is wrong with it there."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass, field
from difflib import get_close_matches
from typing import TYPE_CHECKING, Final, TypeAlias

from amqflow.errors import TopologyError

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

#: The way to a value from the top: keys and list indices, ``("queues", "email", "bindings", 0)``.
Path: TypeAlias = tuple[str | int, ...]

#: Problems an error shows; a file of another kind would fill the screen otherwise.
SHOWN: Final = 25


@dataclass(frozen=True, slots=True, order=True)
class Place:
    """A line and a column, both from 1, as editors count."""

    line: int
    column: int

    def __str__(self) -> str:
        return f"{self.line}:{self.column}"


@dataclass(frozen=True, slots=True)
class Positions:
    """The places of a file's values.

    Args:
        source: The file as the user named it.
        places: Where the key of each value stands; of list items the item itself.
        texts: Scalars as they are written, before YAML read them.
    """

    source: str
    places: Mapping[Path, Place] = field(default_factory=dict)
    texts: Mapping[Path, str] = field(default_factory=dict)

    def of(self, path: Path) -> Place | None:
        """Return the place of a value, or of the nearest thing around it that has one."""
        while path and path not in self.places:
            path = path[:-1]
        return self.places.get(path)

    def show(self, path: Path) -> str:
        """Return ``topology/shop.yaml:12:7``; only the file where nothing has a place."""
        place = self.of(path)
        return self.source if place is None else f"{self.source}:{place}"


@dataclass(frozen=True, slots=True)
class Problem:
    """One thing that is wrong with a file, and the way out."""

    source: str
    path: Path
    text: str
    place: Place | None = None

    def __str__(self) -> str:
        where = self.source if self.place is None else f"{self.source}:{self.place}"
        return (
            f"{where}: {write_path(self.path)}: {self.text}"
            if self.path
            else (f"{where}: {self.text}")
        )


class TopologyFileError(TopologyError):
    """A topology file cannot be read or cannot work; ``problems`` holds all that was found."""

    def __init__(self, problems: Sequence[Problem]) -> None:
        """Show the problems in the file's order, a line each, at most :data:`SHOWN`."""
        self.problems = tuple(sorted(problems, key=lambda problem: problem.place or Place(0, 0)))
        lines = [str(problem) for problem in self.problems[:SHOWN]]
        if (rest := len(self.problems) - SHOWN) > 0:
            lines.append(f"… and {rest} more problems")
        super().__init__("\n".join(lines))


def write_path(path: Path) -> str:
    """Return a path as people write it: ``queues.email.bindings[0].exchange``."""
    written = ""
    for step in path:
        if isinstance(step, int):
            written += f"[{step}]"
            continue
        word = step if re.fullmatch(r"[\w-]+", step) else json.dumps(step, ensure_ascii=False)
        written += f".{word}" if written else word
    return written


def near(name: str, known: Iterable[str]) -> str:
    """Return ``; did you mean `queue`?`` where a known name is near, else nothing."""
    found = get_close_matches(name, list(known), n=1, cutoff=0.6)
    return f"; did you mean `{found[0]}`?" if found else ""
