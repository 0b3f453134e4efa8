"""The seam between the executor and the places tasks run in: one Protocol, five pools."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol, TypeAlias

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from typing import Any

    from amqflow.worker.hooks import Around
    from amqflow.worker.job import Job

#: A job, what it returned, what it raised; with ``job.outcome`` set where that is known already.
Ended: TypeAlias = "tuple[Job, object, BaseException | None]"


@dataclass(frozen=True, slots=True)
class PoolCapabilities:
    """What a pool can do, declared; the conformance suite holds it to this.

    What is said of tasks is said of ``def`` tasks, and where a pool runs ``async def`` tasks
    alone, of those.
    """

    #: Several tasks run at once.
    parallel: bool
    #: A task is ended at its hard limit though it does not heed it; else it is given up.
    kills: bool
    #: A task that kills or poisons its process costs no other task.
    isolates: bool
    #: A soft limit reaches a task where it waits, in a system call or an ``await``.
    interrupts: bool


@dataclass(frozen=True, slots=True)
class Hooks:
    """What a pool calls.

    Args:
        ended: told in the loop of jobs that ended, and how many slots are free again.
        take: the next job if it is wanted, for a slot that goes on; from any thread, or None.
        again: takes back a job that was handed over and never began, to run it later.
        admit: a last look at a job before it runs; what it raises is the attempt's end.
        began: tells signals, where the task runs.
        concluded: told where the task ran how it ended (job, result, error).
        around: middleware and base classes' hooks.
    """

    ended: Callable[[list[Ended], int], None]
    take: Callable[[Callable[[Job], bool] | None], Job | None]
    again: Callable[[Job], None]
    admit: Callable[[Job], None]
    began: Callable[[Job], None]
    concluded: Callable[[Job, object, BaseException | None], None]
    around: Around


class Pool(Protocol):
    """Runs jobs; the caller holds a slot for each until ``Hooks.ended`` gives it back.

    Everything is called in the worker's loop. A job ends exactly once, however it ends.
    """

    @property
    def capabilities(self) -> PoolCapabilities:
        """What this pool can do."""
        ...

    async def start(self) -> None:
        """Be ready to run: whatever is slow happens here.

        Raises:
            ConfigurationError: it can run nothing, with the reason.
        """
        ...

    def submit(self, job: Job) -> None:
        """Run a job."""
        ...

    def terminate(self, job: Job, why: BaseException) -> bool:
        """End a running job with ``why`` as its end; False where it is not running here."""
        ...

    def cut_off(self, why: BaseException) -> None:
        """End every running job so."""
        ...

    def halt(self) -> None:
        """No more jobs will come: replace nothing that ends."""
        ...

    async def close(self) -> None:
        """Let go of threads and processes; nothing runs, or nobody waits for it."""
        ...

    def describe(self) -> Mapping[str, Any]:
        """Return what there is to know, for the status page."""
        ...
