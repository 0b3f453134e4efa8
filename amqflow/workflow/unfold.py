"""From a frozen node at its place to what has to be sent for it: records first, then calls. Pure.

Chains travel in their messages. What waits for several tasks gets a record: a chord, and a group
whose list somebody waits for. Everything that can begin begins at once, nested headers too.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from itertools import groupby, islice
from typing import TYPE_CHECKING, Any, Final

from amqflow.abc import SUCCESS, Call, Outcome
from amqflow.canvas import Signature, signature_to_call
from amqflow.protocol import NESTING, derived_id
from amqflow.protocol import headers as h
from amqflow.tasks.inherit import NOTHING, Heritage, Inheritance
from amqflow.workflow.freeze import (
    DerivedIds,
    chain_of,
    chosen_id,
    errbacks_of,
    first_id,
    freeze,
    ids_of,
    kind_of,
    result_id,
    steps_of,
)
from amqflow.workflow.records import (
    End,
    Ending,
    Fate,
    Membership,
    Record,
    Seal,
    Spec,
    member_id,
)
from amqflow.workflow.stores import no_chords

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence

    from amqflow.workflow.freeze import Step

#: Members of a generator that are built before they are sent together.
DRAWN: Final = 100


@dataclass(frozen=True, slots=True)
class Place:
    """Where in a workflow a node stands.

    Args:
        later: The steps that follow it, frozen, first first.
        member: The chord its end counts in.
        joined: Somebody waits for it as a whole, so that a group needs a record.
        once: It is sent while a task is settled, which may happen twice.
        epoch: The life of the task that sends it.
        heritage: What it takes over from that task.
    """

    root_id: str | None = None
    parent_id: str | None = None
    later: tuple[Step, ...] = ()
    member: Membership | None = None
    joined: bool = True
    once: bool = False
    epoch: int = 0
    priority: int | None = None
    heritage: Heritage = NOTHING


@dataclass(frozen=True, slots=True)
class Completion:
    """A member's ending on its way to the coordinators of its chord's application."""

    member: Membership
    ending: Ending


@dataclass(slots=True)
class Launch:
    """What has to be done to start something: in this order, each confirmed before the next.

    ``records`` are created and watched; ``calls`` are published; ``outcomes`` and ``completions``
    are those of what has ended already (an empty group).
    """

    records: list[Record] = field(default_factory=list)
    calls: list[Call] = field(default_factory=list)
    outcomes: list[Outcome] = field(default_factory=list)
    completions: list[Completion] = field(default_factory=list)
    #: Of a chord whose members were drawn one by one: they are all there.
    seal: Seal | None = None

    def __bool__(self) -> bool:
        return bool(self.records or self.calls or self.outcomes or self.completions or self.seal)


@dataclass(frozen=True, slots=True)
class Unfolder:
    """Unfolds nodes for one application and the kind of store it counts chords in."""

    app: str
    #: The kind of store; empty where there is none that counts.
    store: str
    #: The result backend's URL, for the error that says why it counts none.
    backend: str | None = None
    inherits: Inheritance = field(default_factory=Inheritance)

    def unfold(
        self,
        frozen: Step,
        place: Place,
        args: Sequence[Any] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Launch:
        """Return what starts a frozen node.

        Args:
            frozen: See :mod:`amqflow.workflow.freeze`.
            place: Where it stands.
            args: Passed to what runs first: a parent's result, the caller's arguments.
            kwargs: Likewise.

        Raises:
            TypeError, ValueError, ConfigurationError: An option of a signature is wrong.
        """
        launch = Launch()
        self._node(frozen, place, args, kwargs, launch)
        return launch

    def follow(
        self,
        steps: Iterable[Step],
        kind: str,
        parent_id: str,
        place: Place,
        args: Sequence[Any],
        launch: Launch,
    ) -> None:
        """Add what follows something beside its way: links, errbacks.

        Args:
            steps: Signatures as they were given, not frozen yet.
            kind: ``"link"`` or ``"errback"``; with the parent's id it makes theirs.
            parent_id: What they follow.
            place: Where that stands; they count in no chord, and nothing comes after them.
            args: Passed to each.
            launch: Gets them.
        """
        aside = replace(place, later=(), member=None, joined=False, parent_id=parent_id, once=True)
        for ordinal, step in enumerate(steps):
            frozen = freeze(
                step,
                DerivedIds(parent_id, f"{kind}.{ordinal}"),
                result={"task_id": chosen_id(step) or derived_id(parent_id, kind, ordinal)},
            )
            self._node(frozen, aside, args, None, launch)

    def _node(
        self,
        node: Step,
        place: Place,
        args: Sequence[Any],
        kwargs: Mapping[str, Any] | None,
        launch: Launch,
    ) -> None:
        match kind_of(node):
            case "chain":
                first, *rest = node["kwargs"]["tasks"]
                joined = replace(place, later=(*rest, *place.later), joined=True)
                self._node(first, joined, args, kwargs, launch)
            case "group":
                self._group(node, place, args, kwargs, launch)
            case "chord":
                header, body = node["kwargs"]["header"], node["kwargs"]["body"]
                self._chord(header, [*steps_of(body), *place.later], place, args, kwargs, launch)
            case _:
                launch.calls.append(self._call(node, place, args, kwargs))

    def _call(
        self, node: Step, place: Place, args: Sequence[Any], kwargs: Mapping[str, Any] | None
    ) -> Call:
        call = signature_to_call(Signature.from_dict(node), args, kwargs)
        call.root_id = place.root_id or call.task_id
        call.parent_id = place.parent_id
        call.chain = place.later[::-1]
        if call.priority is None:
            call.priority = place.priority
        headers: dict[str, Any] = dict(call.headers or {})
        if place.member is not None:
            headers[h.CHORD] = place.member.to_header()
        if place.once:
            headers[h.ONCE] = True
        if place.epoch:
            headers[h.EPOCH] = place.epoch
        call.headers = headers
        place.heritage.complete(call)
        return call

    # -- groups ------------------------------------------------------------------------------

    def _group(
        self,
        group: Step,
        place: Place,
        args: Sequence[Any],
        kwargs: Mapping[str, Any] | None,
        launch: Launch,
    ) -> None:
        if place.later:
            self._chord(group, list(place.later), place, args, kwargs, launch)
        elif place.joined or waited_for(group):
            self._chord(group, None, place, args, kwargs, launch)
        else:
            for member in group["kwargs"]["tasks"]:
                self._node(member, replace(place, joined=False), args, kwargs, launch)

    def _chord(
        self,
        group: Step,
        body: list[Step] | None,
        place: Place,
        args: Sequence[Any],
        kwargs: Mapping[str, Any] | None,
        launch: Launch,
    ) -> None:
        """Wait for a group: with a body, or to have its list."""
        if not self.store:
            raise no_chords(self.backend, "what waits for a group")
        members: Sequence[Step] = group["kwargs"]["tasks"]
        whole = None if body is None else chain_of(body)
        root_id = place.root_id
        if root_id is None and (members or whole is not None):
            root_id = first_id(members[0] if members else whole)  # type: ignore[arg-type]
        place = replace(place, root_id=root_id, later=())
        if not members:
            self._empty(group, whole, place, launch)
            return
        spec = spec_of(group, whole, place)
        spec = with_members(spec, group["options"]["task_id"], members)
        record = Record(group["options"]["task_id"], len(members), spec)
        launch.records.append(record)
        for index, member in enumerate(members):
            self._node(member, self._inside(place, record.id, index), args, kwargs, launch)

    def _inside(self, place: Place, chord: str, index: int) -> Place:
        return replace(place, member=Membership(chord, index, self.app, self.store), joined=True)

    def _empty(self, group: Step, whole: Step | None, place: Place, launch: Launch) -> None:
        """Go on from a group without members: its list is there."""
        own = group["options"]
        self.follow(own.get("link") or (), "link", own["task_id"], place, ([],), launch)
        if whole is not None:
            self._node(whole, place, ([],), None, launch)
            return
        outcome = Outcome(
            own["task_id"],
            SUCCESS,
            result=[],
            epoch=place.epoch,
            attempt=(own.get("replaced_task_nesting") or 0) * NESTING,
        )
        launch.outcomes.append(outcome)
        if place.member is not None:
            launch.completions.append(
                Completion(place.member, Ending.of(place.member.index, outcome))
            )

    # -- members drawn one by one --------------------------------------------------------------

    def draw(
        self,
        group: Step,
        members: Iterator[Step],
        body: Step | None,
        place: Place,
        args: Sequence[Any],
        kwargs: Mapping[str, Any] | None,
    ) -> Iterator[Launch]:
        """Yield what starts a group whose members are built one by one, as they are built.

        Args:
            group: The frozen group without its members.
            members: The members, each frozen when it is drawn.
            body: A frozen chord's body; None: a group.
            place: Where it stands.
            args: Passed to each member.
            kwargs: Likewise.
        """
        first = next(members, None)
        if first is None:
            empty = {**group, "kwargs": {"tasks": ()}}
            launch = Launch()
            if body is not None or place.joined or waited_for(group):
                self._chord(empty, None if body is None else [body], place, args, kwargs, launch)
            yield launch
            return
        if body is None and not (place.joined or waited_for(group)):
            yield from self._drawn_apart(first, members, place, args, kwargs)
            return
        if not self.store:
            raise no_chords(self.backend, "what waits for a group")
        place = replace(place, root_id=place.root_id or first_id(first))
        chord = group["options"]["task_id"]
        spec = spec_of(group, body, place)
        drawn = _Drawn(chord)
        launch = Launch(records=[Record(chord, None, spec)])
        for index, member in enumerate(_chained(first, members)):
            drawn.note(index, member)
            self._node(member, self._inside(place, chord, index), args, kwargs, launch)
            if index == 0 or len(launch.calls) >= DRAWN:
                yield launch
                launch = Launch()
        launch.seal = Seal(chord, drawn.size, drawn.complete(spec))
        yield launch

    def _drawn_apart(
        self,
        first: Step,
        members: Iterator[Step],
        place: Place,
        args: Sequence[Any],
        kwargs: Mapping[str, Any] | None,
    ) -> Iterator[Launch]:
        """Yield the members of a group nobody waits for as a whole."""
        everyone = _chained(first, members)
        while some := list(islice(everyone, DRAWN)):
            launch = Launch()
            for member in some:
                self._node(member, place, args, kwargs, launch)
            yield launch


def waited_for(group: Step) -> bool:
    """Return whether a frozen group has something of its own to run at its end."""
    options = group["options"]
    return bool(options.get("link") or options.get("link_error"))


def spec_of(group: Step, whole: Step | None, place: Place) -> Spec:
    """Return what a group's record is for, without what its members tell."""
    own = group["options"]
    nesting = own.get("replaced_task_nesting") or 0
    header = End(own["task_id"], nesting * NESTING)
    errbacks = [*(own.get("link_error") or ())]
    ends = [header]
    if whole is not None:
        ends = [End(task_id, nest * NESTING, task) for task_id, nest, task in ids_of(whole)]
        ends.append(header)
        errbacks += [one for one in errbacks_of(whole) if one not in errbacks]
    fate = Fate(
        tuple(ends),
        tuple(errbacks),
        place.member,
        place.root_id,
        place.parent_id,
        place.priority,
        place.heritage.headers,
        place.heritage.expires,
    )
    return Spec(fate, whole, tuple(own.get("link") or ()), epoch=place.epoch)


