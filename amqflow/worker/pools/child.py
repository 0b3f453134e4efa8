"""A pool child: a process that runs one task after another for the worker it belongs to.

The main thread runs ``def`` tasks, the application's loop thread ``async def`` ones; a third
thread listens whether the worker still lives. The child decides how an attempt ended, as the
exception and the signals' receivers are here; the worker stores it.
"""

from __future__ import annotations

import faulthandler
import fcntl
import importlib
import os
import resource
import signal
import socket
import sys
import threading
import time
from collections import deque
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, NoReturn

from amqflow import signals
from amqflow.abc import FAILURE, DeadReason, ExceptionInfo, Outcome
from amqflow.errors import (
    EncodeError,
    Ignore,
    InvalidResult,
    Reject,
    Replaced,
    SoftTimeLimitExceeded,
    UnknownTask,
)
from amqflow.logs import configure, get_logger
from amqflow.tasks import Request
from amqflow.worker import announce
from amqflow.worker.conclude import conclude
from amqflow.worker.errback import failure_arguments
from amqflow.worker.hooks import Around
from amqflow.worker.job import Job
from amqflow.worker.lanes import Lane
from amqflow.worker.pools import body, where, wire
from amqflow.worker.pools.board import SOFT_SIGNAL, Board
from amqflow.worker.pools.seam import Hooks
from amqflow.worker.pools.short import ShortTasks
from amqflow.worker.pools.soft import keep_handler

if TYPE_CHECKING:
    from collections.abc import Coroutine

    from amqflow.app import App

log = get_logger("amqflow.worker")

#: Bytes read at once.
_CHUNK: Final = 65536
#: Which signal tells of input on a descriptor (Linux's fcntl.h; the module does not name it).
_F_SETSIG: Final = 10


def main(data: int, control: int, life: int, page: int) -> NoReturn:
    """Be a child, on file descriptors.

    Args:
        data: a socket for jobs and their ends.
        control: a socket for questions while a task runs.
        life: the reading end of a pipe whose other end only the worker holds.
        page: memory shared with the worker (see :mod:`amqflow.worker.pools.board`).
    """
    faulthandler.enable()  # a segfault shows where it was
    for number in (signal.SIGTERM, signal.SIGINT):
        # A handler, not SIG_IGN: what a task starts would inherit that. The worker says when.
        signal.signal(number, _ignored)
    _end_with(life)
    pipe = _Pipe(socket.socket(fileno=data), Board(page))
    _, setup = pipe.read()
    lifeline = _Lifeline(socket.socket(fileno=control))
    lifeline.start()
    try:
        child = Child(pipe, setup)
    except BaseException as error:
        pipe.write(wire.frame(wire.UNABLE, f"{type(error).__name__}: {error}"))
        log.exception("a pool child cannot start")
        sys.exit(1)
    lifeline.child = child
    pipe.write(wire.frame(wire.READY, child.missing))
    try:
        child.serve()
    except Exception:
        log.exception(
            "an error outside any task, such as from a signal handler that a task left behind: "
            "this pool child is replaced",
            pid=os.getpid(),
        )
        sys.exit(1)
    sys.exit(0)


def _end_with(life: int) -> None:
    """Let the kernel kill this process group when a pipe's writing end closes (Linux).

    The thread below does the same everywhere; it needs the interpreter, which a task may hold.
    """
    if sys.platform == "linux":
        fcntl.fcntl(life, fcntl.F_SETOWN, -os.getpgid(0))
        fcntl.fcntl(life, _F_SETSIG, signal.SIGKILL)
        fcntl.fcntl(life, fcntl.F_SETFL, fcntl.fcntl(life, fcntl.F_GETFL) | os.O_ASYNC)


def _ignored(*_: object) -> None:
    """Do nothing: a stop is the worker's business."""


class _Pipe:
    """Frames over a blocking socket."""

    def __init__(self, sock: socket.socket, board: Board) -> None:
        self._sock = sock
        self._frames = wire.Frames()
        self._read: deque[tuple[bytes, Any]] = deque()
        self.board = board

    def read(self) -> tuple[bytes, Any]:
        """Wait for the next frame; the worker's death reads as QUIT."""
        if not self._read:
            self.flush()
        while not self._read:
            data = self._sock.recv(_CHUNK)
            if not data:
                return wire.QUIT, None
            self._read += self._frames.feed(data)
        return self._read.popleft()

    @property
    def following(self) -> dict[str, Any] | None:
        """The job that has come already and is next."""
        return self._read[0][1] if self._read and self._read[0][0] == wire.JOB else None

    def write(self, frame: bytes) -> None:
        """Write a frame whole, after those that were held."""
        self.flush()
        self._sock.sendall(frame)

    def hold(self, frame: bytes) -> None:
        """Keep a frame where the worker finds it, to send it with the next one."""
        if not self.board.put(frame):
            self.write(frame)

    def flush(self) -> None:
        """Send what was held."""
        if self.board.waiting:
            self._sock.sendall(self.board.outbox())
            self.board.sent()


