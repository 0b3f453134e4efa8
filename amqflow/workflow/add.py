"""``self.add_to_chord``: one more member, while the chord waits for the task that adds it."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

from amqflow.errors import ConfigurationError
from amqflow.protocol import derived_id
from amqflow.protocol import headers as h
from amqflow.workflow.freeze import DerivedIds, chosen_id, freeze, result_id
from amqflow.workflow.records import Membership
from amqflow.workflow.send import handle_of
from amqflow.workflow.unfold import Place

if TYPE_CHECKING:
    from amqflow.abc import ResultReader
    from amqflow.canvas import Node
    from amqflow.handles import AsyncResult, GroupResult
    from amqflow.tasks import Request
    from amqflow.workflow.launch import Launcher
    from amqflow.workflow.unfold import Unfolder


async def add_member(
    node: Node[Any],
    request: Request,
    *,
    launcher: Launcher,
    unfolder: Unfolder,
    reader: ResultReader,
) -> AsyncResult[Any] | GroupResult:
    """Add a member to the chord a running task is in, and send it.

    Its id is derived from the task's and the order of adding: a task that runs again, after a
    crash or as a retry, adds the same members and no others.

    Args:
        node: The member.
        request: The running task's.
        launcher: Sends it.
        unfolder: Unfolds it.
        reader: The application, for the handle.

    Raises:
        ValueError: The task is in no chord.
        ConfigurationError: The chord is over, or another application counts it.
    """
    member = Membership.of((request.headers or {}).get(h.CHORD))
    if member is None or request.id is None:
        raise ValueError(f"{request.task} is in no chord: there is nothing to add to")
    ordinal = request.get("added", 0)
    request.update(added=ordinal + 1)
    # What takes a task's place has its id, and adds members of its own.
    nesting = request.replaced_task_nesting
    kind = f"added-{nesting}" if nesting else "added"
    frozen = freeze(
        node.to_dict(),
        DerivedIds(request.id, f"{kind}.{ordinal}"),
        result={
            "task_id": chosen_id(node.to_dict()) or derived_id(request.id, kind, ordinal),
            "group_id": request.group,
        },
    )
    index = await launcher.store().extend(member.chord, result_id(frozen))
    if index is None:
        raise ConfigurationError(
            f"chord {member.chord} takes no more members: it is over, or kept in another store"
        )
    place = Place(
        root_id=request.root_id or request.id,
        parent_id=request.id,
        member=replace(member, index=index),
        once=True,
        epoch=request.epoch,
        heritage=unfolder.inherits.from_request(request),
    )
    await launcher.send([unfolder.unfold(frozen, place)])
    return handle_of(frozen, reader)
