"""Runs tasks in child processes: a killed child costs the one task it ran.

Children are spawned, not forked, and import the application before they get work. A slot counts
as free when a warm child is idle. Where tasks have hard limits, or children retire, one more child
waits warm, so that a slot is free again within milliseconds of a kill; and one for each task that
has come near its hard limit, or for each slot while limits are being hit, so that several kills in
a row find a child each.
"""

from __future__ import annotations

import asyncio
from collections import deque
from typing import TYPE_CHECKING, Any, Final

from amqflow import signals
from amqflow.backoff import Backoff
from amqflow.errors import (
    ConfigurationError,
    EncodeError,
    Ignore,
    InvalidArguments,
    Reject,
    ShutdownInProgress,
    TimeLimitExceeded,
    WorkerLost,
)
from amqflow.logs import get_logger
from amqflow.worker.pools import where, wire
from amqflow.worker.pools.process import ChildProcess, how_it_died
from amqflow.worker.pools.seam import PoolCapabilities
from amqflow.worker.pools.short import ShortTasks

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from amqflow.worker.job import Job
    from amqflow.worker.pools.process import Recipe
    from amqflow.worker.pools.seam import Ended, Hooks

log = get_logger("amqflow.worker")

#: Seconds a child may take to say where its task is, before it is killed all the same.
WHERE_TIMEOUT: Final = 0.06
#: Seconds a child may take to leave when told.
QUIT_TIMEOUT: Final = 5.0
#: Short jobs a child gets ahead.
AHEAD: Final = 3
#: Seconds after which it is looked whether they wait behind a long one.
LOOK: Final = 0.01
#: Seconds a child may take to import the application.
START_TIMEOUT: Final = 120.0
#: A task is near its hard limit when half of it has passed, or this many seconds before it.
NEAR: Final = 20.0
#: Most children that wait warm, and the seconds one waits that is not needed any more.
MOST_SPARES: Final = 8
SPARE_LIFE: Final = 30.0


class _Busy:
    """A job of a child, its limits once it runs, and why it is to be killed, where it is."""

    __slots__ = ("frame", "job", "number", "timers", "why")

    def __init__(self, job: Job, number: int, frame: bytes) -> None:
        self.job = job
        self.number = number
        self.frame = frame
        self.timers: list[asyncio.TimerHandle] = []
        self.why: BaseException | None = None


