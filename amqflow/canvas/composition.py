"""What chain, group and chord have in common: members, and being sent as a whole."""

from __future__ import annotations

from abc import abstractmethod
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, TypeVar

from amqflow.canvas.call import CallOptions, build_call
from amqflow.canvas.node import DEEPEST, Node, read_fields, too_deep
from amqflow.errors import ConfigurationError

if TYPE_CHECKING:
    from collections.abc import (
        Awaitable,
        Callable,
        Coroutine,
        Iterable,
        Iterator,
        Mapping,
        Sequence,
    )
    from typing import Self, Unpack

    from amqflow.abc import Dispatcher
    from amqflow.canvas.signature import Signature
    from amqflow.handles import AsyncResult, EagerGroupResult, EagerResult, GroupResult

R_co = TypeVar("R_co", covariant=True)
T = TypeVar("T")


class Composition(Node[R_co]):
    """A node made of nodes. Its arguments are its members': there are none of its own."""

    __slots__ = ()

    @property
    def task(self) -> str:
        """Celery's name of this kind of composition."""
        return f"celery.{self.subtask_type}"

    @property
    def args(self) -> tuple[Any, ...]:
        """Empty: arguments given to a composition are its members'."""
        return ()

    @property
    def kwargs(self) -> Mapping[str, Any]:
        """The members, under Celery's names."""
        return MappingProxyType(self._members())

    @abstractmethod
    def _members(self) -> dict[str, Any]:
        """Return the members under Celery's names of them in the dict form."""

    @abstractmethod
    def _nodes(self) -> Iterator[Node[Any]]:
        """Yield the members."""

    def _drawn(self) -> Iterable[Node[Any]]:
        """Return the members that are there; none is drawn from a generator for it."""
        return self._nodes()

    def _check_nesting(self) -> None:
        """Refuse what nests so deep that going through it would run out of stack.

        Raises:
            ConfigurationError: It is deeper than :data:`DEEPEST`.
        """
        level: list[Composition[Any]] = [self]
        for _ in range(DEEPEST):
            within = (one for node in level for one in node._drawn())  # noqa: SLF001 - its own kind
            level = [one for one in within if isinstance(one, Composition)]
            if not level:
                return
        raise too_deep(self.task)

    @property
    def dispatcher(self) -> Dispatcher | None:
        """The application this will be sent by: its own, or its members'."""
        if self._dispatcher is not None:
            return self._dispatcher
        for node in self._nodes():
            found = node.dispatcher
            if found is not None:
                return found
        return None

    def bind(self, tasks: Mapping[str, Any], dispatcher: Dispatcher) -> Self:
        """Make this one and its members ready to run by an application; return it."""
        self._dispatcher = dispatcher
        for node in self._nodes():
            node.bind(tasks, dispatcher)
        return self

    def restamp(self, stamps: Mapping[str, Any], *, append: bool) -> Self:
        """Stamp the members and what is linked to this; return this node."""
        super().restamp(stamps, append=append)
        self._change_nodes(lambda node: node.restamp(stamps, append=append))
        return self

    def _freeze_end(
        self,
        end: Node[Any],
        before: AsyncResult[Any] | GroupResult | None,
        own: str | None,
        group_id: str | None,
        group_index: int | None,
    ) -> AsyncResult[Any] | GroupResult:
        """Give the node whose result is this composition's its id; what ran before is its parent.

        ``own``: the composition's id, where none was chosen.
        """
        ended: AsyncResult[Any] | GroupResult = end.freeze(
            self.id or own, group_id, group_index=group_index
        )
        ended.beginning.parent = before
        return ended

    def _change_nodes(self, change: Callable[[Node[Any]], Node[Any]]) -> None:
        """Change each member, which is this composition's own; later ones when they are drawn."""
        for node in self._nodes():
            change(node)

    def check_options(self) -> None:
        """Make sure that this, and all in it, can be called."""
        build_call(self.task, None, None, self._options)
        for node in self._nodes():
            node.check_options()

    @classmethod
    def _read(cls, data: Mapping[str, Any], *names: str) -> tuple[list[Any], dict[str, Any]]:
        """Return the named members and the options of a dict form."""
        task, _, kwargs, options = read_fields(data)
        if data.get("subtask_type") != cls.subtask_type:
            raise ConfigurationError(f"{task}: this is no {cls.subtask_type}")
        missing = [name for name in names if kwargs.get(name) is None]
        if missing:
            raise ConfigurationError(f"{task}: kwargs must hold {' and '.join(missing)}")
        return [kwargs[name] for name in names], options

    # -- running ----------------------------------------------------------------------------

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """Send, with ``args`` for the members that run first, as in Celery."""
        return self.apply_async(args, kwargs)

    def apply(
        self,
        args: Sequence[Any] = (),
        kwargs: Mapping[str, Any] | None = None,
        *,
        throw: bool = False,
        **options: Any,
    ) -> EagerResult[Any] | EagerGroupResult:
        """Run in this process, one task after the other, and return how it ended.

        Args:
            args: For the members that run first.
            kwargs: For the members that run first.
            throw: Raise the error it ended with.
            **options: Execution options; delays and limits are not waited for.
        """
        work = self._eagerly(_run_here, args, kwargs, options)
        return _thrown(drive(work), throw=throw)

    async def aapply(
        self,
        args: Sequence[Any] = (),
        kwargs: Mapping[str, Any] | None = None,
        *,
        throw: bool = False,
        **options: Any,
    ) -> EagerResult[Any] | EagerGroupResult:
        """Async twin of :meth:`apply`."""
        return _thrown(await self._eagerly(_arun_here, args, kwargs, options), throw=throw)

    def _eagerly(
        self,
        run_one: Callable[[Signature[Any]], Awaitable[EagerResult[Any]]],
        args: Sequence[Any],
        kwargs: Mapping[str, Any] | None,
        options: Mapping[str, Any],
    ) -> Coroutine[Any, Any, EagerResult[Any] | EagerGroupResult]:
        # What runs a composition knows its kinds, so it comes after this module.
        from amqflow.canvas.eager import EagerComposition  # noqa: PLC0415

        return EagerComposition(run_one).run(self.clone(args or (), kwargs, **options))

    def delay(self, *args: Any, **kwargs: Any) -> Any:
        """Send, with ``args`` for the members that run first; blocks until the confirm."""
        return self.apply_async(args, kwargs)

    async def adelay(self, *args: Any, **kwargs: Any) -> Any:
        """Async twin of :meth:`delay`."""
        return await self.aapply_async(args, kwargs)

    def apply_async(
        self,
        args: Sequence[Any] = (),
        kwargs: Mapping[str, Any] | None = None,
        **options: Unpack[CallOptions],
    ) -> Any:
        """Send with arguments completed and ``options`` over ours; blocks until the confirm.

        Returns:
            A chain's handle is that of its last step, with ``parent``; a group's is a GroupResult;
            a chord's that of its body, whose parent is the header's.

        Raises:
            ConfigurationError: No application is attached, or an option is unknown.
        """
        dispatcher = self._attached()
        sending = dispatcher.send_composition(self, args or (), kwargs or {}, options)
        return dispatcher.run(sending, twin="aapply_async")

    async def aapply_async(
        self,
        args: Sequence[Any] = (),
        kwargs: Mapping[str, Any] | None = None,
        **options: Unpack[CallOptions],
    ) -> Any:
        """Async twin of :meth:`apply_async`."""
        return await self._attached().send_composition(self, args or (), kwargs or {}, options)


async def _run_here(signature: Signature[Any]) -> EagerResult[Any]:
    ended: EagerResult[Any] = signature.apply()
    return ended


async def _arun_here(signature: Signature[Any]) -> EagerResult[Any]:
    ended: EagerResult[Any] = await signature.aapply()
    return ended


def _thrown(
    ended: EagerResult[Any] | EagerGroupResult, *, throw: bool
) -> EagerResult[Any] | EagerGroupResult:
    if throw:
        ended.get()
    return ended


def drive(work: Coroutine[Any, Any, T]) -> T:
    """Run a coroutine that waits for nothing to its end, without a loop."""
    try:
        work.send(None)
    except StopIteration as stopped:
        value: T = stopped.value
        return value
    work.close()
    raise RuntimeError("an eager run waited for something outside")
