"""The house of docs/architecture.md: a room imports only from floors below its own.

Every import statement counts, lazy ones and those under TYPE_CHECKING too, and so does
`import_module("amqflow.…")` with a literal name.
"""

import ast
import sys
from collections.abc import Iterator
from pathlib import Path

PACKAGE = Path(__file__).parents[1] / "amqflow"
FACE = "__init__"

FLOORS: dict[int, tuple[str, ...]] = {
    10: (FACE, "__main__", "testing"),
    9: ("cli", "dev", "dashboard"),
    8: ("worker", "scheduler"),
    7: ("app", "deadletters"),
    6: ("workflow",),
    5: ("producer", "results", "guards", "control", "provision"),
    4: ("transport", "management", "stores"),
    3: ("tasks", "middleware"),
    2: ("canvas", "protocol", "topology", "settings"),
    1: (
        "abc",
        "handles",
        "schedules",
        "current",
        "errors",
        "clock",
        "backoff",
        "tracebacks",
        "logs",
        "rendezvous",
        "signals",
    ),
}
FLOOR_OF = {room: floor for floor, rooms in FLOORS.items() for room in rooms}

# The ground floor stands on its own four shared rooms; nobody else imports a neighbour.
GROUND = 1
SHARED_ON_THE_GROUND = frozenset({"errors", "abc", "clock", "current"})

# The embedded server shares no code with the client: testing one on the other compares two
# readings of AMQP.
ISLAND = "broker"
ISLAND_IMPORTS = frozenset({"errors", "clock"})
ISLAND_DEPENDENCIES = frozenset({"pamqp"})
ISLAND_USERS = frozenset({"dev", "testing", "cli"})


def violations(package: Path) -> list[str]:
    """Return a sentence for every import, and every file, that breaks the rules."""
    found = []
    for file in sorted(package.rglob("*.py")):
        room = _room_of(file.relative_to(package).with_suffix("").parts)
        place = file.relative_to(package.parent)
        if room not in FLOOR_OF and room != ISLAND:
            found.append(f"{place}: `{room}` is no room of the house: give it a floor here first")
            continue
        for line, target in _imports(file, package):
            if reason := _objection(room, target, package):
                found.append(f"{place}:{line}: {reason}")
    return found


def _room_of(parts: tuple[str, ...]) -> str:
    """Return the room of a path below the package: its first part, the face for none."""
    return parts[0] if parts else FACE


def _objection(room: str, target: str, package: Path) -> str | None:
    """Say what is wrong with `room` importing the dotted name `target`, if anything is."""
    top, *rest = target.split(".")
    other = _room_of(tuple(rest))
    if top != package.name:
        return _foreign_objection(top) if room == ISLAND else None
    if room == other:
        return None
    if ISLAND in {room, other}:
        return _island_objection(room, other)
    if other not in FLOOR_OF:
        return f"`{other}` is no room of the house"
    return _floor_objection(room, other)


def _foreign_objection(top: str) -> str | None:
    if top in sys.stdlib_module_names or top in ISLAND_DEPENDENCIES:
        return None
    return f"the island `{ISLAND}` depends on {', '.join(ISLAND_DEPENDENCIES)} only, not `{top}`"


def _island_objection(room: str, other: str) -> str | None:
    if room == ISLAND and other not in ISLAND_IMPORTS:
        return f"the island `{ISLAND}` may not import `{other}`"
    if other == ISLAND and room not in ISLAND_USERS:
        return f"`{room}` may not import the island `{ISLAND}`: take an object"
    return None


def _floor_objection(room: str, other: str) -> str | None:
    mine, theirs = FLOOR_OF[room], FLOOR_OF[other]
    if mine > theirs or (mine == theirs == GROUND and other in SHARED_ON_THE_GROUND):
        return None
    if mine == theirs:
        return f"`{room}` imports `{other}`, a room on its own floor {mine}"
    return f"`{room}` on floor {mine} imports `{other}` on floor {theirs}, above it"


