"""How often a message has come back to its queue: what makes it a suspect, and then poison."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from amqflow.protocol import headers as h

if TYPE_CHECKING:
    from collections.abc import Mapping

#: Returns to the queue after which a message is suspected of killing workers (design 5.6).
SUSPECT_AFTER: Final = 2


def counts(headers: Mapping[str, Any]) -> bool:
    """Return whether the queue it came from counts; a classic queue does not."""
    return isinstance(headers.get("x-delivery-count"), int)


def returns(headers: Mapping[str, Any], *, redelivered: bool) -> int:
    """Return how often a message came back: the broker's count, and the mark of its copies.

    The mark stands for what the broker cannot know: returns to a classic queue, and those before
    the copy by which a worker handed the message back.
    """
    mark, counted = headers.get(h.REDELIVERED), headers.get("x-delivery-count")
    known = mark if isinstance(mark, int) else 0
    if isinstance(counted, int):
        return known + counted
    return known + 1 if redelivered else known


def deaths(headers: Mapping[str, Any]) -> int:
    """Return how often a worker was lost over a message of a suspects' queue."""
    return SUSPECT_AFTER + returns(headers, redelivered=False)
