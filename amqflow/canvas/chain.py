"""A chain: steps that run one after the other, each with the result of the one before."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import pairwise
from typing import TYPE_CHECKING, Any, ClassVar, Final

from amqflow.canvas.check import check_following
from amqflow.canvas.chord import Chord, ends_in_group
from amqflow.canvas.composition import Composition
from amqflow.canvas.group import Group
from amqflow.canvas.node import Node, signature_from
from amqflow.canvas.stamps import merged, stamp_options
from amqflow.errors import ConfigurationError

if TYPE_CHECKING:
    from typing import Self

    from amqflow.abc import Dispatcher
    from amqflow.canvas.signature import Signature
    from amqflow.handles import AsyncResult, GroupResult

#: Options of a chain that are not its first step's.
OWN_OPTIONS: Final = frozenset(
    {"link", "link_error", "task_id", "root_id", "parent_id", "group_id", "group_index", "chain"}
)


class Chain(Composition[Any], kind=True):
    """Steps that run one after the other; its result is the last one's.

    A chain among the steps gives its own steps, with its links at its last and its errbacks at
    each. A group that a step follows becomes the header of a chord with that step as body. So the
    steps are signatures and chords, and at most the last is a group, or a chord that ends in one.
    """

    __slots__ = ("tasks",)

    subtask_type: ClassVar[str | None] = "chain"

    #: The steps.
    tasks: tuple[Node[Any], ...]

    def __init__(self, *tasks: Any, app: Dispatcher | None = None, **options: Any) -> None:
        """Chain signatures, compositions, or their dict forms.

        Args:
            *tasks: The steps; or one iterable or generator of them.
            app: The application; None: the steps'.
            **options: Execution options: ``link`` runs after the last step, ``link_error`` when a
                step has failed, ``task_id`` is the last step's; the others hold for the first.

        Raises:
            ConfigurationError: There is no step, or one is no signature.
            InvalidArguments: A step can never take what the one before it returns.
        """
        steps: Iterable[Any] = tasks
        if len(tasks) == 1 and not isinstance(tasks[0], Node | Mapping):
            steps = tasks[0]
            if isinstance(steps, str | bytes) or not isinstance(steps, Iterable):
                raise ConfigurationError(f"chain: not signatures: {steps!r:.200}")
        self._dispatcher = app
        self._options = merged({}, options)
        self.immutable = False
        joined: list[Node[Any]] = []
        for step in steps:
            for one in _steps_of(signature_from(step, app)):
                _join(joined, one)
        if not joined:
            raise ConfigurationError("a chain needs at least one step")
        self.tasks = tuple(joined)
        self._check_nesting()
        for before, step in pairwise(self.tasks):
            check_following(step, before)

    def _nodes(self) -> Iterator[Node[Any]]:
        return iter(self.tasks)

    def _members(self) -> dict[str, Any]:
        return {"tasks": list(self.tasks)}

    @classmethod
    def from_dict(cls, data: Mapping[str, Any], dispatcher: Dispatcher | None = None) -> Self:
        """Return the chain of Celery's dict form (``celery.chain``)."""
        (tasks,), options = cls._read(data, "tasks")
        if not isinstance(tasks, list | tuple):
            raise ConfigurationError("celery.chain: tasks must be a list of signatures")
        made = cls(tasks, app=dispatcher, **options)
        made.immutable = bool(data.get("immutable", False))
        return made

    def __repr__(self) -> str:
        return " | ".join(map(repr, self.tasks))

    def __len__(self) -> int:
        """Return the number of steps."""
        return len(self.tasks)

    def clone(
        self,
        args: Sequence[Any] = (),
        kwargs: Mapping[str, Any] | None = None,
        **options: Any,
    ) -> Self:
        """Return a copy with ``args`` put before the first step's, and keywords over its own."""
        if self.immutable:
            args, kwargs = (), None
        first, *rest = self.tasks
        made = self._copied(options)
        made.tasks = (first.clone(args, kwargs), *(step.clone() for step in rest))
        return made

    def receivers(self) -> Iterator[Signature[Any]]:
        """Yield those of the first step."""
        return iter(()) if self.immutable else self.tasks[0].receivers()

    def result_types(self) -> Iterator[tuple[str, Any]]:
        """Yield those of the last step."""
        return self.tasks[-1].result_types()

    def freeze(
        self,
        _id: str | None = None,
        group_id: str | None = None,
        *,
        group_index: int | None = None,
    ) -> AsyncResult[Any] | GroupResult:
        """Give each step the id it will have; return the last's handle, with ``parent``."""
        *before, last = self.tasks
        ran: AsyncResult[Any] | GroupResult | None = None
        for step in before:
            handle = step.freeze()
            handle.beginning.parent = ran
            ran = handle
        return self._freeze_end(last, ran, _id, group_id, group_index)

    def spread(self) -> tuple[Node[Any], ...]:
        """Return copies of the steps that carry all this chain's options, which needs no chain.

        Its links are at the last step, its errbacks and stamps at each, the rest at the first.
        """
        steps = [step.clone() for step in self.tasks]
        options = self._options
        if options.get("link"):
            steps[-1].link(options["link"])
        if options.get("link_error"):
            for step in steps:
                step.link_error(options["link_error"])
        common = {key: value for key, value in options.items() if key not in OWN_OPTIONS}
        stamps = stamp_options(options)
        steps = [
            step.clone(**(stamps if place else common)) if common else step
            for place, step in enumerate(steps)
        ]
        if options.get("task_id"):
            steps[-1].set(task_id=options["task_id"])
        if self.immutable:
            steps[0].set_immutable(True)
        return tuple(steps)


def _steps_of(node: Node[Any]) -> Sequence[Node[Any]]:
    """Return what a node adds to a chain: copies, never the caller's own."""
    return node.spread() if isinstance(node, Chain) else (node.clone(),)


def _join(steps: list[Node[Any]], step: Node[Any]) -> None:
    """Put a step behind others; one behind a group becomes the body of a chord."""
    last = steps[-1] if steps else None
    if isinstance(last, Group):
        steps[-1] = Chord(last, step)
    elif isinstance(last, Chord) and ends_in_group(last.body):
        steps[-1] = last.followed_by(step)
    else:
        steps.append(step)
