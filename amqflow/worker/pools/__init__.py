"""Where tasks run: coroutines, threads, processes, or the worker itself, behind one seam."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from amqflow.errors import ConfigurationError
from amqflow.worker.pools.coroutines import CoroutinePool
from amqflow.worker.pools.process import Recipe
from amqflow.worker.pools.processes import ProcessPool
from amqflow.worker.pools.seam import Ended, Hooks, Pool, PoolCapabilities
from amqflow.worker.pools.solo import MainThread, SoloPool
from amqflow.worker.pools.threads import ThreadPool

if TYPE_CHECKING:
    from amqflow.app import App

__all__ = [
    "POOLS",
    "Ended",
    "Hooks",
    "MainThread",
    "Pool",
    "PoolCapabilities",
    "Pools",
    "checked_pool",
    "make_pools",
]

#: The names ``-P`` takes.
POOLS: Final = ("auto", "asyncio", "threads", "processes", "solo")
_OTHER_NAMES: Final = {"prefork": "processes", "processes": "processes"}
_INSTEAD: Final = {
    "gevent": "asyncio with async def tasks, or threads",
    "eventlet": "asyncio with async def tasks, or threads",
    "custom": "one of " + ", ".join(POOLS),
}


class Pools:
    """The pool of ``def`` tasks and the pool of ``async def`` tasks; often one and the same."""

    __slots__ = ("coroutines", "functions", "name")

    def __init__(self, name: str, functions: Pool, coroutines: Pool) -> None:
        """Name the pair as ``-P`` does."""
        self.name = name
        self.functions = functions
        self.coroutines = coroutines

    def all(self) -> tuple[Pool, ...]:
        """Return each pool once."""
        if self.functions is self.coroutines:
            return (self.functions,)
        return (self.functions, self.coroutines)


def checked_pool(name: str) -> str:
    """Return the pool a name means (``prefork`` is ``processes``).

    Raises:
        ConfigurationError: there is no such pool; the message says what to use.
    """
    wanted = _OTHER_NAMES.get(name, name)
    if wanted in POOLS:
        return wanted
    if wanted in _INSTEAD:
        message = f"-P {name}: there is no such pool here; use {_INSTEAD[wanted]}"
        raise ConfigurationError(message)
    message = f"-P {name}: the pools are {', '.join(POOLS)} and prefork (processes)"
    raise ConfigurationError(message)


def make_pools(
    name: str,
    hooks: Hooks,
    size: int,
    app: App,
    *,
    max_tasks: int | None = None,
    max_memory: int | None = None,
    main: MainThread | None = None,
) -> Pools:
    """Return the pools of a name, not started yet.

    Args:
        name: as :func:`checked_pool` returns it.
        hooks: what they call.
        size: slots, over both.
        app: its tasks are run.
        max_tasks: tasks after which a child process is replaced.
        max_memory: KiB of resident memory after which it is.
        main: the program's main thread, where ``solo`` may have it.

    Raises:
        ConfigurationError: children could not import the application.
    """
    match name:
        case "processes":
            recipe = Recipe.of(app, max_tasks=max_tasks, max_memory=max_memory)
            pool: Pool = ProcessPool(hooks, size, recipe)
        case "solo":
            pool = SoloPool(hooks, main, close_loop=app.aclose)
        case "threads":
            pool = ThreadPool(hooks, size, close_loop=app.aclose)
        case _:
            functions = ThreadPool(hooks, size, close_loop=app.aclose)
            return Pools(name, functions, CoroutinePool(hooks))
    return Pools(name, pool, pool)
