"""Runs a composition here and now, one task after the other (``apply``, ``task_always_eager``)."""

from __future__ import annotations

import uuid
from typing import TYPE_CHECKING, Any

from amqflow.abc import FAILURE, PROPAGATE_STATES, SUCCESS
from amqflow.canvas.chain import Chain
from amqflow.canvas.chord import Chord
from amqflow.canvas.group import Group
from amqflow.canvas.signature import Signature, as_signatures
from amqflow.canvas.stamps import stamp_options
from amqflow.handles import EagerGroupResult, EagerResult, describe_error

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterable

    from amqflow.canvas.node import Node

    Handle = EagerResult[Any] | EagerGroupResult
    RunOne = Callable[[Signature[Any]], Awaitable[EagerResult[Any]]]


class EagerComposition:
    """One eager run of one composition; tasks are run by ``run_one``.

    What it does is what workers do with the same composition, but in one process and in order:
    a failed step ends its chain, a failed member its chord, and links and errbacks follow.
    """

    def __init__(self, run_one: RunOne) -> None:
        """Run each signature by ``run_one``, which returns how it ended."""
        self._run_one = run_one

    async def run(self, node: Node[Any]) -> Handle:
        """Run a node whose arguments are complete."""
        if isinstance(node, Chain):
            return await self._chain(node)
        if isinstance(node, Group):
            return await self._group(node)
        if isinstance(node, Chord):
            return await self._chord(node)
        if not isinstance(node, Signature):
            raise TypeError(f"not a signature: {node!r}")
        return await self._run_one(node)

    async def _chain(self, chain: Chain) -> Handle:
        before: Handle | None = None
        for step in chain.spread():
            if before is not None and not _succeeded(before):
                return _fails_with(before, step)
            ended = await self.run(step if before is None else step.clone((before.get(),)))
            if before is not None:
                _beginning(ended).parent = before
            before = ended
        if before is None:
            raise TypeError("a chain without steps")
        return before

    async def _group(self, group: Group) -> EagerGroupResult:
        results = [await self.run(member) for member in group.spread()]
        made = EagerGroupResult(group.id or str(uuid.uuid4()), results)
        self._follow(group, made)
        return made

    async def _chord(self, chord: Chord) -> Handle:
        stamps = stamp_options(chord.options)
        header = await self._group(chord.header.clone(**stamps))
        body = chord.required_body().clone(**stamps)
        if _succeeded(header):
            ended = await self.run(body.clone((header.get(),)))
        else:
            ended = _fails_with(header, body)
            _tell(linked(body, "link_error"), ended)
        if ended.parent is None:
            _beginning(ended).parent = header
        self._follow(chord, ended)
        return ended

    def _follow(self, node: Node[Any], ended: Handle) -> None:
        """Send what was linked to a composition as a whole."""
        if _succeeded(ended):
            for callback in linked(node, "link"):
                callback.apply_async((ended.get(),))
        else:
            _tell(linked(node, "link_error"), ended)


def linked(node: Node[Any], option: str) -> list[Node[Any]]:
    """Return what is linked to a node, ready to be sent by its application."""
    dispatcher = node.dispatcher
    signatures = as_signatures(node.options.get(option))
    if dispatcher is None:
        return signatures
    tasks = getattr(dispatcher, "tasks", {})
    return [signature.bind(tasks, dispatcher) for signature in signatures]


def _tell(errbacks: Iterable[Node[Any]], ended: Handle) -> None:
    """Send errbacks as a worker does, with (request, exception, traceback)."""
    failed = _failed(ended)
    request = {"id": failed.id, "task": failed.task}
    for errback in errbacks:
        errback.apply_async((request, describe_error(failed.result), failed.traceback))


def _succeeded(ended: Handle) -> bool:
    if isinstance(ended, EagerGroupResult):
        return ended.successful()
    return ended.state == SUCCESS


def _failed(ended: Handle) -> EagerResult[Any]:
    """Return the first result that did not succeed, in order."""
    if not isinstance(ended, EagerGroupResult):
        return ended
    return next(_failed(member) for member in ended.eager if not _succeeded(member))


def _fails_with(before: Handle, step: Node[Any]) -> EagerResult[Any]:
    """Return the result of a step that does not run, because what it waits for has failed."""
    failed = _failed(before)
    return EagerResult(
        step.id or str(uuid.uuid4()),
        failed.result,
        failed.state if failed.state in PROPAGATE_STATES else FAILURE,
        traceback=failed.traceback,
        task=step.task,
        parent=before,
    )


def _beginning(ended: Handle) -> Handle:
    """Return the first of a chain of parents, which is what has none yet."""
    node = ended
    while isinstance(node.parent, EagerResult | EagerGroupResult):
        node = node.parent
    return node
