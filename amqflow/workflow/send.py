"""From a composition as its caller wrote it to the launches that start it, and its handle."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from amqflow.canvas import Chain, Chord, Group, build_call
from amqflow.canvas.stamps import merged
from amqflow.handles import AsyncResult, GroupResult
from amqflow.workflow.freeze import freeze, freeze_lazily, fresh_ids, kind_of
from amqflow.workflow.stores import no_chords

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from amqflow.abc import Child, ResultReader
    from amqflow.canvas import Node
    from amqflow.handles import Handle
    from amqflow.workflow.freeze import Step
    from amqflow.workflow.unfold import Launch, Place, Unfolder


@dataclass(frozen=True, slots=True)
class Sending:
    """A composition on its way; ``handle`` is complete when all ``launches`` are built."""

    launches: Iterator[Launch]
    handle: AsyncResult[Any] | GroupResult


def sending(
    node: Node[Any],
    args: Sequence[Any],
    kwargs: Mapping[str, Any],
    options: Mapping[str, Any],
    *,
    unfolder: Unfolder,
    place: Place,
    reader: ResultReader,
) -> Sending:
    """Freeze a composition and return what starts it.

    Args:
        node: A chain, group or chord; the members of a generator are built as they are sent.
        args: Passed to what runs first.
        kwargs: Likewise.
        options: Execution options over its own.
        unfolder: Of the application.
        place: Under the task that sends it, if one does.
        reader: The application, for the handle.

    Raises:
        TypeError, ValueError, ConfigurationError: An option is wrong, or the result backend
            cannot count the members.
    """
    build_call(node.task, None, None, merged(node.options, options))
    if not unfolder.store and (what := counted(node)) is not None:
        raise no_chords(unfolder.backend, what)
    place = replace(place, joined=not isinstance(node, Group))
    lazy = _lazy(node)
    if lazy is None:
        step = node.to_dict()
        frozen = freeze({**step, "options": merged(step["options"], options)}, fresh_ids)
        launch = unfolder.unfold(frozen, place, args, kwargs)
        return Sending(iter([launch]), handle_of(frozen, reader))
    frozen, members = freeze_lazily(
        _without_members(node, options), (member.to_dict() for member in lazy.members), fresh_ids
    )
    results: list[AsyncResult[Any] | GroupResult] = []
    body = frozen["kwargs"]["body"] if kind_of(frozen) == "chord" else None
    header = frozen if body is None else frozen["kwargs"]["header"]
    group = GroupResult(header["options"]["task_id"], results, reader)
    # The handle keeps the very list that grows while members are drawn.
    group.results = results
    launches = unfolder.draw(header, _noted(members, results, reader), body, place, args, kwargs)
    return Sending(launches, group if body is None else handle_of(body, reader, group))


def counted(node: Node[Any]) -> str | None:
    """Return what in a composition needs a store that counts members; None: nothing."""
    match node:
        case Chord():
            return "a chord"
        case Group():
            if node.options.get("link") or node.options.get("link_error"):
                return "a group with a link or errback"
            return next(filter(None, map(counted, node.members.drawn)), None)
        case Chain():
            if any(isinstance(step, Group) for step in node.tasks):
                return "a group in a chain"
            return next(filter(None, map(counted, node.tasks)), None)
        case _:
            return None


def _lazy(node: Node[Any]) -> Group | None:
    """Return the group whose members are still to be drawn."""
    group = node.header if isinstance(node, Chord) else node
    return group if isinstance(group, Group) and group.lazy else None


def _without_members(node: Node[Any], options: Mapping[str, Any]) -> dict[str, Any]:
    """Return the dict form of a lazy group, or of a chord over one, with an empty header."""
    if isinstance(node, Chord):
        kwargs = {
            "header": _empty(node.header, {}),
            "body": node.required_body().to_dict(),
        }
        return {**_bare(node, options), "kwargs": kwargs}
    return _empty(node, options)


def _empty(group: Node[Any], options: Mapping[str, Any]) -> dict[str, Any]:
    return {**_bare(group, options), "kwargs": {"tasks": []}}


def _bare(node: Node[Any], options: Mapping[str, Any]) -> dict[str, Any]:
    return {
        "task": node.task,
        "args": [],
        "options": merged(node.options, options),
        "subtask_type": node.subtask_type,
        "immutable": node.immutable,
    }


def _noted(
    members: Iterator[Step], results: list[AsyncResult[Any] | GroupResult], reader: ResultReader
) -> Iterator[Step]:
    for member in members:
        results.append(handle_of(member, reader))
        yield member


def handle_of(
    frozen: Step, reader: ResultReader, parent: Handle | None = None
) -> AsyncResult[Any] | GroupResult:
    """Return the handle on a frozen node's result, with what runs before it as parents."""
    kwargs = frozen["kwargs"]
    match kind_of(frozen):
        case "chain":
            handle = parent
            for step in kwargs["tasks"]:
                handle = handle_of(step, reader, handle)
            assert isinstance(handle, AsyncResult | GroupResult), "a chain has a step"
            return handle
        case "group":
            members = [handle_of(member, reader) for member in kwargs["tasks"]]
            return GroupResult(frozen["options"]["task_id"], members, reader, parent=parent)
        case "chord":
            return handle_of(kwargs["body"], reader, handle_of(kwargs["header"], reader, parent))
        case _:
            task_id = frozen["options"]["task_id"]
            return AsyncResult(task_id, reader, task=frozen["task"], parent=parent)


def child_of(handle: AsyncResult[Any] | GroupResult) -> Child:
    """Return a handle as the task that sent it notes it."""
    if isinstance(handle, GroupResult):
        return handle.id, tuple(map(child_of, handle.results))
    return handle.id
