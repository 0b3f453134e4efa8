"""Handles on results: what a caller holds while a task runs elsewhere, or has run here."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Generic, TypeVar, cast

from amqflow.abc import (
    FAILURE,
    PENDING,
    PROPAGATE_STATES,
    REVOKED,
    SUCCESS,
    TERMINAL_STATES,
    ExceptionInfo,
    Outcome,
)
from amqflow.clock import to_datetime
from amqflow.errors import ResultTimeout, TaskFailed, TaskRevoked, rebuild_exception

if TYPE_CHECKING:
    from collections.abc import Coroutine, Generator
    from datetime import datetime

    from amqflow.abc import ResultReader, Sent

R = TypeVar("R")
V = TypeVar("V")


class AsyncResult(Generic[R]):
    """The result of a task that was sent: Celery's verbs, each with its ``a`` twin.

    A blocking verb inside a running event loop raises :class:`~amqflow.errors.SyncInLoop`.
    A terminal outcome is kept once seen; until then every look asks the store.
    """

    __slots__ = ("_outcome", "_reader", "id", "queue", "task")

    def __init__(
        self,
        id: str,  # noqa: A002 - Celery's name
        reader: ResultReader,
        *,
        task: str | None = None,
        queue: str | None = None,
    ) -> None:
        """Hold the id of a task.

        Args:
            id: The task's id.
            reader: The application.
            task: The task's name, by which the result is validated back.
            queue: The queue it was sent to, for the error that says why nothing came.
        """
        self.id = id
        self.task = task
        self.queue = queue
        self._reader = reader
        self._outcome: Outcome | None = None

    @classmethod
    def of(cls, sent: Sent, reader: ResultReader) -> AsyncResult[R]:
        """Return the handle on a confirmed publish."""
        return cls(sent.id, reader, task=sent.task, queue=sent.queue)

    # -- waiting ----------------------------------------------------------------------------

    def get(
        self, timeout: float | None = None, propagate: bool = True, interval: float | None = None
    ) -> R:
        """Wait for the result and return it; blocks.

        Args:
            timeout: Seconds to wait; None: for as long as it takes.
            propagate: Raise the task's exception; False returns it.
            interval: Celery's, ignored: waiting here is push.

        Raises:
            ResultTimeout: Nothing came in time; the message says where the task is likely to be.
            TaskRevoked: It was revoked, or expired.
            Exception: The task's own, rebuilt; :class:`TaskFailed` where its type is unknown here.
            SyncInLoop: Called inside a running event loop.
        """
        del interval
        return self._run(self.aget(timeout, propagate), "aget")

    wait = get

    async def aget(self, timeout: float | None = None, propagate: bool = True) -> R:
        """Async twin of :meth:`get`."""
        outcome = self._outcome
        if outcome is None:
            try:
                outcome = await self._reader.wait_outcome(self.id, timeout)
            except ResultTimeout:
                raise
            except TimeoutError as error:
                why = await self._reader.explain(self.id, self.queue)
                raise ResultTimeout(
                    f"{self._title()} gave no result within {timeout:g} s: {why}"
                ) from error
            self._keep(outcome)
        if outcome.state in PROPAGATE_STATES:
            failure = error_of(outcome)
            if propagate:
                raise failure
            return cast("R", failure)
        return cast("R", self._reader.decode_result(self.task, outcome.result))

    def __await__(self) -> Generator[Any, None, R]:
        """Wait for the result: ``await task.delay(...)`` is ``await …aget()``."""
        return self.aget().__await__()

    # -- looking ----------------------------------------------------------------------------

    async def aoutcome(self) -> Outcome | None:
        """Return all the store knows of the task now; None where it knows nothing."""
        if self._outcome is not None:
            return self._outcome
        outcome = await self._reader.fetch_outcome(self.id)
        if outcome is not None:
            self._keep(outcome)
        return outcome

    def outcome(self) -> Outcome | None:
        """Return all the store knows of the task now; None where it knows nothing."""
        if self._outcome is not None:
            return self._outcome
        return self._run(self.aoutcome(), "aoutcome")

    async def astate(self) -> str:
        """Async twin of :attr:`state`."""
        return _state_of(await self.aoutcome())

    @property
    def state(self) -> str:
        """Celery's state; ``PENDING`` where the store knows nothing."""
        return _state_of(self.outcome())

    @property
    def status(self) -> str:
        """Celery's other name of :attr:`state`."""
        return self.state

    def ready(self) -> bool:
        """Return whether the task has ended."""
        return self.state in TERMINAL_STATES

    async def aready(self) -> bool:
        """Async twin of :meth:`ready`."""
        return await self.astate() in TERMINAL_STATES

    def successful(self) -> bool:
        """Return whether the task has ended well."""
        return self.state == SUCCESS

    async def asuccessful(self) -> bool:
        """Async twin of :meth:`successful`."""
        return await self.astate() == SUCCESS

    def failed(self) -> bool:
        """Return whether the task has failed (a revoked one has not, as in Celery)."""
        return self.state == FAILURE

    async def afailed(self) -> bool:
        """Async twin of :meth:`failed`."""
        return await self.astate() == FAILURE

    async def aresult(self) -> Any:
        """Async twin of :attr:`result`."""
        return self._result_of(await self.aoutcome())

    @property
    def result(self) -> Any:
        """The value, the exception, or the meta data of an own state, without waiting."""
        return self._result_of(self.outcome())

    @property
    def info(self) -> Any:
        """Celery's other name of :attr:`result`."""
        return self.result

    @property
    def traceback(self) -> str | None:
        """The traceback of a failed task, as text."""
        outcome = self.outcome()
        return outcome.traceback if outcome else None

    @property
    def date_done(self) -> datetime | None:
        """When the task ended, as an aware UTC datetime."""
        outcome = self.outcome()
        return to_datetime(outcome.date_done) if outcome and outcome.date_done else None

    @property
    def children(self) -> list[AsyncResult[Any]]:
        """Handles on the tasks this one has sent; empty until it has ended."""
        outcome = self.outcome()
        return [AsyncResult(child, self._reader) for child in outcome.children] if outcome else []

    @property
    def task_id(self) -> str:
        """Celery's other name of :attr:`id`."""
        return self.id

    @property
    def name(self) -> str | None:
        """The task's name, where the handle knows it."""
        return self.task

    # -- dropping ---------------------------------------------------------------------------

    def forget(self) -> None:
        """Drop the result from the store."""
        self._run(self.aforget(), "aforget")

    async def aforget(self) -> None:
        """Async twin of :meth:`forget`."""
        self._outcome = None
        await self._reader.forget_outcome(self.id)

    # -- inside -----------------------------------------------------------------------------

    def _run(self, work: Coroutine[Any, Any, V], twin: str) -> V:
        return self._reader.run(work, twin=twin)

    def _keep(self, outcome: Outcome) -> None:
        if outcome.terminal:
            self._outcome = outcome

    def _result_of(self, outcome: Outcome | None) -> Any:
        if outcome is None:
            return None
        if outcome.state in PROPAGATE_STATES or outcome.exception is not None:
            return error_of(outcome)
        if outcome.state == SUCCESS:
            return self._reader.decode_result(self.task, outcome.result)
        return outcome.result

    def _title(self) -> str:
        return f"{self.task}[{self.id}]" if self.task else f"task {self.id}"

    def __eq__(self, other: object) -> bool:
        if isinstance(other, AsyncResult):
            return self.id == other.id
        return NotImplemented

    def __hash__(self) -> int:
        return hash(self.id)

    def __str__(self) -> str:
        return self.id

    def __repr__(self) -> str:
        return f"<{type(self).__name__}: {self.id}>"


