"""The tasks of an application by name, and the tasks of libraries that wait for one."""

from __future__ import annotations

import inspect
import sys
import threading
from difflib import get_close_matches
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from amqflow.current import Applications, applications
from amqflow.errors import ConfigurationError, TaskAlreadyRegistered, UnknownTask
from amqflow.tasks.task import AsyncTask, Task

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from amqflow.tasks.task import TaskApp


class TaskRegistry(dict[str, Task[Any, Any]]):
    """Tasks by name (``app.tasks``).

    What runs ``map`` and its kin is found by name, and is no member: it is nobody's task.
    """

    def __init__(self) -> None:
        """Hold no task yet."""
        super().__init__()
        self.builtin: dict[str, Task[Any, Any]] = {}

    def get(  # type: ignore[override]
        self, name: str, default: Task[Any, Any] | None = None
    ) -> Task[Any, Any] | None:
        """Return the task of a name, a built-in one too; ``default`` where there is none."""
        found = super().get(name)
        return self.builtin.get(name, default) if found is None else found

    def declare(
        self,
        function: Callable[..., Any],
        options: Mapping[str, Any],
        *,
        app: Any = None,
        namespace: Mapping[str, Any] | None = None,
    ) -> Task[Any, Any]:
        """Make a function a task of ``app`` and register it (see :meth:`TaskDecorator.task`)."""
        task = build_task(
            function,
            app=app,
            main=getattr(app, "main", None),
            options=options,
            default_base=getattr(app, "task_cls", Task),
            namespace=namespace,
        )
        self.register(task)
        return task

    def register(self, task: Task[Any, Any]) -> None:
        """Add a task.

        The same function declared again (a module imported anew, a notebook's cell run twice)
        takes the old one's place.

        Raises:
            TaskAlreadyRegistered: Another function has this name.
        """
        known = self.get(task.name)
        if known is not None and not _same_source(known, task):
            raise TaskAlreadyRegistered(
                f"two functions are called {task.name!r}: {_place(known)} and {_place(task)}; "
                "give one of them another name (@app.task(name=...))"
            )
        self[task.name] = task

    def unregister(self, name: str | Task[Any, Any]) -> None:
        """Remove a task by name.

        Raises:
            UnknownTask: There is none.
        """
        if isinstance(name, Task):
            name = name.name
        if name not in self:
            raise self._unknown(name)
        del self[name]

    def prepare(self) -> None:
        """Compile every task's validators, so that a wrong annotation shows at the start.

        Raises:
            ConfigurationError: An annotation cannot be resolved.
        """
        for task in list(self.values()):
            task.prepare()

    def __missing__(self, name: str) -> Task[Any, Any]:
        """Return a built-in task; raise UnknownTask, with the nearest name."""
        if name in self.builtin:
            return self.builtin[name]
        raise self._unknown(name)

    def _unknown(self, name: str) -> UnknownTask:
        near = get_close_matches(name, self, n=1)
        hint = f" (did you mean {near[0]!r}?)" if near else ""
        return UnknownTask(f"no task {name!r} is registered here{hint}")


def _same_source(one: Task[Any, Any], other: Task[Any, Any]) -> bool:
    if one is other:
        return True
    first, second = _code(one), _code(other)
    if first is None or second is None:
        return type(one) is type(other)
    if first.co_qualname == second.co_qualname and first.co_filename.startswith("<"):
        return True  # a notebook or a prompt: every cell is a "file" of its own
    return (first.co_filename, first.co_firstlineno) == (second.co_filename, second.co_firstlineno)


def _code(task: Task[Any, Any]) -> Any:
    return getattr(inspect.unwrap(task.run), "__code__", None)


def _place(task: Task[Any, Any]) -> str:
    code = _code(task)
    return f"{code.co_filename}:{code.co_firstlineno}" if code else repr(type(task))


def task_name(function: Any, main: str | None = None) -> str:
    """Return the name a function gets as a task: ``<module>.<function>``.

    Under ``__main__``: the module's real name with ``python -m``, else the file's stem, which is
    what a worker imports; without a file (a prompt) ``main``.
    """
    name = getattr(function, "__name__", None)
    module = getattr(function, "__module__", None)
    if not name or not module:
        raise ConfigurationError(f"give a name for the task of {function!r}: it has none itself")
    if module == "__main__":
        module = _main_module() or main or module
    return f"{module}.{name}"


