"""A group: members that run side by side, and give the list of their results."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import count
from typing import TYPE_CHECKING, Any, ClassVar, Final

from amqflow.canvas.composition import Composition
from amqflow.canvas.hints import list_of
from amqflow.canvas.members import Members
from amqflow.canvas.node import Node, signature_from
from amqflow.canvas.stamps import merged
from amqflow.errors import ConfigurationError
from amqflow.handles import GroupResult

if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Self

    from amqflow.abc import Dispatcher
    from amqflow.canvas.signature import Signature

#: Options that are the group's own; the others are for each of its members.
OWN_OPTIONS: Final = frozenset(
    {"link", "link_error", "task_id", "root_id", "parent_id", "group_id", "group_index", "chain"}
)


class Group(Composition[list[Any]], kind=True):
    """Members that run side by side; its result is the list of theirs, in this order.

    Members given as a generator are drawn one by one when they are needed, so that the first may
    run before the last is built. A group directly among them is unrolled into its members, as in
    Celery; one inside a chain stays a group.
    """

    __slots__ = ("members",)

    subtask_type: ClassVar[str | None] = "group"

    #: The members, as far as they are drawn.
    members: Members

    def __init__(self, *tasks: Any, app: Dispatcher | None = None, **options: Any) -> None:
        """Group signatures, compositions, or their dict forms.

        Args:
            *tasks: The members; or one list, tuple, other iterable, or generator of them.
            app: The application; None: the members'.
            **options: Execution options: ``link`` runs once when all are done, ``link_error`` once
                when one has failed; the others hold for each member.

        Raises:
            ConfigurationError: A member is no signature.
        """
        members: Iterable[Any] = tasks
        if len(tasks) == 1 and not isinstance(tasks[0], Node | Mapping):
            members = tasks[0]
            if isinstance(members, str | bytes) or not isinstance(members, Iterable):
                raise ConfigurationError(f"group: not signatures: {members!r:.200}")
        self._dispatcher = app
        self._options = merged({}, options)
        self.immutable = False
        self.members = Members(_unrolled(members, app), lazy=isinstance(members, Iterator))
        self._check_nesting()

    # -- members ----------------------------------------------------------------------------

    def __iter__(self) -> Iterator[Node[Any]]:
        """Yield the members, drawing them from the generator where they came as one.

        What was drawn is kept: a group may be looked at and sent any number of times.
        """
        return iter(self.members)

    @property
    def tasks(self) -> tuple[Node[Any], ...]:
        """The members; those of a generator are all drawn for it."""
        return tuple(self.members.all())

    @property
    def lazy(self) -> bool:
        """Whether members are still to be drawn, so that their number is not known."""
        return self.members.lazy

    def __len__(self) -> int:
        """Return the number of members; those of a generator are all drawn for it."""
        return len(self.members.all())

    def __bool__(self) -> bool:
        """Be true, as an object; an empty group too."""
        return True

    def _nodes(self) -> Iterator[Node[Any]]:
        return iter(self.members.drawn or self.members)

    def _change_nodes(self, change: Callable[[Node[Any]], Node[Any]]) -> None:
        self.members = self.members.mapped(change)

    def _drawn(self) -> Iterable[Node[Any]]:
        return self.members.drawn

    def _members(self) -> dict[str, Any]:
        return {"tasks": list(self.tasks)}

    def __or__(self, other: object) -> Node[Any]:
        """``group | other``: a chord with ``other`` as its body, as in Celery."""
        if not isinstance(other, Node):
            return NotImplemented
        return self.composed("chord", self, other)

    # -- as data ----------------------------------------------------------------------------

    @classmethod
    def from_dict(cls, data: Mapping[str, Any], dispatcher: Dispatcher | None = None) -> Self:
        """Return the group of Celery's dict form (``celery.group``)."""
        (tasks,), options = cls._read(data, "tasks")
        if not isinstance(tasks, list | tuple):
            raise ConfigurationError("celery.group: tasks must be a list of signatures")
        made = cls(tasks, app=dispatcher, **options)
        made.immutable = bool(data.get("immutable", False))
        return made

    def __repr__(self) -> str:
        drawn = self.members.drawn
        shown = ", ".join(map(repr, drawn[:3]))
        more = ", …" if self.lazy or len(drawn) > 3 else ""  # noqa: PLR2004 - as shown
        return f"group({shown}{more})"

    # -- completing -------------------------------------------------------------------------

    def clone(
        self,
        args: Sequence[Any] = (),
        kwargs: Mapping[str, Any] | None = None,
        **options: Any,
    ) -> Self:
        """Return a copy with ``args`` put before each member's; one of a generator stays lazy."""
        if self.immutable:
            args, kwargs = (), None
        made = self._copied(options)
        made.members = self.members.mapped(lambda node: node.clone(args, kwargs))
        return made

    def freeze(
        self,
        _id: str | None = None,
        group_id: str | None = None,
        *,
        group_index: int | None = None,
    ) -> GroupResult:
        """Give this and each member the id it will have; all of a generator are drawn for it."""
        own = self._take_id(_id, group_id=group_id, group_index=group_index)
        members = [
            member.freeze(None, own, group_index=index) for index, member in enumerate(self.tasks)
        ]
        return GroupResult(own, members, self._attached())

    def skew(self, start: float = 1.0, stop: float | None = None, step: float = 1.0) -> Self:
        """Let the members begin one after the other; return this group, as in Celery.

        Args:
            start: The first's countdown, in seconds.
            stop: The largest, which all later ones have; None: it grows on.
            step: How much later each next one begins.
        """
        waits = (start + number * step for number in count())
        most = float("inf") if stop is None else stop
        self._change_nodes(lambda node: node.set(countdown=min(next(waits), most)))
        return self

    def bind(self, tasks: Mapping[str, Any], dispatcher: Dispatcher) -> Self:
        """Make the members ready to run by an application, later ones when they are drawn."""
        self._dispatcher = dispatcher
        self.members = self.members.mapped(lambda node: node.bind(tasks, dispatcher))
        return self

    def known_members(self) -> Iterator[Node[Any]]:
        """Yield the members drawn so far; of a generator that has not begun the first."""
        if self.members.drawn:
            return iter(self.members.drawn)
        first = self.members.first
        return iter(()) if first is None else iter((first,))

    def receivers(self) -> Iterator[Signature[Any]]:
        """Yield those of the members, alike ones once."""
        seen: set[tuple[Any, ...]] = set()
        for member in () if self.immutable else self.known_members():
            for one in member.receivers():
                like = (one.task, len(one.args), tuple(one.kwargs))
                if like not in seen:
                    seen.add(like)
                    yield one

    def result_types(self) -> Iterator[tuple[str, Any]]:
        """Yield the types of a list of each task's results."""
        found = dict(one for member in self.known_members() for one in member.result_types())
        return ((name, list_of(hint)) for name, hint in found.items())

    def spread(self) -> Iterator[Node[Any]]:
        """Yield a copy of each member with the group's options for members over its own."""
        common = {key: value for key, value in self._options.items() if key not in OWN_OPTIONS}
        return (node.clone(**common) for node in self)


def _unrolled(members: Iterable[Any], app: Dispatcher | None) -> Iterator[Node[Any]]:
    """Yield copies of the members, those of groups among them in their place."""
    for member in members:
        node = signature_from(member, app)
        if not isinstance(node, Group):
            yield node.clone()
        else:
            yield from _members_of(node)


def _members_of(group: Group) -> Iterator[Node[Any]]:
    """Yield the members of a group that is about to vanish, with what it said for them."""
    if group.options.get("link"):
        raise ConfigurationError(
            "a group directly inside a group is unrolled, and would lose its link: put the inner "
            "group into a chain, chain(group(…)), or link its members"
        )
    errbacks = group.options.get("link_error")
    for node in group.spread():
        if errbacks:
            node.link_error(errbacks)
        if group.immutable:
            node.set_immutable(True)
        yield node
