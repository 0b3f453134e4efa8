"""Revoking by id, name, stamp and workflow: ``app.control``, with Celery's verbs."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Protocol

from amqflow.abc import LoopRunner
from amqflow.protocol import TaskMessage
from amqflow.protocol.revocation import Target, stamps_of

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from amqflow.protocol.revocation import Revocation

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
        task_id: str | Sequence[str],
        destination: Any = None,
        terminate: bool = False,
        signal: Any = None,
        *,
        expires: float | None = None,
        **celery: Any,
    ) -> None:
        """Revoke one task or several by id, sent already or not yet; blocks.

        Args:
            task_id: an id, or several.
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
        task_id: str | Sequence[str],
        *,
        terminate: bool = False,
        expires: float | None = None,
    ) -> None:
        """Async twin of :meth:`revoke`."""
        ids = [task_id] if isinstance(task_id, str) else list(task_id)
        await self._app.arevoke_all(Target.ID, ids, terminate=terminate, expires=expires)

    def terminate(self, task_id: str | Sequence[str], *_celery: Any, **_more: Any) -> None:
        """Revoke by id and end what runs."""
        self.revoke(task_id, terminate=True)

    # -- by what tasks have in common ------------------------------------------------------

    def revoke_tasks(
        self, name: str | Sequence[str], *, terminate: bool = False, expires: float | None = None
    ) -> None:
        """Revoke every task of a name that was sent until now, retries included; blocks."""
        work = self.arevoke_tasks(name, terminate=terminate, expires=expires)
        self._app.run(work, twin="arevoke_tasks")

    async def arevoke_tasks(
        self, name: str | Sequence[str], *, terminate: bool = False, expires: float | None = None
    ) -> None:
        """Async twin of :meth:`revoke_tasks`."""
        names = [name] if isinstance(name, str) else list(name)
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
        self, root_id: str | Sequence[str], *, terminate: bool = False, expires: float | None = None
    ) -> None:
        """Revoke every task of a workflow by the id of its first one; blocks."""
        work = self.arevoke_workflow(root_id, terminate=terminate, expires=expires)
        self._app.run(work, twin="arevoke_workflow")

    async def arevoke_workflow(
        self, root_id: str | Sequence[str], *, terminate: bool = False, expires: float | None = None
    ) -> None:
        """Async twin of :meth:`revoke_workflow`."""
        roots = [root_id] if isinstance(root_id, str) else list(root_id)
        await self._app.arevoke_all(Target.ROOT, roots, terminate=terminate, expires=expires)

    # -- looking, lifting ------------------------------------------------------------------

    def revocations(self) -> list[Revocation]:
        """Return what is in force; blocks."""
        return self._app.run(self._app.arevocations(), twin="arevocations")

    def lift(self, target: Target | str, value: str | Sequence[str]) -> int:
        """Forget revocations, so that what was not yet refused runs; blocks."""
        values = [value] if isinstance(value, str) else list(value)
        return self._app.run(self._app.alift(Target(target), values), twin="alift")
