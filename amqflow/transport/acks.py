"""Which ack frames settle a set of deliveries with the fewest words (design 5.5). Pure."""

from __future__ import annotations


class AckBatch:
    """The outstanding tags of one channel, and those of them that wait to be acked.

    A contiguous run from the lowest *outstanding* tag goes out as one ``multiple=True`` that
    ends on an outstanding tag (RabbitMQ answers 406 "unknown delivery tag" where it ends on a
    settled one); the others go out singly, so that one slow task holds nobody's ack back.
    """

    __slots__ = ("_outstanding", "_ready")

    def __init__(self) -> None:
        """Start with nothing outstanding."""
        # Tags grow, so the insertion order of a dict is their order.
        self._outstanding: dict[int, None] = {}
        self._ready: set[int] = set()

    def __len__(self) -> int:
        """Return how many deliveries the broker still waits for."""
        return len(self._outstanding)

    def delivered(self, tag: int) -> None:
        """Note a delivery."""
        self._outstanding[tag] = None

    def ack(self, tag: int) -> bool:
        """Mark a tag as to be acked; False where it is not outstanding (settled before)."""
        if tag not in self._outstanding or tag in self._ready:
            return False
        self._ready.add(tag)
        return True

    def drop(self, tag: int) -> bool:
        """Forget a tag that is settled by other means (nack); False where it was settled."""
        if tag in self._ready or tag not in self._outstanding:
            return False
        del self._outstanding[tag]
        return True

    def take(self) -> list[tuple[int, bool]]:
        """Return the acks to send now as (tag, multiple), and forget their tags."""
        ready = self._ready
        if not ready:
            return []
        outstanding = self._outstanding
        run: list[int] = []
        for tag in outstanding:
            if tag not in ready:
                break
            run.append(tag)
        acks: list[tuple[int, bool]] = []
        if run:
            acks.append((run[-1], len(run) > 1))
            for tag in run:
                del outstanding[tag]
            ready.difference_update(run)
        for tag in sorted(ready):
            acks.append((tag, False))
            del outstanding[tag]
        ready.clear()
        return acks