def with_members(spec: Spec, chord: str, members: Iterable[Step]) -> Spec:
    """Return a record's purpose with what its members tell: names, and ids they chose."""
    drawn = _Drawn(chord)
    for index, member in enumerate(members):
        drawn.note(index, member)
    return drawn.complete(spec)


class _Drawn:
    """What is kept of members once they are sent."""

    def __init__(self, chord: str) -> None:
        self._chord = chord
        self._own: dict[int, str] = {}
        self._names: list[str] = []

    @property
    def size(self) -> int:
        """How many there were."""
        return len(self._names)

    def note(self, index: int, member: Step) -> None:
        """Note one member."""
        task_id = result_id(member)
        if task_id != member_id(self._chord, index):
            self._own[index] = task_id
        self._names.append(title_of(member))

    def complete(self, spec: Spec) -> Spec:
        """Return the record's purpose with them."""
        runs = tuple((name, len(list(same))) for name, same in groupby(self._names))
        return replace(spec, members=self._own, names=runs)


def title_of(node: Step) -> str:
    """Return the tasks of a frozen node as people read them: ``fetch | resize``."""
    kwargs = node["kwargs"]
    match node["subtask_type"]:
        case "chain":
            return " | ".join(map(title_of, kwargs["tasks"]))
        case "group":
            # Without its size: neighbours that do the same are one line for people.
            members = kwargs["tasks"]
            return f"group({title_of(members[0])} …)" if members else "group()"
        case "chord":
            return f"{title_of(kwargs['header'])} | {title_of(kwargs['body'])}"
        case _:
            return str(node["task"])


def _chained(first: Step, rest: Iterator[Step]) -> Iterator[Step]:
    yield first
    yield from rest


def ends_of(steps: Iterable[Step]) -> list[End]:
    """Return the ids of all in frozen steps: what ends without a run where one before fails."""
    return [
        End(task_id, nesting * NESTING, task)
        for step in steps
        for task_id, nesting, task in ids_of(step)
    ]
