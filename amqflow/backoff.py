"""Exponential backoff with jitter, for reconnects, stores and task retries."""

from __future__ import annotations

import random
from dataclasses import dataclass, field


@dataclass(slots=True)
class Backoff:
    """A growing delay in seconds: ``first * factor ** n``, at most ``most``, with full jitter.

    Full jitter (a uniform draw between half the delay and the delay) spreads the clients of a
    broker that came back; see "Exponential Backoff And Jitter", AWS Architecture Blog, 2015.
    """

    first: float = 0.1
    factor: float = 2.0
    most: float = 10.0
    tries: int = field(default=0, init=False)

    def next(self) -> float:
        """Return the next delay in seconds and count the try."""
        delay = min(self.most, self.first * self.factor ** min(self.tries, 64))
        self.tries += 1
        return delay * random.uniform(0.5, 1.0)  # noqa: S311 - spreads load, guards no secret

    def reset(self) -> None:
        """Start again from the first delay, after a success."""
        self.tries = 0


def retry_delay(attempt: int, *, factor: float, most: float, jitter: bool) -> float:
    """Return the seconds before retry number ``attempt`` (0 for the first retry).

    Celery's rule (``celery/utils/time.py: get_exponential_backoff_interval``): ``factor *
    2**attempt`` capped at ``most``; with jitter a uniform draw between 0 and that.
    """
    delay = min(most, factor * 2.0 ** min(attempt, 64))
    return random.uniform(0, delay) if jitter else delay  # noqa: S311 - as above