def _main_module() -> str | None:
    main = sys.modules.get("__main__")
    spec = getattr(main, "__spec__", None)
    if spec is not None:
        return str(spec.name)
    file = getattr(main, "__file__", None)
    return Path(file).stem if file else None


def build_task(
    function: Callable[..., Any],
    *,
    app: TaskApp | None,
    main: str | None,
    options: Mapping[str, Any],
    default_base: type[Task[Any, Any]] = Task,
    namespace: Mapping[str, Any] | None = None,
) -> Task[Any, Any]:
    """Return the task of a function with the keywords of ``@app.task``.

    Raises:
        ConfigurationError: An option is wrong.
    """
    rest = dict(options)
    name = rest.pop("name", None) or task_name(function, main)
    base = rest.pop("base", None) or default_base
    bind = rest.pop("bind", False)
    if not (isinstance(base, type) and issubclass(base, Task)):
        raise ConfigurationError(f"task {name}: base must be a subclass of Task, got {base!r}")
    if not isinstance(name, str) or not isinstance(bind, bool):
        raise ConfigurationError(f"task {name}: name must be a string, bind True or False")
    if base is Task and inspect.iscoroutinefunction(inspect.unwrap(function)):
        base = AsyncTask
    task = base()
    task.declare(name, function, app=app, bind=bind, options=rest, namespace=namespace)
    return task


# -- tasks of libraries -------------------------------------------------------------------------


class _Pending(NamedTuple):
    """A ``shared_task``: what to declare in every application."""

    function: Callable[..., Any]
    options: Mapping[str, Any]


class SharedTasks:
    """Tasks declared without an application: each is registered in every application.

    The one process-wide registry, because a library's module is imported before, and without
    knowing, the application.
    """

    def __init__(self, apps: Applications) -> None:
        """Know no task yet; ``apps`` are the applications they go to."""
        self._lock = threading.Lock()
        self._pending: list[_Pending] = []
        self._apps = apps

    def add(self, function: Callable[..., Any], options: Mapping[str, Any]) -> None:
        """Register a task in all applications there are and will be."""
        with self._lock:
            self._pending.append(_Pending(function, options))
            apps = self._apps.all()
        for app in apps:
            app.tasks.declare(function, options, app=app)

    def attach(self, app: Any) -> None:
        """Register all shared tasks in a new application, which becomes the current one."""
        with self._lock:
            pending = list(self._pending)
            self._apps.add(app)
        for one in pending:
            app.tasks.declare(one.function, one.options, app=app)

    def current(self) -> Any:
        """Return the application made last, None where there is none."""
        return self._apps.current()


shared = SharedTasks(applications)


class SharedTask:
    """What ``@shared_task`` returns: stands for the current application's task of that name.

    Without an application it can be called and made into signatures, not sent.
    """

    def __init__(self, function: Callable[..., Any], options: Mapping[str, Any]) -> None:
        self.__dict__["_alone"] = build_task(function, app=None, main=None, options=options)
        self.__dict__["__wrapped__"] = function
        self.__dict__["__doc__"] = function.__doc__

    def _get_current_object(self) -> Task[Any, Any]:
        app = shared.current()
        alone: Task[Any, Any] = self.__dict__["_alone"]
        if app is None:
            return alone
        task: Task[Any, Any] = app.tasks.get(alone.name, alone)
        return task

    @property  # type: ignore[misc]
    def __class__(self) -> type:
        """The task's class, so that ``isinstance(x, Task)`` holds, as with Celery's proxies."""
        return type(self._get_current_object())

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """Run the body here, as a plain call."""
        return self._get_current_object()(*args, **kwargs)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._get_current_object(), name)

    def __setattr__(self, name: str, value: Any) -> None:
        setattr(self._get_current_object(), name, value)

    def __eq__(self, other: object) -> bool:
        return self._get_current_object() == getattr(other, "_get_current_object", lambda: other)()

    def __hash__(self) -> int:
        return hash(self._get_current_object())

    def __repr__(self) -> str:
        return repr(self._get_current_object())