class _Lifeline(threading.Thread):
    """Ends this process, and what it started, when the worker is gone; says where the task is."""

    def __init__(self, sock: socket.socket) -> None:
        super().__init__(name="amqflow-lifeline", daemon=True)
        self._sock = sock
        self.child: Child | None = None

    def run(self) -> None:
        """Listen until the worker's end of the socket closes."""
        while True:
            try:
                asked = self._sock.recv(1)
            except OSError:
                asked = b""
            if not asked:
                os.killpg(0, signal.SIGKILL)
            stack = self.child.where() if self.child is not None else ""
            self._sock.sendall(wire.frame(wire.WHERE, stack))


class Child:
    """The application in this process, and the job it runs."""

    def __init__(self, pipe: _Pipe, setup: dict[str, Any]) -> None:
        """Become what ``setup`` says (see :class:`~amqflow.worker.pools.process.Recipe`)."""
        self._pipe = pipe
        sys.path[:] = setup["path"]
        sys.argv[:] = setup["argv"]
        if setup["log"] is not None:
            configure(*setup["log"])
        self._app = _imported(setup)
        self._app.tasks.prepare()
        #: Tasks the worker knows and this process does not.
        self.missing = sorted(set(setup["tasks"]) - self._app.tasks.keys())
        self._most_tasks: int | None = setup["max_tasks"]
        self._most_memory: int | None = setup["max_memory"]
        self._ran = 0
        self._short = ShortTasks()
        self._pid = os.getpid()
        self._main = threading.get_ident()
        self._work: Coroutine[Any, Any, object] | None = None
        #: The number of the job that may see its soft limit now, and that limit.
        self._soft_of: int | None = None
        self._soft: float | None = None
        #: The last job that had the main thread, where signal handlers are set.
        self._before: Job | None = None
        self._hooks = Hooks(
            ended=_unused,
            take=_unused,
            again=_unused,
            admit=_ignored,
            began=announce.began,
            concluded=self._concluded,
            around=Around(self._app.middleware),
        )
        signal.signal(SOFT_SIGNAL, self._soft_limit)
        signals.worker_process_init.send(sender=None)

    def where(self) -> str:
        """Return the stack of the running task."""
        if self._work is not None:
            return where.of_coroutine(self._work)
        return where.of_thread(self._main)

    def serve(self) -> None:
        """Run jobs until told to quit, or until this process has run enough."""
        leaving: str | None = None
        while leaving is None:
            kind, told = self._pipe.read()
            if kind == wire.QUIT:
                break
            if not self._pipe.board.start(told["n"]):
                self._pipe.write(wire.frame(wire.SKIPPED, told["n"]))
                continue
            self._ran += 1
            began = time.monotonic()
            end = self._run(told)
            took = end["took"] = time.monotonic() - began
            leaving = self._enough()
            if leaving is not None:
                end["bye"] = leaving
            written = self._written(told, end)
            if leaving is None and self._is_short(told["task"], took):
                self._pipe.hold(written)
            else:
                self._pipe.write(written)
        signals.worker_process_shutdown.send(sender=None, pid=self._pid, exitcode=0)
        self._app.close()

    def _is_short(self, task: str, took: float) -> bool:
        """Whether an end may wait for the next one: that is here, and takes no time to speak of."""
        self._short.ran(task, took)
        following = self._pipe.following
        return following is not None and self._short.is_short(following["task"])

    def _enough(self) -> str | None:
        if self._most_tasks is not None and self._ran >= self._most_tasks:
            return f"it has run {self._ran} tasks"
        if self._most_memory is not None and (used := _resident()) > self._most_memory:
            return f"it holds {used} KiB, more than {self._most_memory}"
        return None

    # -- one job ---------------------------------------------------------------------------

    def _run(self, told: dict[str, Any]) -> dict[str, Any]:
        """Run a job; return its end as data."""
        job = self._job(told)
        result: object = None
        error: BaseException | None = None
        try:
            self._check_known(told["task"])
            args = failure_arguments(job.message) if job.message.errback else told["args"]
            job.args, job.kwargs = job.task.check_arguments(args, told["kwargs"])
            job.request.update(args=job.args, kwargs=job.kwargs)
            result = self._ran_body(job, told["n"])
        except BaseException as raised:  # noqa: BLE001 - whatever a task raises is its outcome
            error = raised
        self._soft_of = None
        if os.getpid() != self._pid:
            body.end_copy(job, error)
        return self._end(job, told["n"], result, error)

    def _check_known(self, name: str) -> None:
        if name not in self._app.tasks:
            raise UnknownTask(
                f"no task named {name!r} is registered in the pool's children: only the worker "
                "has imported its module; name that in include=[…]"
            )

    def _ran_body(self, job: Job, number: int) -> object:
        if job.task.is_async:
            self._work = body.acall(job, self._hooks)
            try:
                result, error = self._app.run(_contained(self._work), twin="")
            finally:
                self._work = None
            if error is not None:
                raise error
            return result
        before, self._before = self._before, job
        if job.soft_time_limit:
            keep_handler(SOFT_SIGNAL, self._soft_limit, before)
            self._soft, self._soft_of = job.soft_time_limit, number
            self._soft_limit()  # the signal may have come while this was on its way here
        return body.call(job, self._hooks)

    def _job(self, told: dict[str, Any]) -> Job:
        message = wire.message_of(told)
        queue = told["queue"]
        job = Job(
            _NO_DELIVERY,
            message,
            self._app.tasks.get(message.task),
            Lane(queue, queue, 1),
            keeps_result=told["states"],
        )
        job.soft_time_limit = told["soft"]
        job.request = Request(args=job.message.args, kwargs=job.message.kwargs, **told["request"])
        if told["states"]:
            number = told["n"]

            def set_state(task_id: str, state: str, meta: Any) -> None:
                self._pipe.write(wire.frame(wire.STATE, [number, task_id, state, meta]))

            job.request.set_state = set_state
        return job

    def _soft_limit(self, *_: object) -> None:
        """Raise the limit in the task it is meant for, never in the one that came after."""
        if self._soft_of is not None and self._pipe.board.limited == self._soft_of:
            self._soft_of = None
            raise SoftTimeLimitExceeded(self._soft)

    # -- its end ---------------------------------------------------------------------------

    def _concluded(self, job: Job, result: object, error: BaseException | None) -> None:
        """Tell signals, where the task ran, how it ended."""
        self._soft_of = None
        if os.getpid() != self._pid:
            body.end_copy(job, error)
        if isinstance(error, Ignore | Reject | Replaced):
            if announce.wanted(job.task):
                announce.aside(job, error)
            return
        job.outcome = conclude(job, result, error, now=time.time())
        if announce.wanted(job.task):
            announce.ended(job, job.outcome, error)

    def _end(
        self, job: Job, number: int, result: object, error: BaseException | None
    ) -> dict[str, Any]:
        known = job.message.task in self._app.tasks
        if job.outcome is None:
            match error:
                case Ignore():
                    return {"n": number, "aside": "ignore", "text": str(error)}
                case Reject():
                    return {
                        "n": number,
                        "aside": "reject",
                        "text": error.reason,
                        "requeue": error.requeue,
                    }
                case UnknownTask() if not known:
                    job.outcome = _refused(job, error)
                case _:
                    job.outcome = conclude(job, result, error, now=time.time())
        return {"n": number, "outcome": wire.outcome_body(job.outcome)}

    def _written(self, told: dict[str, Any], end: dict[str, Any]) -> bytes:
        try:
            return wire.frame(wire.DONE, end)
        except EncodeError as error:
            text = f"the result cannot be written: {error}"
            job = self._job(told)
            failure = replace(_refused(job, InvalidResult(text)), park=DeadReason.FAILED)
            return wire.frame(wire.DONE, {**end, "outcome": wire.outcome_body(failure)})


