"""The handles on what has run here (``apply``): every verb answers at once."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, TypeVar, cast

from amqflow.abc import FAILURE, PROPAGATE_STATES, SUCCESS, ExceptionInfo, Outcome
from amqflow.handles.group import GroupResult
from amqflow.handles.result import AsyncResult

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Iterator, Sequence

    from amqflow.handles.base import Handle

R = TypeVar("R")


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
        parent: Handle | None = None,
    ) -> None:
        """Hold how a task ended.

        Args:
            id: The id the run had.
            value: The return value, or the exception of a FAILURE or REVOKED.
            state: A terminal state, or RETRY.
            traceback: Of the exception, as text.
            task: The task's name.
            parent: The handle on what ran before it.
        """
        self.id = id
        self.parent = parent
        self.task = task
        self.queue = None
        self._value = value
        self._state = state
        self._traceback = traceback
        self._error = value if isinstance(value, BaseException) else None

    def get(
        self,
        timeout: float | None = None,
        propagate: bool = True,
        interval: float | None = None,
        callback: Callable[[str, Any], object] | None = None,
        disable_sync_subtasks: bool = True,
    ) -> R:
        """Return the value or raise the exception; ``propagate=False`` returns it."""
        del timeout, interval, disable_sync_subtasks
        if self._state in PROPAGATE_STATES and propagate and self._error is not None:
            raise self._error
        if callback is not None:
            callback(self.id, self._value)
        return cast("R", self._value)

    wait = get

    async def aget(
        self,
        timeout: float | None = None,
        propagate: bool = True,
        *,
        disable_sync_subtasks: bool = True,
    ) -> R:
        """Async twin of :meth:`get`."""
        del disable_sync_subtasks
        return self.get(timeout, propagate)

    async def await_end(self) -> None:
        """Return at once."""

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
    def ended(self) -> Outcome:
        """How it ended."""
        return self.outcome()

    @property
    def children(self) -> list[Handle]:
        """Empty: nothing was stored."""
        return []

    async def achildren(self) -> list[Handle]:
        """Return nothing: nothing was stored."""
        return []

    def revoke(self, *, terminate: bool = False, signal: Any = None) -> None:
        """Do nothing: it has ended."""

    async def arevoke(self, *, terminate: bool = False, signal: Any = None) -> None:
        """Do nothing: it has ended."""

    async def aforget(self) -> None:
        """Do nothing: nothing was stored."""

    def forget(self) -> None:
        """Do nothing: nothing was stored."""

    def _result_of(self, outcome: Outcome | None) -> Any:
        del outcome
        return self._value


class EagerGroupResult(GroupResult):
    """The results of a group that has run here; every verb answers at once."""

    __slots__ = ()

    def __init__(
        self,
        id: str,  # noqa: A002 - Celery's name
        results: Sequence[EagerResult[Any] | EagerGroupResult],
        *,
        parent: Handle | None = None,
    ) -> None:
        """Hold the members' results, in the group's order."""
        self.id = id
        self.results = list(results)
        self.parent = parent

    @property
    def eager(self) -> list[EagerResult[Any] | EagerGroupResult]:
        """The members' results, which have all run here."""
        return cast("list[EagerResult[Any] | EagerGroupResult]", self.results)

    def get(
        self,
        timeout: float | None = None,
        propagate: bool = True,
        interval: float | None = None,
        callback: Callable[[str, Any], object] | None = None,
        disable_sync_subtasks: bool = True,
    ) -> list[Any]:
        """Return the values, or raise the first failure; ``propagate=False`` returns them too."""
        del interval, disable_sync_subtasks
        values = [member.get(timeout, propagate) for member in self.eager]
        if callback is None:
            return values
        for member, value in zip(self.eager, values, strict=True):
            callback(member.id, value)
        return []

    join = get
    join_native = get

    async def aget(
        self,
        timeout: float | None = None,
        propagate: bool = True,
        *,
        disable_sync_subtasks: bool = True,
    ) -> list[Any]:
        """Async twin of :meth:`get`."""
        del disable_sync_subtasks
        return self.get(timeout, propagate)

    ajoin = aget

    def as_completed(
        self, timeout: float | None = None, *, disable_sync_subtasks: bool = True
    ) -> Iterator[AsyncResult[Any] | GroupResult]:
        """Yield the members in order: all have ended."""
        del timeout, disable_sync_subtasks
        return iter(self.results)

    iterate = as_completed

    async def aas_completed(
        self, timeout: float | None = None, *, disable_sync_subtasks: bool = True
    ) -> AsyncIterator[AsyncResult[Any] | GroupResult]:
        """Async twin of :meth:`as_completed`."""
        del timeout, disable_sync_subtasks
        for member in self.results:
            yield member

    async def await_end(self) -> None:
        """Return at once."""

    def _states(self) -> list[str]:
        return [outcome.state for outcome in self._outcomes()]

    async def aoutcomes(self) -> list[Outcome | None]:
        """Return how each single member ended."""
        return [*self._outcomes()]

    def _outcomes(self) -> list[Outcome]:
        found: list[Outcome] = []
        for member in self.eager:
            if isinstance(member, EagerGroupResult):
                found += member._outcomes()  # noqa: SLF001 - its own kind
            else:
                found.append(member.outcome())
        return found

    @property
    def state(self) -> str:
        """SUCCESS where every member succeeded, else FAILURE."""
        return SUCCESS if self.successful() else FAILURE

    def revoke(self, *, terminate: bool = False, signal: Any = None) -> None:
        """Do nothing: all have ended."""

    async def arevoke(self, *, terminate: bool = False, signal: Any = None) -> None:
        """Do nothing: all have ended."""

    def forget(self) -> None:
        """Do nothing: nothing was stored."""

    async def aforget(self) -> None:
        """Do nothing: nothing was stored."""
