"""What mypy makes of tasks: ``delay`` is typed, wrong calls and options are refused."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]

PRELUDE = """
from __future__ import annotations
from typing import Any
from amqflow.handles import AsyncResult
from amqflow.tasks import Task, TaskDecorator, shared_task

class App(TaskDecorator):
    pass

app = App()

@app.task
def bare(to: str, body: str = "") -> int:
    return len(to)

@app.task(queue="email", max_retries=None, rate_limit="10/m", autoretry_for=(OSError,))
def options(to: str, body: str) -> int:
    return len(to)

@app.task(bind=True)
def bound(self: Any, to: str) -> list[int]:
    return []

@app.task
async def coroutine(to: str) -> int:
    return 5

@app.task(bind=True, queue="q")
async def bound_coroutine(self: Task[..., Any], to: str) -> int:
    return 5

@shared_task
def shared(x: int) -> int:
    return x

@shared_task(bind=True)
def shared_bound(self: Any, x: int) -> int:
    return x
"""

FITS = """
value: int = bare("a")
result: AsyncResult[int] = bare.delay("a", body="b")
value = result.get(timeout=5)
value = options.delay("a", "b").get()
numbers: list[int] = bound("a")
numbers = bound.delay("a").get()
value = bare.apply(("a",)).get()
value = bare.s("a").delay().get()
value = shared(1)
value = shared.delay(1).get()
value = shared_bound.delay(1).get()
bare.apply_async(("a",), {"body": "b"}, countdown=5, priority=3, queue="q", link=bare.s())

async def main() -> None:
    value: int = await coroutine("a")
    value = await (await coroutine.adelay("a")).aget()
    value = await coroutine.delay("a")
    value = await bound_coroutine("a")
    value = (await bare.aapply_async(("a",))).get()
"""

REFUSED = [
    ("options.delay(1)", "arg-type"),
    ('options.delay("a")', "call-arg"),
    ('options.delay("a", "b", "c")', "call-arg"),
    ('options.delay("a", nonsense=1)', "call-arg"),
    ("bare(1)", "arg-type"),
    ("bound.delay(1)", "arg-type"),
    ('bound.delay("a", "b")', "call-arg"),
    ("coroutine.delay(1)", "arg-type"),
    ("bound_coroutine.delay(1)", "arg-type"),
    ('shared.delay("x")', "arg-type"),
    ('shared_bound.delay("x")', "arg-type"),
    ('s: str = bare.delay("a").get()', "assignment"),
    ('t: str = bare("a")', "assignment"),
    ('i: int = coroutine("a")', "assignment"),
    ('bare.apply_async(("a",), countdwon=5)', "call-arg"),
    ('bare.apply_async(("a",), queue=5)', "typeddict-item|arg-type"),
    ('app.task(qeue="x")', "call-overload"),
    ('app.task(max_retries="many")', "call-overload"),
    ('bare.delay("a").gte()', "attr-defined"),
]  # fmt: skip


@pytest.fixture(scope="module")
def mypy(tmp_path_factory):
    """Run mypy over the prelude and some lines; returns its errors by the line they are in."""
    folder = tmp_path_factory.mktemp("mypy")

    def run(lines):
        file = folder / "snippet.py"
        file.write_text(PRELUDE + "\n".join(lines) + "\n")
        first = len(PRELUDE.splitlines()) + 1
        done = subprocess.run(
            [
                sys.executable, "-m", "mypy", "--strict", "--config-file", "",
                "--follow-imports=silent", "--cache-dir", str(folder / "cache"), str(file),
            ],
            env={"MYPYPATH": str(ROOT), "PATH": ""}, capture_output=True, text=True, check=False,
            cwd=folder,
        )  # fmt: skip
        assert done.returncode in {0, 1}, done.stdout + done.stderr
        errors = {}
        for line in done.stdout.splitlines():
            if ": error:" in line:
                place, _, text = line.partition(": error:")
                errors.setdefault(int(place.rsplit(":", 1)[1]) - first, []).append(text)
        return errors

    return run


def test_correct_use_has_no_errors(mypy):
    assert mypy(FITS.splitlines()) == {}


def test_every_wrong_use_is_refused(mypy):
    errors = mypy([line for line, _ in REFUSED])
    for number, (line, code) in enumerate(REFUSED):
        found = " ".join(errors.get(number, ["no error"]))
        assert any(f"[{one}]" in found for one in code.split("|")), f"{line}: {found}"