def _imports(file: Path, package: Path) -> Iterator[tuple[int, str]]:
    """Yield the line and the dotted name of everything a file imports."""
    parts = file.relative_to(package.parent).with_suffix("").parts
    own_package = parts[:-1]  # of a module and of an __init__ alike
    nodes = ast.walk(ast.parse(file.read_text(), str(file)))
    for node in sorted(nodes, key=lambda node: getattr(node, "lineno", 0)):
        match node:
            case ast.Import(names=names):
                for name in names:
                    yield node.lineno, name.name
            case ast.ImportFrom(module=module, names=names, level=level):
                base = own_package[: len(own_package) - level + 1] if level else ()
                source = ".".join([*base, *([module] if module else [])])
                for name in names:
                    yield node.lineno, _meant(source, name.name, package)
            case ast.Call(func=ast.Name(id=called) | ast.Attribute(attr=called), args=[first, *_]):
                literal = first.value if isinstance(first, ast.Constant) else None
                if called in {"import_module", "__import__"} and isinstance(literal, str):
                    yield node.lineno, literal


def _meant(source: str, name: str, package: Path) -> str:
    """Return what `from source import name` reaches: a room, or a name of the face."""
    if source != package.name:
        return source
    is_room = (package / name).is_dir() or (package / f"{name}.py").is_file()
    return f"{source}.{name}" if is_room or name in FLOOR_OF or name == ISLAND else source


def test_every_room_imports_only_from_floors_below():
    found = violations(PACKAGE)
    assert not found, "the house is out of order:\n  " + "\n  ".join(found)


def test_the_rules_find_what_they_forbid(tmp_path):
    """A tree with one breach of each rule: without this the test above could not fail."""
    package = tmp_path / "amqflow"
    files = {
        "__init__.py": "from amqflow.app import AmqFlow\n",  # fine
        "app.py": "import os\nfrom amqflow import tasks\n",  # fine
        "tasks/__init__.py": "",
        "tasks/task.py": (
            "from typing import TYPE_CHECKING\n"
            "from . import options\n"  # fine: its own room
            "from amqflow import AmqFlow\n"
            "from ..middleware import age\n"
            "if TYPE_CHECKING:\n"
            "    from amqflow.producer.send import send\n"
            "def lazy():\n"
            "    import amqflow.worker.intake\n"
            "    import_module('amqflow.app')\n"
        ),
        "handles.py": "from amqflow.abc import ResultStore\nimport amqflow.signals\n",
        "protocol/codec.py": "import amqflow.settings, amqflow.errors\n",
        "broker/server.py": (
            "import asyncio, pamqp.frame\n"  # fine
            "from amqflow import clock, errors\n"  # fine
            "import aio_pika\n"
            "from amqflow.protocol import codec\n"
        ),
        "worker/pool.py": "from amqflow.broker import server\n",
        "cli/dev.py": "from amqflow.broker import server\n",  # fine
        "utils.py": "",
    }
    for name, text in files.items():
        (package / name).parent.mkdir(parents=True, exist_ok=True)
        (package / name).write_text(text)
    assert violations(package) == [
        "amqflow/broker/server.py:3: the island `broker` depends on pamqp only, not `aio_pika`",
        "amqflow/broker/server.py:4: the island `broker` may not import `protocol`",
        "amqflow/handles.py:2: `handles` imports `signals`, a room on its own floor 1",
        "amqflow/protocol/codec.py:1: `protocol` imports `settings`, a room on its own floor 2",
        "amqflow/tasks/task.py:3: `tasks` on floor 3 imports `__init__` on floor 10, above it",
        "amqflow/tasks/task.py:4: `tasks` imports `middleware`, a room on its own floor 3",
        "amqflow/tasks/task.py:6: `tasks` on floor 3 imports `producer` on floor 5, above it",
        "amqflow/tasks/task.py:8: `tasks` on floor 3 imports `worker` on floor 8, above it",
        "amqflow/tasks/task.py:9: `tasks` on floor 3 imports `app` on floor 7, above it",
        "amqflow/utils.py: `utils` is no room of the house: give it a floor here first",
        "amqflow/worker/pool.py:1: `worker` may not import the island `broker`: take an object",
    ]
