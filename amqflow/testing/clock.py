"""The clock of a test's broker and applications: the machine's, and as far ahead as a test says."""

from __future__ import annotations

import time


class SteppedClock:
    """A :class:`~amqflow.clock.Clock` that runs, and jumps when told."""

    def __init__(self) -> None:
        """Begin at the machine's time."""
        self._ahead = 0.0

    def step(self, seconds: float) -> None:
        """Move ahead; time never goes back."""
        self._ahead += max(0.0, seconds)

    def now(self) -> float:
        """Return Unix time in seconds."""
        return time.time() + self._ahead

    def monotonic(self) -> float:
        """Return a time in seconds that never goes back."""
        return time.monotonic() + self._ahead
