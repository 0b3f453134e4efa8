"""Revoking by id, name, stamp and workflow: ``app.control``, with Celery's verbs."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any, Final, Protocol, TypeAlias

from amqflow.abc import LoopRunner
from amqflow.handles import AsyncResult, GroupResult
from amqflow.protocol import TaskMessage
from amqflow.protocol.revocation import Target, stamps_of

if TYPE_CHECKING:
    from amqflow.protocol.revocation import Revocation

    Revocable: TypeAlias = "str | AsyncResult[Any] | GroupResult"

__all__ = ["Control"]


class Revoker(Protocol):
    """What the control needs of the application."""

    async def arevoke_all(
        self, target: Target, values: Iterable[str], *, terminate: bool, expires: float | None
    ) -> None:
        """Keep revocations and end what has not begun."""
        ...

    async def alift(self, target: Target, values: Iterable[str]) -> int:
        """Forget revocations."""
        ...

    async def arevocations(self) -> list[Revocation]:
        """Return what is in force."""
        ...


class ControlledApp(LoopRunner, Revoker, Protocol):
    """Both."""


def _texts(given: Any, what: str) -> list[str]:
    """Return one text or several as a list; a handle stands for its id, a group's for its members'.

    Raises:
        TypeError: It is neither.
    """
    if isinstance(given, str):
        return [given]
    if isinstance(given, GroupResult):
        return [text for member in given for text in _texts(member, what)]
    if isinstance(given, AsyncResult):
        return [given.id]
    if isinstance(given, Iterable) and not isinstance(given, bytes | Mapping):
        return [text for one in given for text in _texts(one, what)]
    raise TypeError(f"expected {what}, or several, got {given!r:.80}")


_ID: Final = "a task's id or its handle"


class Control:
    """Tells workers what must not run. Every verb has its ``a`` twin.

    Revoking is durable: it returns when the store has it, and every worker heeds it, those too
    that start later. ``destination``, ``signal`` and ``reply`` of Celery's verbs are taken and not
    needed: all workers read one store, and a running task is ended as its pool can.
    """

    def __init__(self, app: ControlledApp) -> None:
        """Speak for an application."""
        self._app = app

    # -- by id -----------------------------------------------------------------------------

    def revoke(
        self,
        task_id: Revocable | Iterable[Revocable],
        destination: Any = None,
        terminate: bool = False,
        signal: Any = None,
        *,
        expires: float | None = None,
        **celery: Any,
    ) -> None:
        """Revoke one task or several by id, sent already or not yet; blocks.

        Args:
            task_id: an id or a handle, or several; a group's handle stands for its members.
            destination: Celery's, ignored.
            terminate: end it where it runs.
            signal: Celery's, ignored.
            expires: seconds it is remembered; default: the setting ``revoke_expires``.
            **celery: Celery's other options, ignored.
        """
        del destination, signal, celery
        work = self.arevoke(task_id, terminate=terminate, expires=expires)
        self._app.run(work, twin="arevoke")

    async def arevoke(
        self,
        task_id: Revocable | Iterable[Revocable],
        *,
        terminate: bool = False,
        expires: float | None = None,
    ) -> None:
        """Async twin of :meth:`revoke`."""
        ids = _texts(task_id, _ID)
        await self._app.arevoke_all(Target.ID, ids, terminate=terminate, expires=expires)

    def terminate(
        self, task_id: Revocable | Iterable[Revocable], *_celery: Any, **_more: Any
    ) -> None:
        """Revoke by id and end what runs."""
        self.revoke(task_id, terminate=True)

    # -- by what tasks have in common ------------------------------------------------------

    def revoke_tasks(
        self, name: str | Iterable[str], *, terminate: bool = False, expires: float | None = None
    ) -> None:
        """Revoke every task of a name that was sent until now, retries included; blocks."""
        work = self.arevoke_tasks(name, terminate=terminate, expires=expires)
        self._app.run(work, twin="arevoke_tasks")

    async def arevoke_tasks(
        self, name: str | Iterable[str], *, terminate: bool = False, expires: float | None = None
    ) -> None:
        """Async twin of :meth:`revoke_tasks`."""
        names = _texts(name, "a task's name")
        await self._app.arevoke_all(Target.TASK, names, terminate=terminate, expires=expires)

    def revoke_by_stamped_headers(
        self,
        headers: Mapping[str, Any],
        destination: Any = None,
        terminate: bool = False,
        *,
        expires: float | None = None,
        **celery: Any,
    ) -> None:
        """Revoke every task that has one of these stamps, sent already or not yet; blocks."""
        del destination, celery
        work = self.arevoke_by_stamped_headers(headers, terminate=terminate, expires=expires)
        self._app.run(work, twin="arevoke_by_stamped_headers")

    async def arevoke_by_stamped_headers(
        self, headers: Mapping[str, Any], *, terminate: bool = False, expires: float | None = None
    ) -> None:
        """Async twin of :meth:`revoke_by_stamped_headers`."""
        stamps = stamps_of(TaskMessage(id="", task="", stamps=dict(headers)))
        await self._app.arevoke_all(Target.STAMP, stamps, terminate=terminate, expires=expires)

    def revoke_workflow(
        self,
        root_id: Revocable | Iterable[Revocable],
        *,
        terminate: bool = False,
        expires: float | None = None,
    ) -> None:
        """Revoke every task of a workflow by the id of its first one; blocks."""
        work = self.arevoke_workflow(root_id, terminate=terminate, expires=expires)
        self._app.run(work, twin="arevoke_workflow")

    async def arevoke_workflow(
        self,
        root_id: Revocable | Iterable[Revocable],
        *,
        terminate: bool = False,
        expires: float | None = None,
    ) -> None:
        """Async twin of :meth:`revoke_workflow`."""
        roots = _texts(root_id, _ID)
        await self._app.arevoke_all(Target.ROOT, roots, terminate=terminate, expires=expires)

    # -- looking, lifting ------------------------------------------------------------------

    def revocations(self) -> list[Revocation]:
        """Return what is in force; blocks."""
        return self._app.run(self._app.arevocations(), twin="arevocations")

    def lift(self, target: Target | str, value: str | Iterable[str]) -> int:
        """Forget revocations, so that what was not yet refused runs; blocks."""
        values = _texts(value, "what was revoked")
        return self._app.run(self._app.alift(Target(target), values), twin="alift")
