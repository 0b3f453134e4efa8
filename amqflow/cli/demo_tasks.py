"""What the demo runs: one task per file of Python's standard library, and the worker for it."""

from __future__ import annotations

import ast
import os
import platform
import signal
import sys
import sysconfig
import threading
import zlib
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from amqflow.app import App

if TYPE_CHECKING:
    from collections.abc import Sequence

    from amqflow.tasks import Task

#: The application's name; a run adds its own id, so that two runs on one broker never meet.
NAME: Final = "stdlib_index"
TASK: Final = f"{NAME}.index_file"

PACKAGE_PRIORITY: Final = 8
TEST_PRIORITY: Final = 1
#: Every so many-th file, by the hash of its name, is made to fail at its first attempt.
FLAKY: Final = 16
#: Seconds before the first retry; it doubles from there.
BACKOFF: Final = 0.4

#: Folders below the standard library's that are none of it.
_FOREIGN: Final = frozenset({"site-packages", "dist-packages", "__pycache__"})
_TESTS: Final = frozenset({"test", "tests", "idle_test"})


# -- the input ---------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Library:
    """The standard library of the interpreter that runs this.

    ``files`` are paths relative to ``root``, sorted; ``has_test_tree`` tells whether CPython's
    own tests are there, which distributions often leave out.
    """

    root: Path
    files: tuple[str, ...]
    has_test_tree: bool

    @property
    def title(self) -> str:
        """Which Python this is, for people."""
        return f"{platform.python_implementation()} {platform.python_version()}"


def find_library(root: Path | None = None) -> Library:
    """Return the files of the standard library; ``root`` is another folder to take for it."""
    root = root or Path(sysconfig.get_path("stdlib"))
    files = sorted(
        path.relative_to(root).as_posix()
        for path in root.rglob("*.py")
        if path.is_file() and not _FOREIGN.intersection(path.relative_to(root).parts)
    )
    return Library(root, tuple(files), (root / "test" / "test_grammar.py").is_file())


def is_test(path: str) -> bool:
    """Whether a file belongs to the ``test`` tree or to the tests of a package."""
    return not _TESTS.isdisjoint(path.split("/")[:-1])


def is_flaky(path: str) -> bool:
    """Whether the first attempt on this file is made to fail: the same files on every run."""
    return zlib.crc32(path.encode()) % FLAKY == 0


# -- the task ----------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class FileIndex:
    """What one task found; ``retries`` is how often it had to try again."""

    path: str
    lines: int
    functions: int
    classes: int
    imports: list[str]
    retries: int = 0


def read_file(path: Path, name: str, retries: int = 0) -> FileIndex:
    """Parse one file and count what it defines and imports.

    Raises:
        SyntaxError: It is no Python of this version.
        OSError: It cannot be read.
    """
    source = path.read_bytes()
    functions = classes = 0
    imports: set[str] = set()
    for node in ast.walk(ast.parse(source, name)):
        match node:
            case ast.FunctionDef() | ast.AsyncFunctionDef():
                functions += 1
            case ast.ClassDef():
                classes += 1
            case ast.Import():
                imports.update(alias.name.partition(".")[0] for alias in node.names)
            case ast.ImportFrom(level=0, module=str(module)):
                imports.add(module.partition(".")[0])
    return FileIndex(name, len(source.splitlines()), functions, classes, sorted(imports), retries)


def index_app(run: str) -> tuple[App, Task[[str], FileIndex]]:
    """Return the application of one run of the demo, and its task.

    Broker and result store are the environment's (``AMQFLOW_BROKER``, ``AMQFLOW_BACKEND``);
    where it names no store that two processes can share, results come back as messages.
    """
    app = App(f"{NAME}.{run}")
    if (app.conf.settings.result_backend or "memory://").startswith("memory:"):
        app.conf.set_flags(result_backend="rpc://")
    root = Path(sysconfig.get_path("stdlib"))
    # Two threads in ast.parse at once make CPython up to 3.12 raise SystemError for a good file
    # (python/cpython#106905); under the GIL they could not run side by side anyway.
    parsing = threading.Lock()

    @app.task(
        bind=True,
        name=TASK,
        queue=app.main,
        priority=PACKAGE_PRIORITY,
        autoretry_for=(OSError,),
        retry_backoff=BACKOFF,
        max_retries=3,
        ignore_result=False,
    )
    def index_file(self: Any, path: str) -> FileIndex:
        retries: int = self.request.retries
        if retries == 0 and is_flaky(path):
            raise OSError(f"{path}: made to fail at the first attempt, to be retried")
        with parsing:
            return read_file(root / path, path, retries)

    return app, index_file


# -- the worker process ------------------------------------------------------------------------


def worker_command(run: str, slots: int) -> Sequence[str]:
    """Return the command line of a worker process for one run."""
    start = "from amqflow.cli.demo_tasks import serve; serve()"
    # Invalid escapes in the files parsed are their warnings, not ours.
    return (sys.executable, "-W", "ignore", "-c", start, run, str(slots))


def serve() -> None:
    """Run a worker until told to stop, or until the demo is gone: its end closes our stdin."""
    from amqflow.cli import run_for

    run, slots = sys.argv[1:]
    app, _ = index_app(run)
    threading.Thread(target=_stop_when_alone, daemon=True).start()
    run_for(app, ["worker", "-Q", app.main, "-c", slots, "-l", "info"])


def _stop_when_alone() -> None:
    sys.stdin.buffer.read()
    os.kill(os.getpid(), signal.SIGTERM)