async def _contained(
    work: Coroutine[Any, Any, object],
) -> tuple[object, BaseException | None]:
    """Return how a coroutine ended: SystemExit raised in a loop would end the loop."""
    try:
        return await work, None
    except BaseException as error:  # noqa: BLE001 - raised again, outside the loop
        return None, error


def _refused(job: Job, error: BaseException) -> Outcome:
    """Return the failure of a job that no task here has caused."""
    text = str(error)
    return Outcome(
        job.message.id,
        FAILURE,
        exception=ExceptionInfo(type(error).__name__, "amqflow.errors", (text,), text),
        park=DeadReason.UNKNOWN_TASK,
        reason=text,
        date_done=time.time(),
    )


def _imported(setup: dict[str, Any]) -> App:
    """Import the application and every module its tasks came from."""
    found: Any = importlib.import_module(setup["module"])
    for part in setup["attribute"].split("."):
        found = getattr(found, part)
    app: App = found
    app.import_modules()
    for module in setup["modules"]:
        if module not in sys.modules:
            importlib.import_module(module)
    return app


def _resident() -> int:
    """Return the resident memory of this process in KiB; where the system hides it, the peak."""
    try:
        pages = int(Path("/proc/self/statm").read_text(encoding="ascii").split()[1])
    except OSError:
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return pages * resource.getpagesize() // 1024


def _unused(*_: object) -> Any:
    raise NotImplementedError("a child has no queue of its own")


#: A child holds no delivery: the worker does.
_NO_DELIVERY: Any = None