class ProcessPool:
    """A supervisor of ``size`` children, and of warm spare ones where those are of use."""

    def __init__(self, hooks: Hooks, size: int, recipe: Recipe) -> None:
        """Start nothing yet; run in the running loop."""
        self._loop = asyncio.get_running_loop()
        self._hooks = hooks
        self._size = size
        self._recipe = recipe
        self._children: set[ChildProcess] = set()
        self._starting: dict[ChildProcess, asyncio.Future[None]] = {}
        self._idle: list[ChildProcess] = []
        self._busy: dict[ChildProcess, _Busy] = {}
        #: Running jobs and their children.
        self._of_job: dict[Job, ChildProcess] = {}
        #: Told to quit, or killed: what becomes of them replaces nothing.
        self._leaving: set[ChildProcess] = set()
        #: Warm, for the slots of children that will be killed or retire.
        self._spares: list[ChildProcess] = []
        #: How many wait where no task is near its limit.
        self._least_spares = int(recipe.max_tasks is not None or recipe.max_memory is not None)
        #: Children whose task is near its hard limit.
        self._near: set[ChildProcess] = set()
        #: Until when every slot has a spare child: tasks run into their hard limits.
        self._hitting_until = 0.0
        #: Children that are coming up, or will be tried again: for slots, or to be spare.
        self._coming = 0
        self._letting_go: asyncio.TimerHandle | None = None
        #: Submitted when the child of their slot had died; nearly always empty.
        self._pending: list[_Busy] = []
        #: Short jobs that wait in a child behind the one it runs.
        self._queued: dict[ChildProcess, deque[_Busy]] = {}
        self._short = ShortTasks()
        self._looking: asyncio.TimerHandle | None = None
        #: What each child with a queue ran at the last look.
        self._seen: dict[ChildProcess, int] = {}
        #: Slots whose child is gone and whose next one is not warm yet.
        self._missing = 0
        self._numbers = 0
        self._open = True
        self._tasks: set[asyncio.Task[None]] = set()
        #: Children that died by themselves, and those that were replaced in time.
        self.lost = 0
        self.recycled = 0

    @property
    def capabilities(self) -> PoolCapabilities:
        """Everything can be ended, and ends alone."""
        return PoolCapabilities(parallel=True, kills=True, isolates=True, interrupts=True)

    # -- life ------------------------------------------------------------------------------

    async def start(self) -> None:
        """Spawn the children and wait until all are warm."""
        try:
            async with asyncio.timeout(START_TIMEOUT):
                children = await asyncio.gather(*(self._spawn() for _ in range(self._size)))
        except TimeoutError:
            message = f"the pool's children were not ready within {START_TIMEOUT:g} s"
            raise ConfigurationError(message) from None
        for child in children:
            if child.exited.is_set():  # while others were still starting
                self._missing_idle(child, child.code)
            else:
                self._idle.append(child)
        self._want_children()

    async def _spawn(self) -> ChildProcess:
        """Start a child and wait until it is warm.

        Raises:
            ConfigurationError: it cannot start, with what it said.
        """
        signals.worker_before_create_process.send(sender=self)
        child = ChildProcess(self._recipe, on_frame=self._told, on_death=self._died)
        self._children.add(child)
        warm = self._starting[child] = self._loop.create_future()
        try:
            await child.listen()
            await warm
        except BaseException:
            child.kill()
            raise
        finally:
            self._starting.pop(child, None)
        if child.exited.is_set():
            message = f"a pool child died as soon as it was ready: {how_it_died(child.code)}"
            raise ConfigurationError(message)
        return child

    def _want_children(self) -> None:
        """Bring up what is missing for empty slots and for those that may soon be empty."""
        while self._coming < self._wanted:
            self._coming += 1
            task = self._loop.create_task(self._replace())
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)

    @property
    def _wanted(self) -> int:
        """How many children are to come up; of a worker that stops, for what it has acked."""
        if not self._open:
            return len(self._pending)
        return self._missing + self._spares_wanted - len(self._spares)

    @property
    def _spares_wanted(self) -> int:
        if self._loop.time() < self._hitting_until:
            return min(self._size, MOST_SPARES)
        return min(max(self._least_spares, len(self._near)), self._size, MOST_SPARES)

    async def _replace(self) -> None:
        """Start one child; where it cannot start, try again for as long as it is wanted."""
        backoff = Backoff(first=0.2, most=10.0)
        try:
            while self._coming <= self._wanted:
                try:
                    child = await self._spawn()
                except (ConfigurationError, OSError) as error:
                    log.error("a pool child could not start, trying again", error=str(error))  # noqa: TRY400 - the child has logged its traceback
                    await asyncio.sleep(backoff.next())
                else:
                    self._warm(child)
                    return
        finally:
            self._coming -= 1

    def _warm(self, child: ChildProcess) -> None:
        """Give a warm child the first missing slot; else it waits."""
        if not self._open and not self._pending:
            self._quit(child)
        elif not self._open:
            self._idle.append(child)
            self._hand_pending()
        elif self._missing:
            self._missing -= 1
            self._idle.append(child)
            self._hooks.ended([], 1)
            self._hand_pending()
        else:
            self._spares.append(child)
            self._let_go_later()

    def _fill(self) -> None:
        """Replace a child that is gone: its slot comes back with a warm one."""
        if not self._open:
            self._hooks.ended([], 1)
            return
        self._missing += 1
        if self._spares:
            self._warm(self._spares.pop())
        self._want_children()

    def _let_go_later(self) -> None:
        """See to it that spare children which are not needed any more leave in a while."""
        if self._letting_go is None and len(self._spares) > self._least_spares:
            self._letting_go = self._loop.call_later(SPARE_LIFE, self._let_go)

    def _let_go(self) -> None:
        self._letting_go = None
        while len(self._spares) > self._spares_wanted:
            self._quit(self._spares.pop())
        self._let_go_later()

    # -- jobs ------------------------------------------------------------------------------

    def submit(self, job: Job) -> None:
        """Hand a job to an idle child: the one that was busy last, its caches are warm."""
        entry = self._entry(job, 1)
        if entry is not None:
            self._hand(entry)

    def _entry(self, job: Job, slot: int) -> _Busy | None:
        """Make a job ready to be handed over; None where it has ended so, its slot with it."""
        try:
            self._hooks.admit(job)
            self._numbers += 1
            frame = wire.frame(wire.JOB, wire.job_body(job, self._numbers))
        except EncodeError as error:
            wrong = InvalidArguments(f"the arguments cannot be sent to a pool child: {error}")
            self._refuse(job, wrong, slot)
        except Exception as error:  # noqa: BLE001 - what keeps it from running is its end
            self._refuse(job, error, slot)
        else:
            return _Busy(job, self._numbers, frame)
        return None

    def _refuse(self, job: Job, error: BaseException, slot: int) -> None:
        """End a job that no child has seen, in a turn of its own: its slot is not free yet."""
        ended: list[Ended] = [(job, None, error)]
        self._loop.call_soon(self._hooks.ended, ended, slot)

    def _hand(self, entry: _Busy) -> None:
        if not self._idle:  # the idle one this slot stood for has just died
            self._pending.append(entry)
            self._want_children()
            return
        child = self._idle.pop()
        self._of_job[entry.job] = child
        self._queued[child] = deque()
        child.say(entry.frame + self._ahead(child, entry))
        self._begins(child, entry)

    def _hand_pending(self) -> None:
        while self._pending and self._idle:
            self._hand(self._pending.pop())

    def _begins(self, child: ChildProcess, entry: _Busy) -> None:
        """Note which job a child runs, and arm its limits."""
        self._busy[child] = entry
        entry.frame = b""
        job = entry.job
        if job.soft_time_limit and not job.task.is_async:
            soft = self._loop.call_later(job.soft_time_limit, child.limit, entry.number)
            entry.timers.append(soft)
        if limit := job.time_limit:
            near = max(limit / 2, limit - NEAR)
            entry.timers.append(self._loop.call_later(limit, self._hard, child, entry))
            entry.timers.append(self._loop.call_later(near, self._comes_near, child))
            if not self._least_spares:
                self._least_spares = 1
                self._want_children()

    def _comes_near(self, child: ChildProcess) -> None:
        """Have a child ready for a slot that may soon be empty."""
        self._near.add(child)
        self._want_children()

    # -- short jobs, a few ahead -----------------------------------------------------------

    def _ahead(self, child: ChildProcess, running: _Busy) -> bytes:
        """Return the frames of short jobs a child gets beside the one it runs.

        Only while every child has work, and behind a short one; :meth:`_look` takes them back
        from a child that is held up all the same.
        """
        queue = self._queued[child]
        if self._idle or len(queue) > AHEAD // 2 or not self._is_short(running.job):
            return b""
        frames = b""
        while len(queue) < AHEAD and (job := self._hooks.take(self._is_short)) is not None:
            entry = self._entry(job, 0)
            if entry is not None:
                frames += entry.frame
                entry.frame = b""
                queue.append(entry)
                self._of_job[job] = child
        if queue and self._looking is None:
            self._looking = self._loop.call_later(LOOK, self._look)
        return frames

    def _is_short(self, job: Job) -> bool:
        if job.time_limit or job.soft_time_limit or job.priority:
            return False  # its limits count from when it begins; its priority is not to wait
        return self._short.is_short(job.message.task)

    def _look(self) -> None:
        """Take back what waits behind a job that is not so short after all."""
        self._looking = None
        for child, queue in list(self._queued.items()):
            busy = self._busy.get(child)
            if queue and busy is not None:
                if self._seen.get(child) == busy.number:
                    self._withdraw(child)
                else:
                    self._seen[child] = busy.number
        if any(self._queued.values()):
            self._looking = self._loop.call_later(LOOK, self._look)

    def _withdraw(self, child: ChildProcess) -> None:
        """Take back the jobs a child has not begun."""
        child.read_outbox()
        queue = self._queued.get(child)
        if not queue:
            return
        started = child.board.withdraw(queue[-1].number)
        self._run_again([entry for entry in queue if entry.number > started])
        self._queued[child] = deque(entry for entry in queue if entry.number <= started)

    def _run_again(self, entries: Iterable[_Busy]) -> None:
        for entry in entries:
            self._of_job.pop(entry.job, None)
            self._hooks.again(entry.job)

    # -- what a child says -----------------------------------------------------------------

    def _told(self, child: ChildProcess, kind: bytes, told: Any) -> None:
        """Take what a child says."""
        if kind == wire.DONE:
            self._done(child, told)
        elif kind == wire.STATE:
            number, task_id, state, meta = told
            busy = self._busy.get(child)
            if busy is not None and busy.number == number and busy.job.request.set_state:
                busy.job.request.set_state(task_id, state, meta)
        elif kind == wire.SKIPPED:
            self._skipped(child, told)
        elif kind == wire.READY:
            if told:
                log.warning("tasks that pool children cannot import", tasks=told, pid=child.pid)
            warm = self._starting.get(child)
            if warm is not None and not warm.done():
                warm.set_result(None)
        elif kind == wire.UNABLE:
            warm = self._starting.get(child)
            if warm is not None and not warm.done():
                text = f"a pool child cannot start: {told}"
                warm.set_exception(ConfigurationError(text))

    def _done(self, child: ChildProcess, told: dict[str, Any]) -> None:
        busy = self._busy.get(child)
        if busy is None or busy.number != told["n"] or busy.why is not None:
            return  # said already by the outbox, or it is being killed: it has ended as that says
        job = busy.job
        self._short.ran(job.message.task, told["took"])
        error: BaseException | None = None
        match told.get("aside"):
            case "ignore":
                error = Ignore(told["text"])
            case "reject":
                error = Reject(told["text"] or "", requeue=told["requeue"])
            case _:
                job.outcome = wire.outcome_of(told["outcome"], job)
                job.announced = True
        leaving = told.get("bye")
        if leaving is None:
            self._hooks.ended([(job, None, error)], self._next(child))
        else:
            self.recycled += 1
            log.info("a pool child retires", pid=child.pid, why=leaving)
            self._forget(child)
            behind = self._queued.pop(child, ())
            self._quit(child)
            self._hooks.ended([(job, None, error)], 0)
            self._fill()
            self._run_again(behind)

    def _next(self, child: ChildProcess) -> int:
        """Go on with the job that waits in a child; returns how many slots are free."""
        self._forget(child)
        queue = self._queued[child]
        if queue:
            entry = queue.popleft()
            if frames := self._ahead(child, entry):
                child.say(frames)
            self._begins(child, entry)
            return 0
        del self._queued[child]
        self._seen.pop(child, None)
        self._idle.append(child)
        self._hand_pending()
        return 1

    def _skipped(self, child: ChildProcess, number: int) -> None:
        """Run a job elsewhere that a child saw taken back when it seemed to have begun."""
        busy, queue = self._busy.get(child), self._queued.get(child, ())
        if busy is not None and busy.number == number:
            if busy.why is None:
                freed = self._next(child)
                self._hooks.again(busy.job)
                self._hooks.ended([], freed)
            return
        for entry in queue:
            if entry.number == number:
                self._queued[child].remove(entry)
                self._run_again([entry])
                return

    def _forget(self, child: ChildProcess) -> _Busy:
        busy = self._busy.pop(child)
        self._near.discard(child)
        self._of_job.pop(busy.job, None)
        for timer in busy.timers:
            timer.cancel()
        return busy

    # -- ends ------------------------------------------------------------------------------

    def _hard(self, child: ChildProcess, busy: _Busy) -> None:
        self._hitting_until = self._loop.time() + SPARE_LIFE
        self._end(child, busy, TimeLimitExceeded(busy.job.time_limit))

    def terminate(self, job: Job, why: BaseException) -> bool:
        """Kill the child of a job."""
        child = self._of_job.get(job)
        if child is None:
            return False
        if self._busy[child].job is not job:
            self._withdraw(child)  # if it has begun meanwhile, it is short
            return False
        self._end(child, self._busy[child], why)
        return True

    def _end(self, child: ChildProcess, busy: _Busy, why: BaseException) -> None:
        """Kill a child; first it may say where its task is."""
        if busy.why is None:
            busy.why = why
            self._withdraw(child)  # nothing else is to begin in it
            task = self._loop.create_task(self._kill(child, why))
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)

    @staticmethod
    async def _kill(child: ChildProcess, why: BaseException) -> None:
        where.noted(why, await child.where(WHERE_TIMEOUT))
        child.kill()

    def cut_off(self, why: BaseException) -> None:
        """Kill every child that runs something."""
        for child, busy in list(self._busy.items()):
            busy.why = busy.why or why
            child.kill()
        pending, self._pending = self._pending, []
        self._hooks.ended([(entry.job, None, why) for entry in pending], len(pending))

    def _died(self, child: ChildProcess, code: int) -> None:
        """Give back what a dead child ran, and replace it."""
        self._children.discard(child)
        warm = self._starting.get(child)
        if warm is not None:
            if not warm.done():
                text = f"a pool child died before it was ready: {how_it_died(code)}"
                warm.set_exception(ConfigurationError(text))
            return
        if child in self._busy:
            self._dead(child, code)
        elif child in self._leaving:
            self._leaving.discard(child)
        elif child in self._spares:
            self._spares.remove(child)
            self._want_children()
        elif child in self._idle:
            self._idle.remove(child)
            self._missing_idle(child, code)

    def _dead(self, child: ChildProcess, code: int) -> None:
        """End the job a dead child had begun; those it had not begun run elsewhere."""
        entries = [self._forget(child), *self._queued.pop(child, ())]
        self._seen.pop(child, None)
        started = child.board.started
        if all(entry.number > started and entry.why is None for entry in entries):
            self._lost_idle(child, code)
        for entry in entries:
            if entry.number <= started or entry.why is not None:
                job = entry.job
                self._of_job.pop(job, None)
                self._hooks.ended([(job, None, entry.why or self._lost(child, job, code))], 0)
        self._fill()
        self._run_again(entry for entry in entries if entry.number > started and entry.why is None)

    def _lost(self, child: ChildProcess, job: Job, code: int) -> WorkerLost:
        self.lost += 1
        how = how_it_died(code)
        log.error(
            "a pool child died in the middle of a task",
            pid=child.pid,
            how=how,
            task_id=job.message.id,
            task=job.message.task,
        )
        return WorkerLost(f"the process that ran the task died: {how}")

    def _missing_idle(self, child: ChildProcess, code: int) -> None:
        """Take back the slot of an idle child: the executor believes it to be free."""
        self._lost_idle(child, code)
        self._hooks.ended([], -1)
        self._fill()

    def _lost_idle(self, child: ChildProcess, code: int) -> None:
        self.lost += 1
        log.error("a pool child died between two tasks", pid=child.pid, how=how_it_died(code))

    def _quit(self, child: ChildProcess) -> None:
        """Tell a child to leave; kill it where it does not."""
        self._leaving.add(child)
        child.say(wire.frame(wire.QUIT))
        self._loop.call_later(QUIT_TIMEOUT, child.kill)

    # -- stopping --------------------------------------------------------------------------

    def halt(self) -> None:
        """Replace nothing any more, but for what was acked before it could begin."""
        if not self._open:
            return
        self._open = False
        missing, self._missing = self._missing, 0
        why = ShutdownInProgress("the worker stops")
        back = [entry for entry in self._pending if not entry.job.acked]
        self._pending = [entry for entry in self._pending if entry.job.acked]
        for entry in back:
            self._of_job.pop(entry.job, None)
        self._hooks.ended([(entry.job, None, why) for entry in back], missing + len(back))
        self._want_children()

    async def close(self) -> None:
        """Tell every child to leave, and wait until all are gone."""
        self.halt()
        for task in self._tasks:
            task.cancel()
        children = list(self._children)
        for child in children:
            if child in self._busy:
                child.kill()
            elif child not in self._leaving:
                self._quit(child)
        try:
            async with asyncio.timeout(QUIT_TIMEOUT):
                await asyncio.gather(*(child.exited.wait() for child in children))
        except TimeoutError:
            for child in children:
                child.kill()
            await asyncio.gather(*(child.exited.wait() for child in children))

    def describe(self) -> Mapping[str, Any]:
        """Return the children by process id, and how many were lost."""
        return {
            "children": sorted(child.pid for child in self._children),
            "children_busy": len(self._busy),
            "children_starting": len(self._starting),
            "children_spare": len(self._spares),
            "children_lost": self.lost,
            "children_recycled": self.recycled,
        }