class EagerResult(AsyncResult[R]):
    """The result of a task that has run here (``apply``); every verb answers at once."""

    __slots__ = ("_error", "_state", "_traceback", "_value")

    def __init__(
        self,
        id: str,  # noqa: A002 - Celery's name
        value: Any,
        state: str,
        *,
        traceback: str | None = None,
        task: str | None = None,
    ) -> None:
        """Hold how a task ended.

        Args:
            id: The id the run had.
            value: The return value, or the exception of a FAILURE or REVOKED.
            state: A terminal state, or RETRY.
            traceback: Of the exception, as text.
            task: The task's name.
        """
        self.id = id
        self.task = task
        self.queue = None
        self._value = value
        self._state = state
        self._traceback = traceback
        self._error = value if isinstance(value, BaseException) else None

    def get(
        self, timeout: float | None = None, propagate: bool = True, interval: float | None = None
    ) -> R:
        """Return the value or raise the exception; ``propagate=False`` returns it."""
        del timeout, interval
        if self._state in PROPAGATE_STATES and propagate and self._error is not None:
            raise self._error
        return cast("R", self._value)

    wait = get

    async def aget(self, timeout: float | None = None, propagate: bool = True) -> R:
        """Async twin of :meth:`get`."""
        return self.get(timeout, propagate)

    async def aoutcome(self) -> Outcome | None:
        """Return the outcome as data."""
        return self.outcome()

    def outcome(self) -> Outcome:
        """Return the outcome as data; the exception's arguments stay as they are."""
        error = self._error
        kind = type(error)
        described = (
            ExceptionInfo(kind.__qualname__, kind.__module__, error.args, str(error))
            if error is not None
            else None
        )
        value = None if error is not None else self._value
        return Outcome(self.id, self._state, value, exception=described, traceback=self._traceback)

    @property
    def date_done(self) -> None:
        """None: nothing was stored."""
        return

    @property
    def children(self) -> list[AsyncResult[Any]]:
        """Empty: nothing was stored."""
        return []

    async def aforget(self) -> None:
        """Do nothing: nothing was stored."""

    def forget(self) -> None:
        """Do nothing: nothing was stored."""

    def _result_of(self, outcome: Outcome | None) -> Any:
        del outcome
        return self._value


def error_of(outcome: Outcome) -> Exception:
    """Return the exception of a failed or revoked outcome, of its own type where that is known."""
    if outcome.state == REVOKED:
        return TaskRevoked(outcome.reason or "revoked")
    if outcome.exception is None:
        return TaskFailed("unknown error", outcome.reason or "")
    return rebuild_exception(outcome.exception)


def _state_of(outcome: Outcome | None) -> str:
    return PENDING if outcome is None else outcome.state
