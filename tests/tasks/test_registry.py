"""The registry, task names, and shared tasks."""

from __future__ import annotations

import gc
import subprocess
import sys
import textwrap

import pytest

from amqflow.current import Applications
from amqflow.errors import ConfigurationError, TaskAlreadyRegistered, UnknownTask
from amqflow.tasks import Task, shared_task, task_name
from amqflow.tasks.registry import SharedTasks
from tests.tasks.recording import RecordingApp


@pytest.fixture
def app():
    return RecordingApp()


@pytest.fixture(autouse=True)
def own_shared_tasks(monkeypatch):
    """Keep the process's shared tasks out of these tests, and theirs out of others."""
    monkeypatch.setattr("amqflow.tasks.registry.shared", own := SharedTasks(Applications()))
    monkeypatch.setattr("amqflow.tasks.decorator.shared", own)
    return own


def test_an_unknown_task_is_named_with_the_nearest(app):
    @app.task(name="shop.send")
    def send(): ...

    assert app.tasks["shop.send"] is send
    assert app.tasks.get("shop.sned") is None
    assert "shop.sned" not in app.tasks
    with pytest.raises(UnknownTask, match=r"did you mean 'shop\.send'"):
        app.tasks["shop.sned"]


def test_two_functions_of_one_name_are_refused_with_both_places(app):
    @app.task(name="shop.send")
    def one(): ...

    with pytest.raises(
        TaskAlreadyRegistered, match=r"test_registry\.py:\d+ and .*test_registry\.py:\d+"
    ):

        @app.task(name="shop.send")
        def other(): ...

    assert app.tasks["shop.send"] is one


def test_the_same_function_again_takes_its_own_place(app):
    def declare():
        @app.task
        def again(): ...

        return again

    first, second = declare(), declare()
    assert first.name == second.name
    assert app.tasks[second.name] is second


def test_a_notebooks_cell_may_run_twice(app):
    for cell in ("<ipython-input-1>", "<ipython-input-2>"):
        scope = {"app": app, "__name__": "notebook"}
        exec(compile("@app.task\ndef add(): ...\n", cell, "exec"), scope)
    assert "notebook.add" in app.tasks


def test_unregister(app):
    @app.task(name="shop.send")
    def send(): ...

    app.tasks.unregister(send)
    with pytest.raises(UnknownTask):
        app.tasks.unregister("shop.send")


def test_prepare_finds_wrong_annotations_at_the_start(app):
    @app.task
    def wrong(x: Nowhere): ...  # noqa: F821

    with pytest.raises(ConfigurationError, match="Nowhere"):
        app.tasks.prepare()


def test_names():
    def function(): ...

    assert task_name(function) == f"{__name__}.function"
    function.__module__ = "__main__"
    with pytest.raises(ConfigurationError, match="give a name"):
        task_name(object())


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (["pack/shop.py"], "shop.add"),
        (["-m", "pack.shop"], "pack.shop.add"),
        (["-c", "import runpy; exec(open('pack/shop.py').read())"], "mine.add"),
    ],
)
def test_names_under_main(tmp_path, arguments, expected):
    (tmp_path / "pack").mkdir()
    (tmp_path / "pack" / "__init__.py").touch()
    (tmp_path / "pack" / "shop.py").write_text(
        textwrap.dedent("""
            from amqflow.tasks import task_name
            def add(): ...
            print(task_name(add, "mine"))
        """)
    )
    done = subprocess.run(
        [sys.executable, *arguments], cwd=tmp_path, capture_output=True, text=True, check=True,
        env={"PYTHONPATH": ":".join([str(tmp_path), *sys.path])},
    )  # fmt: skip
    assert done.stdout.strip() == expected


# -- shared tasks -------------------------------------------------------------------------------


def test_a_shared_task_is_in_every_application_of_before_and_after(own_shared_tasks):
    before = RecordingApp("before")
    own_shared_tasks.attach(before)

    @shared_task(queue="q", bind=True)
    def send(self, to: str) -> int:
        return len(to)

    after = RecordingApp("after")
    own_shared_tasks.attach(after)
    for app in (before, after):
        assert app.tasks[send.name].options.queue == "q"
        assert app.tasks[send.name].app is app
    assert send.app is after
    send.delay("a")
    assert (len(before.sent), len(after.sent)) == (0, 1)
    assert isinstance(send, Task)
    assert send("abc") == 3
    assert send == after.tasks[send.name]
    assert hash(send) == hash(after.tasks[send.name])
    send.rate_limit = "1/s"
    assert after.tasks[send.name].options.rate_limit


def test_without_an_application_it_can_be_called_and_described():
    @shared_task
    def add(x: int, y: int) -> int:
        """Add."""
        return x + y

    assert add(1, 2) == 3
    assert add.s(1).task == add.name == f"{__name__}.add"
    assert add.__doc__ == "Add."
    with pytest.raises(ConfigurationError, match="belongs to no application"):
        add.delay(1, 2)
    with pytest.raises(ConfigurationError, match="@shared_task takes a function"):
        shared_task("name")


def test_applications_are_held_weakly(own_shared_tasks):
    class App(RecordingApp): ...

    first, second = App("first"), App("second")
    own_shared_tasks.attach(first)
    own_shared_tasks.attach(second)
    del second
    gc.collect()
    assert own_shared_tasks.current() is first
    del first
    gc.collect()
    assert own_shared_tasks.current() is None


# -- the decorator ------------------------------------------------------------------------------


def test_bare_and_with_options(app):
    @app.task
    def bare(): ...

    @app.task()
    def empty(): ...

    @app.task(name="mine", queue="q")
    def named(): ...

    assert {bare.name, empty.name, "mine"} == set(app.tasks)
    assert named.options.queue == "q"


def test_what_is_no_function_is_refused(app):
    with pytest.raises(ConfigurationError, match=r"keywords only \(@task\(name=\.\.\.\)\)"):
        app.task("shop.send")
    with pytest.raises(ConfigurationError, match="name must be a string"):
        app.task(name=5)(lambda: None)
    with pytest.raises(ConfigurationError, match="did you mean 'queue'"):
        app.task(qeue="x")(lambda: None)


def test_annotations_may_name_what_is_local_where_the_task_is_declared(app):
    from pydantic import BaseModel

    class Local(BaseModel):
        x: int

    @app.task
    def bare(value: Local) -> int:
        return value.x

    @app.task(bind=True)
    def with_options(self, value: Local) -> Local:
        return value

    assert bare.apply(({"x": 5},)).get() == 5
    assert with_options.apply((Local(x=5),)).get() == Local(x=5)
    bare.delay(Local(x=5))
    assert app.sent[0].args == ({"x": 5},)
