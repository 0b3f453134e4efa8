"""The handle on one result: what a caller holds while a task runs elsewhere."""

from __future__ import annotations

import asyncio
import time
from typing import TYPE_CHECKING, Any, Generic, TypeVar, cast

from amqflow.abc import (
    FAILURE,
    PENDING,
    PROPAGATE_STATES,
    SUCCESS,
    TERMINAL_STATES,
    Outcome,
)
from amqflow.clock import to_datetime
from amqflow.errors import ResultTimeout, TaskFailed
from amqflow.handles.base import Handle, check_signal, current_reader, known_id, seconds_to_wait
from amqflow.handles.failure import error_of
from amqflow.handles.joining import refuse_in_task

if TYPE_CHECKING:
    from collections.abc import Callable, Generator
    from datetime import datetime

    from amqflow.abc import Expected, ResultReader, Sent

R = TypeVar("R")


class AsyncResult(Handle, Generic[R]):
    """The result of a task that was sent: Celery's verbs, each with its ``a`` twin.

    A blocking verb inside a running event loop raises :class:`~amqflow.errors.SyncInLoop`.
    A terminal outcome is kept once seen; until then every look asks the store.
    """

    __slots__ = ("_expected", "_outcome", "queue", "task")

    def __init__(
        self,
        id: str,  # noqa: A002 - Celery's name
        reader: ResultReader | None = None,
        *,
        app: ResultReader | None = None,
        task: str | None = None,
        queue: str | None = None,
        parent: Handle | None = None,
    ) -> None:
        """Hold the id of a task.

        Args:
            id: The task's id.
            reader: The application; None: the one made last.
            app: Celery's name of it.
            task: The task's name, by which the result is validated back.
            queue: The queue it was sent to, for the error that says why nothing came.
            parent: The handle on what ran before it, in a chain or before a chord's body.

        Raises:
            ValueError: The id is None, or no text.
            ConfigurationError: There is no application.
        """
        self.id = known_id("AsyncResult", id)
        self.parent = parent
        self.task = task
        self.queue = queue
        self._reader = reader or app or current_reader("AsyncResult")
        self._outcome: Outcome | None = None
        self._expected: Expected | None = None

    @classmethod
    def of(cls, sent: Sent, reader: ResultReader) -> AsyncResult[R]:
        """Return the handle on a confirmed publish."""
        handle: AsyncResult[R] = cls(sent.id, reader, task=sent.task, queue=sent.queue)
        handle._expected = sent.expected
        return handle

    # -- waiting ----------------------------------------------------------------------------

    def get(
        self,
        timeout: float | None = None,
        propagate: bool = True,
        interval: float | None = None,
        callback: Callable[[str, Any], object] | None = None,
        disable_sync_subtasks: bool = True,
    ) -> R:
        """Wait for the result and return it; blocks.

        Args:
            timeout: Seconds to wait; None: for as long as it takes; 0: look, and do not wait.
            propagate: Raise the task's exception; False returns it.
            interval: Celery's, ignored: waiting here is push.
            callback: Called with (id, value) once it is there.
            disable_sync_subtasks: False: allow waiting inside a task.

        Raises:
            ResultTimeout: Nothing came in time; the message says where the task is likely to be.
            TaskRevoked: It was revoked, or expired.
            Exception: The task's own, rebuilt; :class:`TaskFailed` where its type is unknown here.
            SyncInLoop: Called inside a running event loop.
            JoinInTask: Called inside a task.
        """
        del interval
        refuse_in_task(self._reader, disabled=disable_sync_subtasks)
        outcome = self._waited_for(seconds_to_wait(timeout))
        value = self._value_of(outcome, propagate=propagate)
        if callback is not None:
            callback(self.id, value)
        return value

    wait = get

    async def aget(
        self,
        timeout: float | None = None,
        propagate: bool = True,
        *,
        disable_sync_subtasks: bool = True,
    ) -> R:
        """Async twin of :meth:`get`."""
        refuse_in_task(self._reader, disabled=disable_sync_subtasks)
        outcome = await self._known_or_ended(seconds_to_wait(timeout))
        try:
            return self._value_of(outcome, propagate=propagate)
        except StopIteration as error:
            # Out of a coroutine Python lets only a RuntimeError about coroutines come.
            raise TaskFailed("StopIteration", str(error)) from error

    async def _known_or_ended(self, timeout: float | None) -> Outcome:
        if self._outcome is None and self._expected is not None:
            self._outcome = self._expected.look()
        return self._outcome or await self._ended_within(timeout, timeout)

    def _waited_for(self, timeout: float | None) -> Outcome:
        """Block until it has ended; without the loop, where its end is waited for already."""
        if asyncio._get_running_loop() is not None:  # noqa: SLF001 - public, and without an exception
            return self._run(self._known_or_ended(timeout), "aget")  # says that this is no place
        began = time.monotonic()
        if self._outcome is None and self._expected is not None:
            self._outcome = self._expected.wait(timeout)
        if self._outcome is not None:
            return self._outcome
        left = None if timeout is None else max(timeout - (time.monotonic() - began), 0.0)
        return self._run(self._ended_within(timeout, left), "aget")

    async def await_end(self) -> None:
        """Wait until it has ended, however it did."""
        if self._outcome is None:
            self._keep(await self._reader.wait_outcome(self.id, None))

    async def _ended_within(self, timeout: float | None, left: float | None) -> Outcome:
        """Wait for the end; the error of a wait in vain says where the task is likely to be.

        ``left``: what is left of ``timeout``. With nothing left the store is asked once: waiting
        begins with a subscription, for which there is no time.
        """
        try:
            if left is not None and left <= 0:
                known = await self.aoutcome()
                if known is None or not known.terminal:
                    raise TimeoutError  # noqa: TRY301 - as from the wait
                return known
            outcome = await self._reader.wait_outcome(self.id, left)
        except ResultTimeout:
            raise
        except TimeoutError as error:
            raise ResultTimeout(
                f"{self._title()} gave no result within {timeout:g} s: {await self.aexplain()}"
            ) from error
        self._keep(outcome)
        return outcome

    async def aexplain(self) -> str:
        """Say in a few words where a task without a result is likely to be."""
        return await self._reader.explain(self.id, self.queue)

    def _value_of(self, outcome: Outcome, *, propagate: bool) -> R:
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

    def exists(self) -> bool:
        """Return whether the store knows anything of it."""
        return self.outcome() is not None

    async def aexists(self) -> bool:
        """Async twin of :meth:`exists`."""
        return await self.aoutcome() is not None

    def maybe_throw(
        self, propagate: bool = True, callback: Callable[[str, Any], object] | None = None
    ) -> Any:
        """Raise the task's exception where it has failed, else return what there is; waits not.

        Args:
            propagate: False: return the exception.
            callback: Called with (id, value) where nothing is raised.
        """
        return self._thrown(self.outcome(), propagate=propagate, callback=callback)

    maybe_reraise = maybe_throw

    async def amaybe_throw(
        self, propagate: bool = True, callback: Callable[[str, Any], object] | None = None
    ) -> Any:
        """Async twin of :meth:`maybe_throw`."""
        return self._thrown(await self.aoutcome(), propagate=propagate, callback=callback)

    def _thrown(
        self,
        outcome: Outcome | None,
        *,
        propagate: bool,
        callback: Callable[[str, Any], object] | None,
    ) -> Any:
        value = self._result_of(outcome)
        if propagate and _state_of(outcome) in PROPAGATE_STATES:
            raise value
        if callback is not None:
            callback(self.id, value)
        return value

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
    def args(self) -> list[Any] | None:
        """The positional arguments, where results are kept with their call.

        They are with the setting ``result_extended``, once the task has ended.
        """
        told: list[Any] | None = self._told("args")
        return told

    @property
    def kwargs(self) -> dict[str, Any] | None:
        """The keyword arguments, where results are kept with their call."""
        told: dict[str, Any] | None = self._told("kwargs")
        return told

    @property
    def worker(self) -> str | None:
        """The worker that ran it, where results are kept with their call."""
        told: str | None = self._told("worker")
        return told

    @property
    def retries(self) -> int | None:
        """How often it was tried again, where results are kept with their call."""
        told: int | None = self._told("retries")
        return told

    def _told(self, name: str) -> Any:
        outcome = self.outcome()
        return None if outcome is None or outcome.extended is None else outcome.extended.get(name)

    @property
    def ended(self) -> Outcome | None:
        """The outcome it has ended with, where this handle has seen it; asks nobody."""
        return self._outcome

    def note(self, outcome: Outcome | None) -> None:
        """Take what somebody has read of it; an end is kept."""
        if outcome is not None:
            self._keep(outcome)

    @property
    def children(self) -> list[Handle]:
        """Handles on what this task has sent, groups among them; empty until it has ended."""
        return self._run(self.achildren(), "achildren")

    async def achildren(self) -> list[Handle]:
        """Async twin of :attr:`children`."""
        # Groups hold results, so they come after this module.
        from amqflow.handles.children import handle_on  # noqa: PLC0415

        outcome = await self.aoutcome()
        return [handle_on(child, self._reader) for child in outcome.children] if outcome else []

    async def _label(self) -> str:
        return f"{self.task or self.id}<br/>{await self.astate()}"

    def as_tuple(self) -> tuple[Any, Any]:
        """Return Celery's tuple form: ``((id, parent), None)``."""
        return self._id_and_parent(), None

    def as_list(self) -> list[str]:
        """Return the ids of this and its parents, this one first, as in Celery."""
        ids, node = [self.id], self.parent
        while node is not None:
            ids.append(node.id)
            node = node.parent
        return ids

    def revoke(self, *, terminate: bool = False, signal: Any = None) -> None:
        """Revoke it: what has not begun does not run; what runs ends too with ``terminate``.

        Args:
            terminate: End it where it runs.
            signal: Celery's; one that ends a process (TERM, KILL) says what ``terminate`` does.

        Raises:
            ConfigurationError: It is another signal.
        """
        self._run(self.arevoke(terminate=terminate, signal=signal), "arevoke")

    async def arevoke(self, *, terminate: bool = False, signal: Any = None) -> None:
        """Async twin of :meth:`revoke`."""
        check_signal(signal)
        await self._reader.arevoke([self.id], terminate=terminate)

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

    __hash__ = Handle.__hash__

    def __repr__(self) -> str:
        return f"<{type(self).__name__}: {self.id}>"


def _state_of(outcome: Outcome | None) -> str:
    return PENDING if outcome is None else outcome.state
