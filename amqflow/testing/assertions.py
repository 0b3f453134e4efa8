"""Assertions that read as sentences: what is enqueued, what is dead, and what is not."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, TypeVar

from amqflow.testing.binding import broker_of
from amqflow.testing.reading import Dead, Enqueued, bound

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from amqflow.tasks import Task

Found = TypeVar("Found", Enqueued, Dead)


def enqueued(task: Task[..., Any], /, *args: Any, **kwargs: Any) -> list[Enqueued]:
    """Return the calls of a task that wait to be run, delayed ones too.

    Args:
        task: the task.
        args: what its first arguments must be equal to.
        kwargs: what these arguments must be equal to; the others may be anything.
    """
    return _matching(task, broker_of(task.app).enqueued(), bound(task, args, kwargs))


def assert_enqueued(task: Task[..., Any], /, *args: Any, **kwargs: Any) -> Enqueued:
    """Assert that a call of ``task`` with these arguments waits to be run, and return the first.

    Raises:
        AssertionError: none does; it shows what is enqueued instead.
    """
    __tracebackhide__ = True
    everything = broker_of(task.app).enqueued()
    wanted = bound(task, args, kwargs)
    if found := _matching(task, everything, wanted):
        return found[0]
    raise AssertionError(f"{_call(task, wanted)} is not enqueued; {_list('enqueued', everything)}")


def refute_enqueued(task: Task[..., Any], /, *args: Any, **kwargs: Any) -> None:
    """Assert that no call of ``task`` with these arguments waits to be run.

    Raises:
        AssertionError: one does.
    """
    __tracebackhide__ = True
    wanted = bound(task, args, kwargs)
    if found := _matching(task, broker_of(task.app).enqueued(), wanted):
        shown = _list("enqueued", found)
        raise AssertionError(f"{_call(task, wanted)} should not be enqueued; {shown}")


def dead(task: Task[..., Any], /, *args: Any, **kwargs: Any) -> list[Dead]:
    """Return the calls of a task that were parked as dead letters (arguments as `enqueued`)."""
    return _matching(task, broker_of(task.app).dead(), bound(task, args, kwargs))


def assert_dead(task: Task[..., Any], /, *args: Any, **kwargs: Any) -> Dead:
    """Assert that a call of ``task`` with these arguments is a dead letter, and return the first.

    Raises:
        AssertionError: none is; it shows which dead letters there are.
    """
    __tracebackhide__ = True
    everything = broker_of(task.app).dead()
    wanted = bound(task, args, kwargs)
    if found := _matching(task, everything, wanted):
        return found[0]
    raise AssertionError(f"{_call(task, wanted)} is not dead; {_list('dead', everything)}")


def refute_dead(task: Task[..., Any], /, *args: Any, **kwargs: Any) -> None:
    """Assert that no call of ``task`` with these arguments is a dead letter.

    Raises:
        AssertionError: one is.
    """
    __tracebackhide__ = True
    wanted = bound(task, args, kwargs)
    if found := _matching(task, broker_of(task.app).dead(), wanted):
        raise AssertionError(f"{_call(task, wanted)} should not be dead; {_list('dead', found)}")


def _matching(
    task: Task[..., Any], found: Sequence[Found], wanted: Mapping[str, Any]
) -> list[Found]:
    return [
        each
        for each in found
        if each.task == task.name
        and all(
            name in each.arguments and each.arguments[name] == value
            for name, value in wanted.items()
        )
    ]


def _call(task: Task[..., Any], wanted: Mapping[str, Any]) -> str:
    given = ", ".join(f"{name}={value!r}" for name, value in wanted.items())
    return f"{task.name}({given})" if given else task.name


def _list(word: str, found: Sequence[Enqueued | Dead]) -> str:
    return f"{word} is nothing" if not found else "\n  ".join([f"{word} are:", *map(str, found)])
