"""The workflows that are kept: found by any id in them, drawn, cancelled."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from amqflow.abc import PENDING
from amqflow.workflow.records import Ending, Membership, State

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence

    from amqflow.abc import Outcome
    from amqflow.workflow.launch import Launcher
    from amqflow.workflow.records import Known
    from amqflow.workflow.stores import ChordStore

#: Chords that are looked through for an id.
MOST: Final = 10_000
#: Open chords that a revoke looks through for a member: the newest. A member of an older one is
#: counted when its message comes to a worker.
MOST_REVOKED: Final = 1_000


@dataclass(frozen=True, slots=True)
class Workflow:
    """The chords that descend from one task, outermost first."""

    root_id: str
    chords: tuple[Known, ...]

    @property
    def state(self) -> str:
        """Whether members are waited for, and how it ended where none are."""
        states = {known.state for known in self.chords}
        if State.FAILED in states:
            return "failed"
        return "open" if State.OPEN in states else "fired"

    @property
    def title(self) -> str:
        """Its outermost chord, for people."""
        return title_of(self.chords[0])

    @property
    def created(self) -> float:
        """When its first chord was made, in Unix seconds."""
        return min(known.created for known in self.chords)

    def ids(self) -> Iterator[str]:
        """Yield every id its chords know."""
        yield self.root_id
        for known in self.chords:
            yield known.id
            yield from ids_of(known)


def ids_of(known: Known) -> Iterator[str]:
    """Yield the ids a chord knows: its members', and of what waits for it."""
    if known.spec is None:
        return
    for index in range(known.size or 0):
        yield known.spec.member_id(known.id, index)
    yield from known.added.values()
    for end in known.spec.fate.ends:
        yield end.id


def title_of(known: Known) -> str:
    """Return a chord as people read it: ``fetch x100 → report``."""
    if known.spec is None:
        return known.id
    header = ", ".join(
        f"{name} x{count}" if count > 1 else name for name, count in known.spec.names
    )
    body = known.spec.fate.result.task
    return f"{header or 'nothing'} → {body or 'their list'}"


def workflows(chords: Iterable[Known]) -> list[Workflow]:
    """Return chords by the workflow they belong to, the newest first."""
    by_root: dict[str, list[Known]] = {}
    for known in chords:
        root = None if known.spec is None else known.spec.fate.root_id
        by_root.setdefault(root or known.id, []).append(known)
    found = [Workflow(root, tuple(_outermost_first(some))) for root, some in by_root.items()]
    return sorted(found, key=lambda workflow: -workflow.created)


def _outermost_first(chords: Sequence[Known]) -> list[Known]:
    own = {known.id for known in chords}

    def inner(known: Known) -> bool:
        member = None if known.spec is None else known.spec.fate.member
        return member is not None and member.chord in own

    return sorted(chords, key=lambda known: (inner(known), known.created, known.id))


async def find(store: ChordStore, task_id: str) -> Workflow | None:
    """Return the workflow that an id of any of its tasks, groups or chords belongs to."""
    every = workflows(await store.kept(MOST))
    for workflow in every:
        if workflow.root_id == task_id or any(known.id == task_id for known in workflow.chords):
            return workflow
    return next((workflow for workflow in every if task_id in set(workflow.ids())), None)


# -- drawing ---------------------------------------------------------------------------------


def drawn(workflow: Workflow, outcomes: Mapping[str, Outcome | None]) -> str:
    """Return a workflow as a Mermaid flowchart with the states of its tasks.

    Args:
        workflow: What is drawn.
        outcomes: What the result store knows of its ids.
    """
    lines = ["flowchart TD"]
    numbers = {known.id: number for number, known in enumerate(workflow.chords)}
    for known in workflow.chords:
        lines += _chord_lines(known, numbers, outcomes)
    return "\n".join(lines)


def _chord_lines(
    known: Known, numbers: Mapping[str, int], outcomes: Mapping[str, Outcome | None]
) -> list[str]:
    name, spec = f"c{numbers[known.id]}", known.spec
    if spec is None:
        return [f'  {name}["{known.id}"]']
    lines = [f'  subgraph {name}["chord {known.id}: {known.state}"]']
    start = 0
    for run, (title, count) in enumerate(spec.names):
        ids = [spec.member_id(known.id, index) for index in range(start, start + count)]
        start += count
        many = f" x{count}" if count > 1 else ""
        states = _states(ids, outcomes)
        lines.append(f'    {name}m{run}["{_quoted(title)}{many}<br/>{states}"]')
    if known.added:
        states = _states(list(known.added.values()), outcomes)
        lines.append(f'    {name}added["added x{len(known.added)}<br/>{states}"]')
    lines.append("  end")
    before = name
    for place, end in enumerate(_forward(known)):
        title = end.task or "their list"
        lines.append(
            f'  {before} --> {name}b{place}["{_quoted(title)}<br/>{_states([end.id], outcomes)}"]'
        )
        before = f"{name}b{place}"
    member = spec.fate.member
    if member is not None and member.chord in numbers:
        lines.append(f"  {before} -. member {member.index} .-> c{numbers[member.chord]}")
    return lines


def _forward(known: Known) -> list[Any]:
    """Return what a chord leads to in the order it runs."""
    assert known.spec is not None, "asked by the caller"
    ends = [end for end in known.spec.fate.ends if end.id != known.id]
    return ends[::-1] or list(known.spec.fate.ends)


def _states(ids: Sequence[str], outcomes: Mapping[str, Outcome | None]) -> str:
    counted = Counter(
        PENDING if (outcome := outcomes.get(task_id)) is None else outcome.state for task_id in ids
    )
    if len(ids) == 1:
        return next(iter(counted))
    return ", ".join(f"{count} {state}" for state, count in sorted(counted.items()))


def _quoted(text: str) -> str:
    return text.replace('"', "#quot;")


# -- revoking --------------------------------------------------------------------------------


async def count_revoked(revoked: Sequence[Outcome], launcher: Launcher) -> int:
    """Tell the chords of members that a revoke has ended before they began; return how many.

    Their messages may lie in a queue or on the ladder for long: nobody waits for that.
    """
    store = launcher.chords
    if store is None or not revoked:
        return 0
    outcomes = {outcome.id: outcome for outcome in revoked}
    told = 0
    for listed in await store.kept(MOST_REVOKED, fired=False):
        if listed.state is not State.OPEN or listed.spec is None:
            continue
        members = set(ids_of(listed)) & outcomes.keys()
        known = await store.load(listed.id, endings=True) if members else None
        if known is None:
            continue
        endings = [
            Ending.of(index, outcomes[task_id])
            for index, task_id in known.missing()
            if task_id in outcomes
        ]
        if endings:
            member = Membership(known.id, 0, launcher.names.app, store.kind)
            await launcher.producer.publish(launcher.completions(member, endings))
            told += len(endings)
    return told
