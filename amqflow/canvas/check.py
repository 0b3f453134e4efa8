"""Checks when a composition is built: can each step take what the one before it returns?"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from amqflow.canvas.hints import can_take, list_of, shown_type
from amqflow.errors import InvalidArguments

if TYPE_CHECKING:
    from collections.abc import Iterable

    from amqflow.canvas.node import Node
    from amqflow.canvas.signature import Signature


def check_following(step: Node[Any], before: Node[Any]) -> None:
    """Make sure that a step can take the result of the one before it.

    Raises:
        InvalidArguments: It never can; both types are named.
    """
    results = list(before.result_types())
    if results:
        for signature in step.receivers():
            _check(signature, results, listed=False)


def check_body(body: Node[Any], members: Iterable[Node[Any]]) -> None:
    """Make sure that a chord's body can take the list of its members' results.

    Raises:
        InvalidArguments: It never can; both types are named.
    """
    results = dict(found for member in members for found in member.result_types())
    for signature in body.receivers():
        _check(signature, list(results.items()), listed=True)


def _check(signature: Signature[Any], results: list[tuple[str, Any]], *, listed: bool) -> None:
    sender = signature.sender
    if sender is None or signature.immutable:
        return
    name, wanted = sender.first_argument(len(signature.args), tuple(signature.kwargs))
    for task, hint in results:
        given = list_of(hint) if listed else hint
        if not can_take(wanted, given):
            what = "the list of the header's results" if listed else f"the result of {task}"
            returns = f" ({task} returns {shown_type(hint)})" if listed else ""
            raise InvalidArguments(
                f"{signature.task} cannot take {what}: its argument {name!r} is "
                f"{shown_type(wanted)}, and it would get {shown_type(given)}{returns}"
            )
