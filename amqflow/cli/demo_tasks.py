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
from amqflow.canvas import chain, chord, group

if TYPE_CHECKING:
    from collections.abc import Sequence

    from amqflow.canvas import Signature
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
    """The standard library of the interpreter that runs this, or a folder of the user's.

    ``files`` are paths relative to ``root``, sorted; ``lacks_test_tree`` tells that CPython's
    own tests are not there, which distributions often leave out.
    """

    root: Path
    files: tuple[str, ...]
    title: str
    lacks_test_tree: bool = False


def find_library(path: Path | None = None) -> Library:
    """Return the files of the standard library, or those below ``path``."""
    root = path or standard_library()
    files = sorted(
        file.relative_to(root).as_posix()
        for file in root.rglob("*.py")
        if file.is_file() and not _FOREIGN.intersection(file.relative_to(root).parts)
    )
    if path is not None:
        return Library(root, tuple(files), "The Python files of")
    lacks = not (root / "test" / "test_grammar.py").is_file()
    title = f"{platform.python_implementation()} {platform.python_version()}"
    return Library(root, tuple(files), f"The standard library of {title}:", lacks)


def standard_library() -> Path:
    """Return the folder of the standard library."""
    return Path(sysconfig.get_path("stdlib"))


def is_test(path: str) -> bool:
    """Whether a file belongs to the ``test`` tree or to the tests of a package."""
    return not _TESTS.isdisjoint(path.split("/")[:-1])


def is_flaky(path: str) -> bool:
    """Whether the first attempt on this file is made to fail: the same files on every run."""
    return zlib.crc32(path.encode()) % FLAKY == 0


# -- the task ----------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class FileIndex:
    """What one task found; ``retries`` is how often it had to try again.

    ``broken``: it is no Python of this version, and lies among the dead letters.
    """

    path: str
    lines: int
    functions: int
    classes: int
    imports: list[str]
    retries: int = 0
    broken: bool = False


@dataclass(frozen=True, slots=True)
class PackageIndex:
    """What the tasks of one package found together."""

    name: str
    files: list[FileIndex]


def package_of(path: str) -> str:
    """Return the top-level package or module that a file belongs to."""
    return path.partition("/")[0].removesuffix(".py")


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


@dataclass(frozen=True, slots=True)
class Tasks:
    """The tasks of the demo.

    ``index_file`` is one file's; the workflow is ``scan``, which finds the files and is replaced
    by a chord per package, with ``package`` as body, and a ``report`` over all of them.
    """

    index_file: Task[[str], FileIndex]
    scan: Task[[], list[PackageIndex]]


def index_app(run: str, root: Path) -> tuple[App, Tasks]:  # noqa: C901 - five short tasks
    """Return the application of one run of the demo over files below ``root``, and its tasks.

    Broker and result store are the environment's (``AMQFLOW_BROKER``, ``AMQFLOW_BACKEND``);
    where it names no store that two processes can share, results come back as messages, and the
    files are indexed one by one without a workflow.
    """
    app = App(f"{NAME}.{run}")
    if (app.backend_url or "memory://").startswith("memory:"):
        app.conf.set_flags(result_backend="rpc://")
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

    @app.task(
        bind=True,
        name=f"{NAME}.index_member",
        queue=app.main,
        autoretry_for=(OSError,),
        retry_backoff=BACKOFF,
        max_retries=3,
    )
    def index_member(self: Any, path: str) -> FileIndex:
        # One file that cannot be parsed is no reason to give its package up: it is sent on as a
        # task of its own, which fails and becomes a dead letter.
        retries: int = self.request.retries
        if retries == 0 and is_flaky(path):
            raise OSError(f"{path}: made to fail at the first attempt, to be retried")
        try:
            with parsing:
                return read_file(root / path, path, retries)
        except SyntaxError:
            # Its id is this task's with a tail: a second run of this one sends the same again.
            index_file.apply_async((path,), task_id=f"{self.request.id}.broken", retries=1)
            return FileIndex(path, 0, 0, 0, [], retries, broken=True)

    @app.task(name=f"{NAME}.package", queue=app.main)
    def package(files: list[FileIndex], name: str) -> PackageIndex:
        return PackageIndex(name, files)

    @app.task(name=f"{NAME}.report", queue=app.main)
    def report(found: list[PackageIndex]) -> list[PackageIndex]:
        return sorted(found, key=lambda one: -sum(file.lines for file in one.files))

    @app.task(bind=True, name=f"{NAME}.scan", queue=app.main)
    def scan(self: Any) -> list[PackageIndex]:
        by_package: dict[str, list[str]] = {}
        for path in find_library(root).files:
            by_package.setdefault(package_of(path), []).append(path)
        chords = [
            chord([_member(index_member, path) for path in paths], package.s(name))
            for name, paths in by_package.items()
        ]
        raise self.replace(chain(group(chords), report.s()))

    return app, Tasks(index_file, scan)


def _member(task: Task[[str], FileIndex], path: str) -> Signature[FileIndex]:
    priority = TEST_PRIORITY if is_test(path) else PACKAGE_PRIORITY
    return task.s(path).set(priority=priority)


# -- the worker process ------------------------------------------------------------------------


def worker_command(run: str, slots: int, root: Path) -> Sequence[str]:
    """Return the command line of a worker process for one run over files below ``root``."""
    start = "from amqflow.cli.demo_tasks import serve; serve()"
    # Invalid escapes in the files parsed are their warnings, not ours.
    return (sys.executable, "-W", "ignore", "-c", start, run, str(slots), str(root))


def serve() -> None:
    """Run a worker until told to stop, or until the demo is gone: its end closes our stdin."""
    from amqflow.cli import run_for

    run, slots, root = sys.argv[1:]
    app, _ = index_app(run, Path(root))
    threading.Thread(target=_stop_when_alone, daemon=True).start()
    run_for(app, ["worker", "-Q", app.main, "-c", slots, "-l", "info"])


def _stop_when_alone() -> None:
    sys.stdin.buffer.read()
    os.kill(os.getpid(), signal.SIGTERM)
