"""Runs ready jobs, at most ``slots`` at a time, highest priority first, in the worker's pools."""

from __future__ import annotations

import asyncio
from functools import partial
from typing import TYPE_CHECKING, Any, Final

from amqflow.errors import ShutdownInProgress
from amqflow.logs import get_logger
from amqflow.worker.pools import Hooks
from amqflow.worker.ready import ReadyHeap

if TYPE_CHECKING:
    from collections.abc import Callable, Collection

    from amqflow.worker.hooks import Around
    from amqflow.worker.job import Job
    from amqflow.worker.lanes import Lane
    from amqflow.worker.pools import Ended, Pools

log = get_logger("amqflow.worker")

#: Loop turns an ack takes to the socket: it is flushed, handed to the writer, written.
ACK_TURNS = 3
#: Seconds what runs has to end when the worker is told twice.
CUT_TIMEOUT: Final = 2.0


class Executor:
    """One budget of slots over the pools.

    ``on_done`` gets (job, result, error) in the loop; ``on_dropped`` is told of jobs whose channel
    closed before they started: they do not run. ``on_admit``, ``on_start`` and ``on_end`` (job,
    result, error) are called where the task runs (:class:`~amqflow.worker.pools.Hooks`).
    """

    def __init__(
        self,
        *,
        slots: int,
        on_done: Callable[[list[Ended]], None],
        on_admit: Callable[[Job], None],
        on_start: Callable[[Job], None],
        on_end: Callable[[Job, object, BaseException | None], None],
        on_dropped: Callable[[Job], None],
        around: Around,
        make_pools: Callable[[Hooks], Pools],
    ) -> None:
        """Make the pools, in the running loop; :meth:`start` starts them."""
        self._loop = asyncio.get_running_loop()
        self._free = slots
        self._slots = slots
        self._on_done = on_done
        self._on_dropped = on_dropped
        self._ready = ReadyHeap()
        self._open = True
        #: Jobs that hold a slot.
        self._running: set[Job] = set()
        self._idle = asyncio.Event()
        self._idle.set()
        #: Since the last :meth:`lap`: jobs that ended, seconds of slots that were taken.
        self._ended_count = 0
        self._taken = 0.0
        self._counted_at = self._loop.time()
        self._pools = make_pools(
            Hooks(
                ended=self._ended,
                take=self._take,
                again=self._again,
                admit=on_admit,
                began=on_start,
                concluded=on_end,
                around=around,
            )
        )
        self._functions = self._pools.functions
        self._coroutines = self._pools.coroutines
        self._mixed = self._functions is not self._coroutines

    async def start(self) -> None:
        """Start the pools.

        Raises:
            ConfigurationError: one of them can run nothing.
        """
        for pool in self._pools.all():
            await pool.start()

    @property
    def running(self) -> int:
        """How many slots are taken."""
        return self._slots - self._free

    @property
    def running_jobs(self) -> Collection[Job]:
        """The jobs that run now."""
        return self._running

    @property
    def waiting(self) -> int:
        """How many jobs wait for a slot."""
        return len(self._ready)

    def lap(self) -> tuple[int, float]:
        """Return how many jobs ended since the last call, and the seconds slots were taken."""
        self._count()
        ended, taken = self._ended_count, self._taken
        self._ended_count, self._taken = 0, 0.0
        return ended, taken

    def _count(self) -> None:
        """Count up to now, before the number of free slots changes."""
        now = self._loop.time()
        self._taken += self.running * (now - self._counted_at)
        self._counted_at = now

    def surplus(self, lane: Lane, keep: int) -> list[Job]:
        """Take out what waits of a lane beyond the first ``keep`` jobs, but those with a lease."""
        return self._ready.beyond(lane, keep)

    def describe(self) -> dict[str, Any]:
        """Return what there is to know, for the status page."""
        described: dict[str, Any] = {
            "pool": self._pools.name,
            "slots": self._slots,
            "running": self.running,
            "waiting": self.waiting,
        }
        for pool in self._pools.all():
            described.update(pool.describe())
        return described

    def push(self, job: Job) -> None:
        """Add a job; call :meth:`pump` when all of this turn are added."""
        self._ready.push(job)

    def pump(self) -> None:
        """Start waiting jobs while slots are free, highest priority first."""
        self._count()
        while self._open and self._free > 0 and (job := self._ready.pop()) is not None:
            if job.abandoned:
                self._on_dropped(job)
                continue
            self._free -= 1
            self._idle.clear()
            self._running.add(job)
            if job.acks_early:
                job.delivery.ack()
                job.acked = True
                self._after_ack(job, ACK_TURNS)
            else:
                self._start(job)

    def _after_ack(self, job: Job, turns: int) -> None:
        """Start once the ack is written, so that a kill in mid-run cannot bring it back."""
        if turns:
            self._loop.call_soon(self._after_ack, job, turns - 1)
        else:
            self._start(job)

    def _start(self, job: Job) -> None:
        (self._coroutines if job.task.is_async else self._functions).submit(job)

    def _take(self, wanted: Callable[[Job], bool] | None) -> Job | None:
        """Return the next job for a slot that goes on, from whatever thread asks."""
        if not self._open:
            return None
        fits = _for_functions if self._mixed else _for_any
        if wanted is not None:
            fits = partial(_for_any_wanted, wanted)
        job = self._ready.pop_if(fits)
        while job is not None and job.abandoned:
            self._loop.call_soon_threadsafe(self._on_dropped, job)
            job = self._ready.pop_if(fits)
        if job is not None:
            self._running.add(job)
        return job

    def _again(self, job: Job) -> None:
        """Put back what a pool could not begin: in its old place, as far as priority tells it."""
        self._running.discard(job)
        if self._open:
            self._ready.push(job)
            self.pump()
        else:
            self._on_done([(job, None, ShutdownInProgress("the worker stops"))])

    def _ended(self, ended: list[Ended], freed: int) -> None:
        for job, _, _ in ended:
            self._running.discard(job)
        self._count()
        self._ended_count += len(ended)
        self._free += freed
        # A slot that is free works on while its last job is settled.
        self.pump()
        if ended:
            self._on_done(ended)
        if self._free >= self._slots:
            self._idle.set()

    def terminate(self, job: Job, why: BaseException) -> bool:
        """End a running job with ``why`` as its end; False where it does not run."""
        return any(pool.terminate(job, why) for pool in self._pools.all())

    # -- stopping --------------------------------------------------------------------------

    def halt(self) -> None:
        """Start nothing more."""
        self._open = False
        for pool in self._pools.all():
            pool.halt()

    def take_out(self, wanted: Callable[[Job], bool]) -> list[Job]:
        """Take out the waiting jobs that are wanted."""
        return self._ready.take_out(wanted)

    def drain(self) -> list[Job]:
        """Take out the jobs that have not started."""
        return self._ready.drain()

    async def wait_idle(self, timeout: float | None) -> bool:
        """Wait until nothing runs; False when ``timeout`` seconds passed first."""
        try:
            async with asyncio.timeout(timeout):
                await self._idle.wait()
        except TimeoutError:
            return False
        return True

    async def cut_off(self) -> None:
        """Give up what runs (second signal): coroutines see it, children are killed."""
        why = ShutdownInProgress("the worker was told twice to stop")
        for pool in self._pools.all():
            pool.cut_off(why)
        await self.wait_idle(CUT_TIMEOUT)

    async def close(self) -> None:
        """Let threads and processes end."""
        for pool in self._pools.all():
            await pool.close()


def _for_functions(job: Job) -> bool:
    """Whether a pool thread may take it by itself: an early ack is the loop's to send first."""
    return not job.task.is_async and not job.acks_early


def _for_any(job: Job) -> bool:
    return not job.acks_early


def _for_any_wanted(wanted: Callable[[Job], bool], job: Job) -> bool:
    return not job.acks_early and wanted(job)
