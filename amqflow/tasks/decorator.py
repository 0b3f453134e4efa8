"""``@app.task`` and ``@shared_task``: bare or with options, typed by the function they wrap."""

from __future__ import annotations

import sys
from typing import (
    TYPE_CHECKING,
    Any,
    Concatenate,
    Literal,
    ParamSpec,
    Protocol,
    TypeVar,
    cast,
    overload,
)

from amqflow.errors import ConfigurationError
from amqflow.tasks.registry import SharedTask, TaskRegistry, shared, task_name
from amqflow.tasks.task import AsyncTask, Task

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine, Mapping
    from types import FrameType
    from typing import Unpack

    from amqflow.tasks.options import GivenOptions
    from amqflow.tasks.task import TaskApp

P = ParamSpec("P")
R = TypeVar("R")


class Decorator(Protocol):
    """What ``@app.task(...)`` returns."""

    @overload
    def __call__(self, function: Callable[P, Coroutine[Any, Any, R]], /) -> AsyncTask[P, R]: ...

    @overload
    def __call__(self, function: Callable[P, R], /) -> Task[P, R]: ...


class BoundDecorator(Protocol):
    """What ``@app.task(bind=True, ...)`` returns: callers do not see ``self``."""

    @overload
    def __call__(
        self, function: Callable[Concatenate[Any, P], Coroutine[Any, Any, R]], /
    ) -> AsyncTask[P, R]: ...

    @overload
    def __call__(self, function: Callable[Concatenate[Any, P], R], /) -> Task[P, R]: ...


class TaskDecorator:
    """Adds ``task`` and ``register_task`` to an application that has ``tasks`` and ``main``."""

    #: The registry; the application makes it.
    tasks: TaskRegistry
    #: The application's name.
    main: str
    #: The base class of tasks that name none (Celery's ``task_cls``).
    task_cls: type[Task[Any, Any]] = Task

    @overload
    def task(self, function: Callable[P, Coroutine[Any, Any, R]], /) -> AsyncTask[P, R]: ...

    @overload
    def task(self, function: Callable[P, R], /) -> Task[P, R]: ...

    @overload
    def task(
        self, /, *, bind: Literal[True], **options: Unpack[GivenOptions]
    ) -> BoundDecorator: ...

    @overload
    def task(
        self, /, *, bind: Literal[False] = False, **options: Unpack[GivenOptions]
    ) -> Decorator: ...

    def task(self, function: Any = None, /, **options: Any) -> Any:
        """Declare a task: ``@app.task``, or ``@app.task(queue="email", max_retries=5)``.

        Args:
            function: The body, where used bare.
            **options: ``bind``, ``name``, ``base`` and the fields of :class:`TaskOptions`.

        Returns:
            The task, or a decorator that returns it.

        Raises:
            ConfigurationError: An option is unknown or of a wrong type.
            TaskAlreadyRegistered: Another function has this name.
        """
        if function is None:
            return lambda body: self._declare_task(body, options, sys._getframe(1))  # noqa: SLF001
        _check_body(function, "task")
        return self._declare_task(function, options, sys._getframe(1))  # noqa: SLF001

    def _declare_task(
        self, function: Callable[..., Any], options: Mapping[str, Any], frame: FrameType | None
    ) -> Task[Any, Any]:
        if isinstance(function, Task):
            raise ConfigurationError(f"{function!r} is a task already; declare its function once")
        _check_body(function, "task")
        return self.tasks.declare(function, options, app=self, namespace=_locals(function, frame))

    def register_task(
        self, task: Task[P, R] | type[Task[P, R]], **options: Unpack[GivenOptions]
    ) -> Task[P, R]:
        """Register a class-based task: an instance, or a class with a ``run`` method.

        Its name is the class's ``name``, else ``<module>.<Class>``.
        """
        given = dict(options)
        instance = task() if isinstance(task, type) else task
        name = given.pop("name", None) or getattr(instance, "name", None)
        given.pop("base", None)
        instance.declare(
            str(name or task_name(type(instance), self.main)),
            app=cast("TaskApp", self),
            options=given,
        )
        self.tasks.register(instance)
        return instance


@overload
def shared_task(function: Callable[P, Coroutine[Any, Any, R]], /) -> AsyncTask[P, R]: ...


@overload
def shared_task(function: Callable[P, R], /) -> Task[P, R]: ...


@overload
def shared_task(*, bind: Literal[True], **options: Unpack[GivenOptions]) -> BoundDecorator: ...


@overload
def shared_task(*, bind: Literal[False] = False, **options: Unpack[GivenOptions]) -> Decorator: ...


def shared_task(function: Any = None, /, **options: Any) -> Any:
    """Declare a task for every application, as libraries do; used like ``@app.task``.

    The result stands for the task of the application made last.
    """
    if function is None:
        return lambda body: _share(body, options)
    return _share(function, options)


def _share(function: Any, options: Mapping[str, Any]) -> SharedTask:
    _check_body(function, "shared_task")
    task = SharedTask(function, options)
    shared.add(function, options)
    return task


def _check_body(function: Any, verb: str) -> None:
    if not callable(function):
        raise ConfigurationError(
            f"@{verb} takes a function, or keywords only (@{verb}(name=...)), got {function!r}"
        )


def _locals(function: Any, frame: FrameType | None) -> Mapping[str, Any] | None:
    """Return the local names a nested function's annotations may use, None for others.

    Taken now, because a test's or a factory's locals are gone when the first call comes.
    """
    if frame is None or "<locals>" not in getattr(function, "__qualname__", ""):
        return None
    return dict(frame.f_locals)
